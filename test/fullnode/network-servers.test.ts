/**
 * Events of network servers in the shapes that their documentation gives: ChirpStack v4 (chirpstack-docs, src/chirpstack/integrations/
 * events.md at 5ab575f) and The Things Stack v3 (lorawan-stack-docs, doc/content/integrations/data-formats at 307211c). Values are made up.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { chirpStack } from "../../fullnode/chirpstack.ts";
import {
  eventBytesMax,
  type LorawanEvent,
  LorawanRefusal,
  type LorawanUplink,
  type NetworkServer,
} from "../../fullnode/lorawan-uplink.ts";
import { thingsStack } from "../../fullnode/things-stack.ts";

type Json = Record<string, unknown>;

const devEui = "0101010101010101";
const applicationId = "17c82e96-be03-4f38-aef3-f83d48582d97";
const deviceInfo = {
  tenantId: "52f14cd4-c6f1-4fbd-8f87-4025e1d49242",
  tenantName: "ChirpStack",
  applicationId,
  applicationName: "Test application",
  deviceProfileId: "14855bf7-d10d-4aee-b618-ebfcb64dc7ad",
  deviceProfileName: "Test device-profile",
  deviceName: "Test device",
  devEui,
  tags: { key: "value" },
};
/** As the documentation's: fCnt, confirmed and adr are zero and left out. */
const up = {
  deduplicationId: "3ac7e3c4-4401-4b8d-9386-a5c902f9202d",
  time: "2026-07-18T09:34:15.775023242+00:00",
  deviceInfo,
  devAddr: "00189440",
  dr: 1,
  fPort: 20,
  data: "PmQAAQIDBAUGBwg=",
  rxInfo: [
    { gatewayId: "0016c001f153a14c", uplinkId: 4_217_106_255, rssi: -36, snr: 10.5, context: "E3OWOQ==" },
    // A zero SNR is left out, and is worse than 10.5.
    { gatewayId: "0016c001f153a14d", uplinkId: 1, rssi: -90, context: "E3OWOQ==", metadata: { region_name: "eu868" } },
  ],
  txInfo: {
    frequency: 867_100_000,
    modulation: { lora: { bandwidth: 125_000, spreadingFactor: 11, codeRate: "CR_4_5" } },
  },
};
const bytes = Uint8Array.from([0x3e, 0x64, 0, 1, 2, 3, 4, 5, 6, 7, 8]);

const server = chirpStack(applicationId);
const topic = (event: string) => `application/${applicationId}/device/${devEui}/event/${event}`;
const asBytes = (message: unknown) => Buffer.from(typeof message === "string" ? message : JSON.stringify(message));
const readUp = (message: unknown): LorawanEvent => server.read(topic("up"), asBytes(message));

const things = thingsStack("meters@ttn");
const ids = {
  device_id: "dev1",
  application_ids: { application_id: "meters" },
  dev_eui: "0004A30B001C0530",
  join_eui: "800000000000000C",
  dev_addr: "00BCB929",
};
const thingsUp = {
  end_device_ids: ids,
  correlation_ids: ["as:up:01E0WZGT6Y7657CPFPE5WEYDSQ", "gs:conn:01E0WDEC6T5T4XXBAX7S1VMFKE"],
  received_at: "2026-02-12T15:15:46.014773143Z",
  uplink_message: {
    session_key_id: "AXA50tHUGUucuzS/bCGMNw==",
    f_port: 20,
    frm_payload: "PmQAAQIDBAUGBwg=",
    rx_metadata: [
      {
        gateway_ids: { gateway_id: "gtw1", eui: "9C5C8E00001A05C4" },
        time: "2026-02-12T15:15:45.787Z",
        timestamp: 2_463_457_000,
        rssi: -35,
        channel_rssi: -35,
        snr: 5,
        uplink_token: "ChIKEAoEZ3R3MRIInFyOAAAaBcQQ6L3Vlgk=",
        channel_index: 2,
      },
    ],
    settings: {
      data_rate: { lora: { bandwidth: 125_000, spreading_factor: 7 } },
      data_rate_index: 5,
      coding_rate: "4/6",
      frequency: "868300000",
      timestamp: 2_463_457_000,
    },
    consumed_airtime: "0.056576s",
    received_at: "2026-02-12T15:15:45.789585559Z",
  },
};
const thingsTopic = (event: string) => `v3/meters@ttn/devices/dev1/${event}`;
const readThings = (message: unknown): LorawanEvent => things.read(thingsTopic("up"), asBytes(message));

function reasonOf(read: () => unknown): string {
  try {
    read();
  } catch (error) {
    if (error instanceof LorawanRefusal) return error.reason;
    throw error;
  }
  return "taken";
}

test("ChirpStack's uplink, with zero fields left out, written out, or as text", () => {
  const expected: LorawanUplink = {
    kind: "uplink",
    route: { devEui, topic: `application/${applicationId}/device/${devEui}` },
    devAddr: "00189440",
    fCnt: 0,
    fPort: 20,
    bytes,
    spreadingFactor: 11,
    gateways: 2,
    rssiDbm: -36,
    snrDb: 10.5,
  };
  assert.deepEqual(readUp(up), expected);
  assert.deepEqual(readUp({ ...up, fCnt: 0, confirmed: false, adr: false, object: null }), expected);
  assert.deepEqual(readUp({ ...up, fCnt: "70000" }), { ...expected, fCnt: 70_000 });
  assert.deepEqual(readUp({ ...up, joinServerContext: {} }), expected);
  // MAC commands only: neither port nor data.
  const { fPort: _port, data: _data, ...empty } = up;
  assert.deepEqual(readUp(empty), { ...expected, fPort: 0, bytes: new Uint8Array() });
  assert.deepEqual(readUp({ ...up, rxInfo: [] }), {
    ...{ ...expected, gateways: 0, rssiDbm: undefined, snrDb: undefined },
  });
});

test("ChirpStack's other events", () => {
  const read = (event: string, message: Json) => server.read(topic(event), asBytes({ deviceInfo, ...message }));
  const route = { devEui, topic: `application/${applicationId}/device/${devEui}` };
  const id = "42cb6459-a640-46ec-9623-bdff39dc4736";
  assert.deepEqual(read("join", { devAddr: "00189440" }), { kind: "join", route, devAddr: "00189440" });
  assert.deepEqual(read("txack", { downlinkId: 3_461_958_127, queueItemId: id, fCntDown: 2 }), {
    ...{ kind: "downlink", deviceTopic: route.topic, id, state: "sent" },
  });
  assert.deepEqual(
    read("log", {
      level: "ERROR",
      code: "UPLINK_MIC",
      description: "MIC of join-request is invalid, make sure keys are correct",
      context: { deduplication_id: "4e91db13-5ce3-4c8c-ab0f-dfc626cf0771" },
    }),
    {
      kind: "warning",
      route,
      code: "UPLINK_MIC",
      detail: "MIC of join-request is invalid, make sure keys are correct",
    },
  );
  assert.deepEqual(read("log", { level: "ERROR", code: "EXPIRED", context: { queue_item_id: id } }), {
    ...{ kind: "downlink", deviceTopic: route.topic, id, state: "failed", detail: "EXPIRED: " },
  });
  for (const event of ["ack", "status", "location", "integration", "what-comes-next"])
    assert.deepEqual(read(event, { queueItemId: id, acknowledged: true }), { kind: "other" }, event);
  assert.deepEqual(read("log", { level: "INFO", code: "x" }), { kind: "other" });
});

test("The Things Stack's uplink, with zero fields left out and the frequency as text", () => {
  const expected: LorawanUplink = {
    kind: "uplink",
    route: { devEui: "0004a30b001c0530", topic: "v3/meters@ttn/devices/dev1" },
    devAddr: "00bcb929",
    fCnt: 0,
    fPort: 20,
    bytes,
    spreadingFactor: 7,
    gateways: 1,
    rssiDbm: -35,
    snrDb: 5,
  };
  assert.deepEqual(readThings(thingsUp), expected);
  const { uplink_message: uplink } = thingsUp;
  const { frm_payload: _payload, f_port: _port, ...empty } = uplink;
  assert.deepEqual(readThings({ ...thingsUp, uplink_message: { ...empty, f_cnt: 7 } }), {
    ...{ ...expected, fCnt: 7, fPort: 0, bytes: new Uint8Array() },
  });
  assert.deepEqual(readThings({ ...thingsUp, simulated: false }), expected);
  assert.equal(
    reasonOf(() => readThings({ ...thingsUp, simulated: true })),
    "simulated",
  );
  const sealed = { ...uplink, app_s_key: { key: "AAAA" }, last_a_f_cnt_down: 1 };
  assert.equal(
    reasonOf(() => readThings({ ...thingsUp, uplink_message: sealed })),
    "still-encrypted",
  );
});

test("The Things Stack's other events; a downlink that failed comes without the DevEUI", () => {
  const read = (event: string, message: Json) =>
    things.read(thingsTopic(event), asBytes({ end_device_ids: ids, correlation_ids: ["as:downlink:01"], ...message }));
  const deviceTopic = "v3/meters@ttn/devices/dev1";
  const id = "42cb6459-a640-46ec-9623-bdff39dc4736";
  const downlink = { f_port: 20, frm_payload: "IA==", correlation_ids: ["as:downlink:01", `ecp:${id}`] };
  assert.deepEqual(read("join", { join_accept: { session_key_id: "AXBSH1Pk6Z0G166RlH16CQ==" } }), {
    ...{ kind: "join", route: { devEui: "0004a30b001c0530", topic: deviceTopic }, devAddr: "00bcb929" },
  });
  assert.deepEqual(read("down/sent", { downlink_sent: downlink }), {
    ...{ kind: "downlink", deviceTopic, id, state: "sent" },
  });
  const error = { namespace: "pkg/networkserver", name: "application_downlink_too_long", code: 3 };
  const failed = { device_id: "dev1", application_ids: { application_id: "meters" } };
  assert.deepEqual(read("down/failed", { end_device_ids: failed, downlink_failed: { downlink, error } }), {
    ...{ kind: "downlink", deviceTopic, id, state: "failed", detail: "application_downlink_too_long" },
  });
  for (const event of ["down/queued", "down/ack", "service/data", "location/solved"])
    assert.deepEqual(read(event, {}), { kind: "other" }, event);
});

test("downlinks are queued at ChirpStack, and replaced at The Things Stack", () => {
  const downlink = (id: string, fPort: number, ...content: number[]) => ({
    ...{ id, fPort, bytes: Uint8Array.from(content), expiresMs: Date.UTC(2026, 0, 5, 11) },
  });
  const [fresh, other] = [downlink("a", 20, 0x20), downlink("b", 110, 1, 2)];
  const route = { devEui, topic: topic("").replace("/event/", "") };
  const added = server.command(route, fresh, [other]);
  assert.equal(added.topic, `application/${applicationId}/device/${devEui}/command/down`);
  assert.deepEqual(JSON.parse(added.json), {
    ...{ id: "a", devEui, confirmed: false, fPort: 20, data: "IA==", expiresAt: "2026-01-05T11:00:00.000Z" },
  });
  const replaced = things.command({ devEui: "0004a30b001c0530", topic: "v3/meters@ttn/devices/dev1" }, fresh, [other]);
  assert.equal(replaced.topic, "v3/meters@ttn/devices/dev1/down/replace");
  const common = { priority: "HIGH", confirmed: false };
  assert.deepEqual(JSON.parse(replaced.json), {
    downlinks: [
      { f_port: 20, frm_payload: "IA==", ...common, correlation_ids: ["ecp:a"] },
      { f_port: 110, frm_payload: "AQI=", ...common, correlation_ids: ["ecp:b"] },
    ],
  });
});

test("what does not have the form is refused by its reason, and never ends anything else", () => {
  const frame = (length: number) => Buffer.alloc(length).toString("base64");
  const cases: [string, unknown][] = [
    ["not-json", ""],
    ["not-json", "[]"],
    ["not-json", "null"],
    ["not-json", '{"deviceInfo":'],
    ["not-json", "\n$3ac7e3c4-4401-4b8d-9386-a5c902f9202d\u0012\u000c"], // Protobuf
    ["bad-field", {}],
    ["bad-field", { ...up, deviceInfo: [] }],
    ["bad-field", { ...up, deviceInfo: { ...deviceInfo, devEui: "01" } }],
    ["other-device", { ...up, deviceInfo: { ...deviceInfo, devEui: "0202020202020202" } }],
    ["bad-field", { ...up, devAddr: "0018944" }],
    ["bad-field", { ...up, devAddr: 1 }],
    ["bad-field", { ...up, fCnt: -1 }],
    ["bad-field", { ...up, fCnt: 1.5 }],
    ["bad-field", { ...up, fCnt: 2 ** 32 }],
    ["bad-field", { ...up, fCnt: "1e3" }],
    ["bad-field", { ...up, fPort: 256 }],
    ["bad-field", { ...up, fPort: { valueOf: 20 } }],
    ["bad-field", { ...up, data: 1 }],
    ["bad-field", { ...up, data: "PmQ*" }],
    ["bad-field", { ...up, data: "Pm_-" }],
    ["too-large", { ...up, data: frame(243) }],
    ["too-large", { ...up, data: frame(40_000) }],
    ["taken", { ...up, data: frame(242) }],
    ["taken", { ...up, data: "PmQ" }],
    ["bad-field", { ...up, rxInfo: {} }],
    ["taken", { ...up, rxInfo: [1, null, "x", { rssi: "strong" }] }],
    ["bad-field", { ...up, txInfo: "x" }],
    ["still-encrypted", { ...up, joinServerContext: { sessionKeyId: "01" } }],
    ["taken", `{"__proto__":{"fPort":9},"constructor":1,${JSON.stringify(up).slice(1)}`],
    ["too-large", { ...up, object: { text: "x".repeat(eventBytesMax) } }],
    ["not-json", `${"[".repeat(60_000)}`],
  ];
  for (const [reason, message] of cases)
    assert.equal(
      reasonOf(() => readUp(message)),
      reason,
      JSON.stringify(message).slice(0, 100),
    );
  const invalid = Buffer.concat([Buffer.from('{"a":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}')]);
  assert.equal(
    reasonOf(() => server.read(topic("up"), invalid)),
    "not-json",
  );

  const thingsCases: [string, unknown][] = [
    ["not-json", "x"],
    ["other-device", {}],
    ["other-device", { ...thingsUp, end_device_ids: { ...ids, device_id: "dev2" } }],
    ["bad-field", { ...thingsUp, end_device_ids: { ...ids, dev_eui: "" } }],
    ["bad-field", { ...thingsUp, uplink_message: { ...thingsUp.uplink_message, f_cnt: "x" } }],
    ["too-large", { ...thingsUp, uplink_message: { ...thingsUp.uplink_message, frm_payload: frame(243) } }],
    ["bad-field", { ...thingsUp, simulated: "true" }],
  ];
  for (const [reason, message] of thingsCases)
    assert.equal(
      reasonOf(() => readThings(message)),
      reason,
      JSON.stringify(message).slice(0, 100),
    );
});

test("topics that are not of this application are refused", () => {
  const foreign: [NetworkServer, string][] = [
    [server, topic("up").replace(applicationId, "00000000-0000-4000-8000-000000000000")],
    [server, topic("up").replace(devEui, "zz01010101010101")],
    [server, `${topic("up")}/more`],
    [server, topic("up").replace("/event/", "/command/")],
    [server, "gateway/0016c001f153a14c/event/up"],
    [things, thingsTopic("up").replace("@ttn", "@other")],
    [things, thingsTopic("up").replace("dev1", "DEV1")],
    [things, thingsTopic("up").replace("dev1", "-")],
  ];
  for (const [of, name] of foreign)
    assert.equal(
      reasonOf(() => of.read(name, asBytes(up))),
      "foreign-topic",
      name,
    );
});

test("random bytes and cut events lead to refusals only", () => {
  const whole = asBytes(up);
  for (let cut = 0; cut < whole.length; cut += 7) reasonOf(() => server.read(topic("up"), whole.subarray(0, cut)));
  for (let i = 0; i < whole.length; i += 3) {
    const changed = Buffer.from(whole);
    changed[i] = (changed[i] ?? 0) ^ (1 << (i % 8));
    reasonOf(() => server.read(topic("up"), changed));
    reasonOf(() => things.read(thingsTopic("up"), changed));
  }
});

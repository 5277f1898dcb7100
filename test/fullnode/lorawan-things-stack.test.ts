// The Things Stack: what waits for a device is replaced as a whole, and its remarks fill no log.
import assert from "node:assert/strict";
import { test } from "node:test";
import { SchcSender } from "../../agent/schc-sender.ts";
import { chirpStack } from "../../fullnode/chirpstack.ts";
import { thingsStack } from "../../fullnode/things-stack.ts";
import { receiptPort } from "../../protocol/lorawan.ts";
import { application, LorawanFixture, packetOfRecord } from "./lorawan-fixture.ts";

const devEui = "70b3d57ed0061234";
const deviceTopic = "v3/meters@ttn/devices/house";
const port = 25;

test("over The Things Stack the newest answer goes first, and what has left is not queued again", async (t) => {
  const lorawan = await LorawanFixture.open(t, {}, thingsStack("meters@ttn"));
  const device = await lorawan.node.enrolled();
  await lorawan.node.store.lorawan.bind(devEui, device.name, 1);
  await lorawan.begin();
  const ids = { device_id: "house", dev_eui: devEui.toUpperCase(), dev_addr: "26010203" };
  const event = (kind: string, content: object) =>
    lorawan.intake.receive(`${deviceTopic}/${kind}`, Buffer.from(JSON.stringify({ end_device_ids: ids, ...content })));
  let fCnt = 0;
  const up = async (bytes: Uint8Array) => {
    const frame = {
      f_port: port,
      ...(fCnt > 0 && { f_cnt: fCnt }),
      frm_payload: Buffer.from(bytes).toString("base64"),
    };
    fCnt++;
    event("up", { uplink_message: frame });
    await lorawan.intake.idle();
  };
  const queues = () =>
    lorawan.commands.splice(0).map(({ topic, json }) => {
      assert.equal(topic, `${deviceTopic}/down/replace`);
      return JSON.parse(json).downlinks as { f_port: number; correlation_ids: string[] }[];
    });
  const ports = () => queues().map((queue) => queue.map(({ f_port: of }) => of));

  const sender = SchcSender.begin(port, packetOfRecord(device.reading()));
  let last = new Uint8Array();
  for (;;) {
    const frame = sender.next(51, 0);
    if (frame === undefined || frame === "no-room") break;
    last = new Uint8Array(frame.bytes);
    await up(last);
    sender.sent(frame, 0);
  }
  assert.deepEqual(ports(), [[receiptPort]]);
  // It has not left yet, and the device asks: the answer before it, then the newer receipt in its place.
  await up(last);
  const [first, second] = queues();
  assert.deepEqual(
    first?.map(({ f_port: of }) => of),
    [port, receiptPort],
  );
  assert.deepEqual(
    second?.map(({ f_port: of }) => of),
    [receiptPort, port],
  );
  event("down/sent", { downlink_sent: { f_port: receiptPort, correlation_ids: second?.[0]?.correlation_ids } });
  event("down/failed", {
    downlink_failed: {
      downlink: { f_port: port, correlation_ids: second?.[1]?.correlation_ids },
      error: { name: "application_downlink_too_long" },
    },
  });
  await up(last);
  assert.deepEqual(ports(), [[port], [receiptPort, port]], "neither of the two before");
  const { queued, sent, failed } = lorawan.intake.counts.downlinks;
  assert.deepEqual([queued, sent, failed], [5, 1, 1]);
});

test("a server that remarks on everything gets a line a second, with how often", async (t) => {
  const lorawan = await LorawanFixture.open(t, {}, chirpStack(application));
  const remark = { deviceInfo: { devEui }, level: "ERROR", code: "UPLINK_MIC", description: "MIC is invalid" };
  const topic = `application/${application}/device/${devEui}/event/log`;
  for (let i = 0; i < 500; i++) lorawan.intake.receive(topic, Buffer.from(JSON.stringify(remark)));
  lorawan.pass(1_000);
  lorawan.intake.receive(topic, Buffer.from(JSON.stringify(remark)));
  const lines = lorawan.node.logLines.filter((line) => line.includes("UPLINK_MIC"));
  assert.deepEqual(
    lines.map((line) => JSON.parse(line).count),
    [1, 500],
  );
});

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import type { AgentStatus } from "../../agent/agent-status.ts";
import { readHubFile } from "../../cli/hub-configuration.ts";
import { recordJson, recordText } from "../../cli/record-json.ts";
import { sha256 } from "../../cli/verification.ts";
import { serveStatus } from "../../platform/status-socket.ts";
import { didKeyOf } from "../../protocol/public-key.ts";
import { decodeRecord, type RecordContent, signRecord } from "../../protocol/record.ts";
import { helloFields } from "../../protocol/wallet-hello.ts";
import { readFields } from "../../protocol/wallet-message.ts";
import { openPty } from "../../simulator/pty.ts";
import { runSimulatedMeter } from "../../simulator/simulated-meter.ts";
import { ScriptedWallet, sampleHello } from "../agent/scripted-wallet.ts";
import { DeviceFixture } from "../fullnode/device-fixture.ts";
import { keyOfLabel } from "../vectors/signature-suite.ts";

/** Short: sockets lie in it. */
function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync("/tmp/ecp-h-");
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

const program = join(import.meta.dirname, "../../cli/ecp.ts");

/** Runs `ecp` in a process of its own; this one goes on meanwhile, as meter, wallet or agent. */
async function ecp(...args: readonly string[]): Promise<{ status: number; out: string; error: string }> {
  const child = spawn(process.execPath, [program, ...args], { stdio: ["ignore", "pipe", "pipe"], timeout: 30_000 });
  const [[status], out, error] = await Promise.all([once(child, "close"), text(child.stdout), text(child.stderr)]);
  return { status, out, error };
}

function hubFile(folder: string, tcp = "127.0.0.1:1"): string {
  const [host, port] = tcp.split(":");
  const path = join(folder, "hub.yaml");
  writeFileSync(
    path,
    `wallet: { folder: wallet, socket: wallet.sock }
lines:
  - { name: main, tcp: { host: ${host}, port: ${port} } }
meters:
  - { name: house, index: 0, line: main, unit: 1, profile: eastron-sdm630 }
  - { name: barn, index: 1, line: main, unit: 2, profile: eastron-sdm630, quantities: [frequency] }
`,
  );
  return path;
}

test("ecp config check says what is configured", async (t) => {
  const { status, out } = await ecp("config", "check", "--config", hubFile(temporaryFolder(t)));
  assert.equal(status, 0);
  assert.match(out, /is right: 1 line, 2 meters, uplink none/);
});

test("ecp read: a table with units and OBIS codes, or JSON with integers; a silent meter is status 1 and no zeros", async (t) => {
  const meter = await runSimulatedMeter({ tcp: { host: "127.0.0.1", port: 0 }, baud: 115_200 });
  t.after(() => meter.close());
  const config = hubFile(temporaryFolder(t), meter.address);
  const table = await ecp("read", "--config", config, "--meter", "house");
  assert.equal(table.status, 0);
  assert.match(table.out, /^house: Eastron SDM630.*unit 1 on .*/);
  assert.match(table.out, /^voltage-l1 +\d{3}\.\d{3} {2}V +1-0:32\.7\.0$/m);
  const json = await ecp("read", "--config", config, "--json");
  assert.equal(json.status, 1, "unit 2 is not there");
  const [house, barn] = json.out
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.equal(house.status, "G");
  assert.equal(house.values.frequency.unit, "mHz");
  assert.ok(Number.isInteger(house.values.frequency.value) && house.values.frequency.value > 49_000);
  assert.deepEqual([barn.meter, barn.status, barn.values], ["barn", "T", {}]);
  const direct = await ecp("read", "--tcp", `${meter.address}`, "--profile", "eastron-sdm630");
  assert.equal(direct.status, 0);
  meter.setFault({ kind: "silent" });
  const silent = await ecp("read", "--tcp", `${meter.address}`, "--profile", "eastron-sdm630");
  assert.equal(silent.status, 1);
  assert.match(silent.out, /no reading \(T: the meter did not answer in time\)/);
});

for (const [args, says] of [
  [["--meter", "garage"], /house, barn/],
  [["--tcp", "h"], /--profile is missing; the profiles are eastron-sdm120, .*eastron-sdm630/],
  [["--tcp", "h", "--serial", "/dev/x", "--profile", "eastron-sdm630"], /together/],
  [["--serial", "/dev/x", "--profile", "eastron-sdm630", "--unit", "248"], /from 1 to 247/],
  [["--serial", "/dev/x", "--profile", "eastron-sdm630", "--parity", "odds"], /none, even or odd/],
] as const)
  test(`ecp read ${args.join(" ")}: wrong usage`, async (t) => {
    const config = hubFile(temporaryFolder(t));
    const { status, out, error } = await ecp("read", "--config", config, ...args);
    assert.deepEqual([status, out], [64, ""]);
    assert.match(error, says);
  });

const agentStatus: AgentStatus = {
  device: "z6Mk",
  wallet: "connected",
  uplink: { address: "mqtt://node:1883", connected: true, detail: "" },
  ...{ sealed: 9, acknowledged: 7, waiting: 2 },
  backlog: { records: 0, stored: 2, rows: 0, bytes: 0 },
  meters: [
    {
      ...{
        name: "house",
        index: 0,
        line: "/dev/ttyUSB0 at 9600 8N1",
        lastTimeS: 1_800_000_000,
        lastIsRelative: false,
        lastStatus: "G",
      },
      ...{ unsealedRows: 3, missedSlots: 4, lateReadings: 0, longestOffsetMs: 12, lostRows: 5 },
    },
  ],
};

test("ecp status: nobody answers: says so, with what to start, and ends with 1", async (t) => {
  const config = hubFile(temporaryFolder(t));
  const { status, out } = await ecp("status", "--config", config);
  assert.equal(status, 1);
  assert.match(out, /^Wallet +does not answer at .*wallet\.sock; start it: ecp run/);
  assert.match(out, /^Agent +does not answer at .*agent\.sock/m);
  const json = await ecp("status", "--config", config, "--json");
  assert.deepEqual(JSON.parse(json.out), { wallet: null, agent: null });
});

test("ecp status: all is well: 0, and everything is told; each thing that is not well makes it 1", async (t) => {
  const config = hubFile(temporaryFolder(t));
  const { walletSocket, agentSocket } = readHubFile(config).configuration;
  const wallet = new ScriptedWallet(walletSocket);
  await wallet.start();
  t.after(() => wallet.stop());
  let agent = agentStatus;
  const server = await serveStatus(agentSocket, () => agent);
  t.after(() => server.close());
  const hello = { ...sampleHello, nextSequence: 10, through: 7 };
  wallet.script(() => helloFields(hello));

  const good = await ecp("status", "--config", config);
  assert.equal(good.status, 0, good.out);
  assert.ok(good.out.includes(didKeyOf(sampleHello.publicKey)));
  assert.match(good.out, /9 sealed, 7 acknowledged, 2 waiting \(epoch 7\)/);
  assert.match(good.out, /uplink {5}mqtt:\/\/node:1883 connected/);
  assert.match(good.out, /waiting {4}nothing; 2 more are at the full node, and kept until it has those before them$/m);
  assert.match(good.out, /^house +G +\S+ +3 +4 +0 +5 {2}\/dev\/ttyUSB0 at 9600 8N1$/m);
  const json = JSON.parse((await ecp("status", "--config", config, "--json")).out);
  assert.deepEqual(json.agent, agentStatus);
  assert.deepEqual([json.wallet.through, json.wallet.clock], [7, "S"]);

  const statusWith = async (change: () => void): Promise<number> => {
    wallet.script(() => helloFields(hello));
    agent = agentStatus;
    change();
    return (await ecp("status", "--config", config)).status;
  };
  const alarm = { kind: "receipt-withheld", subject: "hub", detail: "7 records wait", sinceMs: 1_800_000_000_000 };
  const bad: (() => void)[] = [
    () => wallet.script(() => helloFields({ ...hello, keyProtection: "none" })),
    () => wallet.script(() => helloFields({ ...hello, retired: true })),
    () => wallet.script(() => helloFields({ ...hello, holes: 1 })),
    () => wallet.script(() => helloFields({ ...hello, pinnedNodes: 0 })),
    () => wallet.script(() => helloFields({ ...hello, segments: 10, segmentsInUse: 8 })),
    () => {
      agent = { ...agentStatus, uplink: { address: "a", connected: false, detail: "refused" } };
    },
    () => {
      agent = { ...agentStatus, meters: agentStatus.meters.map((meter) => ({ ...meter, lastStatus: "T" })) };
    },
    () => {
      agent = { ...agentStatus, alarms: [alarm] };
    },
  ];
  for (const change of bad) assert.equal(await statusWith(change), 1, `${change}`);
  agent = { ...agentStatus, alarms: [alarm] };
  const { out } = await ecp("status", "--config", config);
  assert.match(
    out,
    /^!! receipt-withheld \(hub, since 2027-.*\): 7 records wait; see docs\/operating\.md#receipt-withheld$/m,
  );
  assert.equal(await statusWith(() => undefined), 0);
});

test("ecp status: what waits, since when, and how long it will take", async (t) => {
  const config = hubFile(temporaryFolder(t));
  let agent = agentStatus;
  const server = await serveStatus(readHubFile(config).configuration.agentSocket, () => agent);
  t.after(() => server.close());
  const backlog = { records: 1_000, stored: 0, rows: 60_000, bytes: 256_000 };
  const waiting = async (change: Partial<AgentStatus>): Promise<string> => {
    agent = { ...agentStatus, ...change };
    return /waiting {4}(.*)$/m.exec((await ecp("status", "--config", config)).out)?.[1] ?? "";
  };
  assert.equal(
    await waiting({ backlog: { ...backlog, remainingS: 600 } }),
    "1000 records (about 60000 readings, 250 KiB); the oldest since before this agent started; about 10 min at this pace",
  );
  assert.match(await waiting({ backlog: { ...backlog, sinceS: 1_800_000_000 } }), /since 2027-.*; it does not shrink/);
  const uplink = { address: "a", connected: false, detail: "refused" };
  assert.match(await waiting({ backlog, uplink }), /until the uplink is connected$/);
});

test("ecp status: what must not be overlooked stands first; the name stays when the key is rotated; a QR code where it is asked for", async (t) => {
  const config = hubFile(temporaryFolder(t));
  const wallet = new ScriptedWallet(readHubFile(config).configuration.walletSocket);
  await wallet.start();
  t.after(() => wallet.stop());
  const nameKey = new Uint8Array(32).fill(7);
  wallet.script(() =>
    helloFields({
      ...{ ...sampleHello, nameKey, keyProtection: "none", retired: true, holes: 2, uid: 0 },
      earlierEpochs: [{ epoch: 5, through: 3, last: 9 }],
    }),
  );
  const { out } = await ecp("status", "--config", config);
  const first = out.split("\n").filter((line) => line.startsWith("!! "));
  assert.equal(
    out.split("\n").findIndex((line) => !line.startsWith("!! ")),
    first.length,
    "they stand first",
  );
  assert.match(first.join("\n"), /not isolated: it runs as root[\s\S]*NOT PROTECTED[\s\S]*RETIRED[\s\S]*2 HOLES/);
  assert.match(out, new RegExp(`device +${didKeyOf(nameKey)}\n +key +rotated, now ${didKeyOf(sampleHello.publicKey)}`));
  assert.match(out, /earlier +epoch 5: 9 sealed, 3 acknowledged, 6 waiting/);
  assert.doesNotMatch(out, /█/, "no QR code where nobody looks");
  assert.match((await ecp("status", "--config", config, "--qr")).out, /█/);
  assert.equal((await ecp("status", "--config", config, "--qr", "--no-qr")).status, 64);
  const json = JSON.parse((await ecp("status", "--config", config, "--json")).out).wallet;
  assert.deepEqual([json.device, json.key], [didKeyOf(nameKey), didKeyOf(sampleHello.publicKey)]);
  assert.deepEqual([json.isolated, json.keyProtection, json.retired, json.holes], [false, "none", true, 2]);

  wallet.script(() => helloFields({ ...sampleHello, recordForm: "encrypted" }));
  const well = (await ecp("status", "--config", config)).out;
  assert.doesNotMatch(well, /^!!/m, "control: nothing is wrong");
  assert.match(well, /on the way encrypted to a full node/);
  wallet.script(() => helloFields({ ...sampleHello, recordForm: "plain" }));
  const older = (await ecp("status", "--config", config)).out;
  assert.match(older, /on the way READABLE by every broker .*'ecp config apply', then restart the wallet/);
});

test("ecp export twice: the same records again; those of another epoch overwrite nothing", async (t) => {
  const folder = temporaryFolder(t);
  const config = hubFile(folder);
  const wallet = new ScriptedWallet(readHubFile(config).configuration.walletSocket);
  await wallet.start();
  t.after(() => wallet.stop());
  const records = join(folder, "records");
  const exported = async (epoch: number) => {
    const { bytes } = decoded({ ...link, epoch, sequence: 1, kind: "event", timeS: 1_800_000_000, events: [[1]] });
    wallet.script((request) =>
      request.type === "read"
        ? readFields({ records: [[1, bytes]] })
        : helloFields({ ...sampleHello, epoch, nextSequence: 2 }),
    );
    const { status } = await ecp("export", "--config", config, "--out", records);
    return { status, isThere: readFileSync(join(records, "1.cose")).equals(bytes) };
  };
  assert.deepEqual(await exported(7), { status: 0, isThere: true });
  assert.deepEqual(await exported(7), { status: 0, isThere: true });
  assert.deepEqual(await exported(8), { status: 73, isThere: false });
});

test("ecp init asks at a terminal, says what is wrong with an answer, and what it writes passes", async (t) => {
  const folder = temporaryFolder(t);
  const pty = openPty();
  const descriptor = openSync(pty.path, "r+");
  const child = spawn(process.execPath, [program, "init", "--folder", folder, "--segments", "3"], {
    stdio: [descriptor, descriptor, descriptor],
  });
  closeSync(descriptor);
  t.after(async () => {
    child.kill("SIGKILL");
    await pty.close();
  });
  let said = "";
  const answers: [asked: RegExp, answer: string][] = [
    [/Meter's profile .*\[eastron-sdm630\]: $/, "unknown"],
    [/one of .*eastron-sdm630[\s\S]*Meter's profile .*\[eastron-sdm630\]: $/, ""],
    [/Serial port of the meters.*: $/, "gateway.example:1502"],
    [/Modbus unit .* \[1\]: $/, "300"],
    [/from 1 to 247[\s\S]*Modbus unit .* \[1\]: $/, "17"],
    [/Seconds between readings \[60\]: $/, "10"],
    [/broker \[mqtt:\/\/127.0.0.1:1883\]: $/, "mqtts://node.example"],
  ];
  pty.onData((bytes) => {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: what readline moves the cursor with
    said = (said + Buffer.from(bytes).toString()).replace(/\x1b\[[0-9;]*[A-Za-z]/g, "");
    const next = answers[0];
    if (!next?.[0].test(said)) return;
    answers.shift();
    said = "";
    pty.write(Buffer.from(`${next[1]}\r`));
  });
  // Where a question is another than expected, nobody answers it: what it said shows then.
  const late = setTimeout(() => child.kill("SIGKILL"), 60_000);
  const code = await new Promise((resolve) => child.once("exit", resolve));
  clearTimeout(late);
  assert.equal(code, 0, said);
  assert.deepEqual(answers, []);
  assert.match(said, /its name +did:key:z6Mk/);
  const { configuration } = readHubFile(join(folder, "hub.yaml"));
  assert.deepEqual(configuration.lines, [
    { name: "main", tcp: { host: "gateway.example", port: 1_502, framing: "tcp" } },
  ]);
  assert.deepEqual([configuration.meters[0]?.unit, configuration.meters[0]?.intervalS], [17, 10]);
  assert.deepEqual([configuration.mqtt?.protocol, configuration.mqtt?.port], ["mqtts", 8_883]);
  assert.equal(statSync(join(folder, "wallet.passphrase")).mode & 0o777, 0o600);
  assert.ok(readFileSync(join(folder, "wallet.passphrase"), "utf8").trim().length >= 32);
});

const link = { epoch: 7, sequence: 3, previous: new Uint8Array(16), clockState: 2, generation: 1 };
const decoded = (content: RecordContent) => {
  const bytes = signRecord(content, () => new Uint8Array(64));
  return { bytes, record: decodeRecord(bytes, sha256) };
};

test("a record of rows as JSON and as text: names for codes, letters for statuses, no values where there are none", () => {
  const { bytes, record } = decoded({
    ...{ ...link, kind: "reading", meter: 2, plan: 0, slotS: 60, codes: [1, 20] },
    rows: [
      { timeS: 1_800_000_000, status: 0, values: [1_500, 230_100] },
      { timeS: 1_800_000_060, status: 2, values: [] },
    ],
  });
  const { previous, digest, bytes: base64, ...json } = recordJson(record, bytes);
  assert.deepEqual(json, {
    ...{ kind: "reading", epoch: 7, sequence: 3, clock: "I", generation: 1, meter: 2, slotS: 60 },
    rows: [
      {
        ...{ time: "2027-01-15T08:00:00Z", status: "G" },
        values: { "active-power-import": 1_500, "voltage-l1": 230_100 },
      },
      { time: "2027-01-15T08:01:00Z", status: "T", values: {} },
    ],
  });
  assert.equal(previous, "00".repeat(16));
  assert.match(`${digest}`, /^[0-9a-f]{64}$/);
  assert.deepEqual(Buffer.from(`${base64}`, "base64"), Buffer.from(bytes));
  assert.equal(
    recordText(record),
    `record 3 of epoch 7, clock I, generation 1
meter 2, slots of 60 s
  2027-01-15T08:00:00Z  G  active-power-import 1.500 kW, voltage-l1 230.100 V
  2027-01-15T08:01:00Z  T  no values
`,
  );
});

test("a record of events as JSON and as text; an event that is not known yet is told by its number", () => {
  const { bytes, record } = decoded({
    ...{ ...link, kind: "event", timeS: 1_800_000_000 },
    events: [
      [9, 4, 6],
      [999, "x", Uint8Array.of(0xab)],
    ],
  });
  assert.deepEqual(recordJson(record, bytes).events, [
    { event: "void", parameters: [4, 6] },
    { event: 999, parameters: ["x", "ab"] },
  ]);
  assert.match(recordText(record), /void 4 6\n.*event 999 x ab\n$/);
});

test("events of keys and epochs are told in words; times since the boot are no dates", () => {
  const device = new DeviceFixture(7);
  const certificate = device.rotation({ key: keyOfLabel("second"), epoch: 99 });
  const said = recordText(decodeRecord(certificate.bytes, sha256));
  assert.match(said, new RegExp(`keyRotated to ${didKeyOf(keyOfLabel("second").publicKey)}, which begins epoch 99\n`));
  const { bytes, record } = decoded({
    ...{ ...link, clockState: 3, kind: "event", timeS: 12 },
    events: [[12, "no certificate"], [13, 1, 5, 40, new Uint8Array(32)], [14, 5, 1, 7], [15]],
  });
  assert.deepEqual(recordText(record).split("\n").slice(1), [
    "  12 s after the boot  keyRotated no certificate",
    "  12 s after the boot  epochBegun restored: before it epoch 5, known up to record 40",
    "  12 s after the boot  dropped records 1 to 7 of epoch 5",
    "  12 s after the boot  keyRetired",
    "",
  ]);
  const json = recordJson(record, bytes);
  assert.deepEqual([json.sinceBootS, "time" in json], [12, false]);
});

test("an agent whose socket another has ends at once, parent or not; ecp run tries twice, then ends with the same status", async (t) => {
  const folder = temporaryFolder(t);
  const init = ["--tcp", "127.0.0.1:1", "--segments", "3"];
  assert.equal((await ecp("init", "--folder", folder, ...init)).status, 0);
  const config = join(folder, "hub.yaml");
  const { agentSocket } = readHubFile(config).configuration;
  const server = await serveStatus(agentSocket, () => agentStatus);
  t.after(() => server.close());
  const agent = spawn(process.execPath, [program, "agent", "--config", config, "--exit-with-parent"], {
    stdio: ["pipe", "ignore", "pipe"],
    timeout: 20_000,
  });
  const [[status], error] = await Promise.all([once(agent, "close"), text(agent.stderr)]);
  assert.equal(status, 69, error);
  assert.match(error, /stop the other agent/);
  const hub = await ecp("run", "--config", config, "--restart-after", "0");
  assert.equal(hub.status, 69, hub.error);
  assert.equal(hub.error.match(/stop the other agent/g)?.length, 2);
});

test("a file that is not there, or is a folder, is named: 66", async (t) => {
  const folder = temporaryFolder(t);
  const record = join(folder, "1.cose");
  const content = { ...link, kind: "event", timeS: 1_800_000_000, events: [[9, 4, 6]] } as const;
  writeFileSync(
    record,
    signRecord(content as unknown as RecordContent, () => new Uint8Array(64)),
  );
  const config = hubFile(folder);
  for (const [args, path] of [
    [["read", "--config", folder], folder],
    [["verify", folder], folder],
    [["verify", join(record, "x")], join(record, "x")],
    [["verify", record, "--device", folder], folder],
    [["verify", record, "--device", "nofile"], "nofile"],
    [["pin", folder, "--config", config], folder],
    [["pin", "nofile", "--config", config], "nofile"],
  ] as const) {
    const { status, error } = await ecp(...args);
    assert.equal(status, 66, error);
    assert.ok(error.includes(`where: ${path}\n`), error);
  }
});

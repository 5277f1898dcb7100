// Records carried to the full node as a file.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { connectAsync } from "mqtt";
import { encodeHandOverHeader, encodeHandOverRecord } from "../../protocol/hand-over.ts";
import { topicOf } from "../../protocol/mqtt-topic.ts";
import { decodeReceiptFile } from "../../protocol/receipt-file.ts";
import { DeviceFixture, firstTimeS, type SealedRecord } from "../fullnode/device-fixture.ts";
import { NodeFixture } from "../fullnode/node-fixture.ts";
import { ecpNode, startNode } from "./node-process-fixture.ts";

function handOver(device: DeviceFixture, records: readonly SealedRecord[], announced = records.length): Buffer {
  return Buffer.concat([
    encodeHandOverHeader({ nameKey: device.publicKey, records: announced }),
    ...records.map(({ bytes }) => encodeHandOverRecord(bytes)),
  ]);
}

async function scene(t: TestContext) {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const file = join(node.data, "hand-over.cbor");
  const imported = (...args: string[]) => {
    const { status, stdout, stderr } = ecpNode("import", file, "--data", node.data, "--json", ...args);
    return { status, stderr, json: stdout === "" ? {} : JSON.parse(stdout) };
  };
  return { node, device, file, imported };
}

test("a file is stored over two keys, twice without harm, and its receipts are written", async (t) => {
  const { node, device, file, imported } = await scene(t);
  const records = [...device.readings(700), device.rotate()];
  for (let i = 0; i < 5; i++) records.push(device.reading({ timeS: firstTimeS + 9_000_000 + 60 * i }));
  writeFileSync(file, handOver(device, records));
  const out = join(node.data, "receipts.cbor");
  const first = imported("--receipts", out);
  assert.equal(first.status, 0, first.stderr);
  assert.deepEqual([first.json.records, first.json.stored, first.json.refused], [706, 706, {}]);
  assert.equal(first.json.device, device.did);
  assert.deepEqual(node.counted(), { rows: 705, booked: 705 });
  const receipts = decodeReceiptFile(readFileSync(out)).map((bytes) => node.opened(bytes));
  assert.deepEqual(
    receipts.map(({ through, held }) => [through, held]),
    [
      [701, false],
      [5, false],
    ],
  );
  const second = imported("--receipts", out);
  assert.deepEqual([second.status, second.json.stored, second.json.duplicates], [0, 0, 706]);
  assert.deepEqual(node.counted(), { rows: 705, booked: 705 });
  // What came again is named in them too, since the device has two epochs.
  const again = decodeReceiptFile(readFileSync(out)).map((bytes) => node.opened(bytes));
  assert.deepEqual(new Set(again.map(({ epoch }) => epoch)), new Set(receipts.map(({ epoch }) => epoch)));
  assert.ok(again.every(({ kept }) => kept !== undefined));
});

test("a file cut off anywhere gives what came before the cut, says so, and the whole file gives the rest", async (t) => {
  const { node, device, file, imported } = await scene(t);
  const whole = handOver(device, device.readings(6));
  for (const length of [0, 5, 41, 60, whole.length - 1]) {
    writeFileSync(file, whole.subarray(0, length));
    const { status, stderr } = imported();
    assert.equal(status, 65, `${length}: ${stderr}`);
    assert.match(stderr, /whole hand-over file\n.*truncated/);
  }
  assert.equal(node.count("records"), 5);
  writeFileSync(file, whole);
  const { status, json } = imported();
  assert.deepEqual([status, json.stored, json.duplicates], [0, 1, 5]);
  assert.equal(ecpNode("import", join(node.data, "none"), "--data", node.data).status, 66);
  assert.equal(ecpNode("import", node.data, "--data", node.data).status, 66);
});

test("a file with one byte changed stores nothing that was not sealed", async (t) => {
  const { node, device, file, imported } = await scene(t);
  const records = device.readings(3);
  const whole = handOver(device, records);
  let refused = 0;
  for (let at = 7; at < whole.length; at += 23) {
    const changed = Buffer.from(whole);
    changed[at] = (changed[at] as number) ^ 0x10;
    writeFileSync(file, changed);
    const { status } = imported();
    // In a kid, outside the signature, the byte changes nothing.
    if (status !== 0) refused++;
    assert.ok([0, 1, 65].includes(status ?? -1), `${status} at ${at}`);
  }
  assert.ok(refused > 10, `${refused}`);
  const known = new Set(records.map(({ digest }) => Buffer.from(digest).toString("hex")));
  for (const { digest } of node.query("SELECT digest FROM records"))
    assert.ok(known.has(Buffer.from(digest as Uint8Array).toString("hex")));
  assert.equal(node.count("evidence") + node.count("quarantine"), 0);
  // Control: unchanged, all three are there.
  writeFileSync(file, whole);
  assert.equal(imported().status, 0);
  assert.equal(node.count("records"), 3);
});

test("records of other devices in a file are refused, the rest is stored", async (t) => {
  const { node, device, file, imported } = await scene(t);
  const stranger = new DeviceFixture();
  writeFileSync(file, handOver(device, [...device.readings(2), ...stranger.readings(2), ...device.readings(1)]));
  const { status, json } = imported();
  assert.equal(status, 1);
  assert.deepEqual([json.stored, json.refused], [3, { "wrong-device": 2 }]);
  assert.equal(node.count("records"), 3);
});

test("the file of a device that nobody enrolled goes into quarantine, and is stored when it is enrolled", async (t) => {
  const { node, file, imported } = await scene(t);
  const device = new DeviceFixture(5);
  writeFileSync(file, handOver(device, device.readings(4)));
  const out = join(node.data, "receipts.cbor");
  const { status, json } = imported("--receipts", out);
  assert.deepEqual([status, json.refused, json.receipts], [1, { "unknown-device": 4 }, 0]);
  assert.equal(node.count("quarantine"), 4);
  const request = join(node.data, "request.cose");
  writeFileSync(request, device.request());
  assert.equal(ecpNode("enrol", request, "--data", node.data).status, 0);
  assert.equal(imported("--receipts", out).status, 0);
  assert.equal(node.count("quarantine"), 0);
  assert.equal(node.count("records"), 4);
  assert.equal(decodeReceiptFile(readFileSync(out)).length, 1);
});

test("--receipts overwrites nothing but receipts, and nothing is imported then", async (t) => {
  const { node, device, file, imported } = await scene(t);
  writeFileSync(file, handOver(device, device.readings(2)));
  assert.equal(imported("--receipts", file).status, 73);
  assert.equal(imported("--receipts", join(node.data, "node.key")).status, 73);
  assert.equal(node.count("records"), 0);
});

test("while the node runs and the same device delivers: each record is stored once, each value counts once", async (t) => {
  const { node, device, file, imported } = await scene(t);
  const records = device.readings(3_000);
  writeFileSync(file, handOver(device, records));
  await node.path.stop();
  const running = await startNode(t, node.data, "--listen", "127.0.0.1:0");
  const client = await connectAsync(`mqtt://127.0.0.1:${running.port}`, { clientId: device.name });
  t.after(() => client.endAsync());
  const stored = () => node.count("records");
  let sent = 0;
  const sending = (async () => {
    for (const { bytes } of records.toReversed()) {
      await client.publishAsync(topicOf(device.name, "record"), Buffer.from(bytes), { qos: 1 });
      sent++;
    }
  })();
  await running.eventCount("stored", 50);
  const { status, json, stderr } = imported();
  assert.equal(status, 0, stderr);
  assert.equal(json.stored + json.duplicates, 3_000);
  await sending;
  running.child.kill("SIGTERM");
  assert.equal(await running.ended, 0);
  console.log(`${sent} by MQTT; by the file ${json.stored} stored, ${json.duplicates} were there`);
  assert.equal(stored(), 3_000);
  assert.deepEqual(node.counted(), { rows: 3_000, booked: 3_000 });
  const [epoch] = node.query("SELECT through, settled_through FROM epochs");
  assert.deepEqual({ ...epoch }, { through: 3_000, settled_through: 3_000 });
  assert.equal(node.count("spans"), 0);
  assert.equal(node.count("evidence"), 0);
});

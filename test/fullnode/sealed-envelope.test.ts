// The node opens what is encrypted to it before it does anything else with it; what is inside is examined like any other record.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { encryptedRecordBytesMax, encryptionInfo, encryptRecord } from "../../protocol/encrypted-record.ts";
import { topicOf } from "../../protocol/mqtt-topic.ts";
import { deviceKeyOf, retiredDeviceKey } from "../../wallet/keystore.ts";
import { acknowledges, DeviceFixture, type SealedRecord } from "./device-fixture.ts";
import { NodeFixture } from "./node-fixture.ts";

const deviceKey = deviceKeyOf(new Uint8Array(32).fill(9));

/** As the device's wallet gives it away. */
function encrypted(record: SealedRecord | Uint8Array, node: NodeFixture, key = deviceKey): Uint8Array {
  const cipher = key.agree(node.keys.share, encryptionInfo(key.share, node.keys.share));
  return encryptRecord(record instanceof Uint8Array ? record : record.bytes, key.share, cipher);
}

async function scene(t: TestContext): Promise<{ node: NodeFixture; device: DeviceFixture }> {
  const node = new NodeFixture(t);
  return { node, device: await node.enrolled() };
}

test("an encrypted record is stored as the record that it holds, once, however it comes", async (t) => {
  const { node, device } = await scene(t);
  const records = device.readings(3);
  for (const record of records) await node.deliver(device, encrypted(record, node));
  for (const record of records) assert.ok(acknowledges(node.lastReceipt(), record));
  await node.deliver(device, ...records);
  await node.deliver(device, ...records.map((record) => encrypted(record, node)));
  assert.equal(node.count("records"), 3);
  assert.deepEqual(
    node.query("SELECT digest FROM records ORDER BY sequence").map(({ digest }) => Buffer.from(digest as Uint8Array)),
    records.map(({ digest }) => Buffer.from(digest)),
  );
  assert.deepEqual(node.refusals(), []);
});

test("whatever share it was encrypted with: of the enrolled key, a rotated one, or a retired wallet's", async (t) => {
  const { node, device } = await scene(t);
  const before = device.reading();
  const rotation = device.rotate();
  const after = device.reading();
  // The new key's wallet sends what the old key sealed, the rotation itself included.
  const rotatedKey = deviceKeyOf(new Uint8Array(32).fill(10));
  await node.deliver(device, encrypted(after, node, rotatedKey));
  await node.deliver(device, encrypted(rotation, node, rotatedKey), encrypted(before, node, rotatedKey));
  const last = device.reading();
  await node.deliver(device, encrypted(last, node, retiredDeviceKey(device.publicKey)));
  assert.equal(node.count("records"), 4);
  assert.equal(node.query("SELECT count(*) AS n FROM records WHERE settled = 1")[0]?.n, 4);
});

test("a stranger's encrypted record waits in quarantine, and is taken when the device is enrolled", async (t) => {
  const node = new NodeFixture(t);
  const device = new DeviceFixture();
  const record = device.reading();
  await node.deliver(device, encrypted(record, node));
  assert.equal(node.count("quarantine"), 1);
  await node.enrolledAs(device, device.epoch);
});

test("what was encrypted to another node, changed, or signed by another is refused, and counted", async (t) => {
  const { node, device } = await scene(t);
  const other = new NodeFixture(t);
  const record = device.reading();
  await node.deliver(device, encrypted(record, other));
  const changed = encrypted(record, node).map((byte, i) => (i === 100 ? byte ^ 1 : byte));
  await node.deliver(device, changed);
  await node.deliver(device, encrypted(new DeviceFixture().reading(), node));
  await node.deliver(device, encrypted(Uint8Array.of(1, 2, 3), node));
  await node.deliver(device, encrypted(encrypted(record, node), node));
  node.path.push(topicOf(device.name, "record"), new Uint8Array(encryptedRecordBytesMax + 1).fill(0xd0));
  await node.path.stop();
  const { refused } = node.path.counts;
  assert.equal(refused["cannot-decrypt"], 2);
  assert.equal(refused["too-large"], 1);
  assert.equal(node.count("records"), 0);
  assert.equal(
    Object.values(refused).reduce((sum, count) => sum + count, 0),
    6,
    JSON.stringify(refused),
  );
});

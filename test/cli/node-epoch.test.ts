// What the owner of a device says of its epochs, with and without a running node.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { connectAsync } from "mqtt";
import { topicOf } from "../../protocol/mqtt-topic.ts";
import { epochReasons, eventCodes } from "../../protocol/record.ts";
import { type DeviceFixture, firstTimeS, type SealedRecord } from "../fullnode/device-fixture.ts";
import { NodeFixture } from "../fullnode/node-fixture.ts";
import { ecpNode, startNode } from "./node-process-fixture.ts";

/** A device with three booked readings, and an epoch restored from a backup with three more, held. */
async function restored(t: TestContext) {
  const node = new NodeFixture(t);
  const device = await node.enrolled(10);
  const before = device.readings(3);
  await node.deliver(device, ...before);
  const known = before[1] as SealedRecord;
  device.begin(20);
  const begun = device.events([eventCodes.epochBegun, epochReasons.restored, 10, known.sequence, known.digest]);
  await node.deliver(device, begun, ...[0, 1, 2].map((i) => later(device, i)));
  assert.deepEqual(node.counted(), { rows: 3, booked: 3 });
  return { node, device };
}

function later(device: DeviceFixture, i: number): SealedRecord {
  return device.reading({ timeS: firstTimeS + 90_000 + 60 * i });
}

test("a held epoch is shown loudly with its reason and what to type; accepting books it, again changes nothing", async (t) => {
  const { node, device } = await restored(t);
  const devices = ecpNode("devices", "--data", node.data);
  assert.match(devices.stdout, /EPOCH HELD/);
  assert.match(devices.stdout, /HELD: epoch 20 of did:key/);
  assert.match(devices.stdout, /restored from a backup; before it epoch 10, known up to record 2/);
  const typed = /ecp-node (epoch accept .*)/.exec(devices.stdout)?.[1]?.split(" ") ?? [];
  const list = ecpNode("epoch", "list", device.did, "--data", node.data);
  assert.match(list.stdout, /20 +HELD +4 +0/);
  assert.equal(
    ecpNode("epoch", "list", "--data", node.data).stdout,
    list.stdout,
    "without a name: those of all devices",
  );

  const accepted = ecpNode(...typed);
  assert.equal(accepted.status, 0, accepted.stderr);
  assert.match(accepted.stdout, /^Accepted: epoch 20 .*\n {2}4 records booked now, 4 in all\n$/);
  assert.deepEqual(node.counted(), { rows: 6, booked: 6 });
  const again = ecpNode(...typed, "--json");
  assert.deepEqual(
    { ...JSON.parse(again.stdout), device: "" },
    { device: "", epoch: 20, decision: "accepted", changed: false, held: false, records: 4, settled: 4, booked: 0 },
  );
  assert.match(ecpNode("devices", "--data", node.data).stdout, / ok\n$/);
  await node.restart();
  await node.deliver(device, later(device, 3));
  assert.deepEqual(node.counted(), { rows: 7, booked: 7 });
  assert.equal(node.lastReceipt().held, false);
});

test("a rejected epoch is stored on and not booked; a rejected one that was booked stays so, and may be accepted again", async (t) => {
  const { node, device } = await restored(t);
  const start = device.name.slice(0, 12);
  const rejected = ecpNode("epoch", "reject", start, "20", "--data", node.data);
  assert.match(rejected.stdout, /^Rejected: epoch 20 .*\n {2}4 records stay stored and are not booked; 0 were booked/);
  assert.doesNotMatch(ecpNode("devices", "--data", node.data).stdout, /HELD/);
  await node.restart();
  await node.deliver(device, later(device, 3));
  assert.equal(node.lastReceipt().held, true);
  assert.deepEqual(node.counted(), { rows: 3, booked: 3 });

  assert.equal(ecpNode("epoch", "accept", start, "0x14", "--data", node.data).status, 0);
  assert.deepEqual(node.counted(), { rows: 7, booked: 7 });
  assert.match(ecpNode("epoch", "reject", start, "20", "--data", node.data).stdout, /0 records stay .* 5 were booked/);
  await node.restart();
  await node.deliver(device, later(device, 4));
  assert.deepEqual(node.counted(), { rows: 7, booked: 7 });
});

test("names that are too short or fit no device or epoch decide nothing", async (t) => {
  const { node, device } = await restored(t);
  const before = node.query("SELECT * FROM epochs");
  for (const [status, name, epoch] of [
    [2, device.name.slice(0, 7), "20"],
    [2, "z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp", "20"],
    [2, device.name, "21"],
    [64, device.name, "twenty"],
    [64, device.name, "4294967296"],
  ] as const)
    assert.equal(ecpNode("epoch", "accept", name, epoch, "--data", node.data).status, status, `${name} ${epoch}`);
  assert.equal(ecpNode("epoch", "accept", device.name, "--data", node.data).status, 64);
  assert.deepEqual(node.query("SELECT * FROM epochs"), before);
});

test("while the node runs and records come in: accepted at once, rejected at once, nothing booked twice or lost", async (t) => {
  const { node, device } = await restored(t);
  await node.path.stop();
  const running = await startNode(t, node.data, "--listen", "127.0.0.1:0");
  const client = await connectAsync(`mqtt://127.0.0.1:${running.port}`, { clientId: device.name });
  t.after(() => client.endAsync());
  let sent = 3;
  let going = true;
  const sending = (async () => {
    while (going)
      await client.publishAsync(topicOf(device.name, "record"), Buffer.from(later(device, sent++).bytes), { qos: 1 });
  })();
  await running.eventCount("stored", 20);
  for (const verb of ["accept", "reject", "accept", "reject", "accept"])
    assert.equal(ecpNode("epoch", verb, device.name, "20", "--data", node.data).status, 0);
  await running.eventCount("stored", running.events.filter(({ event }) => event === "stored").length + 50);
  going = false;
  await sending;
  await running.eventCount("stored", sent - 3);
  running.child.kill("SIGTERM");
  assert.equal(await running.ended, 0);
  assert.deepEqual(node.counted(), { rows: 3 + sent, booked: 3 + sent });
  const [epoch] = node.query("SELECT through, settled_through FROM epochs WHERE epoch = 20");
  assert.deepEqual({ ...epoch }, { through: sent + 1, settled_through: sent + 1 });
});

test("a fork is shown loudly", async (t) => {
  const { node, device } = await restored(t);
  device.begin(10);
  device.sequence = 1;
  await node.deliver(device, device.reading({ timeS: firstTimeS + 7_777 }));
  const { stdout } = ecpNode("devices", "--data", node.data);
  assert.match(stdout, /FORK: 1 records of did:key.* contradict what is stored, in epoch 10 \(1\)/);
});

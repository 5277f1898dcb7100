// A key is rotated: the new key's epoch is stored from the announcement on, and booked once the rotation is settled.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { type TestContext, test } from "node:test";
import { enrolDevice } from "../../fullnode/registry.ts";
import { eventCodes } from "../../protocol/record.ts";
import { nodeKey } from "../vectors/signature-suite.ts";
import { DeviceFixture, firstTimeS, type SealedRecord } from "./device-fixture.ts";
import { NodeFixture } from "./node-fixture.ts";
import { shuffled } from "./shuffle.ts";

const next = (epoch = 77) => ({ key: nodeKey(randomBytes(32)), epoch });

function epochRow(node: NodeFixture, epoch: number) {
  const [row] = node.query("SELECT held, through, settled_through, decision, ended FROM epochs WHERE epoch = ?", epoch);
  return row && { ...row };
}

/** Three readings, the rotation, three readings of the new key. */
async function rotated(t: TestContext) {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const before = device.readings(3);
  const firstEpoch = device.epoch;
  const rotation = device.rotate(next());
  const after = [0, 1, 2].map((i) => device.reading({ timeS: firstTimeS + 90_000 + 60 * i }));
  return { node, device, before, rotation, after, firstEpoch, all: [...before, rotation, ...after] };
}

function assertWhole({ node, firstEpoch }: { node: NodeFixture; firstEpoch: number }): void {
  assert.deepEqual(node.counted(), { rows: 6, booked: 6 });
  assert.equal(node.count("records"), 7);
  assert.equal(node.count("evidence"), 0);
  assert.deepEqual(epochRow(node, firstEpoch), {
    held: 0,
    through: 4,
    settled_through: 4,
    decision: "accepted",
    ended: 4,
  });
  assert.deepEqual(epochRow(node, 77), { held: 0, through: 3, settled_through: 3, decision: "none", ended: null });
}

test("in order: the new key's records are settled under the old name, in one delivery and one by one", async (t) => {
  const one = await rotated(t);
  await one.node.deliver(one.device, ...one.all);
  assertWhole(one);
  assert.equal(one.node.lastReceipt().held, false);
  assert.deepEqual(one.node.lastReceipt().device, one.device.kid, "receipts name the device by its enrolment key");

  const single = await rotated(t);
  for (const record of single.all) await single.node.deliver(single.device, record);
  assertWhole(single);
});

test("in every order of arrival, what is refused being sent again: the same at the end", async (t) => {
  for (const seed of [1, 2, 3, 4, 5, 6, 7, 8]) {
    const scene = await rotated(t);
    let left: readonly SealedRecord[] = shuffled(scene.all, seed);
    // A device sends again what no receipt has named.
    for (let round = 0; left.length > 0 && round < 3; round++) {
      for (const record of left) await scene.node.deliver(scene.device, record);
      const stored = new Set(scene.node.query("SELECT hex(digest) AS digest FROM records").map(({ digest }) => digest));
      left = left.filter(({ digest }) => !stored.has(Buffer.from(digest).toString("hex").toUpperCase()));
    }
    assert.equal(left.length, 0, `seed ${seed}`);
    assertWhole(scene);
  }
});

test("records of the new key that come right before the rotation wait for it in memory", async (t) => {
  const scene = await rotated(t);
  const { node, device, before, rotation, after } = scene;
  await node.deliver(device, ...after);
  assert.equal(node.count("records"), 0);
  assert.deepEqual(new Set(node.refusals()), new Set(["unknown-key"]));
  await node.deliver(device, ...before, rotation);
  assertWhole(scene);
});

test("while the rotation waits for records before it, the new epoch is stored, acknowledged and held", async (t) => {
  const scene = await rotated(t);
  const { node, device, before, rotation, after } = scene;
  await node.deliver(device, before[0] as SealedRecord, rotation, ...after);
  assert.equal(node.counted().rows, 1);
  const [receipt] = node.receiptsOf(77).slice(-1);
  assert.equal(receipt?.held, true);
  assert.equal(receipt?.through, 3);
  await node.restart();
  await node.deliver(device, ...before.slice(1));
  assertWhole(scene);
});

test("a rotation survives a restart at every step", async (t) => {
  const scene = await rotated(t);
  for (const record of scene.all) {
    await scene.node.deliver(scene.device, record);
    await scene.node.restart();
  }
  assertWhole(scene);
});

test("after the rotation the old key seals nothing: its epoch has ended, and it begins no other", async (t) => {
  const { node, device, before, rotation, after, firstEpoch } = await rotated(t);
  const oldKey = new DeviceFixture(firstEpoch);
  await node.deliver(device, ...before, rotation, ...after);
  const thief = Object.assign(oldKey, { key: device.firstKey, name: device.name, kid: device.kid });
  thief.sequence = rotation.sequence;
  thief.digest = rotation.digest;
  const beyond = thief.reading({ timeS: firstTimeS + 500_000 });
  await node.deliver(device, beyond);
  assert.deepEqual(node.refusals().slice(-1), ["epoch-ended"]);
  assert.deepEqual(node.lastReceipt().refused, [[5, "epoch-ended"]]);
  assert.deepEqual(node.lastReceipt().kept, [{ first: 5, last: 5, digest: beyond.digest }]);
  thief.begin(1_000);
  await node.deliver(device, thief.reading({ timeS: firstTimeS + 500_060 }));
  assert.equal(node.path.counts.refused["old-key"], 1);
  assert.equal(epochRow(node, 1_000), undefined);
  assert.deepEqual(node.counted(), { rows: 6, booked: 6 });
  // Control: the device's new key may begin one, and it is held.
  device.begin(1_001);
  await node.deliver(device, device.reading({ timeS: firstTimeS + 500_120 }));
  assert.equal(epochRow(node, 1_001)?.held, 1);
});

test("records behind the rotation that came before it leave the chain when it is settled", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const [first] = device.readings(1);
  const rotation = device.rotation(next());
  const behind = device.readings(2);
  await node.deliver(device, ...behind);
  await node.deliver(device, rotation);
  assert.equal(node.count("evidence"), 0);
  await node.deliver(device, first as SealedRecord);
  assert.equal(node.count("evidence"), 2);
  assert.equal(node.lastReceipt().through, 2);
  assert.deepEqual(
    node.lastReceipt().refused.map(([, reason]) => reason),
    ["epoch-ended", "epoch-ended"],
  );
  assert.deepEqual(node.counted(), { rows: 1, booked: 1 });
});

test("a rotation record that is a fork rotates nothing: what it announces is held", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const [r1, r2, r3] = device.readings(3);
  assert.ok(r1 && r2 && r3);
  const { epoch } = device;
  device.rewind(r1);
  const fork = device.rotate(next());
  const after = device.reading({ timeS: firstTimeS + 90_000 });
  await node.deliver(device, r1, r2, r3, fork, after);
  assert.equal(node.count("evidence"), 1);
  assert.deepEqual(epochRow(node, 77), { held: 1, through: 1, settled_through: 0, decision: "none", ended: null });
  assert.equal(epochRow(node, epoch)?.ended, null, "the chain that came first goes on");
  assert.deepEqual(node.counted(), { rows: 3, booked: 3 });
});

test("of two rotations that contradict each other the first settled counts, in either order; the other's epoch is held", async (t) => {
  for (const order of ["a first", "b first"] as const) {
    const node = new NodeFixture(t);
    const device = await node.enrolled();
    const [r1] = device.readings(1);
    assert.ok(r1);
    const { epoch, key } = device;
    const a = device.rotate(next(101));
    const ofA = device.reading({ timeS: firstTimeS + 90_000 });
    device.begin(epoch, key);
    device.rewind(r1);
    const b = device.rotate(next(102));
    const ofB = device.reading({ timeS: firstTimeS + 91_000 });
    await node.deliver(device, r1, ...(order === "a first" ? [a, b, ofB, ofA] : [b, a, ofA, ofB]));
    const [winner, loser] = order === "a first" ? [101, 102] : [102, 101];
    assert.equal(epochRow(node, winner)?.held, 0, order);
    assert.equal(epochRow(node, loser)?.held, 1, order);
    assert.deepEqual(node.counted(), { rows: 2, booked: 2 }, order);
    assert.equal(node.count("records"), 4, "both keys' records are kept");
  }
});

test("somebody with the old key who begins the announced epoch first does not keep the new key out of it", async (t) => {
  const { node, device, before, rotation, after } = await rotated(t);
  const thief = Object.assign(new DeviceFixture(77, device.firstKey), { name: device.name, kid: device.kid });
  await node.deliver(device, ...before, thief.reading({ timeS: firstTimeS + 500_000 }));
  assert.equal(epochRow(node, 77)?.through, 1);
  await node.deliver(device, rotation, ...after);
  assert.deepEqual(epochRow(node, 77), { held: 0, through: 3, settled_through: 3, decision: "none", ended: null });
  assert.equal(node.query("SELECT reason FROM evidence")[0]?.reason, "other-key");
  assert.deepEqual(node.counted(), { rows: 6, booked: 6 });
});

test("a certificate for another place or device, or by another key, is refused with its record", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const [r1] = device.readings(1);
  assert.ok(r1);
  await node.deliver(device, r1);
  const stranger = new DeviceFixture();
  const wrong: (() => SealedRecord)[] = [
    () => device.rotation(next(), { device: stranger.kid }),
    () => device.rotation(next(), { epoch: device.epoch + 1 }),
    () => device.rotation(next(), { sequence: 9 }),
    () => device.rotation(next(), { previous: new Uint8Array(16) }),
    () => device.rotation(next(), {}, device.key),
    () => device.rotation(next(), {}, stranger.key),
    () => device.events([eventCodes.keyRotated, "no certificate"]),
    () => device.events([eventCodes.keyRotated]),
  ];
  for (const make of wrong) {
    device.rewind(r1);
    await node.deliver(device, make());
  }
  assert.equal(node.path.counts.refused["bad-rotation"], wrong.length);
  assert.equal(node.count("records"), 1);
  assert.equal(node.count("epochs"), 1);
  // Control: the right one is taken at the same place.
  device.rewind(r1);
  await node.deliver(device, device.rotate(next()));
  assert.equal(node.count("epochs"), 2);
});

test("a retired key ends its epoch", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  await node.deliver(device, device.reading(), device.events([eventCodes.keyRetired]), device.reading());
  assert.equal(node.lastReceipt().through, 2);
  assert.deepEqual(node.lastReceipt().refused, [[3, "epoch-ended"]]);
  assert.deepEqual(node.counted(), { rows: 1, booked: 1 });
});

test("a device that was rotated before it is enrolled brings all its epochs with it", async (t) => {
  const node = new NodeFixture(t);
  const device = new DeviceFixture(10);
  const [old] = device.readings(1);
  const first = device.rotate(next(20));
  const middle = device.reading({ timeS: firstTimeS + 90_000 });
  const second = device.rotate(next(30));
  const newest = device.reading({ timeS: firstTimeS + 180_000 });
  const { name } = await enrolDevice(node.store, node.keys, device.request(), 1);
  assert.equal(name, device.name, "the name is that of the first key");
  assert.ok(old);
  await node.deliver(device, newest, middle, old, first, second);
  assert.deepEqual(
    node.query("SELECT epoch, held, through FROM epochs ORDER BY epoch").map((row) => Object.values(row)),
    [
      [10, 0, 2],
      [20, 0, 2],
      [30, 0, 1],
    ],
  );
  assert.deepEqual(node.counted(), { rows: 3, booked: 3 });
});

test("the request of before a rotation, enrolled again, does not bring the old key back", async (t) => {
  const { node, device, all } = await rotated(t);
  const stale = new DeviceFixture(device.epoch, device.firstKey).request();
  await node.deliver(device, ...all);
  await enrolDevice(node.store, node.keys, stale, 3);
  await node.restart();
  device.begin(1_000);
  await node.deliver(device, device.reading({ timeS: firstTimeS + 500_000 }));
  assert.equal(epochRow(node, 1_000)?.held, 1, "the new key begins an epoch");
  const request = device.request();
  await enrolDevice(node.store, node.keys, request, 4);
  await node.restart();
  await node.deliver(device, device.reading({ timeS: firstTimeS + 500_060 }));
  assert.deepEqual(node.counted(), { rows: 8, booked: 8 });
});

test("the owner rejects a rotation: the old key is the device's again, and what is booked stays booked", async (t) => {
  const { node, device, all, firstEpoch } = await rotated(t);
  await node.deliver(device, ...all);
  const thief = device.firstKey;
  await node.path.stop();
  for (let twice = 0; twice < 2; twice++) await node.decide(77, "rejected");
  await node.restart();
  await node.deliver(device, device.reading({ timeS: firstTimeS + 200_000 }));
  assert.equal(node.lastReceipt().held, true);
  assert.deepEqual(node.counted(), { rows: 6, booked: 6 });
  device.begin(firstEpoch + 5, thief);
  await node.deliver(device, device.reading({ timeS: firstTimeS + 300_000 }));
  assert.equal(epochRow(node, firstEpoch + 5)?.held, 1);
});

test("a stolen hub whose key was rotated before: its epoch is rejected, and the backup goes on under the rotated key", async (t) => {
  const { node, device, all } = await rotated(t);
  await node.deliver(device, ...all);
  await node.decide(77, "rejected");
  await node.restart();
  device.begin(1_000); // restored from a backup of the rotated key
  const restored = device.reading({ timeS: firstTimeS + 300_000 });
  await node.deliver(device, restored);
  assert.equal(epochRow(node, 1_000)?.held, 1, "stored, and held");
  await node.decide(1_000);
  await node.restart();
  const rotation = device.rotate(next(2_000));
  await node.deliver(device, rotation, device.reading({ timeS: firstTimeS + 400_000 }));
  assert.equal(epochRow(node, 2_000)?.held, 0, "the rotation of an accepted epoch is followed");
  assert.deepEqual(node.counted(), { rows: 8, booked: 8 });
});

test("a rotated key is the device's as long as one of its epochs counts, whatever the order in which the owner decides", async (t) => {
  const { node, device, all } = await rotated(t);
  await node.deliver(device, ...all);
  device.begin(1_000);
  await node.deliver(device, device.reading({ timeS: firstTimeS + 300_000 }));
  const currentKey = () => Buffer.from(node.query("SELECT current_key AS key FROM devices")[0]?.key as Uint8Array);
  const [rotatedKey, nameKey] = [device.key.publicKey, device.publicKey];
  for (const [epoch, decision, current] of [
    [1_000, "accepted", rotatedKey],
    [77, "rejected", rotatedKey],
    [1_000, "rejected", nameKey],
    [77, "accepted", rotatedKey],
    [77, "rejected", nameKey],
    [1_000, "accepted", rotatedKey],
  ] as const) {
    await node.decide(epoch, decision);
    assert.deepEqual(currentKey(), Buffer.from(current), `after ${decision} ${epoch}`);
  }
});

// What a look at all devices finds in the store: the alarms rest on it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { NodeWatch } from "../../fullnode/alarms.ts";
import { NodeFixture } from "./node-fixture.ts";

test("a fork and a held epoch are seen in the store itself", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const first = device.reading();
  await node.deliver(device, first, device.reading());
  device.rewind(first);
  await node.deliver(device, device.reading({ timeS: 1_700_000_000 }));
  device.begin(77);
  await node.deliver(device, device.reading());
  device.begin(device.epoch);
  const [state] = await node.store.deviceStates();
  assert.equal(state?.evidence, 1);
  assert.equal(state?.heldEpochs, 1);
  assert.equal(state?.hasGap, false);
  assert.ok((state?.evidenceMs ?? 0) > 0 && (state?.lastReceivedMs ?? 0) > 0);
  const watch = new NodeWatch({
    store: node.store,
    clock: { wallMs: () => (state?.evidenceMs ?? 0) + 1_000, monotonicMs: () => 0 },
    queueShare: () => 0,
    onChanges: () => {},
  });
  await watch.look();
  assert.deepEqual(watch.raised.map(({ kind }) => kind).sort(), ["epoch-held", "fork"]);
  assert.equal(watch.raised[0]?.subject, device.did);
});

test("a gap of an epoch is seen in the store, until it is filled", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const [first, second, third] = device.readings(3);
  if (!first || !second || !third) throw new Error("three records");
  await node.deliver(device, first, third);
  assert.equal((await node.store.deviceStates())[0]?.hasGap, true);
  await node.deliver(device, second);
  assert.equal((await node.store.deviceStates())[0]?.hasGap, false);
});

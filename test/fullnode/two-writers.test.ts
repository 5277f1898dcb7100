// Two processes write to one store (a running node, and a command that imports or accepts): each reads anew what the other has written.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { RecordPath } from "../../fullnode/record-path.ts";
import { Registry } from "../../fullnode/registry.ts";
import type { BatchScope, Store, StoreTransaction } from "../../fullnode/store.ts";
import { createLog } from "../../platform/log.ts";
import { topicOf } from "../../protocol/mqtt-topic.ts";
import type { SealedRecord } from "./device-fixture.ts";
import { NodeFixture } from "./node-fixture.ts";

/** A node and another writer on its data, which delivers `records` alternately with it; gives what failed. */
async function alternately(t: TestContext, seenThrough: (store: Store) => Store) {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const store = node.contract.open();
  t.after(() => store.close());
  const failures: unknown[] = [];
  const second = new RecordPath({
    store: seenThrough(store),
    keys: node.keys,
    registry: new Registry(store),
    clock: { wallMs: () => 1_900_000_000_000, monotonicMs: () => performance.now() },
    log: createLog("test", () => undefined),
    publish: () => undefined,
    report: () => undefined,
    fail: (error) => failures.push(error),
  });
  const deliver = async (record: SealedRecord) => {
    second.push(topicOf(device.name, "record"), record.bytes);
    await second.idle();
  };
  const records = device.readings(20);
  for (const [i, record] of records.entries()) await (i % 2 === 0 ? node.deliver(device, record) : deliver(record));
  // Each once more, through the other one.
  for (const [i, record] of records.entries()) await (i % 2 === 1 ? node.deliver(device, record) : deliver(record));
  await second.stop();
  const [epoch] = node.query("SELECT through, settled_through FROM epochs");
  return { node, failures, epoch };
}

test("two writers make one chain, and nothing counts twice", async (t) => {
  const { node, failures, epoch } = await alternately(t, (store) => store);
  assert.deepEqual(failures, []);
  assert.deepEqual({ ...epoch }, { through: 20, settled_through: 20 });
  assert.deepEqual(node.counted(), { rows: 20, booked: 20 });
  assert.equal(node.count("records"), 20);
});

test("control: a writer that does not notice the other one leaves a chain that is not whole, or fails", async (t) => {
  const blind = (store: Store): Store =>
    new Proxy(store, {
      get: (target, name) => {
        if (name === "foreignChanges") return () => 1;
        if (name === "transaction")
          return (scope: BatchScope, work: (tx: StoreTransaction) => Promise<unknown>) =>
            target.transaction(scope, (tx) => work({ ...tx, foreign: new Set() }));
        const value = Reflect.get(target, name);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
  const isRight = await alternately(t, blind).then(
    ({ failures, epoch }) => failures.length === 0 && epoch?.through === 20,
    () => false, // the other one found a chain that makes no sense
  );
  assert.ok(!isRight);
});

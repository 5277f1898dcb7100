import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import type { Store } from "../../fullnode/store.ts";
import { decodeReceipt } from "../../protocol/receipt.ts";
import { promisedButMissing } from "./acknowledged-check.ts";
import { NodeFixture } from "./node-fixture.ts";

const databaseOf = (node: NodeFixture) => join(node.data, "node.db");
const receiptsOf = (node: NodeFixture) => node.receipts.map(({ bytes }) => decodeReceipt(bytes).content);

/** A store whose transactions end in another way. */
function withTransaction(store: Store, transaction: Store["transaction"]): Store {
  return new Proxy(store, {
    get: (target, key) => {
      if (key === "transaction") return transaction;
      const value = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** As node:sqlite reports a full disk. */
const diskFull = () => Object.assign(new Error("database or disk is full"), { code: "ERR_SQLITE_ERROR", errcode: 13 });

test("where the disk is full no receipt is given, and what comes again later is taken", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const records = device.readings(5);
  let full = true;
  await node.useStore((store) =>
    withTransaction(store, (scope, work) =>
      store.transaction(scope, async (tx) => {
        const result = await work(tx);
        if (full) throw diskFull();
        return result;
      }),
    ),
  );
  await node.deliver(device, ...records);
  assert.equal(node.receipts.length, 0);
  assert.deepEqual(
    node.events.filter(({ event }) => event === "stored"),
    [],
  );
  assert.equal(node.count("records"), 0);
  assert.match(node.logLines.join("\n"), /free space on the store's disk/);
  full = false;
  await node.deliver(device, ...records);
  assert.equal(node.count("records"), 5);
  assert.equal(node.lastReceipt().through, 5);
  assert.deepEqual(promisedButMissing(receiptsOf(node), databaseOf(node)), []);
});

test("a store that fails in any other way ends the node, and gives no receipt", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  await node.useStore((store) =>
    withTransaction(store, () => Promise.reject(Object.assign(new Error("disk I/O error"), { errcode: 1034 }))),
  );
  await assert.rejects(node.deliver(device, device.reading()), /disk I\/O error/);
  assert.equal(node.receipts.length, 0);
});

test("control: the check finds a store that says it has committed and has not", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  await node.useStore((store) =>
    withTransaction(store, async (scope, work) => {
      let result: Awaited<ReturnType<typeof work>> | undefined;
      await store
        .transaction(scope, async (tx) => {
          result = await work(tx);
          throw new Error("rolled back");
        })
        .catch(() => undefined);
      return result as Awaited<ReturnType<typeof work>>;
    }),
  );
  await node.deliver(device, ...device.readings(3));
  assert.deepEqual(promisedButMissing(receiptsOf(node), databaseOf(node)), [1, 2, 3]);
});

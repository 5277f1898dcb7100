/** A full node that gives its receipts before the transaction is on disk: the control of campaign node-crash. Arguments: data folder, port. */
import { setTimeout as pause } from "node:timers/promises";
import { startFullNode } from "../fullnode/full-node.ts";
import type { BatchScope, Store, StoreTransaction } from "../fullnode/store.ts";
import { openStore } from "../fullnode/store-address.ts";
import { createLog } from "../platform/log.ts";

const commitDelayMs = 40;
const [data = "", port = "0"] = process.argv.slice(2);

/** Answers when the work is done; the commit comes later. */
function early(store: Store): Store {
  let last: Promise<unknown> = Promise.resolve();
  const transaction = async <T>(scope: BatchScope, work: (tx: StoreTransaction) => Promise<T>): Promise<T> => {
    await last;
    return await new Promise((resolve, reject) => {
      last = store
        .transaction(scope, async (tx) => {
          resolve(await work(tx));
          await pause(commitDelayMs);
        })
        .catch(reject);
    });
  };
  return new Proxy(store, {
    get: (target, name) => {
      if (name === "transaction") return transaction;
      const value = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

const node = await startFullNode({
  data,
  broker: { listen: { host: "127.0.0.1", port: Number(port) } },
  openStore: async (folder) => early(await openStore(folder)),
  log: createLog("node"),
  report: () => undefined,
  onConnected: () => undefined,
  fail: (error) => {
    throw error;
  },
});
process.stdout.write(`${JSON.stringify({ event: "started", broker: node.brokerUrl })}\n`);
process.stdin.on("end", () => process.exit(0)).resume();

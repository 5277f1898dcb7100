/**
 * The path of records without a broker: for commands that store or settle, whether a node runs on the same data or not. The store's
 * lock keeps transactions apart, and each process reads anew what another one has written.
 */
import { systemClock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import { loadNodeKeys } from "./node-keys.ts";
import { RecordPath, type RecordPathParts } from "./record-path.ts";
import { Registry } from "./registry.ts";
import type { Store } from "./store.ts";
import { openStore } from "./store-address.ts";

/** Throws NodeError where something is missing or damaged, and whatever makes the store fail. */
export async function withRecordPath<T>(
  data: string,
  parts: Pick<RecordPathParts, "publish" | "report"> & { log: Log },
  use: (path: RecordPath, store: Store) => Promise<T>,
): Promise<T> {
  const keys = loadNodeKeys(data);
  const store = await openStore(data);
  let failure: { error: unknown } | undefined;
  const fail = (error: unknown) => {
    failure ??= { error };
  };
  const path = new RecordPath({ ...parts, store, keys, registry: new Registry(store), clock: systemClock, fail });
  try {
    const result = await use(path, store);
    await path.stop();
    if (failure) throw failure.error;
    return result;
  } finally {
    await path.stop();
    await store.close();
  }
}

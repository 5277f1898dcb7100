/** What SQLite's errors mean for a store. */
import { NodeError } from "./node-error.ts";

/** SQLite's primary result codes (sqlite.org/rescode.html); extended ones keep them in their low byte. */
const resultCode = { busy: 5, readonly: 8, corrupt: 11, full: 13, cantOpen: 14, notADatabase: 26 } as const;

function resultCodeOf(error: unknown): number | undefined {
  return error instanceof Error && "errcode" in error && typeof error.errcode === "number"
    ? error.errcode & 0xff
    : undefined;
}

/** Whether a transaction failed for want of room or because another process wrote: the store is sound, and a later try may do. */
export function isPassingStoreError(error: unknown): boolean {
  const code = resultCodeOf(error);
  return code === resultCode.full || code === resultCode.busy;
}

/** The file is not a store, or not any more. */
export function damaged(path: string, got: string): NodeError {
  return new NodeError("store-damaged", {
    expected: "the store of a full node",
    got,
    where: path,
    todo: "restore the data folder from a backup; devices keep what has no receipt and send it again",
  });
}

/** What opening a file failed of, in words where a person can mend it. */
export function asNodeError(error: unknown, path: string): unknown {
  const code = resultCodeOf(error);
  if (code === resultCode.corrupt || code === resultCode.notADatabase) return damaged(path, (error as Error).message);
  if (code === resultCode.cantOpen || code === resultCode.readonly)
    return new NodeError("data-not-writable", {
      expected: "a store that this user may read and write",
      got: (error as Error).message,
      where: path,
      todo: "run as the user that owns the data folder (ecp-node)",
    });
  return error;
}

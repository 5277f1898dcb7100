/**
 * One running full node a data folder. The lock is SQLite's lock on a file of its own (an fcntl lock): the kernel gives it back
 * however the process ends, so there is no stale one.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { NodeError } from "./node-error.ts";

export interface DataLock {
  release(): void;
}

export function lockData(data: string): DataLock {
  const pidFile = join(data, "run.pid");
  const database = new DatabaseSync(join(data, "run.lock"));
  try {
    database.exec("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
  } catch {
    database.close();
    throw new NodeError("data-in-use", {
      expected: "a data folder that no other full node is using",
      got: `one that is in use by process ${readPid(pidFile)}`,
      where: data,
      todo: "stop that process first, or use another folder with --data",
    });
  }
  writeFileSync(pidFile, `${process.pid}\n`, { mode: 0o644 });
  return { release: () => database.close() };
}

function readPid(pidFile: string): string {
  try {
    return readFileSync(pidFile, "utf8").trim();
  } catch {
    return "unknown";
  }
}

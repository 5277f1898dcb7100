/**
 * Where a data folder's store is: `node.db` in the folder, or the PostgreSQL database that the file `store.json` beside the keys names. So
 * every command that is given the folder finds the same store.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { writeFileDurably } from "../platform/durable-file.ts";
import { NodeError } from "./node-error.ts";
import type { PostgresAddress } from "./postgres-connection.ts";
import type { Store } from "./store.ts";
import { openPostgresStore } from "./store-postgres.ts";
import { openSqliteStore } from "./store-sqlite.ts";

const addressFileName = "store.json";

/** The database that a data folder names; undefined: its store is embedded. */
export function storeAddressOf(data: string): PostgresAddress | undefined {
  const path = join(data, addressFileName);
  if (!existsSync(path)) return undefined;
  const damaged = (got: string) =>
    new NodeError("store-damaged", {
      expected: `{"url": "postgres://…"} as ecp-node init wrote it`,
      got,
      where: path,
      todo: "write the address of the database into it, without a password",
    });
  let content: { url?: unknown; passwordFile?: unknown };
  try {
    content = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw damaged((error as Error).message);
  }
  const { url, passwordFile } = content;
  if (typeof url !== "string" || !isPostgresUrl(url)) throw damaged("no address");
  if (passwordFile !== undefined && typeof passwordFile !== "string") throw damaged("a passwordFile that is no path");
  return { url, ...(passwordFile !== undefined && { passwordFile }) };
}

export function writeStoreAddress(data: string, address: PostgresAddress): void {
  writeFileDurably(join(data, addressFileName), `${JSON.stringify(address)}\n`, 0o600);
}

/** postgres:// or postgresql://, without a password. */
export function isPostgresUrl(text: string): boolean {
  return /^postgres(ql)?:\/\/[^/?#]*/.test(text) && !hasPassword(text);
}

export function hasPassword(text: string): boolean {
  return /^\w+:\/\/[^/?#@]*:[^/?#@]*@/.test(text) || /[?&]password=/.test(text);
}

/** Opens the store of a data folder; one of an older version is brought up to date. Throws NodeError. */
export async function openStore(data: string): Promise<Store> {
  const address = storeAddressOf(data);
  return address ? await openPostgresStore({ address }) : openSqliteStore(data);
}

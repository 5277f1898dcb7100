/**
 * Copies of a store, made while nodes run, and stores made of copies. Beside a copy FILE stands FILE.json, with its digest and what is
 * counted in it, so that a restored store can be compared with what was saved. The node's keys are in neither.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  closeSync,
  createReadStream,
  existsSync,
  fsyncSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { pipeline } from "node:stream/promises";
import { syncFolder, writeFileDurably } from "../platform/durable-file.ts";
import { lockData } from "./data-lock.ts";
import { NodeError, systemCode } from "./node-error.ts";
import { openPool, type PostgresAddress } from "./postgres-connection.ts";
import { storeAddressOf } from "./store-address.ts";
import { openPostgresStore } from "./store-postgres.ts";
import { asPostgresNodeError } from "./store-postgres-failure.ts";
import { openSqliteStore, storeFileName } from "./store-sqlite.ts";
import { damaged } from "./store-sqlite-failure.ts";

const countedTables = [
  "devices",
  "epochs",
  "records",
  "rows",
  "slots",
  "evidence",
  "quarantine",
  "ledger_queue",
] as const;
const fileMode = 0o600;
const saidBytesMax = 2_000;

export type StoreCounts = Record<(typeof countedTables)[number], number>;

export interface BackupManifest {
  readonly kind: "sqlite" | "postgres";
  readonly sha256: string;
  /** ISO 8601. */
  readonly madeAt: string;
  readonly counts: StoreCounts;
}

/** Saves the store of a data folder as it is at one moment. Throws NodeError; nothing is overwritten. */
export async function backUp(data: string, output: string, nowMs: number): Promise<BackupManifest> {
  for (const path of [output, manifestPath(output)])
    if (existsSync(path))
      throw new NodeError("data-exists", {
        expected: "a new file",
        got: "one that is there already",
        where: path,
        todo: "choose another name with --output; a backup is never overwritten",
      });
  const address = storeAddressOf(data);
  const aside = `${output}.new-${process.pid}`;
  try {
    closeSync(openSync(aside, "wx", fileMode)); // both engines write into the empty file that is there, with its mode
    const counts = address ? await dumpPostgres(address, aside) : copySqlite(data, aside);
    syncFile(aside);
    const kind = address ? "postgres" : "sqlite";
    const sha256 = await digestOfFile(aside);
    const manifest: BackupManifest = { kind, sha256, madeAt: new Date(nowMs).toISOString(), counts };
    writeFileDurably(manifestPath(output), `${JSON.stringify(manifest, undefined, 2)}\n`, fileMode);
    renameSync(aside, output);
    syncFolder(dirname(output));
    return manifest;
  } finally {
    rmSync(aside, { force: true });
  }
}

/** Makes the store of a data folder, or its empty database, of a backup, and compares it with what was saved. Throws NodeError. */
export async function restore(file: string, data: string): Promise<{ counts: StoreCounts; compared: boolean }> {
  const kind = kindOf(file);
  const address = storeAddressOf(data);
  if ((kind === "postgres") !== (address !== undefined))
    throw new NodeError("backup-damaged", {
      expected: address
        ? "a backup of a store on PostgreSQL, since store.json names a database"
        : "a backup of an embedded store",
      got: `one of ${kind}`,
      where: file,
      todo: address
        ? "take store.json out of the data folder, or give the right backup"
        : "ecp-node init --store makes a folder for it",
    });
  const manifest = readManifest(file);
  if (manifest && manifest.sha256 !== (await digestOfFile(file)))
    throw notWhole(file, `another SHA-256 than ${manifestPath(file)} says`);
  const counts = address ? await restorePostgres(address, file) : await restoreSqlite(data, file, manifest?.counts);
  if (manifest) compare(file, manifest.counts, counts);
  return { counts, compared: manifest !== undefined };
}

function copySqlite(data: string, aside: string): StoreCounts {
  const path = join(data, storeFileName);
  openSqliteStore(data).close(); // it is one, and up to date
  const source = new DatabaseSync(path, { timeout: 10_000 });
  try {
    source.prepare("VACUUM INTO ?").run(aside); // one read transaction: writers go on meanwhile
  } finally {
    source.close();
  }
  return checkSqlite(aside);
}

/** Reads all of a database file, and counts. */
function checkSqlite(path: string): StoreCounts {
  const database = new DatabaseSync(path, { readOnly: true });
  try {
    const result = database.prepare("PRAGMA integrity_check").get()?.integrity_check;
    if (result !== "ok") throw notWhole(path, `${result}`.slice(0, saidBytesMax));
    const count = (table: string) => database.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.n as number;
    return Object.fromEntries(countedTables.map((table) => [table, count(table)])) as StoreCounts;
  } catch (error) {
    throw error instanceof NodeError ? error : damaged(path, (error as Error).message);
  } finally {
    database.close();
  }
}

async function restoreSqlite(data: string, file: string, expected: StoreCounts | undefined): Promise<StoreCounts> {
  const path = join(data, storeFileName);
  const lock = lockData(data);
  const aside = `${path}.new-${process.pid}`;
  try {
    for (const there of [path, `${path}-wal`])
      if (existsSync(there))
        throw new NodeError("data-exists", {
          expected: "a data folder with node.key and without a store",
          got: `the store ${there}`,
          where: data,
          todo: "move node.db and node.db-wal out of the folder, and keep them; a store is never overwritten",
        });
    const descriptor = openSync(aside, "wx", fileMode);
    try {
      await pipeline(createReadStream(file), async (chunks: AsyncIterable<Buffer>) => {
        for await (const chunk of chunks) for (let at = 0; at < chunk.length; ) at += writeSync(descriptor, chunk, at);
      });
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    const counts = checkSqlite(aside);
    if (expected) compare(file, expected, counts);
    renameSync(aside, path);
    syncFolder(data);
    openSqliteStore(data).close(); // brought up to date where an older ecp-node made it
    return counts;
  } finally {
    rmSync(aside, { force: true });
    lock.release();
  }
}

async function dumpPostgres(address: PostgresAddress, aside: string): Promise<StoreCounts> {
  await (await openPostgresStore({ address })).close(); // it is one, and up to date
  const pool = openPool(address);
  try {
    const client = await pool.connect();
    try {
      // What is counted is what is saved: both see the same moment.
      await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
      await client.query("SET LOCAL idle_in_transaction_session_timeout = 0");
      const { rows } = await client.query("SELECT pg_export_snapshot() AS snapshot");
      const counts = await countPostgres(client);
      await runTool("pg_dump", address, [
        "--format=custom",
        `--file=${aside}`,
        `--snapshot=${rows[0]?.snapshot}`,
        "--no-owner",
        "--no-privileges",
      ]);
      return counts;
    } finally {
      client.release(true);
    }
  } catch (error) {
    throw asPostgresNodeError(error, address.url);
  } finally {
    await pool.end();
  }
}

async function restorePostgres(address: PostgresAddress, file: string): Promise<StoreCounts> {
  const pool = openPool(address);
  try {
    const { rows } = await pool.query("SELECT to_regclass('meta') AS meta, to_regclass('records') AS records");
    if (rows[0]?.meta || rows[0]?.records)
      throw new NodeError("data-exists", {
        expected: "an empty database",
        got: "one with tables",
        where: address.url,
        todo: "make a new database, write its address into store.json of each node, and restore again; a store is never overwritten",
      });
    await runTool(
      "pg_restore",
      address,
      ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"],
      [file],
    );
    const counts = await countPostgres(pool);
    await (await openPostgresStore({ address })).close();
    return counts;
  } catch (error) {
    throw asPostgresNodeError(error, address.url);
  } finally {
    await pool.end();
  }
}

async function countPostgres(connection: { query(text: string): Promise<{ rows: Record<string, unknown>[] }> }) {
  const lists = countedTables.map((table) => `(SELECT count(*) FROM ${table}) AS ${table}`).join(", ");
  return (await connection.query(`SELECT ${lists}`)).rows[0] as StoreCounts;
}

/** pg_dump or pg_restore, of the machine: they know the server's version better than this program. */
function runTool(
  tool: string,
  { url, passwordFile }: PostgresAddress,
  options: string[],
  files: string[] = [],
): Promise<void> {
  // Where others cannot see it: /proc/PID/environ is the user's own.
  const password =
    passwordFile === undefined ? {} : { PGPASSWORD: readFileSync(passwordFile, "utf8").replace(/\r?\n$/, "") };
  const child = spawn(tool, [...options, `--dbname=${url}`, "--no-password", ...files], {
    env: { ...process.env, ...password },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    said = (said + text).slice(-saidBytesMax);
  });
  return new Promise((resolve, reject) => {
    child.once("error", (error) => reject(systemCode(error) === "ENOENT" ? toolMissing(tool) : error));
    child.once("close", (code) => {
      if (code === 0) resolve();
      else
        reject(
          new NodeError("store-away", {
            expected: `${tool} to end with 0`,
            got: `${code}: ${said.trim()}`,
            where: url,
            todo: "what it says tells what is wrong; nothing was changed",
          }),
        );
    });
  });
}

function toolMissing(tool: string): NodeError {
  return new NodeError("store-away", {
    expected: `${tool} of the server's version or newer`,
    got: "no such program",
    where: "PATH",
    todo: "install PostgreSQL's client programs (Debian: postgresql-client)",
  });
}

function kindOf(file: string): BackupManifest["kind"] {
  let start: string;
  try {
    const descriptor = openSync(file, "r");
    const bytes = Buffer.alloc(16);
    readSync(descriptor, bytes);
    closeSync(descriptor);
    start = bytes.toString("latin1");
  } catch (error) {
    if (systemCode(error) !== "ENOENT") throw error;
    throw new NodeError("data-missing", {
      expected: "a backup that ecp-node backup made",
      got: "no such file",
      where: file,
      todo: "give the path of the backup",
    });
  }
  if (start.startsWith("SQLite format 3\0")) return "sqlite";
  if (start.startsWith("PGDMP")) return "postgres";
  throw notWhole(file, "a file of another kind");
}

function readManifest(file: string): BackupManifest | undefined {
  const path = manifestPath(file);
  if (!existsSync(path)) return undefined;
  try {
    return JSON.parse(readFileSync(path, "utf8")) as BackupManifest;
  } catch {
    throw notWhole(path, "no JSON");
  }
}

function compare(file: string, expected: StoreCounts, got: StoreCounts): void {
  for (const table of countedTables)
    if (expected[table] !== got[table]) throw notWhole(file, `${got[table]} ${table} instead of ${expected[table]}`);
}

function notWhole(where: string, got: string): NodeError {
  return new NodeError("backup-damaged", {
    expected: "a whole backup of a full node's store",
    got,
    where,
    todo: "copy it again, or use an older one: what is missing then can be imported from the devices (docs/recovery.md)",
  });
}

function manifestPath(file: string): string {
  return `${file}.json`;
}

async function digestOfFile(file: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

function syncFile(file: string): void {
  const descriptor = openSync(file, "r");
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** Connections to a PostgreSQL server, and statements on them: prepared once a connection, numbers as safe integers. */
import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";
import pg from "pg";

const connectionsMax = 4;
const connectTimeoutMs = 10_000;
/** In silence. Where something was sent and nothing comes back, only a limit on the answer helps. */
const keepAliveAfterMs = 10_000;
/** A node that hangs within a transaction must not keep the others from its devices for ever. */
const settings = [
  "synchronous_commit=on",
  "lock_timeout=20s",
  "idle_in_transaction_session_timeout=60s",
  "client_min_messages=warning",
  "timezone=UTC",
];

export interface PostgresAddress {
  /** postgres://user@host/database, without a password. */
  readonly url: string;
  /** Else PGPASSFILE, or ~/.pgpass. */
  readonly passwordFile?: string;
}

export type PostgresRow = Record<string, unknown>;
export type Connection = Pick<pg.ClientBase, "query">;

const typeOids = { bytea: 17, int8: 20 } as const;

const types = {
  getTypeParser(oid: number, format?: "text" | "binary") {
    if (oid === typeOids.int8) return safeInteger;
    if (oid === typeOids.bytea) return bytesOf;
    return pg.types.getTypeParser(oid, format as "text");
  },
};

function safeInteger(text: string): number {
  const value = Number(text);
  assert(Number.isSafeInteger(value), `${text} is too large to count with`);
  return value;
}

function bytesOf(text: string): Uint8Array {
  const bytes = Buffer.from(text.slice(2), "hex"); // \x…
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** @param answerTimeoutMs how long a statement may take; a connection that gave no answer is of no use any more */
export function openPool({ url, passwordFile }: PostgresAddress, answerTimeoutMs?: number): pg.Pool {
  const pool = new pg.Pool({
    connectionString: passwordFile === undefined ? url : withPassword(url, passwordFile),
    max: connectionsMax,
    connectionTimeoutMillis: connectTimeoutMs,
    idleTimeoutMillis: 0,
    keepAlive: true,
    keepAliveInitialDelayMillis: keepAliveAfterMs,
    ...(answerTimeoutMs !== undefined && { query_timeout: answerTimeoutMs }),
    application_name: "ecp-node",
    options: settings.map((setting) => `-c ${setting}`).join(" "),
    types: types as pg.CustomTypesConfig,
  });
  // A connection that ends says so to whoever uses it next; unheard, the event would end the process.
  pool.on("error", () => undefined);
  pool.on("connect", (client) => client.on("error", () => undefined));
  return pool;
}

/** pg takes nothing beside an address that is in one. What it holds goes into no message. */
function withPassword(url: string, passwordFile: string): string {
  const password = readFileSync(passwordFile, "utf8").replace(/\r?\n$/, "");
  return url.replace("@", `:${encodeURIComponent(password)}@`);
}

const statementNames = new Map<string, string>();

/** Runs a statement that is prepared when it is first used. The texts are the program's own, so there are few. */
export async function run(
  connection: Connection,
  text: string,
  values: readonly unknown[] = [],
): Promise<PostgresRow[]> {
  let name = statementNames.get(text);
  if (name === undefined) {
    name = `s${statementNames.size}`;
    statementNames.set(text, name);
  }
  const { rows } = await connection.query({ name, text, values: values.map(asParameter) });
  return rows as PostgresRow[];
}

/** pg writes a Buffer as bytea, also within arrays. */
function asParameter(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(asParameter);
  return value instanceof Uint8Array ? Buffer.from(value.buffer, value.byteOffset, value.length) : value;
}

export interface Column {
  readonly name: string;
  readonly type: string;
}

/** Columns of a table, written `name type, …`. */
export function columnsOf(text: string): Column[] {
  return text.split(",").map((part) => {
    const [name = "", type = ""] = part.trim().split(" ");
    return { name, type };
  });
}

/** Rows as parameters, one array a column. */
export function asArrays(columns: readonly Column[], rows: readonly (readonly unknown[])[]): unknown[][] {
  return columns.map((_, i) => rows.map((row) => row[i] ?? null));
}

/** `unnest($1::int[], …) AS u (a, …)`: rows that travel as one array a column. */
export function unnest(columns: readonly Column[]): string {
  const arrays = columns.map(({ type }, i) => `$${i + 1}::${type}[]`).join(", ");
  return `unnest(${arrays}) AS u (${columns.map(({ name }) => name).join(", ")})`;
}

/** Many rows in one statement. */
export async function insertRows(
  connection: Connection,
  table: string,
  columns: readonly Column[],
  rows: readonly (readonly unknown[])[],
  onConflict = "",
): Promise<PostgresRow[]> {
  if (rows.length === 0) return [];
  const names = columns.map(({ name }) => name).join(", ");
  const text = `INSERT INTO ${table} (${names}) SELECT ${names} FROM ${unnest(columns)} ${onConflict}`;
  return await run(connection, text, asArrays(columns, rows));
}

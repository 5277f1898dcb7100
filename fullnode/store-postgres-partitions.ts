/**
 * Tables by month: rows lie in the partition of the month of their time, so that old months can be dropped or moved as a whole.
 * A month's partition is made when its first row comes, on a connection of its own: making one waits for everybody who has used the
 * table in a transaction that is open. Months too far away, and those that could not get one, go to the partition for all others; what came
 * there long before its month, from a clock that was ahead, moves when the month gets a partition.
 */
import type pg from "pg";
import { systemCode } from "./node-error.ts";
import { type Connection, run } from "./postgres-connection.ts";

/** A device's clock can be wrong by any amount: only these months get partitions. */
const firstMonth = monthOf(Date.UTC(2015, 0) / 1000);
const monthsAhead = 3;
const lockTimeout = "5s";
/** Any number: whoever makes partitions or tables in this database holds this advisory lock. */
export const schemaLock = 0x4543_506e;

/** Months since January 1970 of a time in seconds. */
export function monthOf(timeS: number): number {
  const date = new Date(timeS * 1000);
  return date.getUTCFullYear() * 12 + date.getUTCMonth() - 1970 * 12;
}

function startOfMonthS(month: number): number {
  return Date.UTC(1970, month) / 1000;
}

/** Thrown within a transaction that has used the tables already; it is to run again once these months have partitions. */
export class MissingPartitions extends Error {
  readonly months: readonly number[];

  constructor(months: readonly number[]) {
    super("rows of months that have no partition yet");
    this.months = months;
  }
}

const timeColumns: Readonly<Record<string, string>> = { rows: "time_s", slots: "end_s" };

export class Partitions {
  readonly #pool: pg.Pool;
  readonly #tables: readonly string[];
  readonly #nowMs: () => number;
  /** Months that need no more looking after: they have partitions, or go to the one for all others. */
  readonly #settled = new Set<number>();

  constructor(pool: pg.Pool, tables: readonly string[], nowMs: () => number) {
    this.#pool = pool;
    this.#tables = tables;
    this.#nowMs = nowMs;
  }

  /** @param inUse whether the transaction that asks has used the tables: nobody could make a partition before it ends */
  async prepare(timesS: Iterable<number>, inUse: boolean): Promise<void> {
    const last = monthOf(this.#nowMs() / 1000) + monthsAhead;
    const missing = new Set<number>();
    for (const timeS of timesS) {
      const month = monthOf(timeS);
      if (month >= firstMonth && month <= last && !this.#settled.has(month)) missing.add(month);
    }
    if (missing.size === 0) return;
    if (inUse) throw new MissingPartitions([...missing]);
    await this.make([...missing]);
  }

  async make(months: readonly number[]): Promise<void> {
    const client = await this.#pool.connect();
    let failed = true;
    try {
      for (const month of months) {
        for (const table of this.#tables) await makePartition(client, table, month).catch(unlessItMayStay);
        this.#settled.add(month);
      }
      failed = false;
    } finally {
      client.release(failed); // it may be waiting for an answer still
    }
  }
}

/** 55P03: the table is in use just now, for long. The month's rows may stay in the partition for all others. */
function unlessItMayStay(error: unknown): void {
  if (systemCode(error) !== "55P03") throw error;
}

async function makePartition(connection: Connection, table: string, month: number): Promise<void> {
  const name = `${table}_${new Date(startOfMonthS(month) * 1000).toISOString().slice(0, 7).replace("-", "_")}`;
  const [found] = await run(connection, "SELECT to_regclass($1) AS name", [name]);
  if (found?.name) return;
  await connection.query("BEGIN");
  try {
    await connection.query(`SELECT pg_advisory_xact_lock(${schemaLock})`);
    await connection.query(`SET LOCAL lock_timeout = '${lockTimeout}'`);
    const [from, to] = [startOfMonthS(month), startOfMonthS(month + 1)];
    const column = timeColumns[table];
    await connection.query(`LOCK TABLE ONLY ${table}, ONLY ${table}_other IN ACCESS EXCLUSIVE MODE`);
    const { rows: early } = await connection.query(
      `SELECT FROM ${table}_other WHERE ${column} >= ${from} AND ${column} < ${to} LIMIT 1`,
    );
    if (early.length === 0)
      await connection.query(
        `CREATE TABLE IF NOT EXISTS ${name} PARTITION OF ${table} FOR VALUES FROM (${from}) TO (${to})`,
      );
    else {
      await connection.query(`CREATE TABLE ${name} (LIKE ${table} INCLUDING ALL)`);
      await connection.query(
        `WITH moved AS (DELETE FROM ${table}_other WHERE ${column} >= ${from} AND ${column} < ${to} RETURNING *)
         INSERT INTO ${name} SELECT * FROM moved`,
      );
      await connection.query(`ALTER TABLE ${table} ATTACH PARTITION ${name} FOR VALUES FROM (${from}) TO (${to})`);
    }
    await connection.query("COMMIT");
  } catch (error) {
    await connection.query("ROLLBACK");
    throw error;
  }
}

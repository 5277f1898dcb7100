/**
 * Tables by month: rows lie in the partition of the month of their time, so that old months can be dropped or moved as a whole.
 * A month's partition is made when its first row comes, on a connection of its own: making one waits for everybody who has used the
 * table in a transaction that is open. Months too far away, and those that could not get one, go to the partition for all others.
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

/** 23514: rows of this month lie in the partition for all others already; 55P03: that is in use just now. They may stay there. */
function unlessItMayStay(error: unknown): void {
  if (!["23514", "55P03"].includes(systemCode(error) ?? "")) throw error;
}

async function makePartition(connection: Connection, table: string, month: number): Promise<void> {
  const name = `${table}_${new Date(startOfMonthS(month) * 1000).toISOString().slice(0, 7).replace("-", "_")}`;
  const [found] = await run(connection, "SELECT to_regclass($1) AS name", [name]);
  if (found?.name) return;
  await connection.query("BEGIN");
  try {
    await connection.query(`SELECT pg_advisory_xact_lock(${schemaLock})`);
    await connection.query(`SET LOCAL lock_timeout = '${lockTimeout}'`);
    await connection.query(
      `CREATE TABLE IF NOT EXISTS ${name} PARTITION OF ${table}
       FOR VALUES FROM (${startOfMonthS(month)}) TO (${startOfMonthS(month + 1)})`,
    );
    await connection.query("COMMIT");
  } catch (error) {
    await connection.query("ROLLBACK");
    throw error;
  }
}

/** The LoRaWAN tables of the embedded store. */
import type { DatabaseSync } from "node:sqlite";
import { setImmediate as immediate } from "node:timers/promises";
import type { SqlStatements } from "./sql-statements.ts";
import type { LorawanBinding, LorawanChanges, LorawanCounters, LorawanSession, LorawanStore } from "./store-lorawan.ts";

export class SqliteLorawan implements LorawanStore {
  readonly #database: DatabaseSync;
  readonly #sql: SqlStatements;

  constructor(database: DatabaseSync, sql: SqlStatements) {
    this.#database = database;
    this.#sql = sql;
  }

  bind(devEui: string, name: string, nowMs: number): string | undefined {
    this.#sql.run(
      `INSERT INTO lorawan_devices (dev_eui, device, bound_ms) SELECT ?, id, ? FROM devices WHERE name = ?
       ON CONFLICT (dev_eui) DO NOTHING`,
      ...[devEui, nowMs, name],
    );
    const bound = this.#sql.get(
      "SELECT d.name FROM lorawan_devices l JOIN devices d ON d.id = l.device WHERE l.dev_eui = ?",
      devEui,
    );
    return bound?.name === name ? undefined : (bound?.name as string | undefined);
  }

  unbind(devEui: string): boolean {
    this.#sql.run("DELETE FROM lorawan_sessions WHERE dev_eui = ?", devEui);
    return this.#sql.written("DELETE FROM lorawan_devices WHERE dev_eui = ?", devEui) > 0;
  }

  bindings(): (LorawanBinding & LorawanCounters)[] {
    return this.#sql.all(
      `SELECT l.dev_eui AS devEui, d.name, l.bound_ms AS boundMs, l.dev_addr AS devAddr, l.f_cnt AS fCnt, l.joins,
         l.last_ms AS lastMs, l.receipt_ms AS receiptMs
       FROM lorawan_devices l JOIN devices d ON d.id = l.device ORDER BY l.dev_eui`,
    ) as unknown as (LorawanBinding & LorawanCounters)[];
  }

  sessions(): LorawanSession[] {
    return this.#sql.all(
      "SELECT dev_eui AS devEui, port, state, updated_ms AS updatedMs FROM lorawan_sessions",
    ) as unknown as LorawanSession[];
  }

  async save({ counters, sessions, ended }: LorawanChanges): Promise<void> {
    // One connection, one transaction at a time: that of the record path goes first.
    while (this.#database.isTransaction) await immediate();
    this.#database.exec("BEGIN IMMEDIATE");
    try {
      for (const { devEui, devAddr, fCnt, joins, lastMs, receiptMs } of counters)
        this.#sql.run(
          "UPDATE lorawan_devices SET dev_addr = ?, f_cnt = ?, joins = ?, last_ms = ?, receipt_ms = ? WHERE dev_eui = ?",
          ...[devAddr, fCnt, joins, lastMs, receiptMs, devEui],
        );
      for (const { devEui, port, state, updatedMs } of sessions)
        this.#sql.run(
          `INSERT OR REPLACE INTO lorawan_sessions SELECT dev_eui, ?, ?, ? FROM lorawan_devices WHERE dev_eui = ?`,
          ...[port, state, updatedMs, devEui],
        );
      for (const { devEui, port } of ended)
        this.#sql.run("DELETE FROM lorawan_sessions WHERE dev_eui = ? AND port = ?", devEui, port);
      this.#database.exec("COMMIT");
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      throw error;
    }
  }

  takeLease(name: string, holder: string, ttlMs: number, nowMs: number): boolean {
    const written = this.#sql.written(
      `INSERT INTO leases VALUES (?1, ?2, ?3 + ?4) ON CONFLICT (name) DO UPDATE SET holder = ?2, until_ms = ?3 + ?4
       WHERE holder = ?2 OR until_ms <= ?3 OR until_ms > ?3 + 10 * ?4`,
      ...[name, holder, nowMs, ttlMs],
    );
    return written > 0;
  }

  releaseLease(name: string, holder: string): void {
    this.#sql.run("DELETE FROM leases WHERE name = ? AND holder = ?", name, holder);
  }
}

/** The LoRaWAN tables of the store on PostgreSQL. */
import type pg from "pg";
import { asArrays, type Connection, columnsOf, run, unnest } from "./postgres-connection.ts";
import type { LorawanBinding, LorawanChanges, LorawanCounters, LorawanSession, LorawanStore } from "./store-lorawan.ts";

const columns = {
  counters: columnsOf("dev_eui text, dev_addr text, f_cnt bigint, joins bigint, last_ms bigint, receipt_ms bigint"),
  sessions: columnsOf("dev_eui text, port int, state bytea, updated_ms bigint"),
  ended: columnsOf("dev_eui text, port int"),
};
const countEveryone = "UPDATE common_changes SET changes = changes + 1";

export class PostgresLorawan implements LorawanStore {
  readonly #pool: pg.Pool;

  constructor(pool: pg.Pool) {
    this.#pool = pool;
  }

  async bind(devEui: string, name: string, nowMs: number): Promise<string | undefined> {
    return await this.#inTransaction(async (client) => {
      await run(
        client,
        `INSERT INTO lorawan_devices (dev_eui, device, bound_ms) SELECT $1, id, $2 FROM devices WHERE name = $3
         ON CONFLICT (dev_eui) DO NOTHING`,
        [devEui, nowMs, name],
      );
      await run(client, countEveryone, []);
      const [bound] = await run(
        client,
        "SELECT d.name FROM lorawan_devices l JOIN devices d ON d.id = l.device WHERE l.dev_eui = $1",
        [devEui],
      );
      return bound?.name === name ? undefined : (bound?.name as string | undefined);
    });
  }

  async unbind(devEui: string): Promise<boolean> {
    return await this.#inTransaction(async (client) => {
      await run(client, "DELETE FROM lorawan_sessions WHERE dev_eui = $1", [devEui]);
      const gone = await run(client, "DELETE FROM lorawan_devices WHERE dev_eui = $1 RETURNING dev_eui", [devEui]);
      await run(client, countEveryone, []);
      return gone.length > 0;
    });
  }

  async bindings(): Promise<(LorawanBinding & LorawanCounters)[]> {
    return (await run(
      this.#pool,
      `SELECT l.dev_eui AS "devEui", d.name, l.bound_ms AS "boundMs", l.dev_addr AS "devAddr", l.f_cnt AS "fCnt", l.joins,
         l.last_ms AS "lastMs", l.receipt_ms AS "receiptMs"
       FROM lorawan_devices l JOIN devices d ON d.id = l.device ORDER BY l.dev_eui COLLATE "C"`,
      [],
    )) as unknown as (LorawanBinding & LorawanCounters)[];
  }

  async sessions(): Promise<LorawanSession[]> {
    return (await run(
      this.#pool,
      `SELECT dev_eui AS "devEui", port, state, updated_ms AS "updatedMs" FROM lorawan_sessions`,
      [],
    )) as unknown as LorawanSession[];
  }

  async save({ counters, sessions, ended }: LorawanChanges): Promise<void> {
    await this.#inTransaction(async (client) => {
      if (counters.length > 0)
        await run(
          client,
          `UPDATE lorawan_devices l SET dev_addr = u.dev_addr, f_cnt = u.f_cnt, joins = u.joins, last_ms = u.last_ms,
             receipt_ms = u.receipt_ms FROM ${unnest(columns.counters)} WHERE l.dev_eui = u.dev_eui`,
          asArrays(
            columns.counters,
            counters.map((one) => [one.devEui, one.devAddr, one.fCnt, one.joins, one.lastMs, one.receiptMs]),
          ),
        );
      if (sessions.length > 0)
        await run(
          client,
          `INSERT INTO lorawan_sessions SELECT u.dev_eui, u.port, u.state, u.updated_ms
           FROM ${unnest(columns.sessions)} JOIN lorawan_devices USING (dev_eui)
           ON CONFLICT (dev_eui, port) DO UPDATE SET state = excluded.state, updated_ms = excluded.updated_ms`,
          asArrays(
            columns.sessions,
            sessions.map((one) => [one.devEui, one.port, one.state, one.updatedMs]),
          ),
        );
      if (ended.length > 0)
        await run(
          client,
          `DELETE FROM lorawan_sessions s USING ${unnest(columns.ended)} WHERE s.dev_eui = u.dev_eui AND s.port = u.port`,
          asArrays(
            columns.ended,
            ended.map((one) => [one.devEui, one.port]),
          ),
        );
    });
  }

  async takeLease(name: string, holder: string, ttlMs: number): Promise<boolean> {
    const now = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    const taken = await run(
      this.#pool,
      `INSERT INTO leases VALUES ($1, $2, ${now} + $3) ON CONFLICT (name) DO UPDATE SET holder = $2, until_ms = ${now} + $3
       WHERE leases.holder = $2 OR leases.until_ms <= ${now} OR leases.until_ms > ${now} + 10 * $3 RETURNING name`,
      [name, holder, ttlMs],
    );
    return taken.length > 0;
  }

  async releaseLease(name: string, holder: string): Promise<void> {
    await run(this.#pool, "DELETE FROM leases WHERE name = $1 AND holder = $2", [name, holder]);
  }

  async #inTransaction<T>(work: (client: Connection) => Promise<T>): Promise<T> {
    const client = await this.#pool.connect();
    let broken = false;
    try {
      await client.query("BEGIN");
      const result = await work(client);
      await client.query("COMMIT");
      return result;
    } catch (error) {
      await client.query("ROLLBACK").catch(() => {
        broken = true;
      });
      throw error;
    } finally {
      client.release(broken);
    }
  }
}

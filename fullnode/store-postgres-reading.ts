/** Records, rows and quarter hours of the store on PostgreSQL, for reading. */
import { type Connection, type PostgresRow, run } from "./postgres-connection.ts";
import { unpackSummary, unpackValues } from "./row-packing.ts";
import type { DeviceState, RecordPlace, StoredRecord } from "./store.ts";
import { seatOf } from "./store-postgres-reads.ts";
import type {
  EvidencePlace,
  MeterExchange,
  QuarantineEntry,
  RowKey,
  Series,
  SlotCorrection,
  SlotKey,
  StoredRow,
  StoredSlot,
} from "./store-reading.ts";

export class PostgresReading {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  async newestRecords(device: number, limit: number): Promise<StoredRecord[]> {
    return await this.#records("WHERE r.device = $1 ORDER BY e.last_ms DESC, r.epoch, r.sequence DESC LIMIT $2", [
      ...[device, limit],
    ]);
  }

  async recordsAfter(device: number, after: RecordPlace | undefined, limit: number): Promise<StoredRecord[]> {
    return await this.#records(
      "WHERE r.device = $1 AND (r.epoch, r.sequence) > ($2, $3) ORDER BY r.epoch, r.sequence LIMIT $4",
      [device, after?.epoch ?? -1, after?.sequence ?? 0, limit],
    );
  }

  async #records(condition: string, values: readonly unknown[]): Promise<StoredRecord[]> {
    const text = `SELECT r.*, e.held FROM records r JOIN epochs e USING (device, epoch) ${condition}`;
    return (await run(this.#connection, text, values)).map((row) => ({
      ...seatOf(row),
      epoch: row.epoch as number,
      held: row.held === 1,
      bytes: row.bytes as Uint8Array,
      receivedMs: row.received_ms as number,
    }));
  }

  async rowsAfter(device: number, after: RowKey | undefined, limit: number): Promise<StoredRow[]> {
    const rows = await run(
      this.#connection,
      `SELECT * FROM rows WHERE device = $1 AND (meter, generation, time_s) > ($2, $3, $4)
       ORDER BY meter, generation, time_s LIMIT $5`,
      [device, after?.meter ?? -1, after?.generation ?? 0, after?.timeS ?? 0, limit],
    );
    return rows.map((row) => ({
      meter: row.meter as number,
      generation: row.generation as number,
      timeS: row.time_s as number,
      slotS: row.slot_s as number,
      status: row.status as number,
      booked: row.booked === 1,
      epoch: row.epoch as number,
      sequence: row.sequence as number,
      values: unpackValues(row.content as Uint8Array),
    }));
  }

  async series(device: number): Promise<Series[]> {
    return (await run(
      this.#connection,
      "SELECT DISTINCT meter, generation FROM slots WHERE device = $1 ORDER BY meter, generation",
      [device],
    )) as unknown as Series[];
  }

  async slots(
    device: number,
    { meter, generation }: Series,
    fromS: number,
    toS: number,
    limit: number,
  ): Promise<StoredSlot[]> {
    const rows = await run(
      this.#connection,
      `SELECT meter, generation, end_s, revision, summary FROM slots
       WHERE device = $1 AND meter = $2 AND generation = $3 AND end_s > $4 AND end_s <= $5 ORDER BY end_s LIMIT $6`,
      // Without a bound: Number.MAX_SAFE_INTEGER and infinity mean the same.
      [
        device,
        meter,
        generation,
        Math.max(fromS, -Number.MAX_SAFE_INTEGER),
        Math.min(toS, Number.MAX_SAFE_INTEGER),
        limit,
      ],
    );
    return rows.map(slotOf);
  }

  async slotsBefore(device: number, { meter, generation, endS }: SlotKey, limit: number): Promise<StoredSlot[]> {
    const rows = await run(
      this.#connection,
      `SELECT meter, generation, end_s, revision, summary FROM slots
       WHERE device = $1 AND meter = $2 AND (generation, end_s) < ($3, $4) ORDER BY generation DESC, end_s DESC LIMIT $5`,
      [device, meter, generation, Math.min(endS, Number.MAX_SAFE_INTEGER), limit],
    );
    return rows.map(slotOf);
  }

  async exchanges(device: number): Promise<MeterExchange[]> {
    const rows = await run(
      this.#connection,
      "SELECT * FROM exchanges WHERE device = $1 ORDER BY meter, generation, time_s, epoch, sequence",
      [device],
    );
    return rows.map((row) => ({
      meter: row.meter as number,
      generation: row.generation as number,
      timeS: row.time_s as number,
      epoch: row.epoch as number,
      sequence: row.sequence as number,
      installation: row.installation as number,
    }));
  }

  async corrections(device: number, limit: number): Promise<SlotCorrection[]> {
    const rows = await run(this.#connection, "SELECT * FROM corrections WHERE device = $1 ORDER BY id DESC LIMIT $2", [
      device,
      limit,
    ]);
    return rows.map((row) => ({
      ...slotKeyOf(row),
      revision: row.revision as number,
      atMs: row.at_ms as number,
      before: unpackSummary(row.before as Uint8Array, row.end_s as number),
      after: unpackSummary(row.after as Uint8Array, row.end_s as number),
    }));
  }

  async evidence(device: number): Promise<EvidencePlace[]> {
    return (await run(
      this.#connection,
      "SELECT epoch, sequence, digest FROM evidence WHERE device = $1 ORDER BY epoch, sequence, digest",
      [device],
    )) as unknown as EvidencePlace[];
  }

  async quarantined(limit: number): Promise<QuarantineEntry[]> {
    return (await run(
      this.#connection,
      `SELECT name, count(*) AS records, min(received_ms) AS "firstReceivedMs", max(received_ms) AS "lastReceivedMs"
       FROM quarantine GROUP BY name ORDER BY max(received_ms) DESC, name LIMIT $1`,
      [limit],
    )) as unknown as QuarantineEntry[];
  }

  async ledgerQueue(): Promise<{ entries: number; different: number }> {
    const [row] = await run(
      this.#connection,
      "SELECT count(*) AS entries, count(DISTINCT digest) AS different FROM ledger_queue",
    );
    return row as unknown as { entries: number; different: number };
  }

  async deviceNames(limit: number): Promise<string[]> {
    const rows = await run(this.#connection, "SELECT name FROM devices ORDER BY id DESC LIMIT $1", [limit]);
    return rows.map(({ name }) => name as string);
  }

  async deviceStates(): Promise<DeviceState[]> {
    return (await run(
      this.#connection,
      `SELECT d.name, d.enrolled_ms AS "enrolledMs", coalesce(e.last_ms, 0) AS "lastReceivedMs",
         coalesce(e.waiting, 0) AS "heldEpochs", coalesce(v.n, 0) AS evidence, coalesce(v.last_ms, 0) AS "evidenceMs",
         coalesce(e.gap, false) AS "hasGap"
       FROM devices d
       LEFT JOIN (
         SELECT device, max(last_ms) AS last_ms, count(*) FILTER (WHERE held = 1 AND decision = 'none') AS waiting,
           bool_or(held = 0 AND EXISTS (SELECT 1 FROM spans s WHERE s.device = epochs.device AND s.epoch = epochs.epoch)) AS gap
         FROM epochs GROUP BY device
       ) e ON e.device = d.id
       LEFT JOIN (SELECT device, count(*) AS n, max(received_ms) AS last_ms FROM evidence GROUP BY device) v ON v.device = d.id
       ORDER BY d.enrolled_ms, d.id`,
    )) as unknown as DeviceState[];
  }
}

function slotKeyOf(row: PostgresRow): SlotKey {
  return { meter: row.meter as number, generation: row.generation as number, endS: row.end_s as number };
}

function slotOf(row: PostgresRow): StoredSlot {
  const key = slotKeyOf(row);
  return { ...key, revision: row.revision as number, summary: unpackSummary(row.summary as Uint8Array, key.endS) };
}

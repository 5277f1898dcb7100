/** Records, rows and quarter hours of the embedded store, for reading. */
import { unpackSummary, unpackValues } from "./row-packing.ts";
import type { SqlRow, SqlStatements } from "./sql-statements.ts";
import type { RecordPlace, StoredRecord } from "./store.ts";
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
import { seatOf } from "./store-sqlite-transaction.ts";

export class SqliteReading {
  readonly #sql: SqlStatements;

  constructor(sql: SqlStatements) {
    this.#sql = sql;
  }

  recordsAfter(device: number, after: RecordPlace | undefined, limit: number): StoredRecord[] {
    return this.#sql
      .all(
        `SELECT r.*, e.held FROM records r JOIN epochs e USING (device, epoch)
         WHERE r.device = ? AND (r.epoch, r.sequence) > (?, ?) ORDER BY r.epoch, r.sequence LIMIT ?`,
        ...[device, after?.epoch ?? -1, after?.sequence ?? 0, limit],
      )
      .map((row) => ({
        ...seatOf(row),
        epoch: row.epoch as number,
        held: row.held === 1,
        bytes: row.bytes as Uint8Array,
        receivedMs: row.received_ms as number,
      }));
  }

  rowsAfter(device: number, after: RowKey | undefined, limit: number): StoredRow[] {
    return this.#sql
      .all(
        `SELECT * FROM rows WHERE device = ? AND (meter, generation, time_s) > (?, ?, ?)
         ORDER BY meter, generation, time_s LIMIT ?`,
        ...[device, after?.meter ?? -1, after?.generation ?? 0, after?.timeS ?? 0, limit],
      )
      .map((row) => ({
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

  series(device: number): Series[] {
    const found: Series[] = [];
    let last: Series = { meter: -1, generation: 0 };
    for (;;) {
      // From one to the next by the key: a meter has many quarter hours and few generations.
      const next = this.#sql.get(
        `SELECT meter, generation FROM slots WHERE device = ? AND (meter, generation) > (?, ?)
         ORDER BY meter, generation LIMIT 1`,
        ...[device, last.meter, last.generation],
      );
      if (next === undefined) return found;
      last = { meter: next.meter as number, generation: next.generation as number };
      found.push(last);
    }
  }

  slots(device: number, { meter, generation }: Series, fromS: number, toS: number, limit: number): StoredSlot[] {
    return this.#sql
      .all(
        `SELECT meter, generation, end_s, revision, summary FROM slots
         WHERE device = ? AND meter = ? AND generation = ? AND end_s > ? AND end_s <= ? ORDER BY end_s LIMIT ?`,
        ...[device, meter, generation, fromS, toS, limit],
      )
      .map(slotOf);
  }

  slotsBefore(device: number, { meter, generation, endS }: SlotKey, limit: number): StoredSlot[] {
    return this.#sql
      .all(
        `SELECT meter, generation, end_s, revision, summary FROM slots
         WHERE device = ? AND meter = ? AND (generation, end_s) < (?, ?) ORDER BY generation DESC, end_s DESC LIMIT ?`,
        ...[device, meter, generation, endS, limit],
      )
      .map(slotOf);
  }

  exchanges(device: number): MeterExchange[] {
    return this.#sql
      .all("SELECT * FROM exchanges WHERE device = ? ORDER BY meter, generation, time_s, epoch, sequence", device)
      .map((row) => ({
        meter: row.meter as number,
        generation: row.generation as number,
        timeS: row.time_s as number,
        epoch: row.epoch as number,
        sequence: row.sequence as number,
        installation: row.installation as number,
      }));
  }

  corrections(device: number, limit: number): SlotCorrection[] {
    return this.#sql
      .all("SELECT * FROM corrections WHERE device = ? ORDER BY id DESC LIMIT ?", device, limit)
      .map((row) => ({
        ...slotKeyOf(row),
        revision: row.revision as number,
        atMs: row.at_ms as number,
        before: unpackSummary(row.before as Uint8Array, row.end_s as number),
        after: unpackSummary(row.after as Uint8Array, row.end_s as number),
      }));
  }

  evidence(device: number): EvidencePlace[] {
    return this.#sql.all(
      "SELECT epoch, sequence, digest FROM evidence WHERE device = ? ORDER BY epoch, sequence, digest",
      device,
    ) as unknown as EvidencePlace[];
  }

  quarantined(limit: number): QuarantineEntry[] {
    return this.#sql.all(
      `SELECT name, count(*) AS records, min(received_ms) AS "firstReceivedMs", max(received_ms) AS "lastReceivedMs"
       FROM quarantine GROUP BY name ORDER BY max(received_ms) DESC, name LIMIT ?`,
      limit,
    ) as unknown as QuarantineEntry[];
  }

  ledgerQueue(): { entries: number; different: number } {
    return this.#sql.get(
      "SELECT count(*) AS entries, count(DISTINCT digest) AS different FROM ledger_queue",
    ) as unknown as { entries: number; different: number };
  }
}

function slotKeyOf(row: SqlRow): SlotKey {
  return { meter: row.meter as number, generation: row.generation as number, endS: row.end_s as number };
}

function slotOf(row: SqlRow): StoredSlot {
  const key = slotKeyOf(row);
  return { ...key, revision: row.revision as number, summary: unpackSummary(row.summary as Uint8Array, key.endS) };
}

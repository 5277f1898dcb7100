/**
 * Rows and quarter hours of the embedded store. What a transaction counts is gathered and written before it ends, many rows a
 * statement: so a record of sixty rows costs little more than one of a single row.
 */
import { addRow, emptySummary, type GrowingSummary, isLate, quarterEndS } from "./aggregate.ts";
import { packSummary, packValues, unpackSummary } from "./row-packing.ts";
import type { SqlStatements, SqlValue } from "./sql-statements.ts";
import type { CountedRow } from "./store.ts";
import type { SlotKey } from "./store-reading.ts";

/** Rows a statement, the largest first: each is one prepared statement. */
const rowsPerStatement = [64, 16, 4, 1] as const;
const gatheredRowsMax = 4_096;
const cachedSlotsMax = 20_000;
/** After so many transactions all slots are read anew: else a node with few devices would gather months of past ones. */
const cachedSlotsTransactions = 1_000;

interface GatheredRow {
  readonly device: number;
  readonly epoch: number;
  readonly sequence: number;
  readonly row: CountedRow;
}

interface Slot extends SlotKey {
  readonly device: number;
  readonly summary: GrowingSummary;
  revision: number;
  /** The summary as the table has it. */
  packed: Uint8Array | undefined;
}

const rowColumns = 10;
const rowInserts = statements(
  "INSERT INTO rows (device, meter, generation, time_s, slot_s, status, booked, epoch, sequence, content) VALUES",
  rowColumns,
  `ON CONFLICT (device, meter, generation, time_s) DO UPDATE SET slot_s = excluded.slot_s, status = excluded.status,
     booked = excluded.booked, epoch = excluded.epoch, sequence = excluded.sequence, content = excluded.content
   WHERE (length(rows.content) = 0 AND length(excluded.content) > 0) OR (rows.booked = 0 AND excluded.booked = 1)`,
);

const oneRowInsert = rowInserts.at(-1)?.sql as string;

const slotInserts = statements(
  "INSERT INTO slots (device, meter, generation, end_s, revision, summary) VALUES",
  6,
  `ON CONFLICT (device, meter, generation, end_s) DO UPDATE SET revision = excluded.revision, summary = excluded.summary`,
);

function statements(head: string, columns: number, tail: string): { count: number; sql: string }[] {
  const place = `(${Array(columns).fill("?").join(", ")})`;
  return rowsPerStatement.map((count) => ({ count, sql: `${head} ${Array(count).fill(place).join(", ")} ${tail}` }));
}

export class SqliteRows {
  readonly #sql: SqlStatements;
  #gathered: GatheredRow[] = [];
  readonly #slots = new Map<string, Slot>();
  readonly #changed = new Set<Slot>();
  #transactions = 0;
  /** The slot changed last, one of those above. */
  #last: Slot | undefined;

  constructor(sql: SqlStatements) {
    this.#sql = sql;
  }

  count(device: number, epoch: number, sequence: number, rows: readonly CountedRow[]): void {
    for (const row of rows) this.#gathered.push({ device, epoch, sequence, row });
    if (this.#gathered.length >= gatheredRowsMax) this.#writeRows();
  }

  /** Writes all that was counted; for the end of a transaction. */
  flush(nowMs: number | undefined): void {
    this.#writeRows();
    this.#writeSlots(nowMs);
    if (this.#slots.size <= cachedSlotsMax && ++this.#transactions < cachedSlotsTransactions) return;
    this.#slots.clear();
    this.#transactions = 0;
  }

  /** Forgets what was counted and not written, and what is known of the tables: the transaction failed, or another wrote. */
  forget(): void {
    this.#gathered = [];
    this.#slots.clear();
    this.#changed.clear();
    this.#last = undefined;
  }

  #writeRows(): void {
    const rows = this.#gathered;
    this.#gathered = [];
    let from = 0;
    for (const { count, sql } of rowInserts) {
      const parameters: SqlValue[] = Array(count * rowColumns);
      for (; rows.length - from >= count; from += count) {
        let at = 0;
        for (let i = from; i < from + count; i++) {
          const { device, epoch, sequence, row } = rows[i] as GatheredRow;
          parameters[at++] = device;
          parameters[at++] = row.meter;
          parameters[at++] = row.generation;
          parameters[at++] = row.timeS;
          parameters[at++] = row.slotS;
          parameters[at++] = row.status;
          parameters[at++] = row.booked ? 1 : 0;
          parameters[at++] = epoch;
          parameters[at++] = sequence;
          parameters[at++] = packValues(row.values);
        }
        this.#writePart(sql, parameters, rows.slice(from, from + count));
      }
    }
  }

  /** Writes some rows by one statement, and books those that are booked by it for the first time. */
  #writePart(sql: string, parameters: readonly SqlValue[], part: readonly GatheredRow[]): void {
    // A booked row is never written over. So where as many rows were written as there are, the booked ones are all new; where
    // fewer were, each is written by itself to see which.
    if (part.length > 1) this.#sql.run("SAVEPOINT part");
    const isWhole = this.#sql.written(sql, ...parameters) === part.length;
    if (part.length > 1) {
      if (!isWhole) this.#sql.run("ROLLBACK TO part");
      this.#sql.run("RELEASE part");
    }
    if (isWhole) for (const one of part) if (one.row.booked) this.#book(one);
    if (isWhole || part.length === 1) return;
    for (const [i, one] of part.entries())
      this.#writePart(oneRowInsert, parameters.slice(i * rowColumns, (i + 1) * rowColumns), [one]);
  }

  #book({ device, row }: GatheredRow): void {
    const { meter, generation, timeS } = row;
    const endS = quarterEndS(timeS);
    let slot = this.#last; // a record's rows follow each other
    if (slot?.endS !== endS || slot.generation !== generation || slot.meter !== meter || slot.device !== device) {
      slot = this.#slot(device, meter, generation, endS);
      this.#last = slot;
      this.#changed.add(slot);
    }
    addRow(slot.summary, timeS, row.values);
  }

  #slot(device: number, meter: number, generation: number, endS: number): Slot {
    const key = `${device}/${meter}/${generation}/${endS}`;
    let slot = this.#slots.get(key);
    if (slot === undefined) {
      const row = this.#sql.get(
        "SELECT revision, summary FROM slots WHERE device = ? AND meter = ? AND generation = ? AND end_s = ?",
        device,
        meter,
        generation,
        endS,
      );
      const packed = row?.summary as Uint8Array | undefined;
      const summary = packed ? unpackSummary(packed, endS) : emptySummary();
      slot = { device, meter, generation, endS, summary, revision: (row?.revision as number | undefined) ?? 0, packed };
      this.#slots.set(key, slot);
    }
    return slot;
  }

  #writeSlots(nowMs: number | undefined): void {
    const slots = [...this.#changed];
    this.#changed.clear();
    this.#last = undefined;
    for (const slot of slots) {
      const before = slot.packed;
      slot.packed = packSummary(slot.summary, slot.endS);
      if (nowMs === undefined || !isLate(slot.endS, nowMs)) continue;
      slot.revision++;
      if (before) this.#addCorrection(slot, before, nowMs);
    }
    let from = 0;
    for (const { count, sql } of slotInserts)
      for (; slots.length - from >= count; from += count) {
        const parameters: SqlValue[] = [];
        for (const { device, meter, generation, endS, revision, packed } of slots.slice(from, from + count))
          parameters.push(device, meter, generation, endS, revision, packed as Uint8Array);
        this.#sql.run(sql, ...parameters);
      }
  }

  #addCorrection(slot: Slot, before: Uint8Array, nowMs: number): void {
    this.#sql.run(
      `INSERT INTO corrections (device, meter, generation, end_s, revision, at_ms, before, after)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
      ...[slot.device, slot.meter, slot.generation, slot.endS, slot.revision, nowMs],
      before,
      slot.packed as Uint8Array,
    );
  }
}

/** Rows as they count and the quarter hours that they enter, many in one statement. The transaction holds their devices. */
import { addRow, emptySummary, type GrowingSummary, isLate, quarterEndS } from "./aggregate.ts";
import { asArrays, type Connection, columnsOf, insertRows, run, unnest } from "./postgres-connection.ts";
import { packSummary, packValues, unpackSummary } from "./row-packing.ts";
import type { CountedRow } from "./store.ts";
import type { Partitions } from "./store-postgres-partitions.ts";

/** A row and the record that it comes from. */
export interface RowAt {
  readonly device: number;
  readonly epoch: number;
  readonly sequence: number;
  readonly row: CountedRow;
}

interface Slot {
  /** Device, meter, generation, end of the quarter hour in Unix seconds. */
  readonly key: readonly [number, number, number, number];
  summary: GrowingSummary;
  revision: number;
  before: Uint8Array | undefined;
}

const rowColumns = columnsOf(
  "device int, meter int, generation bigint, time_s bigint, slot_s bigint, status smallint, booked smallint, epoch bigint, sequence bigint, content bytea",
);
const slotKeyColumns = columnsOf("device int, meter int, generation bigint, end_s bigint");
const slotColumns = columnsOf("device int, meter int, generation bigint, end_s bigint, revision int, summary bytea");
const correctionColumns = columnsOf(
  "device int, meter int, generation bigint, end_s bigint, revision int, at_ms bigint, before bytea, after bytea",
);

/**
 * @param nowMs Unix milliseconds; undefined: no change of a quarter hour counts as late
 * @param inUse whether this transaction has counted rows before
 */
export async function countRowsInto(
  connection: Connection,
  partitions: Partitions,
  rows: readonly RowAt[],
  nowMs: number | undefined,
  inUse: boolean,
): Promise<void> {
  if (rows.length === 0) return;
  const timesS = rows.flatMap(({ row }) => (row.booked ? [row.timeS, quarterEndS(row.timeS)] : [row.timeS]));
  await partitions.prepare(timesS, inUse);
  const byKey = onePerKey(rows);
  const written = await insertRows(
    connection,
    "rows",
    rowColumns,
    [...byKey.values()].map(({ device, epoch, sequence, row }) => [
      ...[device, row.meter, row.generation, row.timeS, row.slotS, row.status, row.booked ? 1 : 0, epoch, sequence],
      packValues(row.values),
    ]),
    `ON CONFLICT (device, meter, generation, time_s) DO UPDATE SET slot_s = excluded.slot_s, status = excluded.status,
       booked = excluded.booked, epoch = excluded.epoch, sequence = excluded.sequence, content = excluded.content
     WHERE (length(rows.content) = 0 AND length(excluded.content) > 0) OR (rows.booked = 0 AND excluded.booked = 1)
     RETURNING device, meter, generation, time_s, booked`,
  );
  // A booked row is never written over, so what was written and is booked is booked now for the first time.
  const booked = written.flatMap(({ device, meter, generation, time_s, booked: isBooked }) => {
    const one = byKey.get(`${device}/${meter}/${generation}/${time_s}`);
    return one && isBooked === 1 ? [one] : [];
  });
  await addToSlots(connection, booked, nowMs);
}

/** One statement may touch a key once, so what one batch has of a key is decided here, by the rule of StoreTransaction.countRows. */
function onePerKey(rows: readonly RowAt[]): Map<string, RowAt> {
  const byKey = new Map<string, RowAt>();
  for (const one of rows) {
    const { device, row } = one;
    const key = `${device}/${row.meter}/${row.generation}/${row.timeS}`;
    const before = byKey.get(key);
    if (before === undefined || displaces(row, before.row)) byKey.set(key, one);
  }
  return byKey;
}

function displaces(row: CountedRow, before: CountedRow): boolean {
  return (before.values.length === 0 && row.values.length > 0) || (!before.booked && row.booked);
}

async function addToSlots(connection: Connection, booked: readonly RowAt[], nowMs: number | undefined): Promise<void> {
  if (booked.length === 0) return;
  const slots = new Map<string, Slot>();
  for (const { device, row } of booked) {
    const key = [device, row.meter, row.generation, quarterEndS(row.timeS)] as const;
    if (!slots.has(key.join("/")))
      slots.set(key.join("/"), { key, summary: emptySummary(), revision: 0, before: undefined });
  }
  const keys = [...slots.values()].map(({ key }) => key);
  const stored = await run(
    connection,
    `SELECT s.* FROM ${unnest(slotKeyColumns)} JOIN slots s USING (device, meter, generation, end_s)`,
    asArrays(slotKeyColumns, keys),
  );
  for (const { device, meter, generation, end_s, revision, summary } of stored) {
    const slot = slots.get([device, meter, generation, end_s].join("/"));
    if (slot === undefined) continue;
    slot.before = summary as Uint8Array;
    slot.summary = unpackSummary(slot.before, end_s as number);
    slot.revision = revision as number;
  }
  for (const { device, row } of booked) {
    const key = [device, row.meter, row.generation, quarterEndS(row.timeS)];
    addRow((slots.get(key.join("/")) as Slot).summary, row.timeS, row.values);
  }
  const corrections: unknown[][] = [];
  const changed = [...slots.values()].map((slot) => {
    const { key, summary, before } = slot;
    const after = packSummary(summary, key[3]);
    if (nowMs !== undefined && isLate(key[3], nowMs)) {
      slot.revision++;
      if (before) corrections.push([...key, slot.revision, nowMs, before, after]);
    }
    return [...key, slot.revision, after];
  });
  await insertRows(
    connection,
    "slots",
    slotColumns,
    changed,
    "ON CONFLICT (device, meter, generation, end_s) DO UPDATE SET revision = excluded.revision, summary = excluded.summary",
  );
  await insertRows(connection, "corrections", correctionColumns, corrections);
}

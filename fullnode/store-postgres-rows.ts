/** Rows as they count, many in one statement. */
import { type Connection, columnsOf, insertRows } from "./postgres-connection.ts";
import type { CountedRow } from "./store.ts";
import type { Partitions } from "./store-postgres-partitions.ts";

/** A row and the record that it comes from. */
export interface RowAt {
  readonly device: number;
  readonly epoch: number;
  readonly sequence: number;
  readonly row: CountedRow;
}

const columns = columnsOf(
  "device int, meter int, generation bigint, time_s bigint, slot_s bigint, status smallint, booked smallint, epoch bigint, sequence bigint, content text",
);

/** Whether a row takes the place of the one that its counting key has: see StoreTransaction.countRows. */
function displaces(row: CountedRow, before: CountedRow): boolean {
  return (before.values.length === 0 && row.values.length > 0) || (!before.booked && row.booked);
}

export async function countRowsInto(
  connection: Connection,
  partitions: Partitions,
  rows: readonly RowAt[],
): Promise<void> {
  if (rows.length === 0) return;
  partitions.check(rows.map(({ row }) => row.timeS));
  // One statement may touch a key once, so what one batch has of a key is decided here by the same rule.
  const byKey = new Map<string, RowAt>();
  for (const one of rows) {
    const { device, row } = one;
    const key = `${device}/${row.meter}/${row.generation}/${row.timeS}`;
    const before = byKey.get(key);
    if (before === undefined || displaces(row, before.row)) byKey.set(key, one);
  }
  await insertRows(
    connection,
    "rows",
    columns,
    [...byKey.values()].map(({ device, epoch, sequence, row }) => [
      ...[device, row.meter, row.generation, row.timeS, row.slotS, row.status, row.booked ? 1 : 0, epoch, sequence],
      JSON.stringify(row.values),
    ]),
    `ON CONFLICT (device, meter, generation, time_s) DO UPDATE SET slot_s = excluded.slot_s, status = excluded.status,
       booked = excluded.booked, epoch = excluded.epoch, sequence = excluded.sequence, content = excluded.content
     WHERE (rows.content = '[]' AND excluded.content <> '[]') OR (rows.booked = 0 AND excluded.booked = 1)`,
  );
}

/** How rows become records: runs of slots that follow each other, pieces that fit into a record, batches of pending rows. Pure. */
import { type ReadingContent, type Row, recordBytesMax, rowsMax } from "../protocol/record.ts";
import type { PendingRow } from "./journal-body.ts";

/** Bytes of rows in one record, so that with all the rest it stays below its limit. */
const recordRowsBytesMax = recordBytesMax - 1_024;

/** A record of rows to be sealed, without its place in the chain. */
export type NewReading = Pick<
  ReadingContent,
  "kind" | "meter" | "plan" | "slotS" | "codes" | "clockState" | "generation" | "rows"
>;

/** The records that end the batches of these pending rows. */
export function batchesOf(pendingRows: readonly PendingRow[]): NewReading[] {
  const batches: (PendingRow & { rows: Row[] })[] = [];
  for (const pending of pendingRows) {
    const open = batches.find(
      (batch) =>
        batch.meter === pending.meter &&
        batch.plan === pending.plan &&
        batch.slotS === pending.slotS &&
        batch.generation === pending.generation &&
        batch.clockState === pending.clockState &&
        equal(batch.codes, pending.codes) &&
        (batch.rows.at(-1) as Row).timeS + pending.slotS === pending.row.timeS,
    );
    if (open) open.rows.push(pending.row);
    else batches.push({ ...pending, rows: [pending.row] });
  }
  return batches.flatMap(({ meter, plan, slotS, codes, clockState, generation, rows }) =>
    inRecords(rows, codes.length, rowsMax).map((part) => ({
      kind: "reading" as const,
      ...{ meter, plan, slotS, codes, clockState, generation },
      rows: part,
    })),
  );
}

/** Rows in pieces that a record can hold: at most so many, and at most so many bytes. */
export function inRecords(rows: readonly Row[], codes: number, most: number): Row[][] {
  const pieces: Row[][] = [];
  let last: readonly number[] = [];
  let bytes = 0;
  for (const row of rows) {
    const piece = pieces.at(-1);
    const size = rowBytes(row, last, codes);
    if (piece && piece.length < most && bytes + size <= recordRowsBytesMax) {
      piece.push(row);
      bytes += size;
    } else {
      pieces.push([row]);
      bytes = rowBytes(row, [], codes);
      last = [];
    }
    if (row.values.length > 0) last = row.values;
  }
  return pieces;
}

/** Bytes of a row behind another one, with its status (at most 4: its index and the status). */
function rowBytes(row: Row, last: readonly number[], codes: number): number {
  if (row.values.length === 0) return codes + 4;
  return row.values.reduce((sum, value, index) => sum + integerBytes(value - (last[index] ?? 0)), 4);
}

/** Length of an integer in CBOR (RFC 8949 §3). */
function integerBytes(value: number): number {
  const argument = value < 0 ? -1 - value : value;
  return argument < 24 ? 1 : argument < 0x100 ? 2 : argument < 0x1_0000 ? 3 : argument <= 0xffff_ffff ? 5 : 9;
}

/** Rows in runs whose times follow each other by the slot. */
export function contiguous(rows: readonly Row[], slotS: number): Row[][] {
  const runs: Row[][] = [];
  for (const row of rows) {
    const run = runs.at(-1);
    if (run && (run.at(-1) as Row).timeS + slotS === row.timeS) run.push(row);
    else runs.push([row]);
  }
  return runs;
}

export function equal(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((value, index) => value === b[index]);
}

/**
 * Quarter hours out of booked rows, without a store. A row belongs to the quarter hour that its time ends: (start, end], so that
 * a register read at 12:00:00 is the stand at the end of the quarter hour before. Merging is commutative: rows may come in any
 * order and in any batches, each once.
 */
import { quantityOfCode } from "../protocol/quantity.ts";

export const quarterS = 900;
/** A change of a quarter hour that comes later than this after its end is a correction. */
export const correctionAfterS = 3_600;
/**
 * Beyond ± this a value counts as this in sums, so that those of 900 rows stay exact integers. No meter measures 4 TW.
 */
const summandMax = 2 ** 42 - 1;

/** What the booked rows of a quarter hour say of one quantity. Values are integers of the quantity's unit, times Unix seconds. */
export interface CodeSummary {
  readonly code: number;
  /** Rows with this quantity. */
  readonly count: number;
  readonly firstTimeS: number;
  readonly first: number;
  readonly lastTimeS: number;
  readonly last: number;
  readonly min: number;
  readonly max: number;
  /** 0 for registers, whose sum means nothing. */
  readonly sum: number;
}

export interface SlotSummary {
  readonly rows: number;
  /** Ascending by code. */
  readonly codes: readonly CodeSummary[];
}

type Growing<T> = { -readonly [K in keyof T]: T[K] };

/** A summary that rows are added to. */
export interface GrowingSummary extends SlotSummary {
  rows: number;
  readonly codes: Growing<CodeSummary>[];
}

/** End of the quarter hour that a time belongs to, in Unix seconds. */
export function quarterEndS(timeS: number): number {
  return Math.ceil(timeS / quarterS) * quarterS;
}

export function emptySummary(): GrowingSummary {
  return { rows: 0, codes: [] };
}

/** Adds one row: codes and values in turn, codes ascending, as {@link CountedRow.values}. */
export function addRow(summary: GrowingSummary, timeS: number, values: readonly number[]): void {
  summary.rows++;
  const { codes } = summary;
  let place = 0;
  for (let i = 0; i + 1 < values.length; i += 2) {
    const code = values[i] as number;
    const value = values[i + 1] as number;
    while (place < codes.length && (codes[place] as CodeSummary).code < code) place++;
    const entry = codes[place];
    if (entry?.code === code) addValue(entry, timeS, value);
    else codes.splice(place, 0, summaryOf(code, timeS, value));
  }
}

function summaryOf(code: number, timeS: number, value: number): Growing<CodeSummary> {
  const at = { firstTimeS: timeS, first: value, lastTimeS: timeS, last: value };
  return { code, count: 1, ...at, min: value, max: value, sum: summand(code, value) };
}

function addValue(entry: Growing<CodeSummary>, timeS: number, value: number): void {
  entry.count++;
  if (timeS < entry.firstTimeS) {
    entry.firstTimeS = timeS;
    entry.first = value;
  }
  if (timeS > entry.lastTimeS) {
    entry.lastTimeS = timeS;
    entry.last = value;
  }
  if (value < entry.min) entry.min = value;
  if (value > entry.max) entry.max = value;
  entry.sum += summand(entry.code, value);
}

function summand(code: number, value: number): number {
  if (quantityOfCode(code)?.cumulative) return 0;
  return Math.max(-summandMax, Math.min(summandMax, value));
}

/** Adds what another summary has; the two must not have a row in common. */
export function addSummary(to: GrowingSummary, from: SlotSummary): void {
  to.rows += from.rows;
  for (const added of from.codes) {
    const place = to.codes.findIndex(({ code }) => code >= added.code);
    const entry = to.codes[place];
    if (entry?.code !== added.code) to.codes.splice(place < 0 ? to.codes.length : place, 0, { ...added });
    else {
      entry.count += added.count;
      if (added.firstTimeS < entry.firstTimeS) {
        entry.firstTimeS = added.firstTimeS;
        entry.first = added.first;
      }
      if (added.lastTimeS > entry.lastTimeS) {
        entry.lastTimeS = added.lastTimeS;
        entry.last = added.last;
      }
      entry.min = Math.min(entry.min, added.min);
      entry.max = Math.max(entry.max, added.max);
      entry.sum += added.sum;
    }
  }
}

/** Whether a change of a quarter hour at this time is told of as a correction. */
export function isLate(endS: number, nowMs: number): boolean {
  return nowMs > (endS + correctionAfterS) * 1_000;
}

/** Quarter hours computed from all rows of a store by the plainest means, to compare with what the store keeps. */
import assert from "node:assert/strict";
import type { CodeSummary } from "../../fullnode/aggregate.ts";
import type { Store } from "../../fullnode/store.ts";
import type { StoredRow } from "../../fullnode/store-reading.ts";
import { quantityOfCode } from "../../protocol/quantity.ts";

const all = 1_000_000;

/** Fails unless the quarter hours of a device are those of its booked rows. Returns how many rows they hold. */
export async function checkSlots(store: Store, device: number): Promise<number> {
  const rows = await store.rowsAfter(device, undefined, all);
  const kept = [];
  for (const series of await store.series(device))
    for (const { revision: _, ...slot } of await store.slots(device, series, -1, 2 ** 33, all)) kept.push(slot);
  assert.deepEqual(kept, slotsOf(rows));
  return kept.reduce((sum, { summary }) => sum + summary.rows, 0);
}

function slotsOf(rows: readonly StoredRow[]) {
  const byKey = new Map<string, StoredRow[]>();
  for (const row of rows.filter(({ booked }) => booked)) {
    // (start, end]: a row of 12:00:00 is of the quarter hour that ends then.
    let endS = Math.floor(row.timeS / 900) * 900;
    if (endS < row.timeS) endS += 900;
    const key = JSON.stringify([row.meter, row.generation, endS]);
    byKey.set(key, [...(byKey.get(key) ?? []), row]);
  }
  return [...byKey]
    .map(([key, members]) => {
      const [meter, generation, endS] = JSON.parse(key) as [number, number, number];
      return { meter, generation, endS, summary: { rows: members.length, codes: codesOf(members) } };
    })
    .sort((a, b) => a.meter - b.meter || a.generation - b.generation || a.endS - b.endS);
}

function codesOf(rows: readonly StoredRow[]): CodeSummary[] {
  const byCode = new Map<number, { timeS: number; value: number }[]>();
  for (const { timeS, values } of rows)
    for (let i = 0; i < values.length; i += 2) {
      const code = values[i] as number;
      byCode.set(code, [...(byCode.get(code) ?? []), { timeS, value: values[i + 1] as number }]);
    }
  return [...byCode]
    .sort(([a], [b]) => a - b)
    .map(([code, points]) => {
      points.sort((a, b) => a.timeS - b.timeS);
      const values = points.map(({ value }) => value);
      const most = 2 ** 42 - 1;
      const sum = values.reduce((total, value) => total + Math.max(-most, Math.min(most, value)), 0);
      const [first, last] = [points[0], points.at(-1)] as { timeS: number; value: number }[];
      assert.ok(first && last);
      return {
        code,
        count: points.length,
        firstTimeS: first.timeS,
        first: first.value,
        lastTimeS: last.timeS,
        last: last.value,
        min: Math.min(...values),
        max: Math.max(...values),
        sum: quantityOfCode(code)?.cumulative ? 0 : sum,
      };
    });
}

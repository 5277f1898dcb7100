import assert from "node:assert/strict";
import { test } from "node:test";
import { LoraRepeats, repeatDelaysFor } from "../../agent/lora-repeats.ts";

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;

/** Minutes after each try at which the record is due again. */
function dueMinutes(receiptsH: number | undefined, random: number, tries: number): number[] {
  const repeats = new LoraRepeats(repeatDelaysFor(receiptsH), () => random);
  return Array.from({ length: tries }, () => {
    repeats.sent(1, 7, 0);
    return Math.round((repeats.nextDueMs(0) ?? 0) / minuteMs);
  });
}

test("a full node that gives a receipt in three hours is not asked before they are over, and then as usual", () => {
  assert.deepEqual(dueMinutes(3, 0, 3), [195, 4, 11]);
  assert.deepEqual(dueMinutes(3, 0.5, 3), [260, 5, 15]);
  for (let hours = 1; hours <= 24; hours++)
    for (const random of [0, 0.5, 0.999])
      assert.ok((dueMinutes(hours, random, 1)[0] ?? 0) > 60 * hours, `${hours} h, ${random}`);
  // What would go out twice for nothing.
  assert.deepEqual(dueMinutes(undefined, 0.5, 2), [5, 15]);
});

test("what a receipt shows missing goes at once all the same", () => {
  const repeats = new LoraRepeats(repeatDelaysFor(3), () => 0.5);
  repeats.sent(1, 7, 0);
  assert.equal(repeats.isWaiting(1, 7, hourMs), true);
  repeats.missing(1, 7);
  assert.equal(repeats.isWaiting(1, 7, hourMs), false);
});

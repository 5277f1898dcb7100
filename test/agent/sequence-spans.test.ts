import assert from "node:assert/strict";
import { test } from "node:test";
import { SequenceSpans } from "../../agent/sequence-spans.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";

test("runs merge where they touch, overlap or are bridged", () => {
  const spans = new SequenceSpans();
  spans.add(10, 20);
  spans.add(30, 40);
  assert.equal(spans.endOf(15), 20);
  assert.equal(spans.endOf(21), undefined);
  assert.equal(spans.startFrom(21), 30);
  assert.equal(spans.startFrom(35), 35);
  assert.equal(spans.startFrom(41), Number.POSITIVE_INFINITY);
  spans.add(21, 29);
  assert.equal(spans.endOf(10), 40);
  assert.equal(spans.size, 31);
  spans.dropThrough(25);
  assert.equal(spans.size, 15);
  assert.equal(spans.endOf(25), undefined);
  assert.equal(spans.endOf(26), 40);
});

test("it is what a set of numbers would be, whatever is added and dropped", () => {
  const random = randomOfRun();
  for (let run = 0; run < 100; run++) {
    const spans = new SequenceSpans();
    const set = new Set<number>();
    for (let step = 0; step < 60; step++) {
      if (random.chance(15)) {
        const through = random.integer(0, 120);
        spans.dropThrough(through);
        for (const item of set) if (item <= through) set.delete(item);
      } else {
        const first = random.integer(1, 200);
        const last = first + random.integer(0, 12);
        spans.add(first, last);
        for (let item = first; item <= last; item++) set.add(item);
      }
      assert.equal(spans.size, set.size, `seed ${random.seed}`);
      for (let item = 1; item <= 215; item++) {
        assert.equal(spans.endOf(item) !== undefined, set.has(item), `seed ${random.seed}: ${item}`);
        const start = spans.startFrom(item);
        assert.equal(start, Math.min(...[...set].filter((other) => other >= item)), `seed ${random.seed}: ${item}`);
      }
    }
  }
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { type Sample, SampleBuffer } from "../../agent/sample-buffer.ts";
import { statuses } from "../../protocol/reading-status.ts";
import { sealRowsMax } from "../../protocol/wallet-message.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";

const codes = [1, 2];
const startS = 1_800_000_000;

function good(timeS: number): Sample {
  return { codes, row: { timeS, status: statuses.good, values: [timeS, 1] } };
}
function failed(timeS: number): Sample {
  return { codes, row: { timeS, status: statuses.timeout, values: [] } };
}
function filled(slotS: number, times: readonly number[]): SampleBuffer {
  const buffer = new SampleBuffer(slotS);
  for (const timeS of times) buffer.push(good(timeS));
  return buffer;
}
const times = (samples: readonly Sample[]): number[] => samples.map(({ row }) => row.timeS - startS);

test("seal_every_s 0: every row is due at once", () => {
  assert.equal(new SampleBuffer(1).isDue(0), false);
  assert.equal(filled(1, [startS + 1]).isDue(0), true);
});

test("rows of a window are due when it closes, on the clock's own multiple", () => {
  const buffer = filled(10, [startS + 10, startS + 20, startS + 30, startS + 40, startS + 50]);
  assert.equal(buffer.isDue(60), false);
  buffer.push(good(startS + 60));
  assert.equal(buffer.isDue(60), true);
});

test("rows of a window are due when another one has begun", () => {
  const buffer = filled(10, [startS + 50]);
  assert.equal(buffer.isDue(60), false);
  buffer.push(failed(startS + 70));
  assert.equal(buffer.isDue(60), true);
});

test("rows of slots of a minute and more are due at once: they wait in the journal, not in memory", () => {
  assert.equal(filled(60, [startS + 60]).isDue(3_600), true);
  assert.equal(filled(900, [startS + 900]).isDue(86_400), true);
});

test("no sample of a short slot stays in memory for more than a minute, however long the window", () => {
  const buffer = filled(10, [startS + 10, startS + 20, startS + 30, startS + 40, startS + 50]);
  assert.equal(buffer.isDue(86_400), false);
  buffer.push(good(startS + 60));
  assert.equal(buffer.isDue(86_400), true);
});

test("one request takes rows whose times follow each other and whose codes are the same", () => {
  const buffer = filled(1, [startS + 1, startS + 2, startS + 4, startS + 5]);
  assert.deepEqual(times(buffer.head()), [1, 2]);
  buffer.drop(buffer.head());
  assert.deepEqual(times(buffer.head()), [4, 5]);
  buffer.push({ codes: [1], row: { timeS: startS + 6, status: statuses.good, values: [1] } });
  assert.deepEqual(times(buffer.head()), [4, 5]);
});

test("after a step back of the clock the rows before and behind it go in requests of their own", () => {
  const buffer = filled(1, [startS + 100, startS + 101, startS + 5, startS + 6]);
  assert.equal(buffer.isDue(60), true);
  assert.deepEqual(times(buffer.head()), [100, 101]);
});

test("dropping names samples, not places: what came meanwhile stays", () => {
  const buffer = filled(1, [startS + 1, startS + 2]);
  const head = buffer.head();
  buffer.push(good(startS + 3));
  buffer.drop(head);
  assert.deepEqual(times(buffer.head()), [3]);
});

test("a full buffer gives its oldest rows for one row N in their place, and counts them", () => {
  const buffer = filled(
    1,
    Array.from({ length: sealRowsMax }, (_, i) => startS + 1 + i),
  );
  assert.equal(buffer.push(good(startS + 61)), 2);
  assert.equal(buffer.push(good(startS + 62)), 1);
  assert.equal(buffer.length, sealRowsMax);
  const head = buffer.head();
  assert.deepEqual(head[0]?.row, { timeS: startS + 3, status: statuses.notPresent, values: [] });
  assert.deepEqual(
    times(head),
    Array.from({ length: sealRowsMax }, (_, i) => 3 + i),
  );
});

test("rows that only said N are no loss when they go", () => {
  const buffer = new SampleBuffer(1);
  for (let i = 1; i <= sealRowsMax; i++)
    buffer.push({ codes, row: { timeS: startS + i, status: statuses.notPresent, values: [] } });
  assert.equal(buffer.push(good(startS + 61)), 0);
});

test("whatever comes and goes: bounded, in order, and every row is sealed, kept or counted as lost", () => {
  const random = randomOfRun();
  const buffer = new SampleBuffer(1);
  let [pushed, lost, dropped] = [0, 0, 0];
  for (let i = 1; i <= 5_000; i++) {
    lost += buffer.push(good(startS + i));
    pushed++;
    if (random.chance(2)) {
      const head = buffer.head().slice(0, random.integer(1, sealRowsMax));
      dropped += head.filter(({ row }) => row.status === statuses.good).length;
      buffer.drop(head);
    }
    assert.ok(buffer.length <= sealRowsMax);
  }
  const kept: Sample[] = [];
  while (buffer.length > 0) {
    kept.push(...buffer.head());
    buffer.drop(buffer.head());
  }
  assert.deepEqual(
    times(kept),
    times(kept).toSorted((a, b) => a - b),
    `seed ${random.seed}`,
  );
  const keptGood = kept.filter(({ row }) => row.status === statuses.good).length;
  assert.equal(dropped + lost + keptGood, pushed, `seed ${random.seed}`);
});

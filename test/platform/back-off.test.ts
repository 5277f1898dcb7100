import assert from "node:assert/strict";
import { test } from "node:test";
import { BackOff } from "../../platform/back-off.ts";

test("delays double from the first to the longest", () => {
  const backOff = new BackOff({ firstMs: 100, longestMs: 1_000, jitter: 0 });
  assert.deepEqual(
    Array.from({ length: 6 }, () => backOff.next()),
    [100, 200, 400, 800, 1_000, 1_000],
  );
});

test("after a reset the first delay comes again", () => {
  const backOff = new BackOff({ firstMs: 100, longestMs: 1_000, jitter: 0 });
  backOff.next();
  backOff.next();
  assert.equal(backOff.failures, 2);
  backOff.reset();
  assert.equal(backOff.failures, 0);
  assert.equal(backOff.next(), 100);
});

test("jitter takes away at most its share, and never adds", () => {
  const delays = (value: number): number[] => {
    const backOff = new BackOff({ firstMs: 100, longestMs: 400, jitter: 0.5, random: () => value });
    return [backOff.next(), backOff.next(), backOff.next()];
  };
  assert.deepEqual(delays(0), [50, 100, 200]);
  assert.deepEqual(delays(1), [100, 200, 400]);
});

test("two hubs with the same history do not wait equally long", () => {
  const delays = new Set(Array.from({ length: 50 }, () => new BackOff({ firstMs: 60_000, longestMs: 60_000 }).next()));
  assert.ok(delays.size > 40, `${delays.size} different delays of 50`);
});

test("a thousand failures overflow nothing", () => {
  const backOff = new BackOff({ firstMs: 100, longestMs: 60_000, jitter: 0 });
  for (let i = 0; i < 1_000; i++) backOff.next();
  assert.equal(backOff.next(), 60_000);
});

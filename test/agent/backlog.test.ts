import assert from "node:assert/strict";
import { test } from "node:test";
import { BacklogPace, RowsOfRecord } from "../../agent/backlog.ts";

/** Notes a count each second, as the function of the second says. */
function watched(seconds: number, count: (second: number) => number): number | undefined {
  const pace = new BacklogPace();
  for (let second = 0; second <= seconds; second++) pace.note(second * 1_000, count(second));
  return pace.remainingS(seconds * 1_000, count(seconds));
}

test("a backlog that shrinks steadily ends when it says", () => {
  assert.equal(
    watched(60, (second) => 10_000 - 100 * second),
    40,
  );
});

test("one that grows, stands still, or was hardly watched says nothing; none takes no time", () => {
  assert.equal(
    watched(60, (second) => 100 + second),
    undefined,
  );
  assert.equal(
    watched(60, () => 100),
    undefined,
  );
  assert.equal(
    watched(3, (second) => 10_000 - 100 * second),
    undefined,
  );
  assert.equal(
    watched(3, () => 0),
    0,
  );
});

test("a backlog that grew while the broker was away counts from its peak on", () => {
  const remainingS = watched(90, (second) => (second < 60 ? second * 10 : 600 - (second - 60) * 10));
  assert.ok(remainingS !== undefined && Math.abs(remainingS - 30) <= 2, `${remainingS}`);
});

test("readings in a record: as configured at first, then as they are sealed", () => {
  const rows = new RowsOfRecord(60, [1, 900]);
  assert.equal(rows.mean, 60);
  for (let i = 0; i < 200; i++) rows.note(30);
  assert.ok(Math.abs(rows.mean - 30) < 0.1);
  assert.equal(new RowsOfRecord(0, [1]).mean, 1);
  assert.equal(new RowsOfRecord(60, []).mean, 1);
});

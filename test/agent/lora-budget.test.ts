import assert from "node:assert/strict";
import { test } from "node:test";
import { LoraBudget } from "../../agent/lora-budget.ts";
import { costAfter, costBefore, dutyCycleOf, joinCost, reserveFor } from "../../agent/lora-frame-cost.ts";
import { regionNames } from "../../drivers/lora/region.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const law = { dutyCycle: 0.01 };

function cost(ms: number): { airtimeMs: number; boundMs: number } {
  return { airtimeMs: ms, boundMs: ms };
}

test("36 s of an hour go, then it says when the first of it is an hour old", () => {
  const budget = new LoraBudget(law);
  for (let i = 0; i < 12; i++) {
    assert.equal(budget.waitFor(cost(3_000), i * 10_000), undefined);
    budget.reserve(cost(3_000));
    budget.settle(cost(3_000), i * 10_000 + 3_000);
  }
  assert.deepEqual(budget.waitFor(cost(1), 120_000), { limit: "duty-cycle", waitMs: hourMs + 3_000 - 120_000 });
  assert.equal(budget.waitFor(cost(3_000), hourMs + 3_000), undefined);
  assert.deepEqual(budget.waitFor(cost(3_001), hourMs + 3_000), { limit: "duty-cycle", waitMs: 10_000 });
});

test("fair use counts 24 hours, and the longer wait of the two is told", () => {
  const budget = new LoraBudget({ ...law, fairUseMs: 30_000 });
  budget.reserve(cost(29_000));
  budget.settle(cost(29_000), 0);
  assert.deepEqual(budget.waitFor(cost(2_000), 1_000), { limit: "fair-use", waitMs: dayMs - 1_000 });
  assert.equal(budget.waitFor(cost(1_000), 1_000), undefined);
  assert.deepEqual(budget.waitFor(cost(8_000), 1_000), { limit: "fair-use", waitMs: dayMs - 1_000 });
  assert.equal(budget.waitFor(cost(31_000), 2 * dayMs)?.waitMs, Number.POSITIVE_INFINITY);
});

test("repeats stop before the limit, so that what is new still goes", () => {
  const budget = new LoraBudget(law);
  budget.reserve(cost(27_000));
  budget.settle(cost(27_000), 0);
  assert.equal(budget.waitFor(cost(1_000), 1_000, 0.75)?.limit, "duty-cycle");
  assert.equal(budget.waitFor(cost(1_000), 1_000), undefined);
});

test("nothing on the air costs nothing; a region without a duty cycle waits for nothing", () => {
  const budget = new LoraBudget(law);
  budget.reserve(cost(30_000));
  budget.settle(undefined, 0);
  assert.equal(budget.waitFor(cost(36_000), 0), undefined);
  const free = new LoraBudget({});
  free.reserve(cost(90_000));
  free.settle(cost(90_000), 0);
  assert.equal(free.waitFor(cost(90_000), 0), undefined);
  assert.equal(free.dutyCycle(0), undefined);
  assert.equal(free.airtimeMs("hour", 0), 90_000);
});

test("a frame that nobody saw end counts from a minute after the restart", () => {
  const before = new LoraBudget(law);
  before.reserve(cost(35_000));
  const after = LoraBudget.restore(law, before.state(1_000_000), 500, 50);
  assert.equal(after.waitFor(cost(2_000), 50)?.waitMs, hourMs + 60_000);
  const again = LoraBudget.restore(law, after.state(1_050), 500, 50); // and a second restart makes it no older
  assert.equal(again.waitFor(cost(2_000), 50)?.waitMs, hourMs + 60_000 - 1_500);
});

test("frames at random, over restarts: no window of an hour or a day has more than its limit; what is kept is bounded", () => {
  const random = randomOfRun();
  const limits = { ...law, fairUseMs: 120_000 };
  let budget = new LoraBudget(limits);
  const air: { endMs: number; ms: number }[] = [];
  let nowMs = 0;
  let kept = 0;
  while (nowMs < 4 * dayMs) {
    nowMs += random.integer(1, random.chance(20) ? hourMs : 30_000);
    const one = cost(random.integer(40, 2_800));
    if (budget.waitFor(one, nowMs) === undefined) {
      budget.reserve(one);
      nowMs += one.airtimeMs + random.integer(0, 5_000);
      budget.settle(one, nowMs);
      air.push({ endMs: nowMs, ms: one.airtimeMs });
    }
    kept = Math.max(kept, budget.state(nowMs).frames.length);
    if (random.chance(5)) {
      const passedMs = random.integer(0, 600_000);
      // Half of the time nobody knows how long it was.
      budget = LoraBudget.restore(limits, budget.state(nowMs), random.chance(50) ? passedMs : 0, nowMs + passedMs);
      nowMs += passedMs;
    }
  }
  const fullest = (windowMs: number): number =>
    Math.max(
      ...air.map(({ endMs }) =>
        air.reduce((sum, one) => (one.endMs > endMs - windowMs && one.endMs <= endMs ? sum + one.ms : sum), 0),
      ),
    );
  assert.ok(fullest(hourMs) <= 36_000, `seed ${random.seed}: ${fullest(hourMs)}`);
  assert.ok(fullest(dayMs) <= 120_000, `seed ${random.seed}: ${fullest(dayMs)}`);
  assert.ok(fullest(dayMs) > 90_000, "the limit was never near");
  assert.ok(kept <= 1_100, `${kept} frames kept`);
});

test("a full hour of frames without a pause keeps 900 of them at most, and all of their airtime", () => {
  const budget = new LoraBudget({});
  let nowMs = 0;
  for (let i = 0; i < 20_000; i++) {
    budget.reserve(cost(50));
    nowMs += 1_000;
    budget.settle(cost(50), nowMs);
  }
  assert.ok(budget.state(nowMs).frames.length <= 950);
  const hour = budget.airtimeMs("hour", nowMs);
  assert.ok(hour >= 3_600 * 50 && hour <= 3_604 * 50);
  assert.equal(budget.airtimeMs("day", nowMs), 20_000 * 50);
});

test("what a frame costs: known airtime for fair use, MAC commands and a slower data rate beside it for the law", () => {
  const full = costBefore("EU868", 0, 51);
  assert.equal(Math.round(full.airtimeMs * 10), 27_935);
  assert.equal(full.boundMs, full.airtimeMs); // no room for MAC commands, and nothing is slower
  assert.ok(costBefore("EU868", 5, 11).boundMs > costBefore("EU868", 4, 11).airtimeMs);
  assert.equal(costAfter("EU868", 5, 4, 11).airtimeMs, costAfter("EU868", 4, 4, 11).airtimeMs);
  assert.equal(costBefore("EU868", undefined, 11).airtimeMs, costBefore("EU868", 0, 11).airtimeMs);
  assert.equal(costBefore("EU868", 7, 11).airtimeMs, costBefore("EU868", 0, 11).airtimeMs);
  assert.ok(joinCost("EU868").airtimeMs > 1_400 && joinCost("EU868").airtimeMs < 1_500);
  assert.deepEqual(
    regionNames.map((region) => dutyCycleOf(region)),
    [0.01, undefined, undefined, 0.01],
  );
});

test("kept free for a frame: as often as the last one went, within bounds; for an AT_Slave the join request that may go in its place", () => {
  const once = costBefore("EU868", 5, 51);
  assert.deepEqual(reserveFor("rui3", once, "EU868", 1), once);
  assert.equal(reserveFor("rui3", once, "EU868", 2).boundMs, 2 * once.boundMs);
  assert.ok(
    reserveFor("rui3", costBefore("EU868", 0, 51), "EU868", 15).boundMs < 0.75 * 36_000,
    "it may go at some time",
  );
  assert.equal(reserveFor("at-slave", once, "EU868", 1).boundMs, joinCost("EU868").boundMs);
});

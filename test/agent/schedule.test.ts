import assert from "node:assert/strict";
import { test } from "node:test";
import { missedSlotsMax, nextDue, restLongestMs, slotEndFrom, UnitRest, vainTriesMax } from "../../agent/schedule.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";

const noonS = 1_800_000_000 - (1_800_000_000 % 86_400) + 43_200;

test("slots end on the clock's own multiples, and a moment that is one is its own slot's end", () => {
  assert.equal(slotEndFrom(noonS * 1_000, 900), noonS);
  assert.equal(slotEndFrom(noonS * 1_000 + 1, 900), noonS + 900);
  assert.equal(slotEndFrom(noonS * 1_000 - 1, 900), noonS);
});

test("the next slot is due one interval after the last", () => {
  assert.deepEqual(nextDue(noonS, noonS * 1_000 + 5, 60), { timeS: noonS + 60, missed: 0 });
});

test("a slot that ended less than half a slot ago is still read; later it counts as missed", () => {
  assert.deepEqual(nextDue(noonS, (noonS + 60) * 1_000 + 29_000, 60), { timeS: noonS + 60, missed: 0 });
  assert.deepEqual(nextDue(noonS, (noonS + 60) * 1_000 + 31_000, 60), { timeS: noonS + 120, missed: 1 });
});

test("a meter slower than its interval misses slots, and each is counted", () => {
  assert.deepEqual(nextDue(noonS, (noonS + 3) * 1_000 + 200, 1), { timeS: noonS + 3, missed: 2 });
});

test("after a long gap no more missed slots are named than the buffer can hold", () => {
  assert.deepEqual(nextDue(noonS, (noonS + 86_400) * 1_000, 1), { timeS: noonS + 86_400, missed: missedSlotsMax });
});

test("a clock that goes back by up to a slot makes the next slot wait; by more it starts from where it is now", () => {
  assert.deepEqual(nextDue(noonS, (noonS - 59) * 1_000, 60), { timeS: noonS + 60, missed: 0 });
  assert.deepEqual(nextDue(noonS, (noonS - 3_600) * 1_000 + 1, 60), { timeS: noonS - 3_540, missed: 0 });
});

for (const intervalS of [1, 2, 60, 900])
  test(`${intervalS} s: with any pauses, each slot comes once, in order, on its multiple, none is left out`, () => {
    const random = randomOfRun();
    let wallMs = noonS * 1_000 + random.integer(0, 999);
    let lastS = slotEndFrom(wallMs, intervalS) - intervalS;
    for (let i = 0; i < 2_000; i++) {
      const due = nextDue(lastS, wallMs, intervalS);
      const where = `seed ${random.seed}, step ${i}`;
      assert.equal(due.timeS % intervalS, 0, where);
      assert.ok(due.timeS > lastS, where);
      const slots = (due.timeS - lastS) / intervalS;
      assert.equal(due.missed, Math.min(slots - 1, missedSlotsMax), where);
      assert.ok(due.timeS * 1_000 - wallMs <= intervalS * 1_000, `${where}: never waits longer than a slot`);
      wallMs = Math.max(wallMs, due.timeS * 1_000);
      lastS = due.timeS;
      wallMs += random.chance(90) ? random.integer(1, intervalS * 400) : random.integer(1, intervalS * 9_000);
    }
  });

test("under a clock that is set back and forth, a slot repeats only after a step back of more than a slot", () => {
  const random = randomOfRun();
  let wallMs = noonS * 1_000;
  let lastS = noonS - 10;
  for (let i = 0; i < 5_000; i++) {
    const stepMs = random.chance(5) ? random.integer(-40_000, 40_000) : random.integer(1, 9_000);
    wallMs += stepMs;
    const due = nextDue(lastS, wallMs, 10);
    const where = `seed ${random.seed}, step ${i}`;
    assert.equal(due.timeS % 10, 0, where);
    if (due.timeS <= lastS) assert.ok(lastS * 1_000 - wallMs > 10_000, where);
    assert.ok(due.timeS * 1_000 - wallMs <= 30_000, `${where}: never waits longer than three slots`);
    if (due.timeS * 1_000 > wallMs) continue; // not yet: looked at again, the clock may be set meanwhile
    lastS = due.timeS;
  }
});

test("a unit rests after some tries in vain, for longer each time, up to ten seconds", () => {
  const rest = new UnitRest(() => 1);
  for (let i = 1; i < vainTriesMax; i++) {
    rest.vain(0);
    assert.equal(rest.isResting(0), false, `after ${i} tries`);
  }
  const rests: number[] = [];
  for (let nowMs = 0; rests.length < 6; ) {
    rest.vain(nowMs);
    let endMs = nowMs;
    while (rest.isResting(endMs)) endMs += 100;
    rests.push(endMs - nowMs);
    nowMs = endMs;
  }
  assert.deepEqual(rests, [1_000, 2_000, 4_000, 8_000, restLongestMs, restLongestMs]);
});

test("one answer ends the rest, and it takes as many vain tries as before to rest again", () => {
  const rest = new UnitRest(() => 1);
  for (let i = 0; i < 2 * vainTriesMax; i++) rest.vain(0);
  assert.equal(rest.isResting(1), true);
  rest.answered();
  assert.equal(rest.isResting(1), false);
  for (let i = 1; i < vainTriesMax; i++) rest.vain(0);
  assert.equal(rest.isResting(1), false);
  rest.vain(0);
  assert.equal(rest.isResting(999), true);
  assert.equal(rest.isResting(1_000), false);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { AnswerTimes } from "../../drivers/modbus/answer-times.ts";

const profile = { timeoutMs: 500, slowestAnswerMs: 1000 };

test("a unit that has not answered yet gets the profile's time-out and the whole rest after it", () => {
  assert.deepEqual(new AnswerTimes().next(1, profile), { ...profile, usualMs: 500 });
  assert.equal(new AnswerTimes().latencyOf(1), undefined);
});

test("four times the longest of the last answers, not below the floor, not above the slowest answer", () => {
  const times = new AnswerTimes();
  times.answered(1, 5);
  assert.equal(times.next(1, profile).timeoutMs, 100);
  assert.equal(times.next(1, { timeoutMs: 60, slowestAnswerMs: 100 }).timeoutMs, 60, "a profile that knows better");
  times.answered(1, 40);
  assert.equal(times.next(1, profile).timeoutMs, 160);
  times.answered(1, 400);
  assert.equal(times.next(1, profile).timeoutMs, 1000);
  for (let i = 0; i < 32; i++) times.answered(1, 30);
  assert.equal(times.next(1, profile).timeoutMs, 120, "one slow answer is forgotten");
  assert.deepEqual(times.latencyOf(1), { answers: 35, medianMs: 30, maxMs: 30 });
  assert.equal(times.next(2, profile).timeoutMs, 500, "each unit by itself");
});

test("after a silence the time-out is the profile's, until an answer, late or not", () => {
  const times = new AnswerTimes();
  times.answered(1, 10);
  const timeouts = Array.from({ length: 4 }, () => {
    const { timeoutMs } = times.next(1, profile);
    times.wasSilent(1);
    return timeoutMs;
  });
  assert.deepEqual(timeouts, [100, 500, 500, 500]);
  times.answered(1, 20);
  assert.equal(times.next(1, profile).timeoutMs, 100);
});

test("the line rests for the slowest answer after the first silence; a dead unit holds up the others no longer", () => {
  const times = new AnswerTimes();
  times.answered(1, 10);
  assert.equal(times.next(1, profile).slowestAnswerMs, 1000);
  times.wasSilent(1);
  assert.deepEqual(times.next(1, profile), { timeoutMs: 500, slowestAnswerMs: 500, usualMs: 30 });
});

test("nor does one that cannot be understood: what it had to say has come, and its time-out does not grow", () => {
  const times = new AnswerTimes();
  times.answered(1, 10);
  times.wasSpoilt(1);
  assert.deepEqual(times.next(1, profile), { timeoutMs: 100, slowestAnswerMs: 100, usualMs: 30 });
  times.answered(1, 10);
  assert.equal(times.next(1, profile).slowestAnswerMs, 1000);
});

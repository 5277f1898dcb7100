import assert from "node:assert/strict";
import { test } from "node:test";
import { AlarmBoard, type AlarmRule, alarmSubjectsMax, type Observation } from "../../platform/alarm-board.ts";
import { logAlarms } from "../../platform/alarm-log.ts";
import { createLog } from "../../platform/log.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";

type Kind = "hot" | "gone";
const rules: Record<Kind, AlarmRule> = {
  hot: { raiseAt: 0.8, raiseAfterMs: 60_000, clearBelow: 0.7, clearAfterMs: 30_000 },
  gone: { raiseAt: 1, raiseAfterMs: 0, clearBelow: 1, clearAfterMs: 0 },
};
const hot = (level: number, subject = "a"): Observation<Kind> => ({ kind: "hot", subject, level, detail: `${level}` });

test("an alarm is raised once the level has been high for long enough, and taken back once it has been low for long enough", () => {
  const board = new AlarmBoard(rules);
  assert.deepEqual(board.evaluate([hot(0.9)], 0, 1_000), []);
  assert.deepEqual(board.evaluate([hot(0.79)], 30_000, 2_000), [], "it was below in between: the time begins anew");
  assert.deepEqual(board.evaluate([hot(0.9)], 40_000, 3_000), []);
  const raised = board.evaluate([hot(0.95)], 100_000, 4_000);
  assert.deepEqual(raised, [{ state: "raised", alarm: { kind: "hot", subject: "a", detail: "0.95", sinceMs: 4_000 } }]);
  assert.deepEqual(board.evaluate([hot(0.75)], 200_000, 5_000), [], "between the two levels it stands");
  assert.deepEqual(board.evaluate([hot(0.6)], 210_000, 6_000), []);
  assert.deepEqual(board.evaluate([hot(0.72)], 239_000, 7_000), []);
  assert.deepEqual(board.evaluate([hot(0.6)], 240_000, 8_000), []);
  const cleared = board.evaluate([hot(0.6)], 270_000, 9_000);
  assert.deepEqual(
    cleared.map(({ state }) => state),
    ["cleared"],
  );
  assert.deepEqual(board.raised, []);
});

test("what is not named any more is low", () => {
  const board = new AlarmBoard(rules);
  board.evaluate([{ kind: "gone", subject: "x", level: 1, detail: "" }], 0, 1);
  assert.deepEqual(board.counts, { hot: 0, gone: 1 });
  assert.deepEqual(
    board.evaluate([], 1, 2).map(({ state }) => state),
    ["cleared"],
  );
});

test("whatever the levels, an alarm changes at most once in the times of its rule, and never while the level says otherwise", (t) => {
  const seeded = randomOfRun();
  t.diagnostic(`ECP_TEST_SEED=${seeded.seed}`);
  const random = () => seeded.uint32() / 2 ** 32;
  const board = new AlarmBoard(rules);
  let nowMs = 0;
  let changedMs = Number.NEGATIVE_INFINITY;
  let isRaised = false;
  let changes = 0;
  let level = 0;
  for (let i = 0; i < 20_000; i++) {
    nowMs += Math.floor(random() * 10_000);
    if (random() < 0.2) level = random();
    for (const { state } of board.evaluate([hot(level)], nowMs, nowMs)) {
      assert.notEqual(state === "raised", isRaised, "raised and cleared take turns");
      assert.ok(state === "raised" ? level >= 0.8 : level < 0.7);
      assert.ok(nowMs - changedMs >= (state === "raised" ? 60_000 : 30_000));
      isRaised = state === "raised";
      changedMs = nowMs;
      changes++;
    }
    assert.equal(board.raised.length, isRaised ? 1 : 0);
  }
  assert.ok(changes > 20, `only ${changes} changes`);
  // The control: without times and without a distance between the levels it would flap.
  const flapping = new AlarmBoard<"hot">({ hot: { raiseAt: 0.5, raiseAfterMs: 0, clearBelow: 0.5, clearAfterMs: 0 } });
  let flaps = 0;
  for (let i = 0; i < 1_000; i++) flaps += flapping.evaluate([{ ...hot(random()), kind: "hot" }], i, i).length;
  assert.ok(flaps > 300);
});

test("memory is bounded, and the log has few lines however many change at once", () => {
  const board = new AlarmBoard(rules);
  const many = Array.from({ length: alarmSubjectsMax + 5 }, (_, i): Observation<Kind> => {
    return { kind: "gone", subject: `${i}`, level: 1, detail: "" };
  });
  const changes = board.evaluate(many, 0, 0);
  assert.equal(changes.length, alarmSubjectsMax);
  assert.equal(board.unwatched, 5);
  const lines: string[] = [];
  logAlarms(
    createLog("test", (line) => lines.push(line)),
    changes,
  );
  assert.equal(lines.length, 21);
  assert.equal(JSON.parse(lines.at(-1) as string).count, alarmSubjectsMax);
  assert.equal(JSON.parse(lines[0] as string).todo, "docs/operating.md#gone");
});

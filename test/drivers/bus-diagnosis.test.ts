import assert from "node:assert/strict";
import { test } from "node:test";
import { diagnoseLine, type WatchedLine, type WatchedUnit } from "../../drivers/modbus/bus-diagnosis.ts";
import type { UnitCounters } from "../../drivers/modbus/line.ts";

const none: UnitCounters = { requests: 0, ok: 0, timeouts: 0, crcErrors: 0, exceptions: 0, wrongReplies: 0, late: 0 };

/** A unit asked a hundred times, with these faults; the rest was answered. */
function unit(number: number, faults: Partial<UnitCounters>, more: Partial<WatchedUnit> = {}): WatchedUnit {
  const bad = (faults.timeouts ?? 0) + (faults.crcErrors ?? 0) + (faults.wrongReplies ?? 0) + (faults.exceptions ?? 0);
  return {
    unit: number,
    name: `meter-${number}`,
    slowestAnswerMs: 1000,
    busy: { ...none, requests: 100, ok: 100 - bad, ...faults },
    ...more,
  };
}

function seen(units: readonly WatchedUnit[], more: Partial<WatchedLine> = {}): WatchedLine {
  const description = "/dev/ttyUSB0 at 9600 8N1";
  return { kind: "rtu", description, uninvited: { bytes: 0, requests: 0 }, triedSettings: 0, units, ...more };
}

const found = (line: WatchedLine): (string | undefined)[] =>
  diagnoseLine(line).map(({ kind, unit: of }) => (of === undefined ? kind : `${kind} ${of}`));

const calm: UnitCounters = { ...none, requests: 40, ok: 40 };

test("each picture has its diagnosis", () => {
  const deaf = { ok: 0, timeouts: 100 };
  const setting = { baud: 19_200, parity: "even", stopBits: 1 } as const;
  const pictures: readonly [string[], WatchedLine][] = [
    [["healthy"], seen([unit(1, {}), unit(2, {})])],
    [["no-answers"], seen([unit(1, deaf), unit(2, deaf)])],
    [["no-answers"], seen([unit(1, deaf)], { kind: "tcp" })],
    [["wrong-setting"], seen([unit(1, deaf)], { otherSetting: setting, triedSettings: 23 })],
    [["unit-silent 2"], seen([unit(1, {}), unit(2, deaf)])],
    [["disturbed"], seen([unit(1, { crcErrors: 4 }), unit(2, { crcErrors: 9 })])],
    [["disturbed"], seen([unit(1, { crcErrors: 4 })])],
    [["unit-disturbed 2"], seen([unit(1, {}), unit(2, { crcErrors: 9 })])],
    [["unit-disturbed 2"], seen([unit(1, {}), unit(2, { ok: 0, crcErrors: 100 })])],
    [["needs-gap 1"], seen([unit(1, { timeouts: 20 }, { calm }), unit(2, {}, { calm })])],
    [["lost-answers 1"], seen([unit(1, { timeouts: 20 }, { calm: { ...calm, ok: 34, timeouts: 6 } })])],
    [["slow 1"], seen([unit(1, { timeouts: 9, late: 7 }, { latency: { answers: 91, medianMs: 60, maxMs: 1300 } })])],
    [["second-master 1"], seen([unit(1, { wrongReplies: 6 })])],
    [["second-master"], seen([unit(1, {})], { uninvited: { bytes: 16, requests: 2 } })],
    [["second-master"], seen([unit(1, {})], { uninvited: { bytes: 3, requests: 0 } })],
    [["wrong-meter 1"], seen([unit(1, { exceptions: 100 }, { refusal: "exception 2" })])],
    [["port"], seen([unit(1, { requests: 0, ok: 0 })], { failure: "held by screen (pid 7)" })],
    [["port", "unit-silent 2"], seen([unit(1, {}), unit(2, deaf)], { failure: "the device went away" })],
    [["unit-silent 2", "lost-answers 3"], seen([unit(1, {}), unit(2, deaf), unit(3, { timeouts: 5 })])],
  ];
  for (const [expected, line] of pictures) assert.deepEqual(found(line), expected, JSON.stringify(line.units));
});

test("every diagnosis but health says what to do, and each sentence names its unit or its line", () => {
  const line = seen([
    unit(1, { crcErrors: 4, wrongReplies: 5 }),
    unit(2, { ok: 0, timeouts: 100 }),
    unit(3, { timeouts: 5 }),
  ]);
  for (const { kind, sentence, todo, unit: of } of diagnoseLine(line)) {
    assert.ok(todo.length > 10, kind);
    assert.ok(sentence.includes(of === undefined ? line.description : `unit ${of}`), sentence);
  }
});

test("a fault in a thousand requests is health; too few calm requests prove no gap", () => {
  const rare = { ...none, requests: 1000, ok: 999, timeouts: 1 };
  const [diagnosis] = diagnoseLine(seen([unit(1, {}, { busy: rare })]));
  assert.equal(diagnosis?.kind, "healthy");
  assert.match(diagnosis?.sentence ?? "", /1 went wrong and were mended/);
  const few: UnitCounters = { ...none, requests: 4, ok: 4 };
  assert.deepEqual(found(seen([unit(1, { timeouts: 20 }, { calm: few })])), ["lost-answers 1"]);
});

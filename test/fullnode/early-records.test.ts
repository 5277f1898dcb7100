import assert from "node:assert/strict";
import { test } from "node:test";
import { EarlyRecords, earlyRecordsMax } from "../../fullnode/early-records.ts";

test("records are given back by device and epoch, once", () => {
  const early = new EarlyRecords<number>();
  early.keep("a", 1, 10);
  early.keep("a", 2, 20);
  early.keep("b", 1, 30);
  early.keep("a", 1, 11);
  assert.deepEqual(early.take("a", 1), [10, 11]);
  assert.deepEqual(early.take("a", 1), []);
  assert.deepEqual(early.takeAll(), [20, 30]);
  assert.deepEqual(early.takeAll(), []);
});

test("there is a limit: the epoch that has waited longest is forgotten first", () => {
  const early = new EarlyRecords<number>();
  for (let i = 0; i < 3 * earlyRecordsMax; i++) early.keep("a", Math.floor(i / 100), i);
  const left = early.takeAll();
  assert.ok(left.length <= earlyRecordsMax && left.length > earlyRecordsMax - 100, `${left.length}`);
  assert.equal(left.at(-1), 3 * earlyRecordsMax - 1);
});

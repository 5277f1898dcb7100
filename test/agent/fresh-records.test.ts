import assert from "node:assert/strict";
import { test } from "node:test";
import { liveRecordsMax } from "../../agent/forwarder.ts";
import { FreshRecords, type SequencedRecord } from "../../agent/fresh-records.ts";

const records = (from: number, to: number): SequencedRecord[] =>
  Array.from({ length: to - from + 1 }, (_, i) => [from + i, Buffer.from(`record ${from + i}`)]);

test("a range is given once, and only where each record of it is here", () => {
  const fresh = new FreshRecords();
  fresh.keep(records(5, 7));
  assert.equal(fresh.take({ from: 4, to: 6 }), undefined);
  assert.equal(fresh.take({ from: 7, to: 8 }), undefined);
  assert.deepEqual(fresh.take({ from: 5, to: 6 }), records(5, 6), "what could not be given whole was left");
  assert.equal(fresh.take({ from: 5, to: 6 }), undefined);
  assert.deepEqual(fresh.take({ from: 7, to: 7 }), records(7, 7));
});

test("only the newest are kept, and none across an epoch", () => {
  const fresh = new FreshRecords();
  fresh.keep(records(1, 100));
  assert.equal(fresh.take({ from: 100 - liveRecordsMax, to: 100 }), undefined);
  assert.equal(fresh.take({ from: 101 - liveRecordsMax, to: 100 })?.length, liveRecordsMax);
  fresh.keep(records(101, 101));
  fresh.clear();
  assert.equal(fresh.take({ from: 101, to: 101 }), undefined);
});

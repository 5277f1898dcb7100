import assert from "node:assert/strict";
import { test } from "node:test";
import type { AgentEvent } from "../../agent/event.ts";
import { DemoTally } from "../../cli/demo-tally.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";

const reading = (timeS: number, status = "G"): AgentEvent => ({
  ...{ event: "reading", meter: 0, name: "house", timeS, status, offsetMs: 12 },
  values: status === "G" ? { "active-power-import": timeS } : {},
});
const sealed = (sequence: number): AgentEvent => ({ event: "sealed", sequence, meter: 0, rows: 1 });
const acknowledged = (through: number, receiptMs: readonly number[] = []): AgentEvent => ({
  event: "acknowledged",
  through,
  receiptMs,
});

test("what was sealed before this run is not its own", () => {
  const tally = new DemoTally();
  tally.wallet(100, 90);
  tally.begin(100);
  tally.take(sealed(101));
  tally.take(acknowledged(101));
  const { sealed: count, acknowledged: told, missing } = tally.summary();
  assert.deepEqual([count, told, missing], [1, 1, 0]);
});

test("what is left over from an earlier run waits, and is not missing from this one", () => {
  const tally = new DemoTally();
  tally.begin(100);
  tally.take({ event: "resumed", sealed: 101, acknowledged: 80 });
  assert.equal(tally.waiting, 21);
  assert.equal(tally.summary().acknowledged, 0);
  assert.equal(tally.summary().missing, 1);
});

test("an agent that was started again repeats itself: nothing counts twice", () => {
  const tally = new DemoTally();
  tally.begin(0);
  assert.equal(tally.take(sealed(1)), true);
  assert.equal(tally.take(sealed(1)), false);
  tally.take(reading(10));
  tally.take(reading(10));
  tally.take(reading(9));
  const { readings, sealed: count } = tally.summary();
  assert.deepEqual([readings, count], [1, 1]);
});

test("an event that was lost with its agent is made up for by the wallet's word", () => {
  const tally = new DemoTally();
  tally.begin(0);
  tally.take(sealed(1));
  tally.wallet(5, 5);
  const { sealed: count, acknowledged: told, missing } = tally.summary();
  assert.deepEqual([count, told, missing], [5, 5, 0]);
  tally.wallet(4, 4); // a word that comes late takes nothing back
  assert.equal(tally.summary().sealed, 5);
});

test("the last reading of a meter is shown with the record that has it", () => {
  const tally = new DemoTally();
  tally.take(reading(10));
  tally.take(sealed(4));
  tally.take(reading(11, "T"));
  assert.deepEqual(tally.meters.get(0), {
    ...{ name: "house", timeS: 11, status: "T", values: {}, detail: "", sequence: 4 },
  });
});

test("refusals of the wallet and of the node count", () => {
  const tally = new DemoTally();
  tally.take({ event: "refused", by: "wallet", reason: "ring-full", detail: "" });
  tally.nodeRefused(2);
  assert.equal(tally.summary().refused, 3);
});

test("times to receipt: shares of what was told, null before the first", () => {
  const tally = new DemoTally();
  assert.equal(tally.receiptMs(0.5), null);
  tally.take(
    acknowledged(
      100,
      Array.from({ length: 100 }, (_, i) => 100 - i),
    ),
  );
  assert.equal(tally.receiptMs(0.5), 51);
  assert.equal(tally.receiptMs(0.99), 100);
  assert.equal(tally.receiptMs(1), 100);
});

test("model: whatever is lost or repeated of the agent's events, the end tells the wallet's truth", () => {
  const random = randomOfRun();
  for (let run = 0; run < 50; run++) {
    const tally = new DemoTally();
    const before = random.integer(0, 50);
    tally.begin(before);
    let [made, released] = [before, before];
    for (let i = 0; i < 100; i++) {
      made += random.integer(0, 2);
      released = Math.min(made, released + random.integer(0, 2));
      if (made > 0 && random.chance(60)) tally.take(sealed(random.integer(Math.max(1, made - 3), made)));
      if (random.chance(60)) tally.take(acknowledged(random.integer(Math.max(0, released - 3), released)));
      if (random.chance(10)) tally.take({ event: "resumed", sealed: made, acknowledged: released });
      assert.ok(tally.sealed <= Math.max(made - before, 0) && tally.acknowledged <= released - before);
    }
    tally.wallet(made, released);
    const summary = tally.summary();
    assert.deepEqual(
      [summary.sealed, summary.acknowledged, summary.missing],
      [made - before, released - before, made - released],
      `seed ${random.seed}`,
    );
  }
});

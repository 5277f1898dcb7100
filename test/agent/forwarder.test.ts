import assert from "node:assert/strict";
import { test } from "node:test";
import { Forwarder, liveRecordsMax } from "../../agent/forwarder.ts";
import { type Lane, SendWindow } from "../../agent/send-window.ts";

const epoch = 7;
const recordBytes = 250;
/** First patience without jitter's luck: random() = 1 gives the whole delay. */
const patienceMs = 4_000;
/** Records that go before the first receipt: 16 KiB of them, with what each costs beside. */
const firstRecords = Math.floor(16_384 / (256 + 128));

function begun(through: number, highest: number, window = new SendWindow(524_288)): Forwarder {
  const forwarder = new Forwarder(window, () => 1);
  forwarder.begin(epoch, through, highest);
  return forwarder;
}

const sequencesOf = ({ from, to }: { from: number; to: number }): number[] =>
  Array.from({ length: to - from + 1 }, (_, i) => from + i);

/** Publishes all that may go now; returns what went, in this order. It leaves the hub at once. */
function sendAll(forwarder: Forwarder, nowMs = 0, lanes: readonly Lane[] = ["live", "backlog"]): number[] {
  const sent: number[] = [];
  for (const lane of lanes)
    for (let range = forwarder.next(lane); range; range = forwarder.next(lane)) {
      const sequences = sequencesOf(range);
      forwarder.published(
        range,
        sequences.map((sequence) => [sequence, recordBytes]),
        true,
        nowMs,
      );
      for (const sequence of sequences) forwarder.left(sequence, nowMs);
      sent.push(...sequences);
    }
  return sent;
}

const numbers = (from: number, to: number): number[] => sequencesOf({ from, to });

test("sends what is sealed and not released, once", () => {
  const forwarder = begun(3, 6);
  assert.deepEqual(sendAll(forwarder), [4, 5, 6]);
  assert.deepEqual(sendAll(forwarder), []);
  forwarder.sealed(7, 0);
  assert.deepEqual(sendAll(forwarder), [7]);
  assert.equal(forwarder.waiting, 4);
});

test("the newest go at once though a backlog waits; the backlog follows from its oldest on", () => {
  const forwarder = begun(0, 10_000);
  const sent = sendAll(forwarder);
  assert.deepEqual(sent.slice(0, liveRecordsMax), numbers(10_000 - liveRecordsMax + 1, 10_000));
  assert.equal(sent[liveRecordsMax], 1);
  forwarder.sealed(10_001, 0);
  assert.deepEqual(sendAll(forwarder), [10_001], "though the window is full");
});

test("the window begins small and grows by what receipts name, up to its memory; live records have a reserve", () => {
  const window = new SendWindow(131_072);
  const forwarder = begun(0, 100_000, window);
  let sent = sendAll(forwarder, 0, ["backlog"]).length;
  assert.ok(Math.abs(sent - firstRecords) <= 1, `${sent}`);
  for (let round = 1; round < 20; round++) {
    forwarder.released(sent, [], round);
    sent += sendAll(forwarder, round, ["backlog"]).length;
    assert.ok(window.usedBytes <= 131_072);
  }
  assert.ok(window.usedBytes > 100_000, `${window.usedBytes}`);
  const before = forwarder.inFlight;
  for (let i = 0; i < 1_000; i++) {
    forwarder.sealed(100_001 + i, 20);
    sendAll(forwarder, 20, ["live"]);
  }
  assert.ok(forwarder.inFlight > before);
  assert.ok(window.usedBytes <= 131_072 + 16_384 + 512, "the reserve is bounded too");
});

test("what a receipt names above a gap is not sent again, only the rest is", () => {
  const forwarder = begun(0, 30);
  sendAll(forwarder);
  forwarder.released(
    0,
    [
      [2, 9],
      [15, 30],
    ],
    1,
  );
  assert.equal(forwarder.unstored, 6);
  assert.equal(forwarder.waiting, 30);
  assert.equal(forwarder.expire(1 + patienceMs), true);
  assert.deepEqual(
    sendAll(forwarder, 5_000),
    [1, 10, 11, 12, 13, 14].toSorted((a, b) => Number(b > 14) - Number(a > 14)),
  );
  forwarder.restart(); // another connection: what receipts named stays known
  assert.deepEqual(
    sendAll(forwarder, 6_000).toSorted((a, b) => a - b),
    [1, 10, 11, 12, 13, 14],
  );
});

test("sequences that do not exist (void) are passed; an answer cut short is asked on", () => {
  const forwarder = begun(0, 10);
  forwarder.published(
    { from: 1, to: 10 },
    [
      [1, 9],
      [3, 9],
    ],
    false,
    0,
  );
  assert.deepEqual(forwarder.next("backlog"), { from: 4, to: 10 });
  forwarder.published({ from: 4, to: 10 }, [], true, 0);
  assert.equal(forwarder.next("backlog"), undefined);
  assert.equal(forwarder.inFlight, 2);
});

test("what waits for the broker is not due yet; from its acknowledgement on, a receipt is", () => {
  const forwarder = begun(0, 2);
  forwarder.published(
    { from: 1, to: 2 },
    [
      [1, 9],
      [2, 9],
    ],
    true,
    0,
  );
  forwarder.left(1, 1_000);
  assert.equal(forwarder.expire(1_000 + patienceMs), false);
  assert.equal(forwarder.expire(1_001 + patienceMs), true);
  assert.deepEqual(forwarder.next("backlog"), { from: 1, to: 1 }, "2 has not left");
});

test("without a receipt it is sent again, later each time, at most every two minutes", () => {
  const forwarder = begun(0, 1);
  const gapsMs: number[] = [];
  let [nowMs, lastMs] = [0, 0];
  sendAll(forwarder, 0);
  while (gapsMs.length < 8) {
    nowMs += 100;
    if (!forwarder.expire(nowMs)) continue;
    assert.deepEqual(sendAll(forwarder, nowMs), [1]);
    gapsMs.push(nowMs - lastMs);
    lastMs = nowMs;
  }
  assert.ok((gapsMs[0] ?? 0) <= patienceMs + 100);
  assert.ok(
    gapsMs.every((gapMs, i) => i === 0 || gapMs >= (gapsMs[i - 1] ?? 0)),
    `${gapsMs}`,
  );
  assert.ok(Math.max(...gapsMs) <= 120_100 && (gapsMs.at(-1) ?? 0) > 100_000, `${gapsMs}`);
});

test("receipts that take long are waited for: few records are sent twice where each takes 8 s", () => {
  const window = new SendWindow(524_288);
  const forwarder = begun(0, 20_000, window);
  const due: [atMs: number, sequence: number][] = [];
  let sent = 0;
  for (let nowMs = 0; forwarder.through < 20_000 && nowMs < 4_000_000; nowMs += 250) {
    let through = forwarder.through;
    while (due[0] && due[0][0] <= nowMs) through = Math.max(through, (due.shift() as [number, number])[1]);
    if (through > forwarder.through) forwarder.released(through, [], nowMs);
    forwarder.expire(nowMs);
    for (const sequence of sendAll(forwarder, nowMs, ["backlog"])) {
      sent++;
      due.push([nowMs + 8_000, sequence]);
    }
  }
  assert.equal(forwarder.through, 20_000);
  assert.ok(sent < 20_000 * 1.05, `${sent} sent`);
});

test("a node that lost what it had named: when it no longer moves on, all goes once more", () => {
  const forwarder = begun(10, 12);
  sendAll(forwarder, 0);
  forwarder.released(10, [[11, 12]], 5); // it lacks what was released before
  assert.equal(forwarder.inFlight, 0);
  assert.equal(forwarder.expire(5 + patienceMs), false);
  assert.equal(forwarder.expire(6 + patienceMs), true);
  assert.deepEqual(sendAll(forwarder, 10_000), [11, 12]);
});

test("a record that comes after a long quiet time is given its time", () => {
  const forwarder = begun(0, 1);
  sendAll(forwarder, 0);
  forwarder.released(1, [], 10);
  forwarder.sealed(2, 900_000);
  sendAll(forwarder, 900_000);
  assert.equal(forwarder.expire(900_000 + patienceMs), false);
  assert.equal(forwarder.expire(900_001 + patienceMs), true);
});

test("times to receipt are told for each record that this process sealed, once, be it in a range", () => {
  const forwarder = begun(0, 0);
  forwarder.sealed(1, 100);
  forwarder.sealed(2, 150);
  forwarder.sealed(2, 160); // sealed again with the same answer: the first time counts
  forwarder.sealed(3, 170);
  sendAll(forwarder);
  assert.equal(forwarder.oldestSealedMs, 100);
  assert.deepEqual(forwarder.released(0, [[2, 2]], 200), [50]);
  assert.deepEqual(forwarder.released(2, [], 300), [200]);
  assert.equal(forwarder.oldestSealedMs, 170);
});

test("a receipt that lags behind what is known changes nothing", () => {
  const forwarder = begun(50, 60);
  sendAll(forwarder);
  forwarder.released(3, [], 1);
  assert.equal(forwarder.through, 50);
  assert.deepEqual(sendAll(forwarder), []);
});

test("in passing, records that the wallet sealed by itself become known without sending anything twice", () => {
  const forwarder = begun(0, 2);
  sendAll(forwarder);
  forwarder.learn(1, 4);
  assert.deepEqual(sendAll(forwarder), [3, 4]);
  assert.equal(forwarder.through, 1);
});

test("another epoch begins at its own sequences; a wallet that forgot a release is believed", () => {
  const forwarder = begun(500, 510);
  sendAll(forwarder);
  forwarder.begin(epoch + 1, 0, 2);
  assert.equal(forwarder.through, 0);
  assert.deepEqual(sendAll(forwarder), [1, 2]);
  forwarder.released(2, [], 1);
  forwarder.begin(epoch + 1, 1, 2);
  assert.deepEqual(sendAll(forwarder), [2]);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { Forwarder, windowRecordsMax } from "../../agent/forwarder.ts";
import { randomOfRun, SeededRandom } from "../protocol/seeded-random.ts";

const epoch = 7;
/** First patience without jitter's luck: random() = 1 gives the whole delay. */
const patienceMs = 4_000;

function begun(through: number, highest: number): Forwarder {
  const forwarder = new Forwarder(() => 1);
  forwarder.begin(epoch, through, highest);
  return forwarder;
}

/** Publishes all that may go now; returns what went. */
function sendAll(forwarder: Forwarder, nowMs = 0): number[] {
  const sent: number[] = [];
  for (let range = forwarder.next(); range; range = forwarder.next()) {
    const { from, to } = range;
    const sequences = Array.from({ length: to - from + 1 }, (_, i) => from + i);
    forwarder.published(range, sequences, true, nowMs);
    sent.push(...sequences);
  }
  return sent;
}

test("sends what is sealed and not released, once", () => {
  const forwarder = begun(3, 6);
  assert.deepEqual(sendAll(forwarder), [4, 5, 6]);
  assert.deepEqual(sendAll(forwarder), []);
  forwarder.sealed(7, 0);
  assert.deepEqual(sendAll(forwarder), [7]);
  assert.equal(forwarder.waiting, 4);
});

test("never has more than the window in flight, and goes on as receipts make room", () => {
  const forwarder = begun(0, 1_000);
  assert.equal(sendAll(forwarder).length, windowRecordsMax);
  forwarder.released(10, [], 1);
  assert.deepEqual(
    sendAll(forwarder),
    Array.from({ length: 10 }, (_, i) => windowRecordsMax + 1 + i),
  );
});

test("what a receipt says is stored above a gap makes room too, and is not waiting less for it", () => {
  const forwarder = begun(0, 200);
  sendAll(forwarder);
  forwarder.released(0, [[2, windowRecordsMax]], 1);
  assert.equal(forwarder.inFlight, 1);
  assert.equal(sendAll(forwarder).length, windowRecordsMax - 1);
  assert.equal(forwarder.waiting, 200);
});

test("sequences that do not exist (void) are passed; an answer cut short is asked on", () => {
  const forwarder = begun(0, 10);
  forwarder.published({ from: 1, to: 10 }, [1, 2], false, 0);
  assert.deepEqual(forwarder.next(), { from: 3, to: 10 });
  forwarder.published({ from: 3, to: 10 }, [], true, 0);
  assert.equal(forwarder.next(), undefined);
});

test("without a receipt all is sent again, later each time; a receipt that moves on makes it short again", () => {
  const forwarder = begun(0, 2);
  sendAll(forwarder, 0);
  assert.equal(forwarder.isSilent(patienceMs), false);
  assert.equal(forwarder.isSilent(patienceMs + 1), true);
  forwarder.restart(true);
  assert.equal(forwarder.isSilent(1_000_000), false, "nothing is in flight");
  assert.deepEqual(sendAll(forwarder, 10_000), [1, 2]);
  assert.equal(forwarder.isSilent(10_000 + 2 * patienceMs), false);
  assert.equal(forwarder.isSilent(10_000 + 2 * patienceMs + 1), true);
  forwarder.restart(true);
  sendAll(forwarder, 50_000);
  forwarder.released(1, [], 50_001);
  assert.equal(forwarder.isSilent(50_001 + patienceMs + 1), true);
});

test("silence grows to two minutes and no further", () => {
  const forwarder = begun(0, 1);
  let nowMs = 0;
  for (let i = 0; i < 20; i++) {
    sendAll(forwarder, nowMs);
    nowMs += 120_001;
    assert.equal(forwarder.isSilent(nowMs), true);
    forwarder.restart(true);
  }
});

test("records stored above a gap whose record never comes: silence is noticed although nothing is in flight", () => {
  const forwarder = begun(10, 12);
  sendAll(forwarder, 0);
  forwarder.released(10, [[11, 12]], 5); // a node that has lost what was released before
  assert.equal(forwarder.inFlight, 0);
  assert.equal(forwarder.isSilent(patienceMs + 1), true);
});

test("a record that comes after a long quiet time is given its time", () => {
  const forwarder = begun(0, 1);
  sendAll(forwarder, 0);
  forwarder.released(1, [], 10);
  forwarder.sealed(2, 900_000);
  sendAll(forwarder, 900_000);
  assert.equal(forwarder.isSilent(900_000 + patienceMs), false);
  assert.equal(forwarder.isSilent(900_000 + patienceMs + 1), true);
});

test("times to receipt are told for each record that this process sealed, once", () => {
  const forwarder = begun(0, 0);
  forwarder.sealed(1, 100);
  forwarder.sealed(2, 150);
  forwarder.sealed(2, 160); // sealed again with the same answer: the first time counts
  sendAll(forwarder);
  assert.deepEqual(forwarder.released(2, [], 200), [100, 50]);
  assert.deepEqual(forwarder.released(2, [], 300), []);
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

test("another epoch begins at its own sequences", () => {
  const forwarder = begun(500, 510);
  sendAll(forwarder);
  forwarder.begin(epoch + 1, 0, 2);
  assert.equal(forwarder.through, 0);
  assert.deepEqual(sendAll(forwarder), [1, 2]);
});

/** Wallet, broker and node as a model; whatever they lose, double or delay, all is released in the end. */
function modelRun(random: SeededRandom): void {
  const forwarder = new Forwarder(() => random.integer(0, 100) / 100);
  const voids = new Set<number>();
  let [sealed, released, nowMs] = [0, 0, 0];
  const stored = new Set<number>();
  let wire: number[] = [];
  let receipts: { through: number; ranges: [number, number][] }[] = [];
  forwarder.begin(epoch, 0, 0);

  const receiptNow = (): { through: number; ranges: [number, number][] } => {
    let through = 0;
    while (stored.has(through + 1) || (voids.has(through + 1) && stored.has(lastOfVoid(through + 1)))) through++;
    const ranges: [number, number][] = [];
    for (const sequence of [...stored].filter((item) => item > through).sort((a, b) => a - b)) {
      const range = ranges.at(-1);
      if (range && range[1] === sequence - 1) range[1] = sequence;
      else if (ranges.length < 16) ranges.push([sequence, sequence]);
    }
    return { through, ranges };
  };
  const lastOfVoid = (sequence: number): number => {
    let last = sequence;
    while (voids.has(last)) last++;
    return last; // the record that tells of the void
  };
  const forward = (): void => {
    if (forwarder.isSilent(nowMs)) forwarder.restart(true);
    for (let range = forwarder.next(); range; range = forwarder.next()) {
      const { from, to } = range;
      const all = Array.from({ length: to - from + 1 }, (_, i) => from + i).filter((item) => !voids.has(item));
      const some = all.slice(0, random.integer(1, 20)); // an answer is cut for its length
      forwarder.published(range, some, some.length === 0 || some.at(-1) === to, nowMs);
      wire.push(...some);
      assert.ok(forwarder.inFlight <= windowRecordsMax, `seed ${random.seed}: ${forwarder.inFlight} in flight`);
    }
  };
  const deliver = (faults: boolean): void => {
    for (const sequence of wire) {
      if (faults && random.chance(20)) continue;
      stored.add(sequence);
      if (faults && random.chance(30)) continue; // its receipt is never sent
      receipts.push(receiptNow());
    }
    wire = [];
    for (const { through, ranges } of faults ? receipts.filter(() => random.chance(70)) : receipts) {
      released = Math.max(released, through);
      forwarder.released(released, ranges, nowMs);
    }
    receipts = [];
  };

  for (let i = 0; i < 300; i++) {
    nowMs += random.integer(1, 3_000);
    switch (random.integer(0, 5)) {
      case 0:
        for (let n = random.integer(1, 40); n > 0; n--) forwarder.sealed(++sealed, nowMs);
        break;
      case 1:
        deliver(true);
        break;
      case 2:
        if (random.chance(20)) {
          for (let n = random.integer(1, 5); n > 0; n--) voids.add(++sealed);
          forwarder.sealed(++sealed, nowMs);
        }
        break;
      case 3:
        if (random.chance(20)) forwarder.begin(epoch, released, sealed); // agent, wallet or broker came back
        break;
      default:
        forward();
    }
    assert.ok(forwarder.through <= sealed, `seed ${random.seed}`);
  }
  forwarder.learn(released, sealed);
  for (let i = 0; i < 300 && released < sealed; i++) {
    nowMs += 5_000;
    forward();
    deliver(false);
  }
  assert.equal(forwarder.waiting, 0, `seed ${random.seed}`);
  assert.equal(forwarder.through, sealed, `seed ${random.seed}`);
}

test("model: with losses, doubles, voids and restarts everything is released in the end, within the window", () => {
  const random = randomOfRun();
  for (let run = 0; run < 60; run++) modelRun(new SeededRandom(random.uint32()));
});

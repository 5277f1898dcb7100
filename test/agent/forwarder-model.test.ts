import assert from "node:assert/strict";
import { test } from "node:test";
import { Forwarder } from "../../agent/forwarder.ts";
import { SendWindow } from "../../agent/send-window.ts";
import { randomOfRun, SeededRandom } from "../protocol/seeded-random.ts";

const rangesMax = 16;
const windowBytes = 65_536;

interface Faults {
  /** Of a hundred. */
  readonly loss: number;
  readonly latencyMs: number;
  /** A new connection every so many milliseconds, about; 0: never. */
  readonly reconnectMs: number;
}

interface Result {
  readonly sent: number;
  readonly existing: number;
  readonly tookMs: number;
  readonly liveMs: readonly number[];
}

/** Wallet, broker and node as a model in virtual time: what they lose, double or delay, nothing is lost in the end. */
function run(random: SeededRandom, backlog: number, faults: Faults): Result {
  const window = new SendWindow(windowBytes);
  const forwarder = new Forwarder(window, () => random.integer(0, 100) / 100);
  const voids = new Set<number>();
  const stored = new Set<number>();
  const arrivals: { atMs: number; sequence: number }[] = [];
  const receipts: { atMs: number; through: number; ranges: [number, number][] }[] = [];
  const sealedMs = new Map<number, number>();
  const liveMs: number[] = [];
  let [sealed, released, sent, nowMs, nodeThrough] = [backlog, 0, 0, 0, 0];
  for (let i = 0; i < backlog / 500; i++) voids.add(random.integer(2, backlog - 1));

  const store = (sequence: number): void => {
    if (!stored.has(sequence) && sealedMs.has(sequence)) liveMs.push(nowMs - (sealedMs.get(sequence) ?? 0));
    stored.add(sequence);
    while (stored.has(nodeThrough + 1) || voids.has(nodeThrough + 1)) nodeThrough++;
    const above = [...stored].filter((item) => item > nodeThrough).sort((a, b) => a - b);
    const ranges: [number, number][] = [];
    for (const item of above) {
      const last = ranges.at(-1);
      if (last && last[1] === item - 1) last[1] = item;
      else ranges.push([item, item]);
    }
    // As the full node chooses: those just touched, then the lowest.
    const touched = ranges.filter(([first, last]) => sequence >= first && sequence <= last);
    const chosen = [...touched, ...ranges.filter((range) => !touched.includes(range))].slice(0, rangesMax);
    if (!random.chance(faults.loss))
      receipts.push({ atMs: nowMs + faults.latencyMs, through: nodeThrough, ranges: chosen });
  };

  forwarder.begin(7, 0, sealed);
  const stepMs = 100;
  for (; released < sealed && nowMs < 40_000_000; nowMs += stepMs) {
    if (nowMs % 10_000 === 0 && nowMs <= 200_000) {
      sealed++;
      sealedMs.set(sealed, nowMs);
      forwarder.sealed(sealed, nowMs);
    }
    if (faults.reconnectMs > 0 && random.integer(1, faults.reconnectMs / stepMs) === 1) {
      arrivals.length = 0;
      receipts.length = 0;
      forwarder.restart();
    }
    while (arrivals[0] && arrivals[0].atMs <= nowMs) store((arrivals.shift() as { sequence: number }).sequence);
    while (receipts[0] && receipts[0].atMs <= nowMs) {
      const receipt = receipts.shift() as (typeof receipts)[number];
      released = Math.max(released, receipt.through);
      forwarder.released(released, receipt.ranges, nowMs);
    }
    forwarder.expire(nowMs);
    for (const lane of ["live", "backlog"] as const)
      for (let range = forwarder.next(lane); range; range = forwarder.next(lane)) {
        const { from, to } = range;
        const all = Array.from({ length: to - from + 1 }, (_, i) => from + i).filter((item) => !voids.has(item));
        const some = all.slice(0, random.integer(1, 200)); // an answer is cut for its length
        forwarder.published(
          range,
          some.map((sequence) => [sequence, random.integer(150, 350)]),
          some.length === all.length,
          nowMs,
        );
        assert.ok(window.usedBytes <= windowBytes + 2 * 16_384, `seed ${random.seed}: ${window.usedBytes}`);
        for (const sequence of some) {
          sent++;
          forwarder.left(sequence, nowMs);
          if (!random.chance(faults.loss)) arrivals.push({ atMs: nowMs + faults.latencyMs, sequence });
        }
      }
  }
  assert.equal(forwarder.waiting, 0, `seed ${random.seed}: not all arrived`);
  assert.equal(window.usedBytes, 0, `seed ${random.seed}: the window leaks`);
  return { sent, existing: sealed - voids.size, tookMs: nowMs, liveMs };
}

/** Worst overhead that each kind of line may cost: records sent for one that is stored. */
const lines: readonly (readonly [string, Faults, number])[] = [
  ["a good line", { loss: 0, latencyMs: 0, reconnectMs: 0 }, 1.02],
  ["2 s each way", { loss: 0, latencyMs: 2_000, reconnectMs: 0 }, 1.05],
  ["5 % lost both ways", { loss: 5, latencyMs: 100, reconnectMs: 0 }, 1.25],
  ["20 % lost both ways", { loss: 20, latencyMs: 300, reconnectMs: 0 }, 1.7],
  ["a new connection every 20 s", { loss: 0, latencyMs: 300, reconnectMs: 20_000 }, 1.35],
  ["all of it", { loss: 10, latencyMs: 1_000, reconnectMs: 60_000 }, 2],
];

for (const [name, faults, overheadMax] of lines)
  test(`model, ${name}: everything is released in the end, within the window, and little is sent twice`, () => {
    const random = randomOfRun();
    for (let i = 0; i < 4; i++) {
      const seed = random.uint32();
      const { sent, existing } = run(new SeededRandom(seed), 2_000, faults);
      assert.ok(sent <= existing * overheadMax, `seed ${random.seed}, run ${seed}: ${sent} sent for ${existing}`);
    }
  });

test("model: a new record reaches the node at once while a backlog of 20,000 drains", () => {
  const random = randomOfRun();
  const { liveMs } = run(random, 20_000, { loss: 0, latencyMs: 500, reconnectMs: 0 });
  assert.ok(liveMs.length > 0);
  assert.ok(Math.max(...liveMs) <= 700, `${Math.max(...liveMs)} ms`);
});

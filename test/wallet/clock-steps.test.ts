// Steps of the clock are events and begin a generation; readings of before the clock was set belong to their boot.
import assert from "node:assert/strict";
import { test } from "node:test";
import { clockStateLetters, statusLetters } from "../../protocol/reading-status.ts";
import { decodeRecord, eventCodes, type ReadingContent } from "../../protocol/record.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";
import { checkChain, eventsIn, meterOf, refusal, rowAt, sha256, startS, WalletFixture } from "./wallet-fixture.ts";

/** Quantities without a stand, so that nothing here is marked for what it says. */
const codes = [1, 3];
const relative = { codes, relative: true };

function readings(wallet: WalletFixture): ReadingContent[] {
  return [...wallet.records().values()]
    .map((bytes) => decodeRecord(bytes, sha256).content)
    .filter((content): content is ReadingContent => content.kind === "reading");
}

/** Each row as clock state, generation, time and status. */
function told(wallet: WalletFixture): string[] {
  return readings(wallet).flatMap(({ clockState, generation, rows }) =>
    rows.map(
      ({ timeS, status }) =>
        `${clockStateLetters[clockState]}${generation} ${timeS} ${statusLetters[status] as string}`,
    ),
  );
}

function steps(wallet: WalletFixture): unknown[][] {
  return eventsIn(wallet.records(), eventCodes.clockStepped).map((event) => event.slice(1));
}

test("a step forth or back is sealed at the next tick, before any reading, and begins a generation for all meters", (t) => {
  const wallet = new WalletFixture(t, { policy: { meters: [meterOf(), meterOf({ index: 1 })] } });
  wallet.seal([rowAt(startS)], { codes });
  wallet.wallet.tick();
  assert.deepEqual(steps(wallet), [], "control: time that passes is no step");
  wallet.clock.set(startS + 1_000);
  wallet.wallet.tick();
  assert.deepEqual(steps(wallet), [[0, 1, 999]]);
  wallet.clock.set(startS + 10);
  wallet.seal([rowAt(startS + 11)], { codes, meter: 1 });
  wallet.seal([rowAt(startS + 12)], { codes });
  assert.deepEqual(steps(wallet), [
    [0, 1, 999],
    [1, 2, -990],
  ]);
  assert.deepEqual(told(wallet), [`I0 ${startS} G`, `I2 ${startS + 11} G`, `I2 ${startS + 12} G`]);
  checkChain(wallet.records(), wallet.key.publicKey);
});

test("a wrong jump forward marks nothing of what follows its correction", (t) => {
  const wallet = new WalletFixture(t);
  wallet.seal([rowAt(startS)], { codes });
  wallet.secondsPerSeal = 0;
  wallet.clock.set(startS + 86_400 * 365);
  wallet.seal([rowAt(startS + 86_400 * 365)], { codes });
  wallet.clock.set(startS + 60);
  for (let i = 0; i < 10; i++) {
    wallet.clock.pass(1);
    wallet.seal([rowAt(startS + 61 + i)], { codes });
  }
  assert.ok(readings(wallet).every(({ rows }) => rows.every(({ status }) => status === 0)));
  assert.deepEqual(new Set(readings(wallet).map(({ generation }) => generation)), new Set([0, 1, 2]));
});

test("a step while the wallet was off is found at the first row that comes before what is sealed", (t) => {
  const wallet = new WalletFixture(t);
  wallet.seal([rowAt(startS + 100)], { codes });
  wallet.close();
  wallet.clock.set(startS + 50);
  wallet.restart();
  wallet.secondsPerSeal = 0;
  wallet.seal([rowAt(startS + 50)], { codes });
  assert.deepEqual(steps(wallet), [[0, 1, -50]]);
});

test("rows that wait for their batch are signed before the step, in the generation where they were taken", (t) => {
  const wallet = new WalletFixture(t, { policy: { meters: [meterOf({ slotS: 60 })], sealEveryS: 900 } });
  wallet.seal([rowAt(startS + 60)], { codes });
  wallet.clock.set(startS + 4_000);
  wallet.wallet.tick();
  assert.deepEqual(told(wallet), [`I0 ${startS + 60} G`]);
  const last = [...wallet.records().values()].at(-1);
  assert.ok(last);
  const { content } = decodeRecord(last, sha256);
  assert.equal(content.kind, "event");
  assert.equal(content.generation, 1);
});

test("steps that find the ring full become one, which is sealed before the first row that has room", (t) => {
  const wallet = new WalletFixture(t, { segments: 3 });
  let next = startS;
  assert.throws(() => {
    for (; ; next++) wallet.seal([rowAt(next)], { codes });
  }, refusal("ring-full"));
  for (const wallS of [startS + 5_000, startS + 9_000, startS + 200]) {
    wallet.clock.set(wallS);
    wallet.wallet.tick();
    assert.throws(() => wallet.seal([rowAt(wallS)], { codes }), refusal("ring-full"));
  }
  assert.deepEqual(steps(wallet), []);
  wallet.releaseAll();
  wallet.seal([rowAt(startS + 300)], { codes });
  assert.equal(steps(wallet).length, 1);
  assert.deepEqual(steps(wallet)[0]?.slice(0, 2), [0, 1]);
  assert.equal(readings(wallet).at(-1)?.generation, 1);
});

test("readings of before the clock was set are sealed as R with the seconds since the boot, and never dated anew", (t) => {
  const wallet = new WalletFixture(t);
  wallet.close();
  wallet.clock.boot(0);
  wallet.clock.pass(30);
  wallet.restart();
  wallet.secondsPerSeal = 0;
  for (let i = 0; i < 3; i++) {
    wallet.seal([rowAt(31 + i)], relative);
    wallet.clock.pass(1);
  }
  wallet.clock.set(startS + 5);
  wallet.seal([rowAt(34)], relative); // read just before
  wallet.clock.pass(1);
  wallet.seal([rowAt(startS + 6)], { codes });
  assert.deepEqual(told(wallet), ["R1 31 G", "R1 32 G", "R1 33 G", "R1 34 G", `I2 ${startS + 6} G`]);
  assert.deepEqual(steps(wallet), [
    [0, 1, 0, new Uint8Array(16).fill(1)],
    [1, 2, startS + 5 - 33],
  ]);
  checkChain(wallet.records(), wallet.key.publicKey);
});

test("where no step was seen, rows of a clock do not get into a boot's generation either", (t) => {
  const wallet = new WalletFixture(t);
  wallet.clock.pass(100);
  wallet.seal([rowAt(99)], relative);
  wallet.seal([rowAt(startS + 105)], { codes });
  assert.deepEqual(told(wallet), ["R1 99 G", `I2 ${startS + 105} G`]);
  assert.deepEqual(steps(wallet)[1], [1, 2, 0]);
});

test("one boot is one generation, however often the wallet is started in it; the next boot is another one", (t) => {
  const wallet = new WalletFixture(t);
  wallet.clock.boot(0);
  wallet.restart();
  wallet.clock.pass(50);
  const first = wallet.seal([rowAt(50)], relative);
  wallet.restart();
  assert.deepEqual(wallet.seal([rowAt(50)], relative), first, "the same row is the same record");
  assert.throws(() => wallet.seal([{ ...rowAt(50), values: [7, 7] }], relative), refusal("row-conflict"));
  wallet.seal([rowAt(51)], relative);
  wallet.bootId = new Uint8Array(16).fill(2);
  wallet.clock.boot(0);
  wallet.restart();
  wallet.clock.pass(50);
  wallet.secondsPerSeal = 0;
  const [second] = wallet.seal([rowAt(50)], relative);
  assert.notDeepEqual([second], first, "the same seconds and values after another boot are another row");
  wallet.seal([{ ...rowAt(51), values: [7, 7] }], relative);
  assert.deepEqual(told(wallet), ["R1 50 G", "R1 51 G", "R2 50 G", "R2 51 G"]);
});

test("a relative time that lies ahead of the boot's own seconds is marked; control: the present is not", (t) => {
  const wallet = new WalletFixture(t);
  wallet.clock.boot(0);
  wallet.restart();
  wallet.secondsPerSeal = 0;
  wallet.clock.pass(100);
  wallet.seal([rowAt(103)], relative);
  wallet.seal([rowAt(104)], relative);
  wallet.seal([rowAt(101)], relative);
  assert.deepEqual(told(wallet), ["R1 103 G", "R1 104 M", "R1 101 G"]);
  for (const timeS of [101, 103, 104])
    assert.throws(() => wallet.seal([{ ...rowAt(timeS), values: [7, 7] }], relative), refusal("row-conflict"));
});

test("relative rows are held against nothing of a clock's time, and nothing against them", (t) => {
  const wallet = new WalletFixture(t, { policy: { meters: [meterOf({ powerMaxW: 1_000 })] } });
  wallet.seal([{ timeS: startS, status: 0, values: [1_000] }], { codes: [2] });
  wallet.seal([{ timeS: 1, status: 0, values: [5] }], { codes: [2], relative: true });
  wallet.seal([{ timeS: startS + 2, status: 0, values: [1_000] }], { codes: [2] });
  wallet.seal([{ timeS: startS + 3, status: 0, values: [6] }], { codes: [2] });
  assert.deepEqual(told(wallet), [`I0 ${startS} G`, "R1 1 G", `I2 ${startS + 2} G`, `I2 ${startS + 3} M`]);
});

test("relative rows give the agent no generation in which a time could come twice", (t) => {
  const wallet = new WalletFixture(t);
  wallet.seal([rowAt(startS + 10)]);
  wallet.secondsPerSeal = 0;
  wallet.seal([rowAt(1)], relative);
  wallet.seal([{ ...rowAt(startS + 10), values: [9_999, 9_999] }]);
  wallet.seal([rowAt(startS + 10)]); // is found
  wallet.restart();
  wallet.seal([{ ...rowAt(startS + 9), values: [9_998, 9_998] }]);
  wallet.clock.pass(1);
  wallet.seal([rowAt(startS + 11)]);
  const at = [`I0 ${startS + 10} G`, "R1 1 G", `I2 ${startS + 10} M`, `I2 ${startS + 9} M`, `I2 ${startS + 11} G`];
  assert.deepEqual(told(wallet), at);
  // Control: where the clock itself was set back meanwhile, the time comes a second time.
  wallet.bootId = new Uint8Array(16).fill(2);
  wallet.clock.boot(startS - 1_000);
  wallet.restart();
  wallet.seal([rowAt(1)], relative);
  wallet.seal([{ timeS: startS - 1_000, status: 0, values: [9_999, 9_999] }]);
  assert.deepEqual(told(wallet).slice(5), ["R3 1 G", `I4 ${startS - 1_000} G`]);
});

test("1,000 seeded requests over jumps, boots and restarts: no slot twice in a generation, never S, the chain holds", (t) => {
  const random = randomOfRun();
  const wallet = new WalletFixture(t, { segments: 64, segmentBlocks: 64 });
  wallet.secondsPerSeal = 0;
  for (let i = 0; i < 1_000; i++) {
    wallet.clock.pass(random.integer(1, 3));
    if (random.chance(3)) wallet.clock.set(startS + random.integer(-5_000, 5_000));
    if (random.chance(2)) wallet.restart();
    if (random.chance(1)) {
      wallet.bootId = random.bytes(16);
      wallet.clock.boot(random.pick([0, startS]));
      wallet.restart();
    }
    const nowMs = random.chance(30) ? wallet.clock.monotonicMs() : wallet.clock.wallMs();
    const isRelative = nowMs === wallet.clock.monotonicMs();
    const row = rowAt(Math.max(1, Math.floor(nowMs / 1_000) - random.pick([0, 0, 0, 1, 30])));
    try {
      wallet.seal([{ ...row, values: [random.integer(0, 1), 0] }], isRelative ? relative : { codes });
    } catch (error) {
      assert.ok(refusal("row-conflict")(error));
    }
  }
  const slots = new Set<string>();
  for (const { generation, clockState, rows } of readings(wallet)) {
    assert.notEqual(clockStateLetters[clockState], "S");
    for (const { timeS } of rows) {
      assert.ok(!slots.has(`${generation} ${timeS}`), `${generation} ${timeS} twice (seed ${random.seed})`);
      slots.add(`${generation} ${timeS}`);
    }
  }
  assert.ok(slots.size > 500, `${slots.size} rows (seed ${random.seed})`);
  assert.ok(steps(wallet).length > 20);
  checkChain(wallet.records(), wallet.key.publicKey);
});

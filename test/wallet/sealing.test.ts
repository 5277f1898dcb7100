import assert from "node:assert/strict";
import { test } from "node:test";
import { statuses } from "../../protocol/reading-status.ts";
import { decodeRecord, eventCodes, type ReadingContent, recordBytesMax, valueMax } from "../../protocol/record.ts";
import { SeededRandom } from "../protocol/seeded-random.ts";
import {
  checkChain,
  eventsIn,
  meterOf,
  refusal,
  rowAt,
  rowsFrom,
  sha256,
  startS,
  WalletFixture,
} from "./wallet-fixture.ts";

/** The records of readings, as [number of rows, time of the first]. */
function readings(wallet: WalletFixture): ReadingContent[] {
  return [...wallet.records().values()]
    .map((bytes) => decodeRecord(bytes, sha256).content)
    .filter((content): content is ReadingContent => content.kind === "reading");
}

test("seal_every 0: each reading is a record of its own, whatever its slot", (t) => {
  for (const slotS of [0, 1, 60, 900]) {
    const wallet = new WalletFixture(t, { policy: { meters: [meterOf({ slotS })], sealEveryS: 0 } });
    const count = slotS === 0 ? 1 : 4;
    const sequences = wallet.seal(rowsFrom(startS, count, slotS));
    assert.deepEqual(
      sequences,
      Array.from({ length: count }, (_, i) => 2 + i),
      `slot ${slotS}`,
    );
    assert.ok(readings(wallet).every(({ rows }) => rows.length === 1));
    wallet.restart();
    assert.deepEqual(wallet.seal(rowsFrom(startS, count, slotS)), sequences, `slot ${slotS}, again`);
  }
});

test("seal_every 60: samples of a second come as a batch and become one record", (t) => {
  const wallet = new WalletFixture(t, { policy: { sealEveryS: 60 } });
  assert.deepEqual(new Set(wallet.seal(rowsFrom(startS + 1, 60))), new Set([2]));
  assert.equal(readings(wallet)[0]?.rows.length, 60);
});

test("seal_every 60 with slots of 60 s and more: each row is signed at once", (t) => {
  for (const slotS of [60, 900]) {
    const wallet = new WalletFixture(t, { policy: { meters: [meterOf({ slotS })], sealEveryS: 60 } });
    for (let i = 1; i <= 3; i++) assert.deepEqual(wallet.seal([rowAt(startS + i * slotS)]), [1 + i]);
    assert.equal(wallet.hello().pendingRows, 0);
  }
});

test("seal_every 900 with slots of 60 s: rows are journaled at once, and signed when their window closes", (t) => {
  const wallet = new WalletFixture(t, { policy: { meters: [meterOf({ slotS: 60 })], sealEveryS: 900 } });
  for (let i = 1; i <= 31; i++) {
    const [sequence] = wallet.seal([rowAt(startS + i * 60)]);
    assert.equal(sequence, i === 15 ? 2 : i === 30 ? 3 : 0, `row ${i}`);
  }
  assert.deepEqual(
    readings(wallet).map(({ rows }) => rows.length),
    [15, 15],
  );
  assert.equal(wallet.hello().pendingRows, 1);
  assert.deepEqual(wallet.seal([rowAt(startS + 60)]), [2], "a pending row has its sequence once it is signed");
});

test("a window that gets a gap, other codes or a restart is signed in pieces, each row once", (t) => {
  const wallet = new WalletFixture(t, { policy: { meters: [meterOf({ slotS: 60 })], sealEveryS: 900 }, segments: 8 });
  wallet.seal([rowAt(startS + 60)]);
  wallet.seal([rowAt(startS + 180)]);
  assert.deepEqual(
    readings(wallet).map(({ rows }) => rows.length),
    [1],
    "the gap ended the first batch",
  );
  wallet.seal([{ timeS: startS + 240, status: 0, values: [1] }], { codes: [2] });
  assert.deepEqual(
    readings(wallet).map(({ rows }) => rows.length),
    [1, 1],
  );
  wallet.restart();
  assert.deepEqual(
    readings(wallet).map(({ rows }) => rows.length),
    [1, 1, 1],
  );
  wallet.seal([rowAt(startS + 300)]);
  wallet.seal([rowAt(startS + 960)]);
  wallet.seal([rowAt(startS + 1_020, 0)]);
  const times = readings(wallet).flatMap(({ rows }) => rows.map(({ timeS }) => timeS - startS));
  assert.deepEqual(times, [60, 180, 240, 300]);
  assert.equal(wallet.hello().pendingRows, 2);
  checkChain(wallet.records(), wallet.key.publicKey);
});

test("a row without values is sealed with its status, between rows that have them", (t) => {
  const wallet = new WalletFixture(t, { policy: { sealEveryS: 60 } });
  const rows = [rowAt(startS), { timeS: startS + 1, status: 2, values: [] }, rowAt(startS + 2)];
  wallet.seal(rows);
  assert.deepEqual(readings(wallet)[0]?.rows, rows);
});

test("time before the last row, and the wallet's clock with it, starts a clock generation: an event, then the row", (t) => {
  const wallet = new WalletFixture(t, { policy: { sealEveryS: 0 } });
  wallet.seal([rowAt(startS + 100)]);
  wallet.clock.set(startS + 10);
  wallet.seal([rowAt(startS + 10)]);
  const records = wallet.records();
  assert.deepEqual(eventsIn(records, eventCodes.clockStepped), [[eventCodes.clockStepped, 0, 1, -90]]);
  assert.deepEqual(
    readings(wallet).map(({ generation, rows }) => [generation, rows[0]?.timeS]),
    [
      [0, startS + 100],
      [1, startS + 10],
    ],
  );
  const event = [...records.values()]
    .map((bytes) => decodeRecord(bytes, sha256).content)
    .find(({ sequence }) => sequence === 3);
  assert.equal(event?.generation, 1, "the event is of the generation that it begins");
  wallet.restart();
  assert.equal(wallet.hello().generation, 1);
  wallet.seal([rowAt(startS + 11)]);
  assert.equal(eventsIn(wallet.records(), eventCodes.clockStepped).length, 1, "once");
  wallet.seal([rowAt(4_294_967_295)]);
  wallet.clock.set(startS + 12);
  wallet.seal([rowAt(startS + 12)]);
  assert.equal(wallet.hello().generation, 2, "a wrong jump forward does not block what follows its correction");
  checkChain(wallet.records(), wallet.key.publicKey);
});

test("a clock that was set back onto times that are sealed loses no reading; while it stands right, such rows are refused", (t) => {
  const wallet = new WalletFixture(t, { policy: { sealEveryS: 0 } });
  const other = (timeS: number) => ({ ...rowAt(timeS), values: [7, 7] });
  wallet.secondsPerSeal = 0;
  wallet.clock.pass(20);
  for (let second = 1; second <= 20; second++) wallet.seal([rowAt(startS + second)]);
  // Control: the clock did not move, so these are second values for sealed slots, which no agent may bring.
  assert.throws(() => wallet.seal([other(startS + 10)]), refusal("row-conflict"));
  wallet.clock.set(startS + 9);
  const [sequence] = wallet.seal([other(startS + 10)]);
  assert.equal(wallet.hello().generation, 1);
  assert.deepEqual(wallet.seal([other(startS + 10)]), [sequence], "the same again gives the same record");
  assert.deepEqual(wallet.seal([rowAt(startS + 10)]), [11], "and so does what was sealed before the step");
  wallet.clock.set(startS + 10);
  wallet.seal([other(startS + 11)]);
  assert.throws(() => wallet.seal([{ ...rowAt(startS + 11), values: [8, 8] }]), refusal("row-conflict"));
  wallet.restart();
  assert.deepEqual(wallet.seal([other(startS + 10)]), [sequence]);
  assert.equal(eventsIn(wallet.records(), eventCodes.clockStepped).length, 1);
  checkChain(wallet.records(), wallet.key.publicKey);
});

test("an agent's word alone moves no clock: late rows and rows of the future are sealed and marked, no slot comes twice", (t) => {
  const wallet = new WalletFixture(t, { policy: { sealEveryS: 0 } });
  const other = (timeS: number) => ({ ...rowAt(timeS), values: [7, 7] });
  wallet.secondsPerSeal = 0;
  wallet.clock.pass(100);
  wallet.seal([rowAt(startS + 100)]);
  wallet.seal([rowAt(startS + 10)]); // late
  wallet.seal([rowAt(4_102_444_800)]); // the year 2100
  wallet.seal([rowAt(startS + 103)]); // ahead by as much as a clock may be
  assert.throws(
    () => wallet.seal([other(startS + 100)]),
    refusal("row-conflict"),
    "the slot does not come a second time",
  );
  assert.throws(() => wallet.seal([other(startS + 10)]), refusal("row-conflict"));
  assert.throws(() => wallet.seal([other(4_102_444_800)]), refusal("row-conflict"));
  assert.deepEqual(
    readings(wallet).map(({ generation, rows: [row] }) => [generation, row?.status]),
    [
      [0, statuses.good],
      [0, statuses.manipulated],
      [0, statuses.manipulated],
      [0, statuses.good],
    ],
  );
  assert.deepEqual(wallet.seal([rowAt(startS + 10)]), [3], "the same again gives the same record, marked as it is");
  wallet.restart();
  assert.throws(() => wallet.seal([other(startS + 100)]), refusal("row-conflict"), "nor after a restart");
  assert.deepEqual(wallet.seal([rowAt(4_102_444_800)]), [4]);
  assert.equal(wallet.hello().meters[0]?.lastTimeS, startS + 103, "marked rows move no time");
  // A marked row's slot does not come a second time in its generation either, even where the clock was set back meanwhile.
  wallet.clock.set(startS + 60);
  wallet.seal([other(4_102_444_800)]);
  assert.deepEqual(
    readings(wallet)
      .map(({ generation, rows: [row] }) => [generation, row?.timeS])
      .at(-1),
    [1, 4_102_444_800],
  );
  // Control: with the wallet's own clock set back, the same late row is of a new generation, and good.
  wallet.clock.set(startS + 20);
  wallet.seal([{ ...rowAt(startS + 20), values: [9_000, 9_000] }]); // registers that did not go back with it
  assert.equal(wallet.hello().generation, 2);
  assert.equal(readings(wallet).at(-1)?.rows[0]?.status, statuses.good);
});

test("a step of one meter's time signs what is pending of all, in the generation where it was taken", (t) => {
  const meters = [meterOf({ slotS: 60 }), meterOf({ index: 1, slotS: 60 })];
  const wallet = new WalletFixture(t, { policy: { meters, sealEveryS: 900 } });
  wallet.seal([rowAt(startS + 60)]);
  wallet.seal([rowAt(startS + 600)], { meter: 1 });
  wallet.clock.set(startS + 120);
  wallet.seal([rowAt(startS + 120)], { meter: 1 });
  assert.deepEqual(
    readings(wallet).map(({ meter, generation }) => [meter, generation]),
    [
      [0, 0],
      [1, 0],
    ],
  );
  wallet.restart();
  assert.deepEqual(readings(wallet).at(-1)?.generation, 1);
  checkChain(wallet.records(), wallet.key.publicKey);
});

test("the rate: a burst passes, more rows than the policy allows do not, time gives them back", (t) => {
  const wallet = new WalletFixture(t, {
    policy: { meters: [meterOf({ rowsPerMinute: 60 })], sealEveryS: 60 },
    segments: 8,
  });
  wallet.secondsPerSeal = 0;
  wallet.seal(rowsFrom(startS, 60));
  wallet.seal(rowsFrom(startS + 60, 60));
  assert.throws(() => wallet.seal([rowAt(startS + 120)]), refusal("rate-exceeded"));
  wallet.seal(rowsFrom(startS, 60)); // sealed already: costs nothing
  wallet.clock.pass(10);
  wallet.seal(rowsFrom(startS + 120, 10));
  assert.throws(() => wallet.seal([rowAt(startS + 130)]), refusal("rate-exceeded"));
  wallet.clock.pass(100_000);
  wallet.seal(rowsFrom(startS + 130, 60));
  wallet.seal(rowsFrom(startS + 190, 60));
  assert.throws(() => wallet.seal([rowAt(startS + 250)]), refusal("rate-exceeded"), "no more than a burst is saved up");
});

test("the widest values never make a record or a commit too long", (t) => {
  const random = new SeededRandom(5);
  const wide = (row: number): number => (row % 2 === 0 ? 1 : -1) * (valueMax - random.integer(0, 1_000));
  for (const [codes, slotS, sealEveryS, count] of [
    [1, 60, 86_400, 1_439],
    [64, 60, 86_400, 90],
    [64, 1, 60, 60],
    [17, 1, 60, 60],
    [64, 1, 0, 16],
  ] as const) {
    const policy = { meters: [meterOf({ slotS })], sealEveryS };
    const wallet = new WalletFixture(t, { policy, segments: 8, segmentBlocks: 256 });
    const list = Array.from({ length: codes }, (_, i) => 65_535 - codes + i + 1);
    const rows = Array.from({ length: count }, (_, i) => {
      const status = i % 2 === 0 ? 0 : random.pick([5, 8, 9]);
      const hasValues = i % 9 !== 7;
      return {
        timeS: startS + (i + 1) * slotS,
        status: hasValues ? status : 11,
        values: hasValues ? list.map(() => wide(i)) : [],
      };
    });
    for (let at = 0; at < rows.length; at += 60) wallet.seal(rows.slice(at, at + 60), { codes: list });
    wallet.restart();
    const records = wallet.records();
    assert.equal(wallet.hello().pendingRows, 0);
    assert.ok([...records.values()].every((bytes) => bytes.length <= recordBytesMax));
    assert.deepEqual(
      readings(wallet).flatMap((content) => content.rows),
      rows,
      `${codes} codes`,
    );
    checkChain(records, wallet.key.publicKey);
    const longest = Math.max(...[...records.values()].map((bytes) => bytes.length));
    t.diagnostic(`${codes} codes, ${count} rows: ${readings(wallet).length} records, the longest ${longest} bytes`);
  }
});

test("each field of a request is held against the wallet's own policy", (t) => {
  const wallet = new WalletFixture(t, { policy: { meters: [meterOf({ slotS: 60 })] } });
  const before = wallet.hello().nextSequence;
  assert.throws(() => wallet.seal([rowAt(startS)], { meter: 1, slotS: 60 }), refusal("unknown-meter"));
  assert.throws(() => wallet.seal([rowAt(startS)], { slotS: 900 }), refusal("slot-mismatch"));
  assert.throws(() => wallet.seal([rowAt(startS)], { plan: 4 }), refusal("unknown-plan"));
  assert.throws(() => wallet.seal([]), refusal("malformed"));
  assert.throws(() => wallet.seal([rowAt(startS), rowAt(startS + 61)]), refusal("malformed"), "rows off the slot");
  assert.throws(() => wallet.seal([{ ...rowAt(startS), values: [1] }]), refusal("malformed"), "a value is missing");
  assert.throws(() => wallet.seal([rowAt(startS, 2)]), refusal("malformed"), "values in a row that failed");
  assert.throws(() => wallet.seal([rowAt(startS)], { codes: [4, 2] }), refusal("malformed"));
  assert.throws(() => wallet.seal([rowAt(startS)], { codes: [2, 2] }), refusal("malformed"));
  assert.equal(wallet.hello().nextSequence, before, "nothing was sealed");
});

test("another policy takes effect at the next start, and its digest is sealed", (t) => {
  const wallet = new WalletFixture(t);
  wallet.seal([rowAt(startS)]);
  const digest = wallet.hello().policyDigest;
  wallet.policy = { ...wallet.policy, meters: [meterOf({ slotS: 900 })] };
  assert.throws(() => wallet.seal([rowAt(startS + 900)]), refusal("slot-mismatch"), "the running wallet obeys its own");
  wallet.restart();
  wallet.seal([rowAt(startS + 900)]);
  const started = eventsIn(wallet.records(), eventCodes.started);
  assert.deepEqual(started[0]?.[2], digest);
  assert.deepEqual(started[1]?.[2], wallet.hello().policyDigest);
  assert.notDeepEqual(started[0]?.[2], started[1]?.[2]);
});

test("a slot that the policy changes while rows are pending and the ring is full mixes no rows", (t) => {
  const meters = [meterOf({ slotS: 60 }), meterOf({ index: 1 })];
  const wallet = new WalletFixture(t, { policy: { meters, sealEveryS: 900 }, segments: 3 });
  const fill = (to: number): void => {
    for (let i = 0; i < to; i++) wallet.seal([rowAt(startS + i)], { meter: 1 });
  };
  fill(37); // of 42 blocks, the first two of them taken
  wallet.seal([rowAt(startS + 1_860)]);
  assert.throws(() => fill(60), refusal("ring-full"));
  wallet.policy = { ...wallet.policy, meters: [meterOf({ slotS: 120 }), meterOf({ index: 1 })] };
  wallet.restart();
  assert.equal(wallet.hello().pendingRows, 1, "there was no room to sign it");
  wallet.releaseAll();
  wallet.seal([rowAt(startS + 1_980)]);
  wallet.restart();
  assert.deepEqual(
    readings(wallet)
      .filter(({ meter }) => meter === 0)
      .map(({ slotS, rows }) => [slotS, rows.length]),
    [
      [60, 1],
      [120, 1],
    ],
  );
});

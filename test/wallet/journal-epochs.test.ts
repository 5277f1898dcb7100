// Several epochs in one ring: their order, their limit, and what releases them.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { crc32, gunzipSync } from "node:zlib";
import { quantities } from "../../protocol/quantity.ts";
import { eventCodes } from "../../protocol/record.ts";
import { blockBytes, blocksOf, firstCommitBlocksMax } from "../../wallet/journal-block.ts";
import { decodeBody, encodeBody, type JournalState } from "../../wallet/journal-body.ts";
import { epochsMax } from "../../wallet/journal-epochs.ts";
import { JournalError } from "../../wallet/journal-ring.ts";
import { SeededRandom } from "../protocol/seeded-random.ts";
import { JournalFixture } from "./journal-fixture.ts";
import { checkChain, epoch, meterOf, refusal, rowAt, sha256, startS, WalletFixture } from "./wallet-fixture.ts";

const other = 0x0bad_cafe;

test("an epoch begins with sequence 1 behind the last record of the one before; each is read back by its own sequences", (t) => {
  const fixture = new JournalFixture(t);
  for (let i = 0; i < 5; i++) fixture.append();
  fixture.journal.beginEpoch(other);
  assert.deepEqual([fixture.journal.epoch, fixture.journal.nextSequence], [other, 1]);
  const { decoded } = fixture.append();
  assert.deepEqual([decoded.content.epoch, decoded.content.sequence], [other, 1]);
  for (let i = 0; i < 20; i++) fixture.append();
  const check = (): void => {
    const { journal } = fixture;
    assert.deepEqual(journal.epochs, [
      { epoch, first: 1, through: 0, last: 5 },
      { epoch: other, first: 1, through: 0, last: 21 },
    ]);
    assert.equal(fixture.contents().size, 26);
    assert.deepEqual(
      journal.records(4, 100, 1e6, epoch).map(([sequence]) => sequence),
      [4, 5],
    );
    assert.deepEqual(
      journal.records(20, 100, 1e6).map(([sequence]) => sequence),
      [20, 21],
    );
    assert.deepEqual(journal.records(1, 100, 1e6, 77), [], "an epoch that never was");
  };
  check();
  fixture.reopen();
  check();
  assert.deepEqual([...fixture.contents()], [...fixture.acknowledged]);
});

test("an epoch that was begun and not written is not there after a restart", (t) => {
  const fixture = new JournalFixture(t);
  fixture.append();
  fixture.journal.beginEpoch(other);
  assert.throws(() => fixture.journal.append([], []), /begins with a record/);
  fixture.reopen();
  assert.deepEqual([fixture.journal.epoch, fixture.journal.nextSequence], [epoch, 2]);
  assert.throws(() => fixture.journal.beginEpoch(epoch), /was there/);
  fixture.journal.beginEpoch(other);
  fixture.journal.beginEpoch(other + 1);
  fixture.append();
  assert.deepEqual(
    fixture.journal.epochs.map((item) => item.epoch),
    [epoch, other + 1],
    "the later call counts",
  );
});

test("a full ring refuses the record that begins an epoch, and nothing has changed", (t) => {
  const fixture = new JournalFixture(t);
  assert.throws(() => {
    for (;;) fixture.append();
  }, refusal("ring-full"));
  fixture.journal.beginEpoch(other);
  assert.throws(() => fixture.append(), refusal("ring-full"));
  const { last } = fixture.journal.epochs[0] as { last: number };
  fixture.journal.release(last, fixture.receipt("all"), epoch);
  fixture.append();
  fixture.reopen();
  assert.deepEqual(
    fixture.journal.epochs.map((item) => [item.epoch, item.through, item.last]),
    [
      [epoch, last, last],
      [other, 0, 1],
    ],
  );
});

test("seeded: epochs of any length over a ring that goes round, with restarts: nothing unreleased is overwritten", (t) => {
  const random = new SeededRandom(5);
  const fixture = new JournalFixture(t);
  let begun = 0;
  for (let step = 0; step < 1_500; step++) {
    if (random.chance(4) && fixture.journal.canBeginEpoch) fixture.journal.beginEpoch(1_000 + begun++);
    if (random.chance(2)) fixture.reopen();
    try {
      fixture.append();
    } catch (error) {
      refusal("ring-full")(error);
      fixture.releaseAll();
    }
    if (random.chance(10)) {
      const released = random.pick(fixture.journal.epochs);
      const through = random.integer(0, released.last);
      fixture.journal.release(through, fixture.receipt(`${released.epoch}/${through}`), released.epoch);
    }
    if (step % 25 !== 0) continue;
    const contents = fixture.contents();
    for (const [place, digest] of contents) assert.equal(fixture.acknowledged.get(place), digest);
    for (const { epoch: of, first, through, last } of fixture.journal.epochs)
      for (let sequence = Math.max(first, through) + 1; sequence <= last; sequence++)
        assert.ok(contents.has(`${of}/${sequence}`), `seed ${random.seed}, step ${step}: ${of}/${sequence}`);
    const [oldest] = fixture.journal.epochs;
    const places = [...fixture.acknowledged.keys()];
    const from = places.indexOf(`${oldest?.epoch}/${(oldest?.through ?? 0) + 1}`);
    if (from >= 0) for (const place of places.slice(from)) if (!contents.has(place)) isReleased(fixture, place);
  }
  assert.ok(begun > 40, `${begun} epochs`);
});

function isReleased(fixture: JournalFixture, place: string): void {
  const [of, sequence] = place.split("/").map(Number);
  const through = fixture.journal.epochs.find((item) => item.epoch === of)?.through ?? Number.POSITIVE_INFINITY;
  assert.ok((sequence as number) <= through, `${place} is gone and was not released`);
}

test("more epochs than the state holds are refused, safely, until the oldest are overwritten", (t) => {
  const fixture = new JournalFixture(t, 4);
  for (let i = 0; i < epochsMax; i++) {
    if (i > 0) fixture.journal.beginEpoch(1_000 + i);
    fixture.append();
  }
  const image = fixture.image();
  for (const restart of [false, true]) {
    if (restart) fixture.reopen();
    assert.equal(fixture.journal.canBeginEpoch, false);
    assert.throws(
      () => fixture.journal.beginEpoch(9_999),
      (error: Error) => error instanceof JournalError && /records of 16 epochs/.test(error.message),
    );
    assert.equal(fixture.journal.epoch, 1_000 + epochsMax - 1, "goes on in the running one");
  }
  assert.deepEqual(fixture.image(), image, "nothing was written");
  assert.equal(fixture.contents().size, epochsMax);
  for (let i = 0; !fixture.journal.canBeginEpoch; i++) {
    assert.ok(i < 200);
    fixture.append();
    fixture.releaseAll();
  }
  fixture.journal.beginEpoch(9_999);
  fixture.append();
  fixture.reopen();
  assert.equal(fixture.journal.epoch, 9_999);
  assert.ok(fixture.journal.epochs.length <= epochsMax);
});

test("what a receipt releases of a later epoch waits for the earlier one; a restart forgets it", (t) => {
  const fixture = new JournalFixture(t);
  for (let i = 0; i < 5; i++) fixture.append();
  fixture.journal.beginEpoch(other);
  for (let i = 0; i < 5; i++) fixture.append();
  const throughs = (): number[] => fixture.journal.epochs.map(({ through }) => through);
  fixture.journal.release(3, fixture.receipt("3 of the second"));
  assert.deepEqual(throughs(), [0, 3]);
  fixture.append();
  fixture.reopen();
  assert.deepEqual(throughs(), [0, 0], "only what the order allows is on disk");
  fixture.journal.release(4, fixture.receipt("4 of the second"));
  fixture.journal.release(4, fixture.receipt("4 of the first"), epoch);
  assert.deepEqual(throughs(), [4, 4]);
  assert.equal(Buffer.from(fixture.journal.receipt as Uint8Array).toString(), "4 of the first");
  fixture.journal.release(5, fixture.receipt("5 of the first"), epoch);
  assert.equal(Buffer.from(fixture.journal.receipt as Uint8Array).toString(), "4 of the second");
  fixture.append();
  fixture.reopen();
  assert.deepEqual(throughs(), [5, 4]);
  assert.equal(Buffer.from(fixture.journal.receipt as Uint8Array).toString(), "4 of the second");
});

test("runs that are kept release what they touch, over sequences that were voided, and nothing over a record", (t) => {
  const fixture = new JournalFixture(t);
  for (let i = 0; i < 5; i++) fixture.append();
  fixture.journal.skipTo(22);
  fixture.append([[eventCodes.void, 6, 21]]);
  for (let i = 0; i < 5; i++) fixture.append();
  const through = (): number | undefined => fixture.journal.epochs[0]?.through;
  const run = (first: number, last: number): void =>
    fixture.journal.releaseRun(epoch, first, last, fixture.receipt("kept"));
  fixture.journal.beginEpoch(other);
  fixture.append();
  run(22, 24);
  assert.equal(through(), 0);
  run(2, 5);
  assert.equal(through(), 0, "the first record is not released");
  run(1, 1);
  assert.equal(through(), 24, "over the void");
  run(26, 27);
  assert.equal(through(), 24);
  run(25, 4_000);
  assert.equal(through(), 27, "not beyond the epoch's last record");
  assert.deepEqual(fixture.journal.epochs.at(-1), { epoch: other, first: 1, through: 0, last: 1 });
});

test("a row of an earlier epoch is found with its epoch", (t) => {
  const wallet = new WalletFixture(t, { segments: 8 });
  for (let i = 0; i < 20; i++) wallet.seal([rowAt(startS + i)]);
  wallet.journal.beginEpoch(other);
  for (let i = 20; i < 40; i++) wallet.seal([rowAt(startS + i)]);
  for (const restart of [false, true]) {
    if (restart) wallet.restart();
    const first = wallet.journal.findRow(0, 0, startS + 5, () => true);
    const second = wallet.journal.findRow(0, 0, startS + 25, () => true);
    assert.deepEqual([first?.epoch, second?.epoch], [epoch, other]);
    assert.equal(second?.sequence, 6);
  }
  assert.equal(
    wallet.journal.findRow(0, 0, startS + 5, () => false, 7),
    undefined,
    "in another clock generation",
  );
  assert.equal(wallet.journal.findRow(0, 0, startS + 5, () => false, 0)?.epoch, epoch);
});

test("what events say of the wallet itself is there after restarts, and after their records are overwritten", (t) => {
  const fixture = new JournalFixture(t);
  const bootId = new Uint8Array(16).fill(9);
  const policyDigest = new Uint8Array(32).fill(3);
  const { journal } = fixture;
  assert.deepEqual(
    [journal.lastStarted, journal.relative, journal.counter, journal.installation(4)],
    [...[undefined, undefined, undefined, 0]],
  );
  fixture.append([[eventCodes.started, "ecp-wallet/1", policyDigest, 41]]);
  fixture.append([[eventCodes.clockStepped, 0, 1, 0, bootId]]);
  fixture.append([[eventCodes.meterReplaced, 4, "calibration is over", 2]]);
  fixture.append([[eventCodes.started, "ecp-wallet/2", policyDigest]]);
  for (let i = 0; i < 100; i++) {
    if (i % 20 === 0) fixture.reopen();
    const { lastStarted, relative, counter } = fixture.journal;
    assert.deepEqual(lastStarted, { softwareId: "ecp-wallet/2", policyDigest });
    assert.deepEqual(relative, { generation: 1, bootId });
    assert.equal(counter, 41, "of the newest that has one");
    assert.equal(fixture.journal.installation(4), 2);
    fixture.append();
    fixture.releaseAll();
  }
  assert.ok(fixture.journal.firstSequence > 4);
});

test("the largest state fits into the first commit of a segment, beside the longest records", () => {
  const most = 0xffff_ffff;
  const codes = quantities.filter(({ cumulative }) => cumulative).map(({ code }) => code);
  const state: JournalState = {
    epochs: Array.from({ length: epochsMax }, (_, i) => ({ epoch: most - i, base: 2 ** 40 })),
    nextSequence: most,
    lastDigest: new Uint8Array(32),
    generation: most,
    lastRows: Array.from({ length: 1_024 }, (_, i) => ({
      ...{ meter: i >> 2, plan: i & 3, generation: most, timeS: most, latestS: most },
      registers: codes.map((code): [number, number, number] => [code, 2 ** 52 - 1, most]),
    })),
    oldestPendingCommit: 2 ** 50,
    installations: new Map(Array.from({ length: 256 }, (_, i) => [i, most])),
    relative: { generation: most, bootId: new Uint8Array(16) },
    lastStarted: { softwareId: "x".repeat(128), policyDigest: new Uint8Array(32) },
    counter: 2 ** 52,
    dropped: { epoch: most, sequence: most },
  };
  const records = [new Uint8Array(12_288), new Uint8Array(12_288)];
  const body = encodeBody({ records, pendingRows: [], receipt: new Uint8Array(2_048), state });
  assert.ok(blocksOf(body.length) <= firstCommitBlocksMax, `${blocksOf(body.length)} blocks`);
  assert.deepEqual(decodeBody(body).state, state);
});

test("a journal of before there could be several epochs opens as it was, and takes another epoch", (t) => {
  const folder = path.resolve(import.meta.dirname, "../fixtures/wallet");
  const said = JSON.parse(readFileSync(path.join(folder, "journal-of-one-epoch.json"), "utf8"));
  const bytes = gunzipSync(readFileSync(path.join(folder, "journal-of-one-epoch.gz")));
  const policy = { meters: [meterOf(), meterOf({ index: 1, slotS: 60 })], sealEveryS: 3_600 };
  const wallet = new WalletFixture(t, { segments: 3, policy });
  wallet.close();
  const size = bytes.length / 3;
  wallet.putImage([0, 1, 2].map((segment) => bytes.subarray(segment * size, (segment + 1) * size)));
  const fixture = new JournalFixture(t);
  fixture.start(wallet.image());
  const { journal } = fixture;
  assert.equal(journal.nextSequence, said.nextSequence);
  assert.equal(journal.generation, said.generation);
  assert.equal(journal.pendingRows.length, said.pendingRows);
  assert.equal(Buffer.from(journal.lastDigest).toString("hex"), said.lastDigest);
  const { first, last } = { first: said.firstSequence, last: said.nextSequence - 1 };
  assert.deepEqual(journal.epochs, [{ epoch: said.epoch, first, through: said.releasedThrough, last }]);
  assert.deepEqual(journal.lost, said.lost, "the trace of an old torn write looks like one at the tail");
  const { registers, ...row } = journal.lastRow(0, 0) ?? { registers: [] };
  const { registers: before, ...rowBefore } = said.lastRow;
  assert.deepEqual(row, rowBefore);
  assert.deepEqual(
    registers.map(([code, stand]) => [code, stand]),
    before,
  );
  const found = journal
    .records(1, 1_000, 1e9)
    .map(([sequence, record]): [number, string] => [
      sequence,
      Buffer.from(sha256(record)).toString("hex").slice(0, 16),
    ]);
  assert.deepEqual(found, said.records);
  // And the wallet goes on with it.
  wallet.restart();
  wallet.seal([rowAt(startS + 500)]);
  wallet.journal.beginEpoch(other);
  for (let i = 0; i < 60; i++) {
    wallet.seal([rowAt(startS + 501 + i)]);
    for (const item of wallet.journal.epochs) wallet.journal.release(item.last, new Uint8Array([1]), item.epoch);
  }
  wallet.restart();
  assert.deepEqual(
    wallet.journal.epochs.map((item) => item.epoch),
    [other],
  );
  checkChain(wallet.records(), wallet.key.publicKey);
});

test("a journal of a version to come is refused and left as it is, never taken for an unused one", (t) => {
  const fixture = new JournalFixture(t);
  for (let i = 0; i < 20; i++) fixture.append();
  const image = fixture.image();
  const block = image[1]?.subarray(0, blockBytes) as Buffer;
  block.writeUInt16BE(2, 4);
  block.writeUInt32BE(0, 28);
  block.writeUInt32BE(crc32(block), 28);
  assert.throws(
    () => fixture.start(image),
    (error: Error) => error instanceof JournalError && /segment 1 .* has format version 2/.test(error.message),
  );
  assert.deepEqual(fixture.image(), image);
});

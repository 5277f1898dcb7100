import assert from "node:assert/strict";
import { readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { decodeRecord, eventCodes } from "../../protocol/record.ts";
import { readReadAnswer } from "../../protocol/wallet-message.ts";
import { Journal } from "../../wallet/journal.ts";
import { blockBytes } from "../../wallet/journal-block.ts";
import { JournalError } from "../../wallet/journal-ring.ts";
import { SeededRandom } from "../protocol/seeded-random.ts";
import {
  checkChain,
  epoch,
  eventsIn,
  meterOf,
  refusal,
  rowAt,
  rowsFrom,
  segmentBlocks,
  sha256,
  startS,
  WalletFixture,
} from "./wallet-fixture.ts";

test("a journal that was closed opens again as it was", (t) => {
  const wallet = new WalletFixture(t);
  for (let i = 0; i < 10; i++) wallet.seal([rowAt(startS + i)]);
  const before = wallet.records();
  wallet.restart();
  const after = wallet.records();
  assert.equal(after.size, before.size + 1, "only 'started' is new");
  for (const [sequence, bytes] of before) assert.deepEqual(after.get(sequence), bytes);
  assert.equal(checkChain(after, wallet.key.publicKey).length, 0);
  assert.equal(eventsIn(after, eventCodes.started).length, 2);
});

test("the ring goes round: released segments are used again, what is not released stays readable", (t) => {
  const wallet = new WalletFixture(t, { segments: 3 });
  const sealed = new Map<number, Uint8Array>();
  for (let i = 0; i < 12 * segmentBlocks; i++) {
    const [sequence] = wallet.seal([rowAt(startS + i)]);
    sealed.set(sequence as number, wallet.records().get(sequence as number) as Uint8Array);
    if (i % 10 === 9) wallet.release((sequence as number) - 5);
    if (i % 50 === 49) {
      const { through } = wallet.hello();
      wallet.restart();
      assert.ok(wallet.hello().through >= through - 10, "released up to the last commit");
    }
  }
  const records = wallet.records();
  checkChain(records, wallet.key.publicKey);
  const { through, nextSequence } = wallet.hello();
  for (const [sequence, bytes] of sealed) {
    const there = records.get(sequence);
    if (there) assert.deepEqual(there, bytes, "never overwritten by another of its sequence");
    if (sequence > through) assert.ok(there, `${sequence} waits for its receipt`);
  }
  assert.ok(nextSequence > 12 * segmentBlocks);
  const blocks = wallet.image().map((bytes) => bytes.readUInt32BE(12));
  assert.ok(Math.min(...blocks) >= 4, `each segment was used again and again (generations ${blocks})`);
});

test("a full ring refuses, loses nothing, and goes on when a receipt releases", (t) => {
  const wallet = new WalletFixture(t, { segments: 3 });
  let sealed = 0;
  assert.throws(() => {
    for (; ; sealed++) wallet.seal([rowAt(startS + sealed)]);
  }, refusal("ring-full"));
  assert.ok(sealed > 2 * segmentBlocks, `${sealed} records in 3 segments`);
  const { nextSequence, segmentsInUse } = wallet.hello();
  assert.equal(segmentsInUse, 3);
  for (let tries = 0; tries < 200; tries++)
    assert.throws(() => wallet.seal([rowAt(startS + sealed)]), refusal("ring-full"));
  wallet.restart();
  assert.throws(() => wallet.seal([rowAt(startS + sealed)]), refusal("ring-full"));
  assert.equal(wallet.hello().nextSequence, nextSequence, "not even an event was written");
  assert.equal(wallet.records().size, nextSequence - 1);
  wallet.release(nextSequence - 1);
  const [sequence] = wallet.seal([rowAt(startS + sealed)]);
  assert.equal(sequence, nextSequence + 1, "behind the event of the start, which had to wait");
  checkChain(wallet.records(), wallet.key.publicKey);
});

test("a full ring whose newest record was spoilt after a full node had it seals the void, and goes on by the receipt for that", (t) => {
  const wallet = new WalletFixture(t, { segments: 3 });
  let sealed = 0;
  const fill = (): void => {
    for (;;) wallet.seal([rowAt(startS + sealed++)]);
  };
  assert.throws(fill, refusal("ring-full"));
  const last = wallet.journal.nextSequence - 1;
  const delivered = wallet.receiptThrough(last);
  const image = wallet.image();
  const newest = image.findLastIndex((bytes) => bytes.readBigUInt64BE(20) === newestCommit(image));
  const block = lastBlockOf(image[newest] as Buffer);
  image[newest]?.fill(0xa5, block * blockBytes, (block + 1) * blockBytes);
  wallet.close();
  wallet.putImage(image);
  wallet.restart();
  assert.throws(() => wallet.ask({ type: "release", receipt: delivered }), refusal("receipt-digest-mismatch"));
  const [void_] = eventsIn(wallet.records(), eventCodes.void);
  assert.deepEqual(void_?.slice(1, 2), [last], "the void is sealed although the ring is full");
  wallet.releaseAll();
  wallet.seal([rowAt(startS + sealed)]);
});

test("refusals by a full ring do not use up the meter's rate", (t) => {
  const policy = { meters: [meterOf({ rowsPerMinute: 1 })] };
  const wallet = new WalletFixture(t, { segments: 3, policy });
  wallet.secondsPerSeal = 0;
  let sealed = 0;
  const sealNext = (): void => {
    wallet.seal([rowAt(startS + sealed)]);
    sealed++;
    wallet.clock.pass(60);
  };
  assert.throws(() => {
    for (;;) sealNext();
  }, refusal("ring-full"));
  for (let tries = 0; tries < 500; tries++)
    assert.throws(() => wallet.seal([rowAt(startS + sealed)]), refusal("ring-full"));
  wallet.releaseAll();
  sealNext();
});

test("a release is on disk before it lets a segment go", (t) => {
  const wallet = new WalletFixture(t, { segments: 3 });
  assert.throws(() => {
    for (let i = 0; ; i++) wallet.seal([rowAt(startS + i)]);
  }, refusal("ring-full"));
  wallet.releaseAll();
  const { through } = wallet.hello();
  const before = wallet.image();
  wallet.seal([rowAt(startS + 1_000)]);
  const after = wallet.image();
  // The switch is undone: only what went to the reserve of the segment before is kept, as if the power was cut in between.
  const changed = after.findIndex((bytes, index) => bytes.readUInt32BE(12) !== before[index]?.readUInt32BE(12));
  wallet.close();
  wallet.putImage(after.map((bytes, index) => (index === changed ? (before[index] as Buffer) : bytes)));
  wallet.restart();
  assert.equal(wallet.hello().through, through);
});

test("a row that is sealed gives the same record: in memory, after a restart, segments later, evicted from memory", (t) => {
  const wallet = new WalletFixture(t, { segments: 32 });
  const sequences = new Map<number, number>();
  for (let i = 0; i < 300; i++) {
    const [sequence] = wallet.seal([rowAt(startS + i)]);
    sequences.set(i, sequence as number);
  }
  const check = (): void => {
    const { nextSequence } = wallet.hello();
    for (const i of [0, 1, 17, 43, 44, 150, 255, 256, 299]) {
      assert.deepEqual(wallet.seal([rowAt(startS + i)]), [sequences.get(i)], `row ${i}`);
      const other = { ...rowAt(startS + i), values: [1, 1] };
      assert.throws(() => wallet.seal([other]), refusal("row-conflict"), `row ${i} with other values`);
      assert.throws(() => wallet.seal([rowAt(startS + i, 9)]), refusal("row-conflict"), `row ${i}, another status`);
      assert.throws(() => wallet.seal([rowAt(startS + i)], { codes: [2, 6] }), refusal("row-conflict"));
    }
    assert.equal(wallet.hello().nextSequence, nextSequence, "nothing was sealed anew");
  };
  check();
  wallet.restart();
  check();
  check();
});

test("a row of an earlier clock generation gives its record, other values of that time a new one", (t) => {
  const wallet = new WalletFixture(t, { segments: 64 });
  for (let i = 100; i < 200; i++) wallet.seal([rowAt(startS + i)]);
  const [known] = wallet.seal([rowAt(startS + 150)]);
  assert.equal(wallet.hello().generation, 0);
  wallet.clock.set(startS + 50);
  wallet.seal([rowAt(startS + 50)]);
  assert.equal(wallet.hello().generation, 1);
  for (const evict of [false, true]) {
    if (evict) for (let i = 51; i < 99; i++) wallet.seal([rowAt(startS + i)]);
    wallet.restart();
    assert.deepEqual(wallet.seal([rowAt(startS + 150)]), [known]);
    assert.equal(wallet.hello().generation, 1);
  }
  const other = { ...rowAt(startS + 151), values: [5, 5] };
  const [fresh] = wallet.seal([other]);
  assert.ok((fresh as number) > (known as number));
  for (let restart = 0; restart < 2; restart++) {
    assert.deepEqual(wallet.seal([other]), [fresh]);
    assert.throws(() => wallet.seal([{ ...other, values: [6, 6] }]), refusal("row-conflict"));
    wallet.restart();
  }
  checkChain(wallet.records(), wallet.key.publicKey);
});

test("seeded: whatever order rows come in, each time again they give the record they gave first", (t) => {
  const random = new SeededRandom(11);
  const wallet = new WalletFixture(t, { segments: 64, segmentBlocks: 32 });
  const given = new Map<string, number>();
  for (let step = 0; step < 800; step++) {
    const timeS = startS + random.integer(0, 120);
    const row = { timeS, status: 0, values: [random.integer(1, 2), 3] };
    const name = `${timeS}/${row.values[0]}`;
    if (random.chance(1)) wallet.restart();
    let sequence: number | undefined;
    try {
      [sequence] = wallet.seal([row]);
    } catch (error) {
      refusal("row-conflict")(error);
      assert.ok(!given.has(name), `seed ${random.seed}, step ${step}: ${name} was sealed and is a conflict now`);
      continue;
    }
    assert.equal(given.get(name) ?? sequence, sequence, `seed ${random.seed}, step ${step}: ${name}`);
    given.set(name, sequence as number);
  }
  assert.ok(given.size > 50);
  checkChain(wallet.records(), wallet.key.publicKey);
});

const pendingPolicy = { meters: [meterOf({ slotS: 60 }), meterOf({ index: 1, slotS: 60 })], sealEveryS: 86_400 };

test("pending rows survive a restart, which signs them; the same rows then give their record", (t) => {
  const wallet = new WalletFixture(t, { policy: pendingPolicy });
  const times = Array.from({ length: 20 }, (_, i) => startS + 60 + 60 * i);
  for (const timeS of times) assert.deepEqual(wallet.seal([rowAt(timeS)]), [0], "pending");
  assert.equal(wallet.hello().pendingRows, 20);
  for (const timeS of times) assert.deepEqual(wallet.seal([rowAt(timeS)]), [0], "pending, and not twice");
  assert.equal(wallet.hello().pendingRows, 20);
  wallet.restart();
  assert.equal(wallet.hello().pendingRows, 0);
  const sequences = new Set(times.map((timeS) => wallet.seal([rowAt(timeS)])[0] as number));
  assert.equal(sequences.size, 1, "one record of twenty rows");
  const { content } = decodeRecord(wallet.records().get([...sequences][0] as number) as Uint8Array, sha256);
  assert.equal(content.kind === "reading" && content.rows.length, 20);
});

test("a pending row is known however many have come since", (t) => {
  const wallet = new WalletFixture(t, { policy: pendingPolicy, segments: 64 });
  for (let i = 1; i <= 400; i++) wallet.seal([rowAt(startS + 60 * i)]);
  assert.equal(wallet.hello().pendingRows, 400);
  assert.deepEqual(wallet.seal([rowAt(startS + 60)]), [0]);
  assert.throws(() => wallet.seal([{ ...rowAt(startS + 60), values: [1, 1] }]), refusal("row-conflict"));
  assert.equal(wallet.hello().generation, 0);
});

test("pending rows keep their segment from being used again, and never stop the ring", (t) => {
  const policy = { meters: [meterOf({ slotS: 60 }), meterOf({ index: 1 })], sealEveryS: 86_400 };
  const wallet = new WalletFixture(t, { policy, segments: 3 });
  wallet.seal([rowAt(startS + 60)]);
  for (let i = 0; i < 10 * segmentBlocks; i++) {
    wallet.seal([rowAt(startS + i)], { meter: 1 });
    wallet.releaseAll();
    if (i === segmentBlocks / 2) assert.equal(wallet.hello().pendingRows, 1, "still waits for its batch");
  }
  assert.equal(wallet.hello().pendingRows, 0, "was signed before its segment was wanted");
  const [sequence] = wallet.seal([rowAt(startS + 60)]);
  assert.equal(typeof sequence, "number");
  assert.notEqual(sequence, 0);
});

test("the state of the most meters, plans and registers fits into a segment's first commit", (t) => {
  const meters = Array.from({ length: 256 }, (_, index) => meterOf({ index }));
  const plans = [1, 2, 3].map((plan) => ({ plan, slotS: 1, sealEveryS: 0 }));
  const wallet = new WalletFixture(t, { policy: { meters, plans }, segments: 16, segmentBlocks: 256 });
  const codes = [2, 4, 6, 8, 10, 12, 15, 16, 38, 39, 40, 41, 43, 44];
  const row = { timeS: startS, status: 0, values: codes.map(() => 2 ** 52 - 1) };
  for (let plan = 0; plan < 4; plan++)
    for (const { index } of meters) wallet.seal([row], { meter: index, plan, codes });
  assert.throws(() => wallet.seal([row], { plan: 4, codes }), refusal("unknown-plan"), "plans are bounded");
  for (let i = 1; i < 300; i++) wallet.seal([{ ...row, timeS: startS + i }], { codes });
  const firstCommits = wallet.image().map((bytes) => bytes.readUInt16BE(32));
  assert.ok(Math.max(...firstCommits) > 30, `blocks of the segments' first commits: ${firstCommits}`);
  wallet.restart();
  assert.deepEqual(wallet.seal([row], { meter: 255, plan: 3, codes }).length, 1);
  assert.equal(wallet.hello().meters.filter((meter) => meter.lastTimeS >= startS).length, 256);
  checkChain(wallet.records(), wallet.key.publicKey);
});

test("read gives what fits, in order, and nothing for sequences that are not there", (t) => {
  const wallet = new WalletFixture(t, { segments: 8 });
  for (let i = 0; i < 60; i++) wallet.seal([rowAt(startS + i)]);
  const read = (from: number, to: number) =>
    readReadAnswer(wallet.ask({ type: "read", from, to })).records.map(([sequence]) => sequence);
  assert.deepEqual(read(10, 14), [10, 11, 12, 13, 14]);
  assert.deepEqual(read(60, 4_000_000_000), [60, 61]);
  assert.deepEqual(read(62, 70), []);
  assert.deepEqual(read(5, 4), []);
});

function holesOf(wallet: WalletFixture): { segment: number; firstBlock: number; lastBlock: number }[] {
  const holes = [];
  for (let found = wallet.wallet.checkNext(); found !== undefined; found = wallet.wallet.checkNext())
    holes.push(...found);
  return holes.map(({ segment, firstBlock, lastBlock }) => ({ segment, firstBlock, lastBlock }));
}

test("a valid block behind a bad one is a hole: reported as an event, wherever it is; what lies behind it stays", (t) => {
  const wallet = new WalletFixture(t, { segments: 6 });
  for (let i = 0; i < 50; i++) wallet.seal([rowAt(startS + i)]);
  const sealed = wallet.records();
  assert.deepEqual(holesOf(wallet), [], "control: a whole ring has none");
  const image = wallet.image();
  // [segment, block]: the first one of all, in the middle, the last of a segment, the first of a later one, in the newest.
  for (const [segment, block] of [
    [0, 0],
    [0, 5],
    [1, 14],
    [2, 0],
    [3, 2],
    [3, 0],
  ] as const) {
    wallet.close();
    const damaged = image.map((bytes) => Buffer.from(bytes));
    damaged[segment]?.fill(0xa5, block * blockBytes, (block + 1) * blockBytes);
    wallet.putImage(damaged);
    wallet.restart();
    const found = holesOf(wallet);
    if (segment === 1) assert.deepEqual(found, [{ segment: 2, firstBlock: 0, lastBlock: 0 }], "seen at what follows");
    else assert.deepEqual(found, [{ segment, firstBlock: block, lastBlock: block }]);
    assert.equal(eventsIn(wallet.records(), eventCodes.storageError).length, 1);
    const records = wallet.records();
    const missing = [...sealed].filter(([sequence, bytes]) => !Buffer.from(records.get(sequence) ?? []).equals(bytes));
    assert.ok(missing.length <= 1, `segment ${segment}, block ${block}: only the damaged record is gone`);
    const [sequence] = wallet.seal([rowAt(startS + 50)]);
    assert.ok(!sealed.has(sequence as number), "no sequence again");
    assert.throws(() => {
      for (let i = 60; ; i++) wallet.seal([rowAt(startS + i)]);
    }, refusal("ring-full"));
    const later = wallet.records();
    for (const [known, bytes] of sealed)
      if (records.has(known))
        assert.deepEqual(later.get(known), bytes, "a damaged segment is not taken for a free one");
  }
});

test("many holes are reported in as many events as a record can hold", (t) => {
  const wallet = new WalletFixture(t, { segments: 3, segmentBlocks: 256 });
  for (let i = 0; i < 200; i++) wallet.seal([rowAt(startS + i)]);
  wallet.close();
  const image = wallet.image();
  for (let block = 1; block < 200; block += 2) image[0]?.fill(1, block * blockBytes, (block + 1) * blockBytes);
  wallet.putImage(image);
  wallet.restart();
  assert.equal(holesOf(wallet).length, 100);
  assert.equal(eventsIn(wallet.records(), eventCodes.storageError).length, 100);
});

test("records whose later commits tell of them, though a hole has them, are voided and not sealed again", (t) => {
  const wallet = new WalletFixture(t, {
    policy: { ...pendingPolicy, meters: [meterOf(), meterOf({ index: 1, slotS: 60 })] },
  });
  for (let i = 0; i < 5; i++) wallet.seal([rowAt(startS + i)]);
  const { nextSequence } = wallet.hello();
  wallet.seal([rowAt(startS + 60)], { meter: 1 }); // a pending row: a commit without a record
  wallet.close();
  const image = wallet.image();
  image[0]?.fill(1, 6 * blockBytes, 7 * blockBytes); // the commit of the last record
  wallet.putImage(image);
  wallet.restart();
  const records = wallet.records();
  assert.deepEqual(checkChain(records, wallet.key.publicKey), [[nextSequence - 1, nextSequence - 1]]);
});

test("what is no journal is refused with a reason", (t) => {
  const wallet = new WalletFixture(t);
  wallet.close();
  const files = wallet.segmentFiles();
  const refused = (message: RegExp): void => {
    assert.throws(
      () => new Journal(wallet.folder),
      (error: Error) => error instanceof JournalError && message.test(error.message),
    );
  };
  const first = readFileSync(files[0] as string);
  assert.throws(() => Journal.create(wallet.folder, epoch, 3), JournalError, "never made anew over an old one");
  writeFileSync(files[0] as string, Buffer.alloc(first.length));
  refused(/begins with a whole commit/);
  writeFileSync(files[0] as string, first);
  truncateSync(files[1] as string, 8_192);
  refused(/segment-0001\.ecpj has 8192 bytes, the first segment 65536/);
  truncateSync(files[1] as string, first.length);
  rmSync(files[2] as string);
  refused(/segment-0002\.ecpj is missing/);
  for (const file of files) rmSync(file, { force: true });
  refused(/'ecp-wallet init' makes one/);
});

test("seeded rows of one request are sealed, found and numbered alike, in whatever pieces they come", (t) => {
  const wallet = new WalletFixture(t, { policy: { sealEveryS: 60 } });
  wallet.seal(rowsFrom(startS, 20));
  const [a, b] = [wallet.seal(rowsFrom(startS, 20)), wallet.seal(rowsFrom(startS, 30))];
  assert.equal(new Set(a).size, 1);
  assert.deepEqual(b.slice(0, 20), a);
  assert.equal(new Set(b.slice(20)).size, 1);
  assert.ok((b[20] as number) > (a[0] as number));
});

test("a write that fails gives no answer: the error goes to the caller, who ends the process", (t) => {
  const wallet = new WalletFixture(t);
  wallet.close();
  assert.throws(() => wallet.seal([rowAt(startS)]), { code: "EBADF" });
  const reopened = new Journal(wallet.folder);
  assert.equal(reopened.nextSequence, 2, "nothing was written");
  reopened.close();
});

/** Number of the first commit of the newest segment. */
function newestCommit(image: readonly Buffer[]): bigint {
  return image.map((bytes) => bytes.readBigUInt64BE(20)).reduce((most, number) => (number > most ? number : most));
}

/** The last block of a segment that a commit of its generation lies in. */
function lastBlockOf(bytes: Buffer): number {
  const generation = bytes.readUInt32BE(12);
  let block = 0;
  while (bytes.readUInt32BE((block + 1) * blockBytes + 12) === generation) block++;
  return block;
}

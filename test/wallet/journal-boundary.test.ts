// Power cuts where it matters most: at the record that begins an epoch, and at each write that drops what was not released.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { eventCodes, type RecordEvent } from "../../protocol/record.ts";
import { blockBytes } from "../../wallet/journal-block.ts";
import { JournalRing } from "../../wallet/journal-ring.ts";
import { SeededRandom } from "../protocol/seeded-random.ts";
import { JournalFixture, type RingWrite, stopped, writesOf } from "./journal-fixture.ts";
import { checkChain, epoch, eventsIn, refusal, rowAt, segmentBlocks, startS, WalletFixture } from "./wallet-fixture.ts";

const other = 0x0bad_cafe;
const models = ["dropped", "torn", "torn the other way", "noise", "zeros", "a byte changed"] as const;

/** The ring as a power cut in this write leaves it. */
function cutAt(
  { before, segment, block, bytes }: RingWrite,
  model: (typeof models)[number],
  random: SeededRandom,
): Buffer[] {
  const image = before.map((content) => Buffer.from(content));
  const place = (image[segment] as Buffer).subarray(block * blockBytes, block * blockBytes + bytes.length);
  const cut = random.integer(
    1,
    bytes.findLastIndex((byte) => byte !== 0),
  ); // behind it a cut changes nothing
  if (model === "torn") bytes.copy(place, 0, 0, cut);
  if (model === "torn the other way") bytes.copy(place, cut, cut);
  if (model === "noise") place.set(random.bytes(bytes.length));
  if (model === "zeros") place.fill(0);
  if (model === "a byte changed") {
    bytes.copy(place);
    const at = random.integer(0, bytes.length - 1);
    place[at] = (place[at] as number) ^ random.integer(1, 255);
  }
  return image;
}

const boundaries: Record<string, (fixture: JournalFixture) => void> = {
  "in the middle of a fresh segment": (fixture) => {
    for (let i = 0; i < 4; i++) fixture.append();
  },
  "at the beginning of a fresh segment": (fixture) => {
    for (let i = 0; i < 14; i++) fixture.append();
  },
  "in the middle of a segment used before": (fixture) => {
    for (let i = 0; i < 70; i++, fixture.releaseAll()) fixture.append();
  },
  "at the beginning of a segment used before": (fixture) => {
    for (let i = 0; i < 74; i++, fixture.releaseAll()) fixture.append();
  },
};

for (const [name, fill] of Object.entries(boundaries))
  test(`the record that begins an epoch, spoilt ${name}: none of its sequences is used again`, (t) => {
    const random = new SeededRandom(name.length);
    const fixture = new JournalFixture(t);
    fill(fixture);
    const known = new Map(fixture.acknowledged);
    const records: Map<string, string>[] = [];
    const writes = writesOf(fixture, () => {
      fixture.journal.beginEpoch(other);
      fixture.append();
      records.push(new Map(fixture.acknowledged));
    }).filter(({ bytes }) => bytes.readUInt16BE(34) > 0); // without the released position before it, and fillers behind it
    assert.equal(writes.length, 1);
    assert.equal(name.includes("beginning"), writes[0]?.block === 0, "the place is the one meant");
    let voids = 0;
    for (let round = 0; round < 30; round++)
      for (const model of models) {
        const image = cutAt(writes[0] as RingWrite, model, random);
        fixture.start(image);
        fixture.acknowledged.clear();
        for (const [place, digest] of known) fixture.acknowledged.set(place, digest);
        const { journal } = fixture;
        if (journal.epoch === other) {
          // Only zeros were cut off.
          assert.deepEqual(fixture.contents().get(`${other}/1`), records[0]?.get(`${other}/1`));
          continue;
        }
        assert.equal(journal.epoch, epoch, "the epoch before is the running one");
        journal.beginEpoch(other); // as a rotation would, whose next epoch is settled
        const lost = journal.lost;
        assert.equal(lost !== undefined, !Buffer.concat(image).equals(Buffer.concat(writes[0]?.before ?? [])), model);
        if (lost) {
          voids++;
          assert.equal(lost.first, 1, "sequences of the epoch that begins");
          assert.ok(lost.last >= 16);
          // What the lost write held may have been acknowledged.
          for (const [place, digest] of records[0] as Map<string, string>) fixture.acknowledged.set(place, digest);
        }
        fixture.begin();
        fixture.append();
        fixture.reopen();
        assert.equal(fixture.journal.epoch, other);
        assert.equal(fixture.journal.lost, undefined);
        for (const place of known.keys()) {
          const [of, sequence] = place.split("/").map(Number);
          const through = fixture.journal.epochs.find((item) => item.epoch === of)?.through ?? Number.POSITIVE_INFINITY;
          assert.ok((sequence as number) <= through || fixture.contents().has(place), `${model}: ${place}`);
        }
      }
    t.diagnostic(`${voids} voids of ${30 * models.length} cuts`);
    assert.ok(voids > 60);
  });

test("control: where the journal did not tell what may be lost, the new epoch's first sequence would come twice", (t) => {
  const fixture = new JournalFixture(t);
  for (let i = 0; i < 4; i++) fixture.append();
  const [write] = writesOf(fixture, () => {
    fixture.journal.beginEpoch(other);
    fixture.append();
  });
  fixture.start(cutAt(write as RingWrite, "noise", new SeededRandom(1)));
  fixture.journal.beginEpoch(other);
  assert.equal(fixture.journal.nextSequence, 1);
  assert.throws(() => fixture.append(), /3135097598\/1|195939070\/1 a second time/);
});

/** A full ring, whose oldest segment holds records of two epochs, the first of them released. */
function fullFixture(t: TestContext): JournalFixture {
  const fixture = new JournalFixture(t);
  fixture.append();
  fixture.journal.release(1, fixture.receipt("1"));
  fill(fixture, 10);
  return fixture;
}

function fill(fixture: JournalFixture, epochAfter = Number.POSITIVE_INFINITY): void {
  assert.throws(() => {
    for (let i = 0; ; i++) {
      if (i === epochAfter) fixture.journal.beginEpoch(other);
      fixture.append();
    }
  }, refusal("ring-full"));
}

/** As a sealer does it whose policy is to drop: the events are the first records of the commit that overwrites. */
function appendDropping(fixture: JournalFixture, events: readonly RecordEvent[] = [stopped]): void {
  const { lost } = fixture.journal;
  if (lost) fixture.journal.skipTo(lost.last + 1);
  const voids: RecordEvent[] = lost ? [[eventCodes.void, lost.first, lost.last]] : [];
  try {
    fixture.appendAll([fixture.record([...voids, ...events])]);
  } catch (error) {
    refusal("ring-full")(error);
    const ranges = fixture.journal.dropOldest();
    assert.ok(ranges, "something can be dropped");
    const dropped = ranges.map((range): RecordEvent => [eventCodes.dropped, range.epoch, range.first, range.last]);
    const first = fixture.record([...voids, ...dropped]);
    fixture.appendAll([first, fixture.record(events, first)]);
  }
}

/** Each acknowledged record is there, released, or named by a `dropped` event that is on disk. */
function checkNothingSilent(fixture: JournalFixture, acknowledged: ReadonlyMap<string, string>, what: string): void {
  const contents = fixture.contents();
  const dropped = fixture.eventsOf(eventCodes.dropped);
  for (const [place, digest] of acknowledged) {
    const [of, sequence] = place.split("/").map(Number) as [number, number];
    const there = contents.get(place);
    if (there !== undefined) {
      assert.equal(there, digest, place);
      continue;
    }
    const isReleased = of === epoch && sequence === 1;
    const isDeclared = dropped.some(
      ([, of_, first, last]) => of_ === of && (first as number) <= sequence && sequence <= (last as number),
    );
    assert.ok(isReleased || isDeclared, `${what}: ${place} is gone in silence`);
  }
}

test("a full ring drops its oldest segment, and says which records went, whatever epochs they are of", (t) => {
  const fixture = fullFixture(t);
  assert.deepEqual(fixture.journal.dropOldest(), [
    { epoch, first: 2, last: 11 },
    { epoch: other, first: 1, last: 3 },
  ]);
  assert.throws(() => fixture.append(), /dropped by a commit that says so/);
  assert.throws(() => fixture.append(), refusal("ring-full"), "what was given up holds for one append only");
  for (let i = 0; i < 60; i++) {
    appendDropping(fixture);
    if (i % 7 === 0) fixture.reopen();
  }
  // All segments were overwritten: of the oldest events only the newest are there, and each range begins behind the one before.
  const ranges = fixture.eventsOf(eventCodes.dropped);
  assert.ok(ranges.length >= 2);
  for (const [i, [, , first]] of ranges.entries()) if (i > 0) assert.equal(first, (ranges[i - 1]?.[3] as number) + 1);
  assert.equal(fixture.journal.epochs.length, 1);
  assert.equal(fixture.journal.releasedThrough, 0, "dropped is not released");
});

test("nothing is dropped that need not be: room, released records, pending rows", (t) => {
  const fixture = new JournalFixture(t);
  fixture.append();
  assert.equal(fixture.journal.dropOldest(), undefined, "segments that were never used");
  for (let i = 0; i < 60; i++, fixture.releaseAll()) fixture.append();
  assert.equal(fixture.journal.dropOldest(), undefined, "released ones");
  const pending = new JournalFixture(t);
  const row = { timeS: 60, status: 0, values: [1] };
  pending.journal.append([], [{ meter: 0, plan: 0, slotS: 60, generation: 0, clockState: 0, codes: [2], row }]);
  assert.throws(() => {
    for (;;) pending.append();
  }, refusal("ring-full"));
  assert.equal(pending.journal.dropOldest(), undefined, "rows that are not signed yet");
});

test("drop the oldest, cut at every write and in every way: no record goes in silence, no sequence comes twice", (t) => {
  const random = new SeededRandom(17);
  const fixture = fullFixture(t);
  for (let i = 0; i < 5; i++) appendDropping(fixture);
  fill(fixture);
  const known = new Map(fixture.acknowledged);
  let delivered = new Map<string, string>();
  const writes = writesOf(fixture, () => {
    appendDropping(fixture);
    delivered = new Map(fixture.acknowledged);
  });
  const overwriting = writes.findIndex(({ bytes }) => bytes.readUInt16BE(34) > 0);
  assert.ok(overwriting === 1 && writes.length === 3, "announced, overwritten, and a filler in what is left of before");
  const counts = { cuts: 0, voids: 0 };
  for (const [index, write] of writes.entries())
    for (let round = 0; round < 25; round++)
      for (const model of models) {
        counts.cuts++;
        const image = cutAt(write, model, random);
        fixture.start(image);
        fixture.acknowledged.clear();
        const what = `write ${index}, ${model}`;
        const isThere = fixture.contents().has([...delivered.keys()].at(-1) as string);
        const isTouched = !Buffer.concat(image).equals(Buffer.concat(write.before));
        if (index === overwriting && isTouched) assert.ok(isThere || fixture.journal.lost, what);
        const mayBeDelivered = index > overwriting || (index === overwriting && fixture.journal.lost !== undefined);
        for (const [place, digest] of isThere || mayBeDelivered ? delivered : known)
          fixture.acknowledged.set(place, digest);
        if (fixture.journal.lost) counts.voids++;
        if (!isThere) assert.throws(() => fixture.append(), refusal("ring-full"), `${what}: nothing goes in silence`);
        appendDropping(fixture);
        for (const restart of [false, true]) {
          if (restart) fixture.reopen();
          checkNothingSilent(fixture, known, what);
          assert.equal(fixture.journal.lost, undefined, what);
        }
        for (let i = 0; i < 3; i++) appendDropping(fixture);
      }
  t.diagnostic(JSON.stringify(counts));
  assert.ok(counts.voids > 200);
});

test("control: without the announcement, what the torn write took is gone, and its sequences would come twice", (t) => {
  const fixture = fullFixture(t);
  appendDropping(fixture);
  fill(fixture);
  const known = new Map(fixture.contents());
  const writes = writesOf(fixture, () => appendDropping(fixture));
  const [announcement, overwriting] = writes as [RingWrite, RingWrite];
  const before = overwriting.before.map((content) => Buffer.from(content));
  announcement.before[announcement.segment]?.copy(before[announcement.segment] as Buffer);
  fixture.start(cutAt({ ...overwriting, before }, "noise", new SeededRandom(2)));
  assert.equal(fixture.journal.lost, undefined, "nothing tells that a write was under way");
  assert.ok([...known.keys()].some((place) => !fixture.contents().has(place)));
  assert.throws(() => appendDropping(fixture), /a second time/);
});

test("seeded: dropping, releasing and power cuts one after the other: nothing goes in silence", (t) => {
  const random = new SeededRandom(20_271_122);
  const fixture = new JournalFixture(t);
  const said = new Set<string>();
  let sure = new Map<string, string>();
  const counts = { cuts: 0, dropped: 0, epochs: 0 };
  const remember = (): void => {
    for (const event of fixture.eventsOf(eventCodes.dropped)) {
      const [, of, first, last] = event as [number, number, number, number];
      for (let sequence = first; sequence <= last; sequence++) said.add(`${of}/${sequence}`);
    }
  };
  for (let step = 0; step < 500; step++) {
    const known = new Map(fixture.acknowledged);
    const sureBefore = new Map(sure);
    if (random.chance(2) && fixture.journal.canBeginEpoch && fixture.journal.lost === undefined) {
      fixture.journal.beginEpoch(5_000 + counts.epochs++);
    }
    const writes = writesOf(fixture, () => appendDropping(fixture));
    for (const [place, digest] of fixture.acknowledged) if (!known.has(place)) sure.set(place, digest);
    if (random.chance(5)) {
      const item = random.pick(fixture.journal.epochs);
      fixture.journal.release(Math.min(item.last, item.through + 10), fixture.receipt("r"), item.epoch);
    }
    if (!random.chance(20)) {
      remember();
      continue;
    }
    counts.cuts++;
    const write = random.pick(writes);
    const model = random.pick(models);
    const isLast = write === writes.at(-1);
    const mayBeDelivered = new Map(fixture.acknowledged);
    const oldest = fixture.journal.epochs;
    fixture.start(cutAt(write, model, random));
    const isKept = isLast && fixture.journal.lost !== undefined;
    fixture.acknowledged.clear();
    for (const [place, digest] of isKept ? mayBeDelivered : known) fixture.acknowledged.set(place, digest);
    const contents = fixture.contents();
    const positions = fixture.journal.epochs;
    appendDropping(fixture);
    remember();
    counts.dropped = Math.max(counts.dropped, said.size);
    sure = new Map([...sureBefore].filter(([place]) => !said.has(place)));
    for (const place of sure.keys()) {
      if (contents.has(place) || said.has(place)) continue;
      const [of, sequence] = place.split("/").map(Number) as [number, number];
      const item = positions.find((position) => position.epoch === of);
      const wasReleased = item === undefined || sequence <= item.through || sequence < item.first;
      assert.ok(wasReleased, `step ${step}, ${model}: ${place} (${JSON.stringify(oldest)})`);
    }
  }
  t.diagnostic(`${JSON.stringify(counts)}, seed ${random.seed}`);
  assert.ok(counts.cuts > 50 && counts.dropped > 100);
});

test("a spoilt tail of a full ring that may drop: the void stands in the first record behind what it voids, whatever is cut", (t) => {
  const wallet = new WalletFixture(t, { segments: 3, policy: { whenFull: "drop_oldest" } });
  for (let i = 0; i < 100; i++) wallet.seal([rowAt(startS + i)]);
  for (let i = 100; wallet.journal.segmentsInUse < 3 || nextBlockOf(wallet) < fullBlocks; i++)
    wallet.seal([rowAt(startS + i)]);
  let image = wallet.image();
  const newest = image.findIndex((bytes) => bytes.readBigUInt64BE(20) === newestFirstCommit(image));
  let writes: RingWrite[] = [];
  // Each void is spoilt in its turn, until the room that is left for voids has gone.
  for (let block = fullBlocks - 1; block < segmentBlocks - 1; ) {
    image[newest]?.fill(0xa5, block * blockBytes, (block + 1) * blockBytes);
    wallet.close();
    wallet.putImage(image);
    writes = restartWriting(wallet);
    block = (writes[0] as RingWrite).block;
    image = (writes[1] as RingWrite).before.map((bytes) => Buffer.from(bytes));
  }
  assert.ok(writes.length >= 2, "the drop and what follows it");
  const random = new SeededRandom(4);
  const check = (): void => {
    const records = wallet.records();
    assert.equal(checkChain(records, wallet.key.publicKey).length > 0, eventsIn(records, eventCodes.void).length > 0);
    assert.ok(eventsIn(records, eventCodes.void).length > 0, "the void is sealed");
    assert.ok(eventsIn(records, eventCodes.dropped).length > 0);
  };
  check();
  for (const cut of writes) {
    wallet.close();
    wallet.putImage(cutAt(cut, "noise", random));
    wallet.restart();
    check();
  }
});

/** Starts the wallet again, and gives what that writes. */
function restartWriting(wallet: WalletFixture): RingWrite[] {
  const writes: RingWrite[] = [];
  const { write } = JournalRing.prototype;
  JournalRing.prototype.write = function (this: JournalRing, segment: number, block: number, bytes: Buffer): void {
    writes.push({ before: wallet.image(), segment, block, bytes: Buffer.from(bytes) });
    write.call(this, segment, block, bytes);
  };
  try {
    wallet.restart();
  } finally {
    JournalRing.prototype.write = write;
  }
  return writes;
}

/** Blocks of the newest segment that a full ring fills: the rest is left for voids and a released position. */
const fullBlocks = segmentBlocks - 4;

/** Number of the first commit of the segment that is being written. */
function newestFirstCommit(image: readonly Buffer[]): bigint {
  return image.map((bytes) => bytes.readBigUInt64BE(20)).reduce((most, number) => (number > most ? number : most));
}

/** Blocks of the segment that is being written which are commits of its own generation. */
function nextBlockOf(wallet: WalletFixture): number {
  const image = wallet.image();
  const bytes = image.find((content) => content.readBigUInt64BE(20) === newestFirstCommit(image)) as Buffer;
  const generation = bytes.readUInt32BE(12);
  let block = 0;
  while (block < segmentBlocks && bytes.readUInt32BE(block * blockBytes + 12) === generation) block++;
  return block;
}

// The last commit spoilt in every way that a power cut leaves behind, at every place of a segment where it can lie. Damage that
// gives back exactly what was there before cannot be told from a write that never happened; every other is voided.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { eventCodes, type Row } from "../../protocol/record.ts";
import { Journal } from "../../wallet/journal.ts";
import { blockBytes, encodeCommit } from "../../wallet/journal-block.ts";
import { walkSegment } from "../../wallet/journal-walk.ts";
import { SeededRandom } from "../protocol/seeded-random.ts";
import { checkChain, eventsIn, rowAt, segmentBlocks, sha256, startS, WalletFixture } from "./wallet-fixture.ts";

const sectorBytes = 512;

/** Where the last commit lies, and everything that was on disk before and after it. */
interface LastCommit {
  readonly wallet: WalletFixture;
  readonly before: Buffer[];
  readonly after: Buffer[];
  readonly segment: number;
  readonly block: number;
  readonly blocks: number;
  readonly sealedBefore: ReadonlyMap<number, Uint8Array>;
  readonly sealedByIt: ReadonlyMap<number, Uint8Array>;
  readonly rows: readonly Row[];
  readonly codes: readonly number[];
  /** Time of the next row. */
  readonly nextS: number;
}

interface Place {
  /** Blocks of the commit, about. */
  readonly rowsInCommit: number;
  readonly codes: readonly number[];
  readonly isThere: (segment: number, block: number, blocks: number, generation: number) => boolean;
}

const one = { rowsInCommit: 1, codes: [2, 4] };
const several = { rowsInCommit: 1, codes: Array.from({ length: 64 }, (_, i) => i + 101) };
const many = { rowsInCommit: 16, codes: Array.from({ length: 60 }, (_, i) => i + 101) };
const lastUsable = segmentBlocks - 2; // the last block is the reserve

const places: Record<string, Place> = {
  "in the middle of a fresh segment": { ...one, isThere: (segment, block) => segment === 0 && block === 5 },
  "in the middle of a segment used before": {
    ...one,
    isThere: (_segment, block, _blocks, generation) => generation === 3 && block === 5,
  },
  "at the end of a segment": {
    ...one,
    isThere: (_segment, block, _blocks, generation) => generation === 2 && block === lastUsable,
  },
  "the first commit of a fresh segment": { ...one, isThere: (segment, block) => segment === 1 && block === 0 },
  "the first commit of a segment used before": {
    ...one,
    isThere: (_segment, block, _blocks, generation) => generation === 2 && block === 0,
  },
  "a commit of several blocks in the middle": {
    ...many,
    isThere: (_segment, block, blocks, generation) => generation === 2 && block > 0 && blocks === 3,
  },
  "a commit of several blocks at the beginning of a segment used before": {
    ...many,
    isThere: (_segment, block, blocks, generation) => generation === 2 && block === 0 && blocks >= 3,
  },
  "a commit of several blocks at the beginning of a fresh segment": {
    ...many,
    isThere: (segment, block, blocks, generation) => generation === 1 && segment === 1 && block === 0 && blocks >= 3,
  },
  "a commit of wide rows": {
    ...several,
    isThere: (_segment, block, _blocks, generation) => generation === 2 && block === 3,
  },
};

function rowsOf(place: Pick<Place, "rowsInCommit" | "codes">, timeS: number): Row[] {
  return Array.from({ length: place.rowsInCommit }, (_, i) => ({
    timeS: timeS + i,
    status: 0,
    values: place.codes.map((code) => (timeS + i) * 1_000_000 * (code % 2 === 0 ? 1 : -1) * ((i % 2) * 2 - 1)),
  }));
}

/** Seals until the last commit lies where it should. Everything before it is released, but for the newest few. */
function sealUntil(t: TestContext, place: Place): LastCommit {
  const wallet = new WalletFixture(t, { segments: 3, policy: { sealEveryS: 60 } });
  for (let timeS = startS; ; timeS += place.rowsInCommit) {
    const before = wallet.image();
    const sealedBefore = wallet.records();
    const rows = rowsOf(place, timeS);
    const sequences = wallet.seal(rows, { codes: place.codes });
    const after = wallet.image();
    const where = changeOf(before, after);
    if (where && place.isThere(where.segment, where.block, where.blocks, where.generation)) {
      const sealedByIt = new Map([...wallet.records()].filter(([sequence]) => sequences.includes(sequence)));
      const nextS = timeS + place.rowsInCommit;
      return { wallet, before, after, ...where, sealedBefore, sealedByIt, rows, codes: place.codes, nextS };
    }
    wallet.release(Math.max(1, wallet.journal.nextSequence - 3));
  }
}

/** The blocks that changed; of two places the one in the newer segment. */
function changeOf(before: readonly Buffer[], after: readonly Buffer[]) {
  const changes = after.flatMap((bytes, segment) => {
    const changed = Array.from({ length: segmentBlocks }, (_, block) => block).filter(
      (block) => !blockOf(bytes, block).equals(blockOf(before[segment] as Buffer, block)),
    );
    const block = changed[0];
    if (block === undefined) return [];
    const generation = blockOf(bytes, block).readUInt32BE(12);
    const commit = blockOf(bytes, block).readBigUInt64BE(20);
    const blocks = changed.filter((other, i) => other === block + i).length; // behind it there may be fillers
    return [{ segment, block, blocks, generation, commit }];
  });
  return changes.sort((a, b) => Number(a.commit - b.commit)).at(-1);
}

function blockOf(bytes: Buffer, block: number): Buffer {
  return bytes.subarray(block * blockBytes, (block + 1) * blockBytes);
}

/** Puts the spoilt bytes of the last commit on disk, starts the wallet, and demands all that was promised. */
function recoverFrom(last: LastCommit, spoilt: Buffer, name: string): "as before" | "as after" | "void" {
  const { wallet, before, after, segment, block, sealedBefore, sealedByIt } = last;
  const image = after.map((bytes) => Buffer.from(bytes));
  spoilt.copy(image[segment] as Buffer, block * blockBytes);
  wallet.close();
  wallet.putImage(image);
  wallet.restart();
  const records = wallet.records();
  for (const [sequence, bytes] of sealedBefore) {
    const there = records.get(sequence);
    // Of the segment that the commit was to overwrite, all is released.
    if (there === undefined) assert.ok(sequence <= wallet.hello().through, `${name}: record ${sequence} is gone`);
    else assert.ok(Buffer.from(bytes).equals(there), `${name}: record ${sequence} changed`);
  }
  const voids = checkChain(records, wallet.key.publicKey);
  const range = last.blocks * blockBytes;
  const old = (before[segment] as Buffer).subarray(block * blockBytes, block * blockBytes + range);
  const whole = (after[segment] as Buffer).subarray(block * blockBytes, block * blockBytes + range);
  const outcome = spoilt.equals(whole) ? "as after" : spoilt.equals(old) ? "as before" : "void";
  if (outcome === "as after")
    assert.ok(
      [...sealedByIt.keys()].every((sequence) => records.has(sequence)),
      name,
    );
  if (outcome !== "void") assert.equal(voids.length, 0, `${name}: nothing to void`);
  else {
    assert.equal(voids.length, 1, `${name}: one void`);
    const [[first, end]] = voids as [[number, number]];
    for (const sequence of sealedByIt.keys())
      assert.ok(sequence >= first && sequence <= end, `${name}: ${sequence} may have been used, void ${first}-${end}`);
  }
  // The same request again, and one more: no sequence that was used comes back with other bytes.
  const again = wallet.seal(last.rows, { codes: last.codes });
  const [fresh] = wallet.seal([rowAt(last.nextS)]);
  const sealed = wallet.records();
  for (const [sequence, bytes] of sealedByIt) {
    const there = sealed.get(sequence);
    if (outcome === "as after") assert.ok(there && Buffer.from(bytes).equals(there), name);
    else if (outcome === "void") assert.equal(there, undefined, `${name}: sequence ${sequence} was used again`);
  }
  wallet.restart();
  const later = wallet.records();
  assert.equal(eventsIn(later, eventCodes.void).length, outcome === "void" ? 1 : 0, `${name}: voided once`);
  assert.deepEqual(wallet.seal(last.rows, { codes: last.codes }), again, `${name}: the same record as before`);
  assert.ok(later.has(fresh as number), name);
  checkChain(later, wallet.key.publicKey);
  return outcome;
}

/** The last commit as it may be found: each variation of its blocks by itself, and some at once. */
function* variations(last: LastCommit, random: SeededRandom): Generator<[name: string, bytes: Buffer]> {
  const from = last.block * blockBytes;
  const length = last.blocks * blockBytes;
  const whole = (last.after[last.segment] as Buffer).subarray(from, from + length);
  const old = (last.before[last.segment] as Buffer).subarray(from, from + length);
  const with_ = (change: (bytes: Buffer) => void): Buffer => {
    const bytes = Buffer.from(whole);
    change(bytes);
    return bytes;
  };
  for (let cut = 0; cut <= length; cut += sectorBytes)
    yield [`cut at ${cut}`, with_((bytes) => old.copy(bytes, cut, cut))];
  for (let cut = 1 + random.integer(0, 100); cut < length; cut += random.integer(300, 1_400))
    yield [`cut at ${cut}`, with_((bytes) => old.copy(bytes, cut, cut))];
  for (let sector = 0; sector < length; sector += sectorBytes)
    yield [`sector ${sector} old`, with_((bytes) => old.copy(bytes, sector, sector, sector + sectorBytes))];
  for (let flip = 0; flip < 12; flip++) {
    const at = random.integer(0, length - 1);
    yield [
      `byte ${at} changed`,
      with_((bytes) => bytes.writeUInt8((bytes[at] as number) ^ random.integer(1, 255), at)),
    ];
  }
  const fillings: Record<string, (block: Buffer, at: number) => void> = {
    zeros: (block) => block.fill(0),
    noise: (block) => block.set(random.bytes(block.length)),
    "old content": (block, at) => old.copy(block, 0, at, at + block.length),
  };
  for (const [name, fill] of Object.entries(fillings))
    for (let chosen = 1; chosen < 2 ** Math.min(last.blocks, 4); chosen++)
      yield [
        `blocks ${chosen.toString(2)} ${name}`,
        with_((bytes) => {
          for (let block = 0; block < last.blocks; block++)
            if (chosen & (1 << block)) fill(blockOf(bytes, block), block * blockBytes);
        }),
      ];
}

for (const [name, place] of Object.entries(places)) {
  test(`spoilt ${name}: earlier commits stay, its sequences are void and not used again`, (t) => {
    const random = new SeededRandom(name.length);
    const last = sealUntil(t, place);
    const outcomes = { "as before": 0, "as after": 0, void: 0 };
    for (const [variation, bytes] of variations(last, random)) outcomes[recoverFrom(last, bytes, variation)]++;
    t.diagnostic(`${JSON.stringify(outcomes)}, ${last.blocks} blocks, segment ${last.segment}, block ${last.block}`);
    assert.ok(outcomes.void > 10 && outcomes["as after"] > 0 && outcomes["as before"] > 0, JSON.stringify(outcomes));
  });
}

test("seeded: power cuts one after the other, also during recovery: no sequence has two digests", (t) => {
  const random = new SeededRandom(20_270_115);
  const wallet = new WalletFixture(t, { segments: 3, policy: { sealEveryS: 60 } });
  const seen = new Map<number, string>();
  const see = (records: ReadonlyMap<number, Uint8Array>): void => {
    for (const [sequence, bytes] of records) {
      const digest = Buffer.from(sha256(bytes)).toString("hex");
      assert.equal(seen.get(sequence) ?? digest, digest, `sequence ${sequence} has two digests`);
      seen.set(sequence, digest);
    }
  };
  let timeS = startS;
  const counts = { cuts: 0, voids: 0 };
  while (counts.cuts < 150) {
    const before = wallet.image();
    const acknowledged = wallet.records();
    see(acknowledged);
    const lastOfThem = [...acknowledged.keys()].at(-1) as number;
    if (random.chance(30) || wallet.hello().segmentsInUse === 3) wallet.release(lastOfThem);
    if (random.chance(30)) wallet.restart();
    else {
      const codes = random.chance(20) ? (places["a commit of wide rows"] as Place).codes : [2, 4];
      const rows = rowsOf({ codes, rowsInCommit: random.integer(1, 8) }, timeS);
      timeS += rows.length;
      wallet.seal(rows, { codes });
    }
    if (random.chance(50)) continue;
    counts.cuts++;
    const after = wallet.image();
    const { image, isDropped } = cutPower(before, after, random);
    if (!isDropped) see(wallet.records()); // may have been acknowledged and delivered
    wallet.close();
    wallet.putImage(image);
    wallet.restart();
    const records = wallet.records();
    see(records);
    const { through } = wallet.hello();
    for (const sequence of acknowledged.keys()) assert.ok(sequence <= through || records.has(sequence), `${sequence}`);
    checkChain(records, wallet.key.publicKey);
    counts.voids += eventsIn(records, eventCodes.void).filter(([, first]) => (first as number) > lastOfThem).length;
  }
  t.diagnostic(`${JSON.stringify(counts)}, ${seen.size} records, seed ${random.seed}`);
  assert.ok(counts.voids > 30);
});

/** The ring as a power cut leaves it: of the last commit each block is kept, dropped, torn or noise; fillers come after it. */
function cutPower(
  before: readonly Buffer[],
  after: readonly Buffer[],
  random: SeededRandom,
): { image: Buffer[]; isDropped: boolean } {
  const image = after.map((bytes) => Buffer.from(bytes));
  const changed = after.flatMap((bytes, segment) =>
    Array.from({ length: segmentBlocks }, (_, block) => ({
      bytes: blockOf(image[segment] as Buffer, block),
      old: blockOf(before[segment] as Buffer, block),
      commit: Number(blockOf(bytes, block).readBigUInt64BE(20)),
    })).filter(({ bytes, old }) => !bytes.equals(old)),
  );
  const newest = Math.max(...changed.map(({ commit }) => commit));
  const fillers = changed.filter(({ commit }) => commit === 0);
  if (fillers.length > 0 && random.chance(30)) spoil(random.pick(fillers), random);
  else {
    for (const { bytes, old } of fillers) old.copy(bytes);
    for (const block of changed) if (block.commit === newest) spoil(block, random);
  }
  return { image, isDropped: changed.every(({ bytes, old, commit }) => commit !== newest || bytes.equals(old)) };
}

function spoil({ bytes, old }: { bytes: Buffer; old: Buffer }, random: SeededRandom): void {
  const cut = random.integer(1, 7) * sectorBytes;
  const kind = random.integer(1, 4);
  if (kind === 2) old.copy(bytes);
  if (kind === 3) bytes.set(random.bytes(bytes.length));
  if (kind === 4) old.copy(bytes, cut, cut);
}

test("control: without the void, the sequence of a record that may have been delivered is used again", (t) => {
  const last = sealUntil(t, places["in the middle of a fresh segment"] as Place);
  const { wallet } = last;
  wallet.close();
  const image = last.after.map((bytes) => Buffer.from(bytes));
  blockOf(image[last.segment] as Buffer, last.block).fill(0xa5);
  wallet.putImage(image);
  const journal = new Journal(wallet.folder);
  // What the next record would be, were it not for skipTo(): the very sequence that was lost.
  assert.deepEqual([...last.sealedByIt.keys()], [journal.nextSequence]);
  assert.equal(journal.lost?.first, journal.nextSequence);
  journal.skipTo((journal.lost?.last as number) + 1);
  assert.ok(!last.sealedByIt.has(journal.nextSequence));
  assert.throws(() => journal.skipTo(1), /never reused/);
  journal.close();
});

test("control: in a log without padding, garbage in the block being written takes acknowledged records along", () => {
  const random = new SeededRandom(3);
  const records = Array.from({ length: 100 }, () => Buffer.from(random.bytes(random.integer(100, 300))));
  const padded = Buffer.concat(
    records.map((record, block) => encodeCommit({ ...emptyHeader, block, commitNumber: block }, record)),
  );
  const packed = Buffer.concat(records);
  const noise = random.bytes(blockBytes);
  const lost = { padded: 0, packed: 0 };
  let packedAt = 0;
  for (let crash = 0; crash < records.length; crash++) {
    // All records before this one are acknowledged; the block in which it is being written turns to garbage.
    const spoiltPadded = Buffer.from(padded.subarray(0, (crash + 1) * blockBytes));
    spoiltPadded.set(noise, crash * blockBytes);
    const bodies = walkSegment(spoiltPadded, 0, 1).commits.map(({ body }) => body);
    lost.padded += records.slice(0, crash).filter((record, index) => !bodies[index]?.equals(record)).length;
    const garbageFrom = Math.floor(packedAt / blockBytes) * blockBytes;
    const spoiltPacked = Buffer.from(packed.subarray(0, packedAt));
    spoiltPacked.set(noise.subarray(0, packedAt - garbageFrom), garbageFrom);
    for (let index = 0, at = 0; index < crash; at += (records[index++] as Buffer).length)
      if (!spoiltPacked.subarray(at, at + (records[index] as Buffer).length).equals(records[index] as Buffer))
        lost.packed++;
    packedAt += (records[crash] as Buffer).length;
  }
  assert.ok(lost.packed > 100, `${lost.packed} acknowledged records lost without padding`);
  assert.equal(lost.padded, 0);
});

const emptyHeader = {
  ...{ segment: 0, generation: 1, records: 0, pendingRows: 0, epoch: 1, firstSequence: 1 },
  ...{ releasedEpoch: 1, releasedThrough: 0, previousHash: new Uint8Array(32) },
};

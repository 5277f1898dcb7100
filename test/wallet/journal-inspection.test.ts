// What `ecp-wallet journal check` finds, and that it finds nothing where nothing is wrong.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { kidOf } from "../../protocol/public-key.ts";
import { eventCodes, previousBytes } from "../../protocol/record.ts";
import { signRotation } from "../../protocol/rotation.ts";
import { blockBytes, encodeCommit, readCommit } from "../../wallet/journal-block.ts";
import { decodeBody, encodeBody } from "../../wallet/journal-body.ts";
import { checkJournal } from "../../wallet/journal-inspection.ts";
import { JournalRing } from "../../wallet/journal-ring.ts";
import { type DeviceKey, deviceKeyOf } from "../../wallet/keystore.ts";
import { JournalFixture, stopped } from "./journal-fixture.ts";
import { epoch, sha256 } from "./wallet-fixture.ts";

const other = 0x0bad_cafe;

function findingsOf(fixture: JournalFixture, keys: readonly DeviceKey[] = [fixture.key]): string[] {
  const ring = JournalRing.open(fixture.folder, "read");
  const findings: string[] = [];
  const publicKeys = keys.map(({ publicKey }) => publicKey);
  checkJournal(ring, { nameKey: publicKeys[0] as Uint8Array, publicKeys }, (finding) => findings.push(finding));
  ring.close();
  return findings;
}

test("nothing is found in whole journals: new, gone round, of several epochs, with voids, of an earlier version", (t) => {
  const fixture = new JournalFixture(t);
  assert.deepEqual(findingsOf(fixture), []);
  for (let i = 0; i < 100; i++) {
    if (i % 30 === 29) fixture.journal.beginEpoch(1_000 + i);
    fixture.append();
    if (i > 20) fixture.releaseAll();
    if (i % 9 === 0) {
      const first = fixture.journal.nextSequence;
      fixture.journal.skipTo(first + 16);
      fixture.append([[eventCodes.void, first, first + 15]]);
      fixture.reopen();
    }
    assert.deepEqual(findingsOf(fixture), [], `after ${i}`);
  }
  const bytes = gunzipSync(
    readFileSync(path.resolve(import.meta.dirname, "../fixtures/wallet/journal-of-one-epoch.gz")),
  );
  const size = bytes.length / 3;
  fixture.start([0, 1, 2].map((segment) => bytes.subarray(segment * size, (segment + 1) * size)));
  assert.deepEqual(findingsOf(fixture), []);
});

test("any block damaged is found, and where it is", (t) => {
  const fixture = new JournalFixture(t);
  for (let i = 0; i < 40; i++) fixture.append();
  const image = fixture.image();
  for (let segment = 0; segment < 3; segment++)
    for (let block = 0; block < 16; block++) {
      const isWritten = readCommit(image[segment] as Buffer, block) !== undefined;
      const damaged = image.map((bytes) => Buffer.from(bytes));
      damaged[segment]?.writeUInt8(0xa5, block * blockBytes + 300);
      fixture.start(damaged);
      const findings = findingsOf(fixture);
      if (!isWritten && findings.length === 0) continue; // a reserve that was never used, or what lies behind the tail
      assert.ok(isWritten || /the tail is spoilt/.test(findings.join()), `${segment}/${block}: ${findings}`);
      if (!isWritten) continue;
      assert.ok(findings.length > 0, `segment ${segment}, block ${block}`);
      const next = block === 14 ? `segment ${segment + 1}, blocks 0-0` : `blocks ${block}-`;
      assert.ok(findings.join().includes(next), `${segment}/${block}: ${findings}`);
    }
  const lost = image.map((bytes) => Buffer.from(bytes));
  lost[0]?.fill(0xa5);
  fixture.start(lost);
  assert.match(findingsOf(fixture).join(), /segment 0: holds neither a whole commit nor the zeros/);
});

test("a hole names the sequences that are missing", (t) => {
  const fixture = new JournalFixture(t);
  for (let i = 0; i < 10; i++) fixture.append();
  const image = fixture.image();
  image[0]?.fill(1, 4 * blockBytes, 6 * blockBytes); // block 0 is the commit of the creation
  fixture.start(image);
  assert.deepEqual(findingsOf(fixture), [
    `segment 0, blocks 4-5: commits 4-5 are missing, with sequences 4-5 of epoch ${epoch}`,
  ]);
});

/** Changes what a commit holds, and makes its blocks whole again: as somebody would who can write the card, and has no key. */
function rewritten(image: readonly Buffer[], block: number, change: (records: Uint8Array[]) => Uint8Array[]): Buffer[] {
  const changed = image.map((bytes) => Buffer.from(bytes));
  const commit = readCommit(changed[0] as Buffer, block);
  assert.ok(commit);
  const body = decodeBody(commit.body);
  encodeCommit(commit.header, encodeBody({ ...body, records: change([...body.records]) })).copy(
    changed[0] as Buffer,
    block * blockBytes,
  );
  return changed;
}

test("records that were changed, swapped, doubled or signed by somebody else are found, though their blocks are whole", (t) => {
  const fixture = new JournalFixture(t);
  const records = Array.from({ length: 12 }, () => fixture.append());
  const image = fixture.image();
  const last = 12; // its commit is followed by none, whose hash would tell
  const flipped = (bytes: Uint8Array, at: number): Uint8Array =>
    Uint8Array.from(bytes, (byte, i) => (i === at ? byte ^ 1 : byte));
  const length = records[11]?.bytes.length as number;
  const kidAt = Buffer.from(records[11]?.bytes ?? []).indexOf(kidOf(fixture.key.publicKey, sha256));
  for (let at = 0; at < length; at++) {
    if (at >= kidAt && at < kidAt + 8) continue; // a hint, which no signature covers
    const spoilt = rewritten(image, last, ([bytes]) => [flipped(bytes as Uint8Array, at)]);
    put(fixture, spoilt);
    assert.ok(findingsOf(fixture).length > 0, `byte ${at}`);
  }
  const stranger = new JournalFixture(t);
  const cases: [string, Buffer[], RegExp][] = [
    [
      "the one before again",
      rewritten(image, last, () => [records[10]?.bytes as Uint8Array]),
      /record 12 .* says that it is 11/,
    ],
    ["none", rewritten(image, last, () => []), /0 records, 1 named/],
    [
      "another one of its place",
      rewritten(image, last, () => [otherRecord(stranger)]),
      /does not name the record before it/,
    ],
  ];
  for (const [name, spoilt, expected] of cases) {
    put(fixture, spoilt);
    assert.match(findingsOf(fixture).join("\n"), expected, name);
  }
  put(fixture, image);
  assert.deepEqual(findingsOf(fixture), [], "control: as it was");
  const foreign = findingsOf(fixture, [deviceKeyOf(new Uint8Array(32).fill(8))]);
  assert.equal(foreign.length, 12);
  assert.match(foreign.join(), /not by this device's key/);
});

function put(fixture: JournalFixture, image: readonly Buffer[]): void {
  for (const [index, file] of fixture.files().entries()) writeFileSync(file, image[index] as Buffer);
}

/** Record 12 of another chain of the same key and epoch. */
function otherRecord(stranger: JournalFixture): Uint8Array {
  stranger.append([stopped, stopped]);
  for (let i = 0; i < 10; i++) stranger.append();
  return stranger.append().bytes;
}

test("from a rotation on the new key signs, and the old one no more", (t) => {
  const fixture = new JournalFixture(t);
  const oldKey = fixture.key;
  const newKey = deviceKeyOf(new Uint8Array(32).fill(9));
  for (let i = 0; i < 3; i++) fixture.append();
  const { journal } = fixture;
  const certificate = signRotation(
    {
      device: kidOf(oldKey.publicKey, sha256),
      epoch,
      sequence: journal.nextSequence,
      previous: journal.lastDigest.slice(0, previousBytes),
      nextEpoch: other,
      publicKey: newKey.publicKey,
      share: newKey.share,
    },
    newKey.sign,
  );
  fixture.append([[eventCodes.keyRotated, certificate]]);
  journal.beginEpoch(other);
  fixture.key = newKey;
  for (let i = 0; i < 3; i++) fixture.append();
  assert.deepEqual(findingsOf(fixture, [oldKey, newKey]), []);
  assert.deepEqual(findingsOf(fixture, [oldKey]), [], "the certificate names the new key itself");
  fixture.key = oldKey;
  fixture.append();
  assert.match(findingsOf(fixture, [oldKey, newKey]).join(), /record 4 of epoch 195939070: its signature is not by/);
});

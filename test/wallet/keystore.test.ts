import assert from "node:assert/strict";
import { createPublicKey, verify } from "node:crypto";
import { test } from "node:test";
import { sign as nobleSign } from "@noble/ed25519";
import { decodeCbor, encodeCbor } from "../../protocol/deterministic-cbor.ts";
import { kidOf } from "../../protocol/public-key.ts";
import { eventCodes, signRecord } from "../../protocol/record.ts";
import { Refusal } from "../../protocol/refusal.ts";
import { rotationsMax, signRotation } from "../../protocol/rotation.ts";
import { sha256 } from "../../wallet/journal-segments.ts";
import {
  calibrateCost,
  type DeviceKey,
  deviceKeyOf,
  type KeyFile,
  keystoreVersions,
  lockSeed,
  newSeed,
  plainSeed,
  readKeyFile,
  retiredKey,
  unlockSeed,
  WrongPassphrase,
} from "../../wallet/keystore.ts";
import { SeededRandom } from "../protocol/seeded-random.ts";

const cheap = { memoryKiB: 8, passes: 1, parallelism: 1 };
const passphrase = Buffer.from("correct horse");

test("a locked seed opens under its passphrase, and its public key is read without", () => {
  const seed = newSeed();
  const file = lockSeed(seed, passphrase, cheap);
  assert.deepEqual(unlockSeed(file, passphrase, "device.key"), seed);
  assert.deepEqual(readKeyFile(file).publicKey, deviceKeyOf(seed).publicKey);
  assert.ok(!Buffer.from(file).includes(seed), "the seed does not stand in the file");
});

test("another passphrase does not open it, and the message does not hold either", () => {
  const file = lockSeed(newSeed(), passphrase, cheap);
  for (const wrong of ["", "correct hors", "correct horse ", "Correct horse"]) {
    assert.throws(
      () => unlockSeed(file, Buffer.from(wrong), "/data/device.key"),
      (error: Error) =>
        error instanceof WrongPassphrase && /\/data\/device\.key/.test(error.message) && !/horse/.test(error.message),
    );
  }
});

test("a key file with any byte changed does not open", () => {
  const random = new SeededRandom(1);
  const file = lockSeed(newSeed(), passphrase, cheap);
  for (let at = 0; at < file.length; at++)
    for (const mask of [0x01, 0x80, random.integer(1, 15)]) {
      const changed = Uint8Array.from(file);
      changed[at] = (changed[at] as number) ^ mask;
      assert.throws(
        () => unlockSeed(changed, passphrase, "device.key"),
        (error) => error instanceof WrongPassphrase || error instanceof Refusal,
        `byte ${at} ^ ${mask}`,
      );
    }
  for (let length = 0; length < file.length; length += 7)
    assert.throws(() => unlockSeed(file.subarray(0, length), passphrase, "device.key"), Refusal);
});

test("a cheaper cost, or another device's public key, in the header does not open", () => {
  const file = lockSeed(newSeed(), passphrase, { ...cheap, passes: 3 });
  const [header, sealed] = decodeCbor(file) as [Uint8Array, Uint8Array];
  const map = decodeCbor(header) as Map<number, number | Uint8Array>;
  for (const [key, value] of [
    [3, 1],
    [2, 16],
    [7, new Uint8Array(32)],
    [99, 1],
  ] as const) {
    const changed = encodeCbor(new Map([...map, [key, value]]));
    assert.throws(() => unlockSeed(encodeCbor([changed, sealed]), passphrase, "device.key"), WrongPassphrase);
  }
  assert.doesNotThrow(() => unlockSeed(encodeCbor([header, sealed]), passphrase, "device.key"), "control");
});

test("the same seed and passphrase never give the same file", () => {
  const seed = newSeed();
  assert.notDeepEqual(lockSeed(seed, passphrase, cheap), lockSeed(seed, passphrase, cheap));
});

test("one try takes 300 ms at least on this machine", () => {
  const cost = calibrateCost();
  const file = lockSeed(newSeed(), passphrase, cost);
  const fastest = Math.min(
    ...Array.from({ length: 3 }, () => {
      const started = performance.now();
      unlockSeed(file, passphrase, "device.key");
      return performance.now() - started;
    }),
  );
  assert.ok(fastest >= 300, `${fastest.toFixed(0)} ms with ${cost.passes} passes over ${cost.memoryKiB} KiB`);
  assert.equal(cost.memoryKiB, 65_536);
});

test("signatures hold under node:crypto, and are those of the library's own SHA-512", () => {
  const seed = newSeed();
  const key = deviceKeyOf(seed);
  const message = Buffer.from("message");
  const spki = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), key.publicKey]);
  assert.ok(verify(null, message, createPublicKey({ key: spki, format: "der", type: "spki" }), key.sign(message)));
  assert.deepEqual(nobleSign(message, seed), key.sign(message));
});

test("the X25519 share follows from the seed alone, under its own label", () => {
  const key = deviceKeyOf(new Uint8Array(32).fill(7));
  assert.deepEqual(key.share, deviceKeyOf(new Uint8Array(32).fill(7)).share);
  assert.notDeepEqual(key.share, deviceKeyOf(new Uint8Array(32).fill(8)).share);
  assert.notDeepEqual(key.share, key.publicKey);
  assert.equal(key.share.length, 32);
});

/** A record that rotates from one key to another, as the wallet makes it. */
function rotation(from: DeviceKey, to: DeviceKey, device: Uint8Array, sequence: number): Uint8Array {
  const place = { epoch: 7, sequence, previous: new Uint8Array(16).fill(3) };
  const { publicKey, share } = to;
  const certificate = signRotation({ device, ...place, nextEpoch: 8, publicKey, share }, to.sign);
  const event = { kind: "event", clockState: 1, generation: 0, timeS: 1_800_000_000 } as const;
  return Uint8Array.from(signRecord({ ...event, ...place, events: [[eventCodes.keyRotated, certificate]] }, from.sign));
}

/** Without what the decoder leaves on arrays that it has decoded. */
function copied(file: KeyFile): KeyFile {
  return { ...file, rotations: file.rotations.map((record) => Uint8Array.from(record)) };
}

const seeds = [1, 2, 3].map((value) => new Uint8Array(32).fill(value));
const [first, second, third] = seeds.map(deviceKeyOf) as [DeviceKey, DeviceKey, DeviceKey];
const device = kidOf(first.publicKey, sha256);
const rotations = [rotation(first, second, device, 5), rotation(second, third, device, 6)];
const lineage = { nameKey: first.publicKey, rotations };
const plainLineage = { ...lineage, rotations: rotations.map((record) => Uint8Array.from(record)) };
const history = { epoch: 7, lastSequence: 12, lastDigest: new Uint8Array(32).fill(9), generation: 2 };

test("a rotated key keeps its name and what proves it; rotations that do not lead to the key are refused", () => {
  const file = lockSeed(seeds[2] as Uint8Array, passphrase, cheap, { lineage });
  const read = readKeyFile(file);
  assert.deepEqual(copied(read), { protection: "passphrase", publicKey: third.publicKey, ...plainLineage });
  assert.deepEqual(new Uint8Array(unlockSeed(file, passphrase, "")), seeds[2]);
  const wrong = [
    { nameKey: first.publicKey, rotations: rotations.slice(0, 1) },
    { nameKey: first.publicKey, rotations: rotations.slice(1) },
    { nameKey: first.publicKey, rotations: [...rotations].reverse() },
    { nameKey: second.publicKey, rotations },
    { nameKey: first.publicKey, rotations: [...rotations, rotation(third, first, device, 7)] },
    { nameKey: first.publicKey, rotations: Array.from({ length: rotationsMax + 1 }, () => rotations[0] as Uint8Array) },
  ];
  for (const other of wrong)
    assert.throws(() => readKeyFile(lockSeed(seeds[2] as Uint8Array, passphrase, cheap, { lineage: other })), Refusal);
});

test("as many rotations as there may be, with a history, stay below the file's limit", () => {
  const keys = Array.from({ length: rotationsMax + 1 }, (_, i) => deviceKeyOf(new Uint8Array(32).fill(i + 1)));
  const all = keys.slice(1).map((key, i) => rotation(keys[i] as DeviceKey, key, device, i + 1));
  const most = {
    lineage: { nameKey: first.publicKey, rotations: all },
    history: { ...history, receipt: new Uint8Array(4_096) },
  };
  const file = lockSeed(new Uint8Array(32).fill(rotationsMax + 1), passphrase, cheap, most);
  assert.equal(readKeyFile(file).rotations.length, rotationsMax);
});

test("a file without passphrase says so, a retired one has no seed, a backup has its history", () => {
  const seed = seeds[0] as Uint8Array;
  const plain = plainSeed(seed);
  assert.equal(readKeyFile(plain).protection, "none");
  assert.deepEqual(new Uint8Array(unlockSeed(plain, undefined, "")), seed);
  assert.throws(() => unlockSeed(lockSeed(seed, passphrase, cheap), undefined, ""), WrongPassphrase);
  const [header] = decodeCbor(plain) as [Uint8Array];
  assert.throws(() => unlockSeed(encodeCbor([header, new Uint8Array(32)]), undefined, ""), Refusal, "another seed");
  const retired = retiredKey(third.publicKey, lineage);
  assert.deepEqual(copied(readKeyFile(retired)), {
    protection: "retired",
    publicKey: third.publicKey,
    ...plainLineage,
  });
  assert.throws(() => unlockSeed(retired, passphrase, ""), /the key is retired/);
  for (const kept of [history, { ...history, receipt: new Uint8Array(200).fill(4) }])
    assert.deepEqual(readKeyFile(lockSeed(seed, passphrase, cheap, { history: kept })).history, kept);
});

test("the first version is written where it can say it, so that an older wallet opens it; what it cannot say is another version", () => {
  const versionOf = (file: Uint8Array) => {
    const [header] = decodeCbor(file) as [Uint8Array];
    return (decodeCbor(header) as Map<number, number>).get(1);
  };
  const seed = seeds[2] as Uint8Array;
  assert.equal(versionOf(lockSeed(seed, passphrase, cheap)), keystoreVersions.first);
  assert.equal(
    versionOf(lockSeed(seed, passphrase, cheap, { lineage: { nameKey: third.publicKey, rotations: [] } })),
    1,
  );
  for (const file of [
    lockSeed(seed, passphrase, cheap, { lineage }),
    lockSeed(seed, passphrase, cheap, { history }),
    plainSeed(seed),
    retiredKey(third.publicKey, lineage),
  ])
    assert.equal(versionOf(file), keystoreVersions.newest);
  const [header, sealed] = decodeCbor(plainSeed(seed)) as [Uint8Array, Uint8Array];
  const next = new Map([...(decodeCbor(header) as Map<number, number>), [1, keystoreVersions.newest + 1]]);
  assert.throws(() => readKeyFile(encodeCbor([encodeCbor(next), sealed])), /unsupported|version/);
});

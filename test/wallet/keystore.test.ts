import assert from "node:assert/strict";
import { createPublicKey, verify } from "node:crypto";
import { test } from "node:test";
import { sign as nobleSign } from "@noble/ed25519";
import { decodeCbor, encodeCbor } from "../../protocol/deterministic-cbor.ts";
import { Refusal } from "../../protocol/refusal.ts";
import {
  calibrateCost,
  deviceKeyOf,
  lockSeed,
  newSeed,
  publicKeyOfFile,
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
  assert.deepEqual(publicKeyOfFile(file), deviceKeyOf(seed).publicKey);
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

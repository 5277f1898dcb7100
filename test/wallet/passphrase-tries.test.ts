import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, beforeEach, test } from "node:test";
import { Refusal } from "../../protocol/refusal.ts";
import { lockSeed, newSeed, plainSeed, WrongPassphrase } from "../../wallet/keystore.ts";
import { PassphraseTries, unlockWithDelay, waitBeforeTryS } from "../../wallet/passphrase-tries.ts";

const folder = mkdtempSync(path.join(tmpdir(), "ecp-tries-"));
after(() => rmSync(folder, { recursive: true, force: true }));
const file = path.join(folder, "passphrase.tries");
const right = Buffer.from("right");
const wrong = Buffer.from("wrong");
const seed = newSeed();
const key = lockSeed(seed, right, { memoryKiB: 8, passes: 1, parallelism: 1 });
let tries: PassphraseTries;

beforeEach(() => {
  rmSync(file, { force: true });
  PassphraseTries.prepare(file);
  tries = new PassphraseTries(file);
});

/** One try; gives the seconds that it waited, added to `waits`. */
async function attempt(passphrase: Buffer, waits: number[] = [], at = tries): Promise<Buffer> {
  return unlockWithDelay(key, passphrase, "device.key", at, async (seconds) => {
    waits.push(seconds);
  });
}

test("the wait doubles to a minute, and a success resets it", async () => {
  const waits: number[] = [];
  for (let i = 0; i < 9; i++) await assert.rejects(attempt(wrong, waits), WrongPassphrase);
  assert.deepEqual(waits, [1, 2, 4, 8, 16, 32, 60, 60], "none before the first");
  assert.deepEqual(await attempt(right, waits), seed);
  assert.equal(waits.length, 9);
  assert.equal(tries.count, 0);
  await attempt(right, waits);
  assert.equal(waits.length, 9, "a hub that starts again with the right one waits for nothing");
  assert.deepEqual([0, 1, 7, 8, 1_000].map(waitBeforeTryS), [0, 1, 60, 60, 60]);
});

test("1,000 wrong tries open nothing, and cost sixteen hours", async () => {
  const waits: number[] = [];
  for (let i = 0; i < 1_000; i++) await assert.rejects(attempt(Buffer.from(`wrong ${i}`), waits), WrongPassphrase);
  const hours = waits.reduce((sum, wait) => sum + wait, 0) / 3_600;
  assert.ok(hours > 16, `${hours}`);
  assert.deepEqual(await attempt(right), seed);
});

test("the count is on the disk before the try: one that is killed in it counts, one that is killed in the wait does not", async () => {
  await assert.rejects(attempt(wrong), WrongPassphrase);
  const killed = new Error("killed");
  const inTheWait = unlockWithDelay(key, right, "device.key", tries, () => Promise.reject(killed));
  await assert.rejects(inTheWait, killed);
  assert.equal(tries.count, 1);
  const counts: number[] = [];
  const seen = class extends PassphraseTries {
    override set(count: number): void {
      super.set(count);
      counts.push(new PassphraseTries(file).count);
      throw killed; // as if the power went before argon2 began
    }
  };
  await assert.rejects(attempt(right, [], new seen(file)), killed);
  assert.deepEqual(counts, [2]);
  const waits: number[] = [];
  await attempt(right, waits);
  assert.deepEqual(waits, [2], "the next process waits, whatever the clock says");
});

test("what another process failed during the wait is waited for too", async () => {
  await assert.rejects(attempt(wrong), WrongPassphrase);
  const waits: number[] = [];
  await unlockWithDelay(key, right, "device.key", tries, async (seconds) => {
    waits.push(seconds);
    if (waits.length === 1) new PassphraseTries(file).set(5);
  });
  assert.deepEqual(waits, [1, 16]);
});

test("a damaged count is a minute, a missing one nothing, and each is mended by a success", async () => {
  const whole = readFileSync(file);
  const damages = [Buffer.alloc(0), Buffer.alloc(16), Buffer.from("x".repeat(4_096)), whole.subarray(0, 15)];
  for (let bit = 0; bit < whole.length * 8; bit++) {
    const flipped = Buffer.from(whole);
    flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7));
    damages.push(flipped);
  }
  for (const bytes of damages) {
    writeFileSync(file, bytes);
    const waits: number[] = [];
    const whys: string[] = [];
    await unlockWithDelay(key, right, "device.key", tries, async (seconds, why) => {
      waits.push(seconds);
      whys.push(why);
    });
    assert.deepEqual(waits, [60], bytes.toString("hex"));
    assert.deepEqual(whys, ["the count of wrong passphrases is damaged"]);
    assert.equal(tries.count, 0, "mended");
  }
  rmSync(file);
  const waits: number[] = [];
  await assert.rejects(attempt(wrong, waits), WrongPassphrase);
  await assert.rejects(attempt(wrong, waits), WrongPassphrase);
  assert.deepEqual(waits, [1]);
  assert.equal(statSync(file).mode & 0o777, 0o600);
});

test("a damaged key file is no try; a key without passphrase waits for nothing; a count that cannot be written lets nobody try", async () => {
  const noWait = (): Promise<void> => Promise.reject(new Error("waited"));
  await assert.rejects(unlockWithDelay(key.subarray(0, 50), right, "device.key", tries, noWait), Refusal);
  assert.equal(tries.count, 0);
  tries.set(7);
  assert.deepEqual(await unlockWithDelay(plainSeed(seed), undefined, "device.key", tries, noWait), seed);
  assert.equal(tries.count, 7);
  const folderInstead = new PassphraseTries(folder);
  await assert.rejects(attempt(right, [], folderInstead), { code: "EISDIR" });
  chmodSync(file, 0o600);
});

import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { decodeLoraState, encodeLoraState, type LoraUplinkState } from "../../agent/lora-state.ts";
import { createFileStateStore } from "../../agent/lora-state-store.ts";
import { SchcSender } from "../../agent/schc-sender.ts";
import { Refusal } from "../../protocol/refusal.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";

const wallMs = 1_772_323_200_000;

function at(monotonicMs: number, wall: number, bootId = "one") {
  return { bootId, clock: { monotonicMs: () => monotonicMs, wallMs: () => wall } };
}

function aState(): LoraUplinkState {
  const sender = SchcSender.begin(24, new Uint8Array(156).fill(7));
  const frame = sender.next(51, 0);
  if (typeof frame !== "object") throw new Error("no frame");
  sender.sent(frame, 0);
  return {
    budget: {
      frames: [
        { ageMs: 5_000, airtimeMs: 2_794, boundMs: 2_800 },
        { ageMs: -60_000, airtimeMs: 1, boundMs: 1 },
      ],
      open: { airtimeMs: 46, boundMs: 72 },
    },
    join: { failures: 3, nextInMs: 120_000, silentMs: 77, unansweredFrames: 4 },
    sessions: { open: [{ epoch: 7, sequence: 12, ageMs: 9_000, sender: sender.state(0) }], turn: 2 },
    repeats: [{ epoch: 7, sequence: 11, tries: 2, dueInMs: 300_000 }],
    tooLarge: [[7, 3]],
  };
}

test("a state comes back as it was", () => {
  const state = aState();
  const { state: read, elapsedMs } = decodeLoraState(encodeLoraState(state, at(1_000.7, wallMs)), at(31_000.2, wallMs));
  assert.deepEqual(read, state);
  assert.equal(elapsedMs, 30_000);
});

test("how long ago: by the monotonic clock of the same boot, else by a wall clock that was set and is, else it is not known", () => {
  const bytes = encodeLoraState(aState(), at(500_000, wallMs));
  const elapsed = (...now: Parameters<typeof at>): number => decodeLoraState(bytes, at(...now)).elapsedMs;
  assert.equal(elapsed(560_000, wallMs + 9 * 3_600_000), 60_000); // the wall clock was stepped
  assert.equal(elapsed(10_000, wallMs + 70_000, "two"), 70_000);
  assert.equal(elapsed(10_000, wallMs - 70_000, "two"), 0);
  assert.equal(elapsed(10_000, 10_000, "two"), 0);
  const unset = encodeLoraState(aState(), at(500_000, 500_000));
  assert.equal(decodeLoraState(unset, at(10_000, wallMs, "two")).elapsedMs, 0);
});

test("a state of which any byte is another one is refused, and so is one that was cut off", () => {
  const bytes = encodeLoraState(aState(), at(1_000, wallMs));
  const random = randomOfRun();
  for (let i = 0; i < bytes.length; i++) {
    const spoilt = Uint8Array.from(bytes);
    spoilt[i] = (spoilt[i] as number) ^ random.integer(1, 255);
    assert.throws(() => decodeLoraState(spoilt, at(1_000, wallMs)), Refusal, `seed ${random.seed}, byte ${i}`);
    assert.throws(() => decodeLoraState(bytes.subarray(0, i), at(1_000, wallMs)), Refusal);
  }
});

test("the file is written anew as a whole, and none is there at first", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "ecp-lora-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const store = createFileStateStore(folder);
  assert.equal(await store.read(), undefined);
  await store.write(Uint8Array.of(1, 2, 3));
  await store.write(Uint8Array.of(4));
  assert.deepEqual([...((await store.read()) ?? [])], [4]);
  assert.equal(readdirSync(folder).length, 1);
  await assert.rejects(createFileStateStore(join(folder, "none")).write(Uint8Array.of(1)), { code: "ENOENT" });
});

test("what a process that died in the middle of a write has left is gone with the next start", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "ecp-lora-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  for (const pid of [11, 12]) writeFileSync(join(folder, `lora-state.bin.new-${pid}`), "half");
  const store = createFileStateStore(folder);
  assert.equal(await store.read(), undefined);
  await store.write(Uint8Array.of(4));
  assert.deepEqual(readdirSync(folder), ["lora-state.bin"]);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { DeviceQueues, junkCosts, queuedRecordsMax } from "../../fullnode/device-queues.ts";

interface Numbered {
  readonly topic: string;
  readonly payload: Uint8Array;
  readonly number: number;
}

/** Queues under a clock of our own, in which every device is known but those whose topic begins with "x". */
class Queues {
  nowMs = 0;
  readonly queues = new DeviceQueues<Numbered>(
    { wallMs: () => this.nowMs, monotonicMs: () => this.nowMs },
    (topic) => !topic.startsWith("x"),
    ({ topic }) => this.dropped.push(topic),
  );
  readonly dropped: string[] = [];

  /** How many of these found room. */
  add(topic: string, count: number, bytes = 250): number {
    let added = 0;
    for (let number = 0; number < count; number++)
      if (this.queues.add({ topic, payload: new Uint8Array(bytes), number })) added++;
    return added;
  }

  take(limit: number, suspectsLimit = limit): string[] {
    return this.queues.take(limit, suspectsLimit).map(({ topic }) => topic);
  }

  /** As if the device had sent nothing but junk. */
  spend(topic: string): void {
    for (let i = 0; i < 200; i++) this.queues.charge(topic, junkCosts.badSignature);
  }
}

function count(topics: readonly string[], topic: string): number {
  return topics.filter((one) => one === topic).length;
}

test("a device that is alone gets all there is, in its order, tokens or not", () => {
  const one = new Queues();
  assert.equal(one.add("a", 4_000), 4_000);
  const numbers = one.queues.take(4_000).map(({ number }) => number);
  assert.deepEqual(
    numbers,
    Array.from({ length: 4_000 }, (_, i) => i),
  );
  one.spend("a");
  assert.equal(one.add("a", 1_000), 1_000);
  assert.equal(one.take(1_000).length, 1_000);
  assert.equal(one.queues.length, 0);
});

test("a device with a long queue does not hold up one with a short one", () => {
  const two = new Queues();
  two.add("a", 4_000);
  two.add("b", 3);
  assert.equal(count(two.take(128), "b"), 3);
});

test("a device whose tokens are spent waits for those who have some", () => {
  const two = new Queues();
  two.add("drain", 4_000);
  assert.equal(count(two.take(2_500), "drain"), 2_500);
  two.add("honest", 200);
  assert.deepEqual(new Set(two.take(200)), new Set(["honest"]));
  two.nowMs += 60_000;
  two.add("honest", 1_000);
  assert.ok(count(two.take(64), "drain") > 0, "its tokens are back");
});

test("junk makes a suspect, of whose records few are taken, and after all others, until it is forgiven", () => {
  const two = new Queues();
  two.add("flood", 400);
  assert.equal(count(two.take(32), "flood"), 32);
  two.spend("flood");
  two.add("honest", 200);
  assert.equal(two.queues.hasTrusted, true);
  assert.deepEqual(new Set(two.take(200, 10)), new Set(["honest"]));
  assert.equal(two.queues.hasTrusted, false);
  assert.equal(count(two.take(500, 10), "flood"), 10);
  two.nowMs += 60_000;
  assert.equal(count(two.take(500, 10), "flood"), 358);
});

test("control: where junk is not charged, both take turns", () => {
  const two = new Queues();
  two.add("flood", 400);
  assert.equal(count(two.take(32), "flood"), 32);
  two.add("honest", 200);
  assert.ok(count(two.take(200, 10), "flood") > 80);
});

test("where the node is half full, a suspect has little room, and others have as before", () => {
  const many = new Queues();
  for (let i = 0; i < 4; i++) assert.equal(many.add(`d${i}`, 2_500), 2_500);
  many.spend("flood");
  assert.equal(many.add("flood", 3_000), 256);
  assert.equal(many.add("honest", 3_000), 3_000);
});

test("strangers share one small room, whatever they call themselves", () => {
  const one = new Queues();
  let added = 0;
  for (let i = 0; i < 10_000; i++) added += one.add(`x${i}`, 1);
  assert.equal(added, 512);
  assert.equal(one.add("honest", 100), 100);
});

test("there is room for so many records and bytes, and no more", () => {
  const full = new Queues();
  let added = 0;
  for (let i = 0; i < 10; i++) added += full.add(`d${i}`, 4_000);
  assert.equal(added, queuedRecordsMax);
  const heavy = new Queues();
  let bytes = 0;
  for (let i = 0; i < 10; i++) bytes += heavy.add(`d${i}`, 4_000, 16_384) * 16_384;
  assert.ok(bytes <= 64 * 1024 * 1024 + 16_384, `${bytes}`);
  heavy.take(100);
  assert.ok(heavy.add("d0", 1, 16_384) === 1);
});

test("what the node itself kept goes first and is never refused", () => {
  const full = new Queues();
  for (let i = 0; i < 10; i++) full.add(`d${i}`, 4_000);
  full.queues.addFirst({ topic: "kept", payload: new Uint8Array(1), number: 1 });
  assert.equal(full.take(10)[0], "kept");
});

test("suspects are not starved for ever, however much others send", () => {
  const two = new Queues();
  two.spend("framed"); // somebody else has sent junk in its name
  two.add("framed", 1);
  let taken = 0;
  for (let turn = 0; turn < 300 && taken === 0; turn++) {
    two.nowMs += 10;
    two.add("flood", 128);
    two.spend("framed");
    taken = count(two.take(128, 0), "framed");
  }
  assert.equal(taken, 1);
});

test("what suspects have filled the node with before they were found out makes room for others", () => {
  const full = new Queues();
  for (let i = 0; i < 4; i++) full.add(`flood${i}`, 5_000);
  assert.equal(full.add("honest", 1), 0);
  for (let i = 0; i < 4; i++) full.spend(`flood${i}`);
  full.nowMs += 200;
  full.take(32, 0);
  assert.equal(full.add("honest", 1_000), 1_000);
  assert.ok(full.dropped.length > 8_000, "it is counted");
  assert.ok(full.queues.length <= queuedRecordsMax / 2 + 1_000);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { PublishQueue, unacknowledgedMax } from "../../agent/publish-queue.ts";

/** A broker that acknowledges when it is told to. */
class Broker {
  nowMs = 0;
  readonly sent: number[] = [];
  readonly left: number[] = [];
  readonly #acknowledge: (() => void)[] = [];
  readonly queue: PublishQueue;

  constructor(receiveMaximum?: number) {
    this.queue = new PublishQueue(
      (record, acknowledged) => {
        this.sent.push(record[0] ?? 0);
        this.#acknowledge.push(acknowledged);
      },
      () => this.nowMs,
      receiveMaximum,
    );
  }

  push(number: number, lane: "live" | "backlog", bytes = 250): void {
    this.queue.push(new Uint8Array(bytes).fill(number), lane, () => this.left.push(number));
  }

  acknowledge(place = 0): void {
    this.#acknowledge.splice(place, 1)[0]?.();
  }
}

test("no more is unacknowledged than the broker takes; the newest overtake what waits", () => {
  const broker = new Broker(2);
  for (const number of [1, 2, 3, 4]) broker.push(number, "backlog");
  assert.deepEqual(broker.sent, [1, 2]);
  broker.push(9, "live");
  broker.acknowledge();
  assert.deepEqual(broker.sent, [1, 2, 9]);
  assert.deepEqual(broker.left, [1]);
  for (let i = 0; i < 4; i++) broker.acknowledge();
  assert.deepEqual(broker.sent, [1, 2, 9, 3, 4]);
  assert.deepEqual(broker.left, [1, 2, 9, 3, 4]);
});

test("mqtt.js never holds more than its share, and the queue takes no more than it needs ahead", () => {
  const broker = new Broker(65_535);
  let pushed = 0;
  for (; broker.queue.takes("backlog"); pushed++) broker.push(1, "backlog");
  assert.equal(broker.sent.length, unacknowledgedMax);
  assert.ok(pushed <= unacknowledgedMax + 32_768 / 250 + 1, `${pushed}`);
  assert.equal(broker.queue.takes("live"), true);
});

test("a broker that owes acknowledgements and gives none has stalled; a slow one is given its time", () => {
  const broker = new Broker();
  broker.nowMs = 100_000;
  assert.equal(broker.queue.stalledMs(), undefined, "it owes nothing");
  broker.push(1, "live");
  broker.nowMs += 5_000;
  assert.equal(broker.queue.stalledMs(), undefined);
  broker.nowMs += 1;
  assert.equal(broker.queue.stalledMs(), 5_001);
  broker.acknowledge();
  assert.equal(broker.queue.stalledMs(), undefined);
  for (let i = 0; i < 40; i++) {
    broker.push(1, "live");
    broker.nowMs += 4_000;
    broker.acknowledge();
  }
  broker.push(1, "live");
  broker.nowMs += 14_000;
  assert.equal(broker.queue.stalledMs(), undefined, "each takes 4 s");
  broker.nowMs += 20_000;
  assert.notEqual(broker.queue.stalledMs(), undefined);
});

test("a record that later ones overtake is not waited for for ever; one that is merely slow is", () => {
  const broker = new Broker();
  broker.push(1, "live");
  for (let i = 0; i < 40; i++) {
    broker.push(2, "live");
    broker.acknowledge(1);
    assert.equal(broker.queue.stalledMs(), undefined);
    assert.equal(broker.queue.overtakenMs() !== undefined, broker.nowMs > 30_000, `${broker.nowMs}`);
    broker.nowMs += 1_000;
  }
  broker.acknowledge();
  broker.push(3, "live");
  broker.nowMs += 60_000;
  assert.equal(broker.queue.overtakenMs(), undefined, "nothing has overtaken it");
});

test("a broker that says it takes nothing at a time, which no broker may, still gets one", () => {
  const broker = new Broker(0);
  broker.push(1, "live");
  broker.push(2, "live");
  assert.deepEqual(broker.sent, [1]);
});

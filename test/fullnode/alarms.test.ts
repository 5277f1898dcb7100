import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { lookEveryMs, NodeWatch, nodeAlarmRules, silenceDefaultMs, silenceFirstMs } from "../../fullnode/alarms.ts";
import type { DeviceState } from "../../fullnode/store.ts";
import type { AlarmChange } from "../../platform/alarm-board.ts";
import { multibaseOf } from "../../protocol/public-key.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";
import { DeviceFixture } from "./device-fixture.ts";

const startMs = 1_800_000_000_000;
const minuteMs = 60_000;

/** A watch over states that the test gives, at a time that it moves. */
class Watched {
  nowMs = startMs;
  queue = 0;
  failure: Error | undefined;
  readonly states = new Map<string, DeviceState>();
  readonly changes: AlarmChange<string>[] = [];
  readonly watch: NodeWatch;

  constructor(silentAfterMs?: number) {
    this.watch = new NodeWatch({
      store: {
        deviceStates: () => {
          if (this.failure) throw this.failure;
          return [...this.states.values()];
        },
        quarantineCount: () => ({ ofName: 0, total: 3 }),
      },
      clock: { wallMs: () => this.nowMs, monotonicMs: () => this.nowMs - startMs },
      ...(silentAfterMs !== undefined && { silentAfterMs }),
      queueShare: () => this.queue,
      onChanges: (changes) => this.changes.push(...changes),
    });
    this.watch.connected(true);
  }

  /** What a device's state is from now on. */
  set(name: string, state: Partial<DeviceState>): void {
    const before = this.states.get(name) ?? {
      ...{ name, enrolledMs: startMs, lastReceivedMs: 0, heldEpochs: 0, evidence: 0, evidenceMs: 0, hasGap: false },
    };
    this.states.set(name, { ...before, ...state });
  }

  async pass(ms: number, each: () => void = () => {}): Promise<void> {
    for (const endMs = this.nowMs + ms; this.nowMs < endMs; ) {
      this.nowMs += lookEveryMs;
      each();
      await this.watch.look();
    }
  }

  get kinds(): string[] {
    return this.watch.raised.map(({ kind }) => kind).sort();
  }
}

const name = multibaseOf(new DeviceFixture().publicKey);

test("a device is silent after three times its usual distance, and not any more with its next record", async () => {
  const node = new Watched();
  const rhythmMs = 6 * 60 * minuteMs;
  node.set(name, {});
  for (let i = 0; i < 5; i++) {
    await node.pass(rhythmMs);
    node.set(name, { lastReceivedMs: node.nowMs });
    await node.watch.look();
  }
  assert.equal(node.watch.allowedSilenceMs(name), 3 * rhythmMs);
  await node.pass(3 * rhythmMs - minuteMs);
  assert.deepEqual(node.kinds, []);
  await node.pass(2 * minuteMs);
  assert.deepEqual(node.kinds, ["no-data"]);
  node.set(name, { lastReceivedMs: node.nowMs });
  await node.watch.look();
  assert.deepEqual(node.kinds, []);
});

test("no rhythm of arrivals makes a device that keeps to it silent, whatever backlogs come in between", async (t) => {
  const random = randomOfRun();
  t.diagnostic(`ECP_TEST_SEED=${random.seed}`);
  for (let run = 0; run < 20; run++) {
    const node = new Watched();
    const rhythmMs = random.integer(1, 30) * minuteMs;
    node.set(name, { lastReceivedMs: startMs });
    let dueMs = startMs + rhythmMs;
    await node.pass(rhythmMs * 20, () => {
      if (node.nowMs < dueMs) return;
      dueMs += rhythmMs;
      node.set(name, { lastReceivedMs: node.nowMs });
    });
    // A backlog: something at every look for a while, then the rhythm again.
    await node.pass(3 * minuteMs, () => node.set(name, { lastReceivedMs: node.nowMs }));
    await node.pass(Math.max(rhythmMs, silenceFirstMs) - minuteMs);
    assert.deepEqual(node.changes, [], `every ${rhythmMs} ms`);
    // The control: one that does fall silent is found.
    await node.pass(Math.max(silenceDefaultMs, 4 * rhythmMs));
    assert.deepEqual(node.kinds, ["no-data"], `every ${rhythmMs} ms`);
  }
});

test("nobody is called silent for the time in which the node or its broker was away", async () => {
  const node = new Watched(10 * minuteMs);
  node.set(name, { lastReceivedMs: startMs - 100 * minuteMs });
  await node.pass(9 * minuteMs);
  assert.deepEqual(node.kinds, []);
  node.watch.connected(false);
  await node.pass(60 * minuteMs);
  assert.deepEqual(node.kinds, ["broker-away"]);
  node.watch.connected(true);
  await node.pass(9 * minuteMs);
  assert.deepEqual(node.kinds, []);
  await node.pass(2 * minuteMs);
  assert.deepEqual(node.kinds, ["no-data"]);
});

test("a gap, a clock, a queue and a store become alarms after their times, and a log line once", async () => {
  const node = new Watched(365 * 24 * 60 * minuteMs);
  node.set(name, { lastReceivedMs: startMs, hasGap: true });
  const did = `did:key:${name}`;
  node.watch.stored(did, "I");
  node.queue = 0.9;
  await node.pass(2 * minuteMs);
  assert.deepEqual(node.kinds, ["backlog-growing"]);
  await node.pass(30 * minuteMs);
  assert.deepEqual(node.kinds, ["backlog-growing", "records-missing"]);
  await node.pass(30 * minuteMs);
  assert.deepEqual(node.kinds, ["backlog-growing", "clock-unsynchronised", "records-missing"]);
  node.watch.stored(did, "S");
  node.set(name, { hasGap: false });
  node.queue = 0.05;
  await node.pass(10 * minuteMs);
  assert.deepEqual(node.kinds, []);
  assert.equal(node.changes.length, 6, "three raised, three cleared");
  node.failure = new Error("disk I/O error");
  await node.watch.look();
  assert.deepEqual(node.kinds, ["store-failing"]);
  assert.match(node.watch.problems.join(), /disk I\/O error/);
});

test("each kind of alarm has its runbook", () => {
  const text = readFileSync(join(import.meta.dirname, "../../docs/operating.md"), "utf8");
  const headings = new Set([...text.matchAll(/^### `([a-z-]+)`$/gm)].map(([, kind]) => kind));
  for (const kind of Object.keys(nodeAlarmRules)) assert.ok(headings.has(kind), `no heading ### \`${kind}\``);
});

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { AgentStatus } from "../../agent/agent-status.ts";
import {
  AgentWatch,
  agentAlarmRules,
  agentLookEveryMs,
  growthWindowMs,
  loraSilentAfterMs,
  withheldAfterMs,
} from "../../agent/alarms.ts";
import type { WalletHello } from "../../protocol/wallet-hello.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";

const minuteMs = 60_000;
const connected = { address: "mqtt://x:1", connected: true, detail: "" };
const away = { ...connected, connected: false };
const wallet = { clockState: 0, segments: 10, segmentsInUse: 1 } as WalletHello;

class Hub {
  nowMs = 0;
  /** Records that the node has, and the journal keeps because older ones are missing there. */
  stored = 0;
  status: AgentStatus;
  hello: WalletHello = wallet;
  changes: string[] = [];
  readonly watch = new AgentWatch({ wallMs: () => 1_800_000_000_000 + this.nowMs, monotonicMs: () => this.nowMs });

  constructor() {
    this.status = {
      ...{
        device: undefined,
        wallet: "connected",
        uplink: connected,
        sealed: 0,
        acknowledged: 0,
        waiting: 0,
        backlog: { records: 0, stored: 0, rows: 0, bytes: 0 },
        meters: [],
      },
    } as AgentStatus;
  }

  pass(ms: number, each: () => Partial<AgentStatus> = () => ({})): void {
    for (const endMs = this.nowMs + ms; this.nowMs < endMs; ) {
      this.nowMs += agentLookEveryMs;
      const status = { ...this.status, ...each() };
      this.status = {
        ...status,
        backlog: { records: status.waiting - this.stored, stored: this.stored, rows: 0, bytes: 0 },
      };
      for (const { state, alarm } of this.watch.look(this.status, this.hello))
        this.changes.push(`${state} ${alarm.kind}`);
    }
  }

  get kinds(): string[] {
    return this.watch.raised.map(({ kind }) => kind).sort();
  }
}

test("what waits without a receipt though the broker is there is told after 15 minutes, until the next receipt", () => {
  const hub = new Hub();
  hub.pass(minuteMs, () => ({ sealed: 1, waiting: 1 }));
  hub.pass(withheldAfterMs - 2 * minuteMs);
  assert.deepEqual(hub.kinds, []);
  hub.pass(2 * minuteMs);
  assert.deepEqual(hub.kinds, ["receipt-withheld"]);
  hub.pass(minuteMs, () => ({ sealed: 2, waiting: 2 }));
  assert.deepEqual(hub.kinds, ["receipt-withheld"], "another sealed record is no receipt");
  hub.pass(agentLookEveryMs, () => ({ waiting: 1 }));
  assert.deepEqual(hub.kinds, []);
});

test("what the full node has, though older records are missing there, is not withheld", () => {
  const hub = new Hub();
  hub.stored = 5;
  hub.pass(2 * withheldAfterMs, () => ({ sealed: 9, waiting: 5 }));
  assert.deepEqual(hub.kinds, []);
});

test("while the broker is away it is the backlog that is told, and while it is drained neither", () => {
  const hub = new Hub();
  let sealed = 0;
  let waiting = 0;
  const seal = () => {
    sealed++;
    waiting++;
    return { sealed, waiting };
  };
  hub.pass(growthWindowMs - minuteMs, () => ({ ...seal(), uplink: away }));
  assert.deepEqual(hub.kinds, []);
  hub.pass(5 * minuteMs, () => ({ ...seal(), uplink: away }));
  assert.deepEqual(hub.kinds, ["backlog-growing"]);
  hub.pass(growthWindowMs * 2, () => {
    seal();
    waiting = Math.max(0, waiting - 3);
    return { sealed, waiting, uplink: connected };
  });
  assert.deepEqual(hub.kinds, []);
  assert.deepEqual(hub.changes, ["raised backlog-growing", "cleared backlog-growing"]);
});

test("no alarm on a hub whose records are acknowledged within minutes, whatever it seals; one that is cut off is found", (t) => {
  const random = randomOfRun();
  t.diagnostic(`ECP_TEST_SEED=${random.seed}`);
  for (let run = 0; run < 20; run++) {
    const hub = new Hub();
    const sealPercent = random.integer(1, 100);
    const ackPercent = random.integer(20, 100);
    let sealed = random.integer(0, 1_000);
    let waiting = 0;
    const live = () => {
      if (random.chance(sealPercent)) {
        sealed++;
        waiting++;
      }
      if (random.chance(ackPercent)) waiting = 0;
      return { sealed, waiting, uplink: random.chance(5) ? away : connected };
    };
    hub.pass(6 * 60 * minuteMs, live);
    // A reconnection now and then is no reason to tell anybody.
    assert.deepEqual(
      hub.changes.filter((change) => change.includes("withheld")),
      [],
      `${sealPercent} ${ackPercent}`,
    );
    waiting = 0;
    hub.pass(growthWindowMs + 5 * minuteMs, () => {
      sealed++;
      waiting++;
      return { sealed, waiting, uplink: away };
    });
    assert.ok(hub.kinds.includes("backlog-growing"));
  }
});

test("a ring above 80 %, a clock, a meter, a wallet: each is told after its time and taken back", () => {
  const hub = new Hub();
  hub.hello = { ...wallet, segmentsInUse: 8 };
  hub.pass(agentLookEveryMs);
  assert.deepEqual(hub.kinds, ["ring-filling"]);
  hub.hello = { ...wallet, segmentsInUse: 7.5 };
  hub.pass(minuteMs);
  assert.deepEqual(hub.kinds, ["ring-filling"], "just below is not enough");
  hub.hello = { ...wallet, clockState: 2 };
  const meter = { name: "house", lastStatus: "T" } as AgentStatus["meters"][number];
  hub.pass(15 * minuteMs, () => ({ meters: [meter] }));
  assert.deepEqual(hub.kinds, []);
  hub.pass(minuteMs);
  assert.deepEqual(hub.kinds, ["no-data"]);
  assert.equal(hub.watch.raised[0]?.subject, "house");
  hub.pass(50 * minuteMs, () => ({ meters: [{ ...meter, lastStatus: "G" }] }));
  assert.deepEqual(hub.kinds, ["clock-unsynchronised"]);
  hub.hello = wallet;
  hub.pass(6 * minuteMs, () => ({ wallet: "disconnected" }));
  assert.deepEqual(hub.kinds, ["wallet-away"]);
  assert.deepEqual(hub.watch.counts["wallet-away"], 1);
});

test("LoRaWAN: a modem that is away, no join, spent airtime, silence: each is told after its time and taken back", () => {
  const lora = {
    ...{ condition: "idle", isJoined: true, awaitingReceipt: 0, sinceStartMs: 0, sinceDownlinkMs: 0 },
    dutyCycle: { windowMs: 3_600_000, limitMs: 36_000, spentMs: 1_000 },
    fairUse: { windowMs: 86_400_000, limitMs: 30_000, spentMs: 1_000 },
  } as NonNullable<AgentStatus["lora"]>;
  const hub = new Hub();
  const passWith = (ms: number, more: Partial<NonNullable<AgentStatus["lora"]>>) =>
    hub.pass(ms, () => ({ lora: { ...lora, ...more } }));
  passWith(120 * minuteMs, {});
  assert.deepEqual(hub.kinds, []);
  passWith(9 * minuteMs, { condition: "modem-away", isJoined: false });
  assert.deepEqual(hub.kinds, []);
  passWith(2 * minuteMs, { condition: "modem-away", isJoined: false });
  assert.deepEqual(hub.kinds, ["lora-stopped"]);
  passWith(59 * minuteMs, { condition: "not-joined", isJoined: false });
  assert.deepEqual(hub.kinds, [], "another trouble, whose time has not come");
  passWith(2 * minuteMs, { condition: "not-joined", isJoined: false });
  assert.deepEqual(hub.kinds, ["lora-not-joined"]);
  const spent = { ...lora.fairUse, spentMs: 29_900 } as NonNullable<typeof lora.fairUse>;
  passWith(61 * minuteMs, { fairUse: spent, condition: "fair-use" });
  assert.deepEqual(hub.kinds, ["lora-budget-spent"]);
  assert.equal(hub.watch.raised[0]?.subject, "lora-network");
  passWith(minuteMs, { fairUse: { ...spent, spentMs: 25_000 } });
  assert.deepEqual(hub.kinds, ["lora-budget-spent"], "as good as spent");
  passWith(minuteMs, { fairUse: { ...spent, spentMs: 20_000 } });
  assert.deepEqual(hub.kinds, []);
  passWith(minuteMs, { awaitingReceipt: 1, sinceDownlinkMs: (24 * 60 + 10) * minuteMs });
  assert.deepEqual(hub.kinds, [], "today's batch, a little later than yesterday's, has just gone out");
  passWith(minuteMs, { awaitingReceipt: 3, sinceDownlinkMs: loraSilentAfterMs - 1 });
  assert.deepEqual(hub.kinds, []);
  passWith(minuteMs, { awaitingReceipt: 3, sinceDownlinkMs: loraSilentAfterMs });
  assert.deepEqual(hub.kinds, ["lora-silent"]);
  passWith(minuteMs, { awaitingReceipt: 0, sinceDownlinkMs: loraSilentAfterMs });
  assert.deepEqual(hub.kinds, [], "nothing waits for an answer");
});

test("each kind of alarm has its runbook", () => {
  const text = readFileSync(join(import.meta.dirname, "../../docs/operating.md"), "utf8");
  const headings = new Set([...text.matchAll(/^### `([a-z-]+)`$/gm)].map(([, kind]) => kind));
  for (const kind of Object.keys(agentAlarmRules)) assert.ok(headings.has(kind), `no heading ### \`${kind}\``);
});

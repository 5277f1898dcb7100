/** What the owner of a hub is to be told of by itself: what the agent's status and the wallet's words mean over time. */
import { type Alarm, AlarmBoard, type AlarmChange, type AlarmRule, type Observation } from "../platform/alarm-board.ts";
import type { Clock } from "../platform/clock.ts";
import { clockStateLetters } from "../protocol/reading-status.ts";
import type { WalletHello } from "../protocol/wallet-hello.ts";
import type { AgentStatus } from "./agent-status.ts";
import type { LoraCarrierStatus } from "./lora-carrier.ts";

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const atOnce = { raiseAt: 1, raiseAfterMs: 0, clearBelow: 1, clearAfterMs: 0 };

/** Share of the journal's ring in use from which on somebody must be told. */
export const ringAlarmShare = 0.8;

/** Each has its runbook in docs/operating.md. */
export const agentAlarmRules = {
  /** A meter gives no good reading. */
  "no-data": { ...atOnce, raiseAfterMs: 15 * minuteMs },
  /** Level: how long nothing of what waits was acknowledged, as a share of what is allowed. */
  "receipt-withheld": atOnce,
  /** Level: how much of what was sealed lately came on top of what waits. */
  "backlog-growing": { raiseAt: 0.5, raiseAfterMs: 0, clearBelow: 0.1, clearAfterMs: 2 * minuteMs },
  "clock-unsynchronised": { ...atOnce, raiseAfterMs: hourMs, clearAfterMs: 5 * minuteMs },
  /** Level: share of the journal's segments that hold what no full node has acknowledged. */
  "ring-filling": { raiseAt: ringAlarmShare, raiseAfterMs: 0, clearBelow: ringAlarmShare - 0.1, clearAfterMs: 0 },
  "wallet-away": { ...atOnce, raiseAfterMs: minuteMs },
  /** The modem does not answer, or its state cannot be kept: nothing goes over LoRaWAN. */
  "lora-stopped": { ...atOnce, raiseAfterMs: 10 * minuteMs },
  "lora-not-joined": { ...atOnce, raiseAfterMs: hourMs },
  /** Level: share of an allowance of airtime that is spent. */
  "lora-budget-spent": { raiseAt: 0.95, raiseAfterMs: hourMs, clearBelow: 0.7, clearAfterMs: 0 },
  /** Level: how long nothing came down though records wait for receipts, as a share of what is allowed. */
  "lora-silent": atOnce,
} as const satisfies Record<string, AlarmRule>;
export type AgentAlarmKind = keyof typeof agentAlarmRules;
export type AgentAlarm = Alarm<AgentAlarmKind>;

export const agentLookEveryMs = 10_000;
/**
 * So long nothing may come down over LoRaWAN while records that were sent wait for a receipt. More than a day: batches, and receipts, may be
 * a day apart, and the frame that asks comes before the answer.
 */
export const loraSilentAfterMs = 26 * hourMs;
/** So long a connected full node may leave what waits without an acknowledgement. */
export const withheldAfterMs = 15 * minuteMs;
/** Over so long a time it is seen whether the backlog grows. */
export const growthWindowMs = 30 * minuteMs;
const sampleEveryMs = minuteMs;

interface Sample {
  readonly atMs: number;
  readonly sealed: number;
  readonly waiting: number;
}

export class AgentWatch {
  readonly #clock: Clock;
  readonly #board = new AlarmBoard<AgentAlarmKind>(agentAlarmRules);
  /** One a minute, over the window. */
  #samples: Sample[] = [];
  #acknowledged: number | undefined;
  /** Since when something waits, the broker is there, and nothing is acknowledged. */
  #stalledMs: number | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Takes how things stand now; for calling every {@link agentLookEveryMs}. Gives what changed. */
  look(status: AgentStatus, hello: WalletHello | undefined): AlarmChange<AgentAlarmKind>[] {
    const nowMs = this.#clock.monotonicMs();
    const found = [
      ...this.#ofUplink(status, nowMs),
      ...ofWallet(status, hello),
      ...ofMeters(status),
      ...(status.lora ? ofLora(status.lora) : []),
    ];
    return this.#board.evaluate(found, nowMs, this.#clock.wallMs());
  }

  get raised(): readonly AgentAlarm[] {
    return this.#board.raised;
  }
  get counts(): Readonly<Record<AgentAlarmKind, number>> {
    return this.#board.counts;
  }

  *#ofUplink({ uplink, sealed, backlog }: AgentStatus, nowMs: number): Generator<Observation<AgentAlarmKind>> {
    if (uplink === undefined) return; // kept on the hub by choice; the ring says when it is full
    const waiting = backlog.records; // what a full node has, though older records are missing there, is not withheld
    const acknowledged = sealed - waiting;
    const isProgress = acknowledged !== this.#acknowledged || waiting === 0 || !uplink.connected;
    this.#acknowledged = acknowledged;
    this.#stalledMs = isProgress ? undefined : (this.#stalledMs ?? nowMs);
    const stalledMs = this.#stalledMs === undefined ? 0 : nowMs - this.#stalledMs;
    const minutes = Math.round(stalledMs / minuteMs);
    yield {
      kind: "receipt-withheld",
      subject: "hub",
      level: stalledMs / withheldAfterMs,
      detail: `${waiting} records wait, and no receipt has come for ${minutes} min though the broker is there`,
    };
    const growth = this.#growth({ atMs: nowMs, sealed, waiting });
    const percent = Math.round(growth * 100);
    yield {
      kind: "backlog-growing",
      subject: "hub",
      level: growth,
      detail: `${waiting} records wait; ${percent} % of what was sealed in the last 30 min is not acknowledged`,
    };
  }

  /** Of what was sealed in the window, the share by which more waits than at its begin. 0 until it has passed once. */
  #growth(now: Sample): number {
    const last = this.#samples.at(-1);
    // The wallet, its epoch or the agent is another one: what was seen before says nothing.
    if (last && now.sealed < last.sealed) this.#samples = [];
    if (last === undefined || now.atMs - last.atMs >= sampleEveryMs) this.#samples.push(now);
    while (this.#samples.length > 1 && now.atMs - (this.#samples[1] as Sample).atMs >= growthWindowMs)
      this.#samples.shift();
    const first = this.#samples[0];
    if (first === undefined || now.atMs - first.atMs < growthWindowMs) return 0;
    const sealed = now.sealed - first.sealed;
    return sealed === 0 ? 0 : Math.max(0, now.waiting - first.waiting) / sealed;
  }
}

function* ofWallet(status: AgentStatus, hello: WalletHello | undefined): Generator<Observation<AgentAlarmKind>> {
  const subject = "wallet";
  if (status.wallet === "disconnected")
    yield { kind: "wallet-away", subject, level: 1, detail: "the wallet does not answer: nothing is sealed" };
  if (hello === undefined) return;
  const { segmentsInUse, segments } = hello;
  yield {
    kind: "ring-filling",
    subject,
    level: segments === 0 ? 0 : segmentsInUse / segments,
    detail: `${segmentsInUse} of ${segments} segments of the journal hold what no full node has acknowledged`,
  };
  const clock = clockStateLetters[hello.clockState] ?? "U";
  if (clock !== "S")
    yield { kind: "clock-unsynchronised", subject, level: 1, detail: `the wallet sees clock state ${clock}, not S` };
}

function* ofMeters({ meters }: AgentStatus): Generator<Observation<AgentAlarmKind>> {
  for (const { name, lastStatus } of meters)
    if (lastStatus !== "" && lastStatus !== "G")
      yield { kind: "no-data", subject: name, level: 1, detail: `its readings have status ${lastStatus}` };
}

function* ofLora(lora: LoraCarrierStatus): Generator<Observation<AgentAlarmKind>> {
  const { condition, detail = condition, isJoined, awaitingReceipt, sinceDownlinkMs, sinceStartMs } = lora;
  const subject = "lora";
  const isStopped = condition === "modem-away" || condition === "state-unwritable";
  if (isStopped) yield { kind: "lora-stopped", subject, level: 1, detail };
  else if (!isJoined) yield { kind: "lora-not-joined", subject, level: 1, detail };
  for (const [name, allowance] of [
    ["law", lora.dutyCycle],
    ["network", lora.fairUse],
  ] as const)
    if (allowance)
      yield {
        ...{ kind: "lora-budget-spent", subject: `lora-${name}`, level: allowance.spentMs / allowance.limitMs },
        detail: `${seconds(allowance.spentMs)} of the ${seconds(allowance.limitMs)} that the ${name} allows in ${allowance.windowMs / hourMs} h are spent`,
      };
  const silentMs = isJoined && awaitingReceipt > 0 ? (sinceDownlinkMs ?? sinceStartMs) : 0;
  yield {
    ...{ kind: "lora-silent", subject, level: silentMs / loraSilentAfterMs },
    detail: `${awaitingReceipt} records wait for a receipt, and nothing has come down for ${Math.round(silentMs / hourMs)} h`,
  };
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(1)} s`;
}

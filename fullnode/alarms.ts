/**
 * What an operator of a full node is to be told of by itself: devices that are silent, that contradict themselves, that wait for
 * a word, whose clocks are not set; a broker that is away. Looks at the store now and then, so that several nodes over one
 * store see the same; the evaluation is platform/alarm-board.ts.
 */
import { type Alarm, AlarmBoard, type AlarmChange, type AlarmRule, type Observation } from "../platform/alarm-board.ts";
import type { Clock } from "../platform/clock.ts";
import type { ClockStateLetter } from "../protocol/reading-status.ts";
import type { DeviceState, Store } from "./store.ts";

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const atOnce = { raiseAt: 1, raiseAfterMs: 0, clearBelow: 1, clearAfterMs: 0 };

/** Each has its runbook in docs/operating.md. */
export const nodeAlarmRules = {
  /** Level: silence as a share of what is allowed. */
  "no-data": atOnce,
  fork: atOnce,
  "epoch-held": atOnce,
  /** While a hub sends its newest records first, gaps are as they should be. */
  "records-missing": { ...atOnce, raiseAfterMs: 30 * minuteMs },
  /** A hub that has just booted needs a while. */
  "clock-unsynchronised": { ...atOnce, raiseAfterMs: hourMs, clearAfterMs: 5 * minuteMs },
  /** Level: the queue as a share of what it may hold. */
  "backlog-growing": { raiseAt: 0.5, raiseAfterMs: minuteMs, clearBelow: 0.1, clearAfterMs: minuteMs },
  "broker-away": { ...atOnce, raiseAfterMs: minuteMs },
  "store-failing": { ...atOnce, clearAfterMs: minuteMs },
} as const satisfies Record<string, AlarmRule>;
export type NodeAlarmKind = keyof typeof nodeAlarmRules;
export type NodeAlarm = Alarm<NodeAlarmKind>;

/** How often the store is looked at. What a device sends in between counts as one arrival. */
export const lookEveryMs = 30_000;
/** Allowed silence of a device of which not enough has come to know better. */
export const silenceDefaultMs = hourMs;
/** No device is called silent before this. */
export const silenceFirstMs = 5 * minuteMs;
/** Arrivals between which the usual distance is learned; a device is silent after so many times the median. */
const gapsMax = 9;
const gapsMin = 3;
/** Arrivals closer than this part of what is usual are a backlog that is drained: they do not count one by one. */
const burstShare = 0.25;
const silenceGaps = 3;
/** Before this a device may be draining what waited while the node was away. */
const learnedAfterMs = hourMs;
/** A fork is shown for so long after the last record that contradicts. */
const forkShownMs = 7 * 24 * hourMs;
const devicesMax = 1_000_000;

/** What a device's arrivals tell of it. */
interface Rhythm {
  readonly firstMs: number;
  /** The last one that counted. */
  lastMs: number;
  /** Distances between arrivals, the newest last. */
  readonly gapsMs: number[];
}

export interface WatchParts {
  readonly store: Pick<Store, "deviceStates" | "quarantineCount">;
  readonly clock: Clock;
  /** Allowed silence for every device, instead of what is learned. */
  readonly silentAfterMs?: number;
  /** The queue as a share of what it may hold. */
  readonly queueShare: () => number;
  readonly onChanges: (changes: readonly AlarmChange<NodeAlarmKind>[]) => void;
}

export class NodeWatch {
  readonly #parts: WatchParts;
  readonly #board = new AlarmBoard<NodeAlarmKind>(nodeAlarmRules);
  readonly #rhythms = new Map<string, Rhythm>();
  /** Devices whose newest record was not stamped by a synchronised clock. */
  readonly #clocks = new Map<string, ClockStateLetter>();
  #states: readonly DeviceState[] = [];
  #quarantined = 0;
  #connectedMs: number | undefined;
  #storeProblem: string | undefined;
  #looking: Promise<void> | undefined;

  constructor(parts: WatchParts) {
    this.#parts = parts;
  }

  /** Whether the broker is there: without it nobody can be blamed for silence. */
  connected(isConnected: boolean): void {
    if (isConnected) this.#connectedMs ??= this.#parts.clock.wallMs();
    else this.#connectedMs = undefined;
  }

  /** A record was stored; `device` is its did:key. */
  stored(device: string, clock: ClockStateLetter): void {
    if (clock === "S") this.#clocks.delete(device);
    else if (this.#clocks.size < devicesMax) this.#clocks.set(device, clock);
  }

  /** Looks at the store and evaluates. Never rejects: a store that does not answer is an alarm. */
  look(): Promise<void> {
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  async #look(): Promise<void> {
    const { store, clock, onChanges } = this.#parts;
    try {
      this.#states = await store.deviceStates();
      this.#quarantined = (await store.quarantineCount("")).total;
      this.#storeProblem = undefined;
    } catch (error) {
      this.#storeProblem = (error as Error).message;
    }
    const wallMs = clock.wallMs();
    if (this.#storeProblem === undefined) this.#learn();
    const changes = this.#board.evaluate(this.#observations(wallMs), clock.monotonicMs(), wallMs);
    if (changes.length > 0) onChanges(changes);
  }

  #learn(): void {
    for (const { name, lastReceivedMs } of this.#states) {
      if (lastReceivedMs === 0) continue;
      const known = this.#rhythms.get(name);
      if (known === undefined) this.#rhythms.set(name, { firstMs: lastReceivedMs, lastMs: lastReceivedMs, gapsMs: [] });
      else if (lastReceivedMs - known.lastMs > burstShare * (usualMs(known) ?? 0)) {
        known.gapsMs.push(lastReceivedMs - known.lastMs);
        if (known.gapsMs.length > gapsMax) known.gapsMs.shift();
        known.lastMs = lastReceivedMs;
      }
    }
  }

  /** How long a device may be silent. */
  allowedSilenceMs(name: string): number {
    if (this.#parts.silentAfterMs !== undefined) return this.#parts.silentAfterMs;
    const usual = usualMs(this.#rhythms.get(name));
    return usual === undefined ? silenceDefaultMs : Math.max(silenceFirstMs, silenceGaps * usual);
  }

  #observations(wallMs: number): Observation<NodeAlarmKind>[] {
    const found: Observation<NodeAlarmKind>[] = [];
    const self = { subject: "node" };
    if (this.#storeProblem !== undefined)
      found.push({ ...self, kind: "store-failing", level: 1, detail: `the store gave: ${this.#storeProblem}` });
    if (this.#connectedMs === undefined)
      found.push({ ...self, kind: "broker-away", level: 1, detail: "no connection to the broker" });
    const level = this.#parts.queueShare();
    const percent = Math.round(level * 100);
    found.push({ ...self, kind: "backlog-growing", level, detail: `the intake's queue is ${percent} % full` });
    for (const state of this.#states) {
      found.push(...this.#ofDevice(state, `did:key:${state.name}`, wallMs));
    }
    for (const [subject, clock] of this.#clocks)
      found.push({
        kind: "clock-unsynchronised",
        subject,
        level: 1,
        detail: `its records come with clock state ${clock}, not S`,
      });
    return found;
  }

  *#ofDevice(state: DeviceState, subject: string, wallMs: number): Generator<Observation<NodeAlarmKind>> {
    const { name, lastReceivedMs, enrolledMs, heldEpochs, evidence, evidenceMs, hasGap } = state;
    if (this.#connectedMs !== undefined) {
      const silentMs = wallMs - Math.max(lastReceivedMs, enrolledMs, this.#connectedMs);
      const allowedMs = this.allowedSilenceMs(name);
      if (silentMs >= allowedMs) {
        const last = lastReceivedMs === 0 ? "no record yet" : `last record ${new Date(lastReceivedMs).toISOString()}`;
        const detail = `${last}; more than ${Math.round(allowedMs / 1_000)} s of silence are not usual`;
        yield { kind: "no-data", subject, level: silentMs / allowedMs, detail };
      }
    }
    if (evidence > 0 && wallMs - evidenceMs < forkShownMs)
      yield { kind: "fork", subject, level: 1, detail: `${evidence} records contradict what is stored` };
    if (heldEpochs > 0)
      yield { kind: "epoch-held", subject, level: 1, detail: `${heldEpochs} epochs wait for the owner's word` };
    if (hasGap)
      yield {
        kind: "records-missing",
        subject,
        level: 1,
        detail: "records are stored whose predecessors have not come",
      };
  }

  /** Fulfilled when no look is under way. */
  async settled(): Promise<void> {
    await this.#looking;
  }

  get raised(): readonly NodeAlarm[] {
    return this.#board.raised;
  }
  get alarmCounts(): Readonly<Record<NodeAlarmKind, number>> {
    return this.#board.counts;
  }
  get devices(): readonly DeviceState[] {
    return this.#states;
  }
  get quarantined(): number {
    return this.#quarantined;
  }
  /** What keeps the node from its work; empty: nothing. */
  get problems(): readonly string[] {
    return [
      ...(this.#storeProblem === undefined ? [] : [`the store gave: ${this.#storeProblem}`]),
      ...(this.#connectedMs === undefined ? ["no connection to the broker"] : []),
    ];
  }
}

/** The median distance of a device's arrivals; undefined where too little of it was seen. */
function usualMs(rhythm: Rhythm | undefined): number | undefined {
  if (rhythm === undefined || rhythm.gapsMs.length < gapsMin || rhythm.lastMs - rhythm.firstMs < learnedAfterMs)
    return undefined;
  const sorted = rhythm.gapsMs.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

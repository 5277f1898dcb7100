/**
 * The airtime that this device has spent, and whether another frame may go: the law's duty cycle in any rolling hour, the network's
 * fair use in any rolling 24 hours. All frames count against one sub-band, since no modem tells which channel it took. Modems keep a
 * count of their own, but forget it at a reset; this one is written down before each frame (lora-state.ts).
 *
 * Times are of one monotonic clock in milliseconds. A frame counts in full from its start until a window's length after its end, so that
 * no window, wherever it begins, holds more than its limit.
 */
import type { LoraAllowance } from "./lora-status.ts";

const hourMs = 3_600_000;
export const dayMs = 24 * hourMs;
/** So long after a restart a modem may still be at a frame that nobody saw end. */
const unseenEndMs = 60_000;
/** Frames of the same 4 s count as one that ended with the last of them: bounds what is kept of an hour to 900. */
const gridMs = 4_000;
/** The same for what is older than an hour and counts for the day only: 144 more. */
const oldGridMs = 600_000;

/** What a frame costs. */
export interface FrameCost {
  /** By what is known of it: for fair use and for people. */
  readonly airtimeMs: number;
  /** At most, with MAC commands beside it and at the data rate that it may be sent at: for the law. */
  readonly boundMs: number;
}

/** Plain data, for the state file: how long ago frames ended, and one that was not seen to end. Whole milliseconds. */
export interface BudgetState {
  readonly frames: readonly { readonly ageMs: number; readonly airtimeMs: number; readonly boundMs: number }[];
  readonly open?: FrameCost;
}

interface Spent {
  endMs: number;
  airtimeMs: number;
  boundMs: number;
}

export interface BudgetLimits {
  /** Share of any hour; absent: the region has none. */
  readonly dutyCycle?: number;
  /** Airtime in any 24 hours; absent: none is set. */
  readonly fairUseMs?: number;
}

export interface BudgetWait {
  readonly limit: "duty-cycle" | "fair-use";
  /** Infinity: the frame alone is longer than the limit. */
  readonly waitMs: number;
}

export class LoraBudget {
  readonly #limits: BudgetLimits;
  /** By their end, oldest first. */
  #spent: Spent[] = [];
  #open: FrameCost | undefined;

  constructor(limits: BudgetLimits) {
    this.#limits = limits;
  }

  /** What another process wrote down `elapsedMs` ago, as far as that is known; 0 where it is not, which counts it as just spent. */
  static restore(limits: BudgetLimits, state: BudgetState, elapsedMs: number, nowMs: number): LoraBudget {
    const budget = new LoraBudget(limits);
    const frames = state.frames.map(({ ageMs, ...cost }) => ({ endMs: nowMs - elapsedMs - ageMs, ...cost }));
    budget.#spent = frames.sort((one, other) => one.endMs - other.endMs);
    if (state.open) budget.#spent.push({ endMs: nowMs + unseenEndMs, ...state.open });
    budget.#forget(nowMs);
    return budget;
  }

  /** All of it was spent just now: what stood in a state that cannot be read could have been that much. */
  static exhausted(limits: BudgetLimits, nowMs: number): LoraBudget {
    const budget = new LoraBudget(limits);
    const boundMs = (limits.dutyCycle ?? 0) * hourMs;
    budget.#spent = [{ endMs: nowMs, airtimeMs: limits.fairUseMs ?? 0, boundMs }];
    return budget;
  }

  /**
   * How long a frame of that cost has to wait; undefined where it may go now. `share` of each limit is what it may fill: what can wait
   * leaves the rest to what is new.
   */
  waitFor(cost: FrameCost, nowMs: number, share = 1): BudgetWait | undefined {
    const { dutyCycle, fairUseMs } = this.#limits;
    const waits: BudgetWait[] = [];
    if (dutyCycle !== undefined) {
      const limitMs = dutyCycle * hourMs * share;
      waits.push({ limit: "duty-cycle", waitMs: this.#wait(cost.boundMs, limitMs, hourMs, nowMs, "boundMs") });
    }
    if (fairUseMs !== undefined) {
      const limitMs = fairUseMs * share;
      waits.push({ limit: "fair-use", waitMs: this.#wait(cost.airtimeMs, limitMs, dayMs, nowMs, "airtimeMs") });
    }
    return waits.filter(({ waitMs }) => waitMs > 0).sort((one, other) => other.waitMs - one.waitMs)[0];
  }

  #wait(costMs: number, limitMs: number, windowMs: number, nowMs: number, of: "airtimeMs" | "boundMs"): number {
    if (costMs > limitMs) return Number.POSITIVE_INFINITY;
    let totalMs = this.#in(windowMs, nowMs, of);
    let waitMs = 0;
    for (const frame of this.#spent) {
      if (totalMs + costMs <= limitMs) break;
      if (frame.endMs <= nowMs - windowMs) continue;
      totalMs -= frame[of];
      waitMs = frame.endMs + windowMs - nowMs;
    }
    return waitMs;
  }

  /** A frame is about to go, and counts from now on. Only one is on its way at a time. */
  reserve(cost: FrameCost): void {
    if (this.#open) throw new Error("a frame is on its way already");
    this.#open = { airtimeMs: Math.ceil(cost.airtimeMs), boundMs: Math.ceil(cost.boundMs) };
  }

  /** It has ended; `cost` is what is known now, undefined where nothing was on the air. */
  settle(cost: FrameCost | undefined, nowMs: number): void {
    this.#open = undefined;
    if (cost === undefined) return;
    const [airtimeMs, boundMs] = [Math.ceil(cost.airtimeMs), Math.ceil(cost.boundMs)];
    const last = this.#spent.at(-1);
    // One that a restart put into the future keeps its end; the order stays.
    const endMs = Math.max(nowMs, last?.endMs ?? nowMs);
    this.#spent.push({ endMs, airtimeMs, boundMs });
    this.#forget(nowMs);
  }

  #forget(nowMs: number): void {
    const kept: Spent[] = [];
    for (const frame of this.#spent) {
      if (frame.endMs <= nowMs - dayMs) continue;
      const group = kept.at(-1);
      const widthMs = frame.endMs <= nowMs - hourMs ? oldGridMs : gridMs;
      if (group && Math.floor(group.endMs / widthMs) === Math.floor(frame.endMs / widthMs)) {
        group.endMs = frame.endMs;
        group.airtimeMs += frame.airtimeMs;
        group.boundMs += frame.boundMs;
      } else {
        kept.push({ ...frame });
      }
    }
    this.#spent = kept;
  }

  #in(windowMs: number, nowMs: number, of: "airtimeMs" | "boundMs"): number {
    let totalMs = this.#open?.[of] ?? 0;
    for (const frame of this.#spent) if (frame.endMs > nowMs - windowMs) totalMs += frame[of];
    return totalMs;
  }

  /** Of all frames, as they are known, in the last hour or day. */
  airtimeMs(window: "hour" | "day", nowMs: number): number {
    return this.#in(window === "hour" ? hourMs : dayMs, nowMs, "airtimeMs");
  }

  dutyCycle(nowMs: number): LoraAllowance | undefined {
    const { dutyCycle } = this.#limits;
    if (dutyCycle === undefined) return undefined;
    return { windowMs: hourMs, limitMs: dutyCycle * hourMs, spentMs: this.#in(hourMs, nowMs, "boundMs") };
  }

  fairUse(nowMs: number): LoraAllowance | undefined {
    const { fairUseMs } = this.#limits;
    if (fairUseMs === undefined) return undefined;
    return { windowMs: dayMs, limitMs: fairUseMs, spentMs: this.#in(dayMs, nowMs, "airtimeMs") };
  }

  state(nowMs: number): BudgetState {
    const frames = this.#spent.map(({ endMs, airtimeMs, boundMs }) => ({
      // Rounded down, so that none is made older than it is. Below 0: one that a restart could not see end.
      ageMs: Math.floor(nowMs - endMs),
      airtimeMs,
      boundMs,
    }));
    return { frames, ...(this.#open && { open: this.#open }) };
  }
}

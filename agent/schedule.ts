/** When readings are due: on the clock's own multiples of the interval (the full second, minute, quarter hour). Pure. */
import { BackOff } from "../platform/back-off.ts";

/** End of the slot in which `wallMs` lies, or the moment itself where it is one: Unix seconds. */
export function slotEndFrom(wallMs: number, intervalS: number): number {
  return Math.ceil(wallMs / 1_000 / intervalS) * intervalS;
}

export interface Due {
  /** Unix seconds of the slot's end: the time of the reading. */
  readonly timeS: number;
  /** Slots just before it that passed without a reading; {@link missedSlotsMax} at most are named. */
  readonly missed: number;
}

/** The rows for missed slots must fit into the buffer of samples; a longer gap shows by the times of its ends. */
export const missedSlotsMax = 30;

/**
 * The slot that is due next after `lastS`, given the time now, and how many were missed on the way. It lies in the past, by
 * less than half a slot, where it ended a moment ago.
 */
export function nextDue(lastS: number, wallMs: number, intervalS: number): Due {
  const soonest = slotEndFrom(wallMs, intervalS);
  const justEnded = soonest - intervalS;
  const late = justEnded > lastS && wallMs / 1_000 - justEnded < intervalS / 2;
  const timeS = late ? justEnded : soonest;
  if (timeS <= lastS) {
    // Time went back, or the reading was early: the next one is a slot later, unless the clock was set.
    return { timeS: lastS - timeS > intervalS ? timeS : lastS + intervalS, missed: 0 };
  }
  const missed = (timeS - lastS) / intervalS - 1;
  return { timeS, missed: Math.min(missed, missedSlotsMax) };
}

/** What a record's time may be off by, and what a long slot may be read late by, as a share of it. */
const lateMinMs = 2_000;
const lateShare = 0.1;

/** Whether a reading that ended `offsetMs` after its slot missed its deadline: 2 s, or a tenth of the slot where that is more. */
export function isLate(offsetMs: number, intervalS: number): boolean {
  return offsetMs > Math.max(lateMinMs, intervalS * 1_000 * lateShare);
}

/** So many tries in a row may be in vain before a unit is left alone for a while. */
export const vainTriesMax = 3;
const restFirstMs = 1_000;
export const restLongestMs = 10_000;

/**
 * The rest of a unit that does not answer. Each try in vain holds its line for a time-out or two; were a dead unit asked in
 * every slot, the others on its line would lose theirs.
 */
export class UnitRest {
  readonly #pauses: BackOff;
  #vain = 0;
  #untilMs = Number.NEGATIVE_INFINITY;

  constructor(random: () => number = Math.random) {
    this.#pauses = new BackOff({ firstMs: restFirstMs, longestMs: restLongestMs, jitter: 0.2, random });
  }

  /** A try held the line and brought nothing; `nowMs` is monotonic. */
  vain(nowMs: number): void {
    this.#vain++;
    if (this.#vain >= vainTriesMax) this.#untilMs = nowMs + this.#pauses.next();
  }

  answered(): void {
    this.#vain = 0;
    this.#untilMs = Number.NEGATIVE_INFINITY;
    this.#pauses.reset();
  }

  /** The last try was in vain: it is asked after those that answer. */
  get isSuspect(): boolean {
    return this.#vain > 0;
  }

  isResting(nowMs: number): boolean {
    return nowMs < this.#untilMs;
  }
}

/** When readings are due: on the clock's own multiples of the interval (the full second, minute, quarter hour). Pure. */

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

/** The slot that is due next after `lastS`, given the time now, and how many were missed on the way. */
export function nextDue(lastS: number | undefined, wallMs: number, intervalS: number): Due {
  const soonest = slotEndFrom(wallMs, intervalS);
  if (lastS === undefined) return { timeS: soonest, missed: 0 };
  // A slot that ended a moment ago and was not read yet is still read: late by less than half a slot.
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

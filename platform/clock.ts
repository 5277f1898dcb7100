/** The two clocks: wall time for what is recorded, monotonic time for what is waited for. Passed in, so that tests own time. */

export interface Clock {
  /** Unix time in milliseconds; may jump. */
  wallMs(): number;
  /** Milliseconds since the boot (CLOCK_MONOTONIC): the same for all processes of a machine; never jumps. */
  monotonicMs(): number;
}

export const systemClock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => {
    const [seconds, nanoseconds] = process.hrtime();
    return seconds * 1_000 + nanoseconds / 1_000_000;
  },
};

/** 2025-01-01: a wall clock that stands before this was never set. */
const setFromMs = 1_735_689_600_000;

export function isSet(wallMs: number): boolean {
  return wallMs >= setFromMs;
}

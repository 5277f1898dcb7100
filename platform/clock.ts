/** The two clocks: wall time for what is recorded, monotonic time for what is waited for. Passed in, so that tests own time. */

export interface Clock {
  /** Unix time in milliseconds; may jump. */
  wallMs(): number;
  /** Milliseconds since some start; never jumps. */
  monotonicMs(): number;
}

export const systemClock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now(),
};

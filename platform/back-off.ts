/** Delays between tries: doubling from a first to a longest one, with jitter so that many hubs never return together. */

export interface BackOffOptions {
  readonly firstMs: number;
  readonly longestMs: number;
  /** 0 to 1: which part of a delay is left to chance. */
  readonly jitter?: number;
  readonly random?: () => number;
}

export class BackOff {
  readonly #options: Required<BackOffOptions>;
  #failures = 0;

  constructor(options: BackOffOptions) {
    this.#options = { jitter: 0.5, random: Math.random, ...options };
  }

  /** The delay before the next try, in milliseconds; each call doubles it. */
  next(): number {
    const { firstMs, longestMs, jitter, random } = this.#options;
    const full = Math.min(longestMs, firstMs * 2 ** Math.min(this.#failures, 30));
    this.#failures++;
    return Math.round(full * (1 - jitter + jitter * random()));
  }

  /** A try succeeded: the next delay is the first one again. */
  reset(): void {
    this.#failures = 0;
  }

  get failures(): number {
    return this.#failures;
  }
}

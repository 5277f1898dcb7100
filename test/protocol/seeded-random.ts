/** Random values that a seed repeats (mulberry32): enough to vary test input. */
export class SeededRandom {
  readonly seed: number;
  #state: number;

  constructor(seed: number) {
    this.seed = seed >>> 0;
    this.#state = this.seed;
  }

  /** An integer from 0 to 2^32-1. */
  uint32(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }

  /** An integer from min to max, both included; the range at most 2^53. */
  integer(min: number, max: number): number {
    const high = this.uint32() & 0x1f_ffff;
    return min + Math.floor(((high * 2 ** 32 + this.uint32()) / 2 ** 53) * (max - min + 1));
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.uint32() & 0xff);
  }

  chance(ofHundred: number): boolean {
    return this.integer(1, 100) <= ofHundred;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.integer(0, items.length - 1)] as T;
  }
}

/** The seed of this run: `ECP_TEST_SEED` repeats a run that failed; else a new one each time. */
export function randomOfRun(): SeededRandom {
  const given = process.env.ECP_TEST_SEED;
  return new SeededRandom(given === undefined ? Date.now() % 2 ** 32 : Number(given));
}

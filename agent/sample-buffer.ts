/**
 * Rows that were read and are not sealed yet, of one meter. Bounded: when the wallet is away for longer than the buffer
 * reaches, the oldest rows go, and a row with status N stands where the last of them stood.
 */
import { statuses } from "../protocol/reading-status.ts";
import type { Row } from "../protocol/record.ts";
import { sealRowsMax } from "../protocol/wallet-message.ts";

/** Samples of short slots live in memory only, and no longer than this before they are given to seal. */
const unsealedSecondsMax = 60;

export interface Sample {
  readonly codes: readonly number[];
  readonly row: Row;
  /** Read before the clock was set: its time is seconds since the boot. */
  readonly relative?: true;
}

export class SampleBuffer {
  readonly #slotS: number;
  #samples: Sample[] = [];

  constructor(slotS: number) {
    this.#slotS = slotS;
  }

  get length(): number {
    return this.#samples.length;
  }

  /** Adds a sample; returns how many rows that said more than N were lost for it. */
  push(sample: Sample): number {
    this.#samples.push(sample);
    if (this.#samples.length <= sealRowsMax) return 0;
    const [first, second, ...rest] = this.#samples as [Sample, Sample, ...Sample[]];
    const lost = [first, second].filter(({ row }) => row.status !== statuses.notPresent).length;
    const marker = { ...second, row: { timeS: second.row.timeS, status: statuses.notPresent, values: [] } };
    this.#samples = [marker, ...rest];
    return lost;
  }

  /** Whether what is there should be sealed now: its window ends, or another one begins. */
  isDue(sealEveryS: number): boolean {
    const last = this.#samples.at(-1);
    if (last === undefined) return false;
    if (sealEveryS === 0 || this.#slotS >= 60 || this.#samples.length >= sealRowsMax) return true;
    const first = this.#samples[0] as Sample;
    if (last.row.timeS - first.row.timeS + this.#slotS >= unsealedSecondsMax) return true;
    const window = (sample: Sample): number => Math.ceil(sample.row.timeS / sealEveryS);
    return (
      last.row.timeS % sealEveryS === 0 || window(first) !== window(last) || !this.#joins(first, last, this.length - 1)
    );
  }

  /** The first samples that can go in one request: same codes, times that follow each other. */
  head(): Sample[] {
    const first = this.#samples[0];
    if (first === undefined) return [];
    const end = this.#samples.findIndex((sample, index) => !this.#joins(first, sample, index));
    return this.#samples.slice(0, end < 0 ? sealRowsMax : Math.min(end, sealRowsMax));
  }

  /** Forgets samples that are sealed, or can never be. */
  drop(samples: readonly Sample[]): void {
    const gone = new Set(samples);
    this.#samples = this.#samples.filter((sample) => !gone.has(sample));
  }

  #joins(first: Sample, sample: Sample, index: number): boolean {
    return (
      sample.row.timeS === first.row.timeS + index * this.#slotS &&
      sample.relative === first.relative &&
      sample.codes.length === first.codes.length &&
      sample.codes.every((code, k) => code === first.codes[k])
    );
  }
}

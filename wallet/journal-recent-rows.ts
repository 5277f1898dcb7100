/**
 * The latest rows of one meter and plan, in numbers side by side: as objects they would outlive the collector's first rounds, and then
 * wait as garbage for its last, which is most of what a small process may take.
 */
import type { Row } from "../protocol/record.ts";
import type { KnownRow } from "./journal-rows.ts";

/** Rows kept: an agent's second try is answered without reading the ring. */
const recentRowsMax = 256;
const recentRowsMin = 8;

/** Before the values of a row: time, generation, clock state, status, epoch, sequence, number of values. */
const valuesAt = 7;

export class RecentRows {
  readonly #codes: readonly number[];
  readonly #width: number;
  /** Grows to its full size by and by: most plans of a meter have few rows. */
  #numbers: Float64Array;
  #size = recentRowsMin;
  /** Rows ever added: the next one goes to this place modulo the size. */
  #added = 0;
  #latestS = -1;

  constructor(codes: readonly number[]) {
    this.#codes = [...codes];
    this.#width = valuesAt + codes.length;
    this.#numbers = new Float64Array(this.#size * this.#width);
  }

  isOf(codes: readonly number[]): boolean {
    return codes.length === this.#codes.length && codes.every((code, index) => code === this.#codes[index]);
  }

  /** The rows of this time, oldest first. */
  at(timeS: number): KnownRow[] {
    const found: KnownRow[] = [];
    for (let i = Math.max(0, this.#added - this.#size); i < this.#added; i++) {
      const place = (i % this.#size) * this.#width;
      if (this.#numbers[place] === timeS) found.push(this.#rowAt(place));
    }
    return found;
  }

  /** Adds a row; one of the same time and generation, the newest of them, becomes this one: it was pending. */
  add(row: Row, { generation, clockState, epoch, sequence }: Omit<KnownRow, "row" | "codes">): void {
    let place = row.timeS > this.#latestS ? undefined : this.#placeOf(row.timeS, generation);
    this.#latestS = Math.max(this.#latestS, row.timeS);
    if (place === undefined) {
      if (this.#added === this.#size && this.#size < recentRowsMax) this.#grow();
      place = (this.#added++ % this.#size) * this.#width;
    }
    const { timeS, status, values } = row;
    this.#numbers.set([timeS, generation, clockState, status, epoch, sequence, values.length, ...values], place);
  }

  #placeOf(timeS: number, generation: number): number | undefined {
    for (let i = this.#added - 1; i >= Math.max(0, this.#added - this.#size); i--) {
      const place = (i % this.#size) * this.#width;
      if (this.#numbers[place] === timeS && this.#numbers[place + 1] === generation) return place;
    }
    return undefined;
  }

  #rowAt(place: number): KnownRow {
    const number = (index: number): number => this.#numbers[place + index] as number;
    const values = [...this.#numbers.subarray(place + valuesAt, place + valuesAt + number(6))];
    return {
      ...{ generation: number(1), clockState: number(2) },
      ...{ row: { timeS: number(0), status: number(3), values }, codes: this.#codes },
      ...{ epoch: number(4), sequence: number(5) },
    };
  }

  #grow(): void {
    const numbers = new Float64Array(2 * this.#size * this.#width);
    numbers.set(this.#numbers);
    this.#numbers = numbers;
    this.#size *= 2;
  }
}

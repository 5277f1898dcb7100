/**
 * What is released: everything up to a position, as ordinals (see journal-epochs.ts), and runs behind it that wait in memory
 * until what is before them is released too. A restart forgets the runs: their records are delivered once more, which does no harm.
 */

/** Runs that are remembered; more of them are left to a second delivery. */
const runsMax = 256;

interface Run {
  readonly first: number;
  readonly last: number;
  readonly receipt: Uint8Array;
}

export class JournalRelease {
  #position = 0;
  #receipt: Uint8Array | undefined;
  #isWritten = true;
  #runs: readonly Run[] = [];

  /** All records up to and with this ordinal are released. */
  get position(): number {
    return this.#position;
  }
  /** The receipt that the position rests on. */
  get receipt(): Uint8Array | undefined {
    return this.#receipt;
  }
  /** Whether position and receipt are on disk. */
  get isWritten(): boolean {
    return this.#isWritten;
  }

  setPosition(position: number): void {
    this.#position = position;
  }
  setReceipt(receipt: Uint8Array): void {
    this.#receipt = receipt;
  }
  wasWritten(): void {
    this.#isWritten = true;
  }

  /** The last ordinal that is released without a gap from `first` on; `first` − 1 where it is not. */
  releasedFrom(first: number): number {
    if (this.#position >= first) return this.#position;
    return this.#runs.find((run) => run.first <= first && run.last >= first)?.last ?? first - 1;
  }

  /**
   * Ordinals of which each record is stored elsewhere, as a receipt says. The position moves on over all that it touches, and
   * over gaps in which `hasRecord` finds none (they were voided or lost).
   */
  add(
    { first, last }: Omit<Run, "receipt">,
    receipt: Uint8Array,
    hasRecord: (first: number, last: number) => boolean,
  ): void {
    if (last <= this.#position) return;
    this.#runs = merged([...this.#runs, { first, last, receipt }]).slice(0, runsMax);
    for (const run of this.#runs) {
      if (run.first > this.#position + 1 && hasRecord(this.#position + 1, run.first - 1)) break;
      if (run.last <= this.#position) continue;
      this.#position = run.last;
      this.#receipt = run.receipt;
      this.#isWritten = false;
    }
    this.#runs = this.#runs.filter((run) => run.last > this.#position);
  }
}

/** In order, those that touch or overlap as one, with the receipt that reaches furthest. */
function merged(runs: readonly Run[]): Run[] {
  const result: Run[] = [];
  for (const run of runs.toSorted((a, b) => a.first - b.first)) {
    const last = result.at(-1);
    if (last === undefined || run.first > last.last + 1) result.push(run);
    else if (run.last > last.last) result[result.length - 1] = { ...run, first: last.first };
  }
  return result;
}

/**
 * Several epochs in one journal. Each record has an ordinal, its place in the order of all of them: the base of its epoch plus
 * its sequence. The base of a later epoch is the ordinal of the last record before it; the chain goes on. Ordinals never leave
 * the journal: on disk and to others a place is (epoch, sequence).
 */

/** Epochs with records in the ring at a time. It bounds the state in a segment's first commit. */
export const epochsMax = 16;

export interface EpochBase {
  readonly epoch: number;
  readonly base: number;
}

export interface Place {
  readonly epoch: number;
  readonly sequence: number;
}

/** Sequences of one epoch, both ends included. */
export interface SequenceRange {
  readonly first: number;
  readonly last: number;
}

/** An epoch with records in the ring. */
export interface JournalEpoch {
  readonly epoch: number;
  /** Oldest sequence that can be read back. */
  readonly first: number;
  /** All up to here are released; 0 where none is. */
  readonly through: number;
  /** Its last sequence; 0 where it has no record yet. */
  readonly last: number;
}

export class JournalEpochs {
  #epochs: EpochBase[] = [];
  #nextOrdinal = 1;
  /** The running epoch was begun in memory: no commit has it yet. */
  #isUnwritten = false;

  /** How the state of a segment tells it; the last epoch is the running one. */
  set(epochs: readonly EpochBase[], nextSequence: number): void {
    this.#epochs = [...epochs];
    this.#isUnwritten = false;
    this.#nextOrdinal = this.#running.base + nextSequence;
  }

  /** Oldest first, without one that is not on disk yet. */
  get written(): readonly EpochBase[] {
    return this.#isUnwritten ? this.#epochs.slice(0, -1) : this.#epochs;
  }
  /** Oldest first; the running one last. */
  get all(): readonly EpochBase[] {
    return this.#epochs;
  }
  get running(): number {
    return this.#running.epoch;
  }
  get isUnwritten(): boolean {
    return this.#isUnwritten;
  }
  get nextOrdinal(): number {
    return this.#nextOrdinal;
  }
  get nextSequence(): number {
    return this.#nextOrdinal - this.#running.base;
  }
  /** Epoch and next sequence as the newest commit on disk has them. */
  get nextWritten(): Place {
    if (!this.#isUnwritten) return { epoch: this.running, sequence: this.nextSequence };
    const { epoch, base } = this.#epochs.at(-2) as EpochBase;
    return { epoch, sequence: this.#running.base + 1 - base };
  }

  /** Sequence of the running epoch that the next record will have. */
  continueAt(sequence: number): void {
    this.#nextOrdinal = this.#running.base + sequence;
  }

  /** Begins an epoch behind all records; takes the place of one that was begun and never written. */
  begin(epoch: number, isUnwritten: boolean): void {
    const base = this.#isUnwritten ? (this.#epochs.pop() as EpochBase).base : this.#nextOrdinal - 1;
    this.#epochs.push({ epoch, base });
    this.#isUnwritten = isUnwritten;
  }

  /** A commit of the running epoch is on disk. */
  wereWritten(): void {
    this.#isUnwritten = false;
  }

  /** Infinity for an epoch that is not known: nothing is before it. */
  ordinalOf(epoch: number, sequence: number): number {
    const known = this.#epochs.findLast((item) => item.epoch === epoch);
    return known ? known.base + sequence : Number.POSITIVE_INFINITY;
  }

  /** Where a record of this ordinal is; sequence 0 of the first epoch for what lies before all of them. */
  placeOf(ordinal: number): Place {
    const first = this.#epochs[0] as EpochBase;
    const { epoch, base } = this.#epochs.findLast((item) => item.base < ordinal) ?? first;
    return { epoch, sequence: Math.max(0, ordinal - base) };
  }

  /** First and last ordinal that an epoch may have; the last one is below the first where it has none. */
  extentOf(epoch: number): { readonly first: number; readonly last: number } | undefined {
    const index = this.#epochs.findLastIndex((item) => item.epoch === epoch);
    const known = this.#epochs[index];
    return known && { first: known.base + 1, last: this.#epochs[index + 1]?.base ?? this.#nextOrdinal - 1 };
  }

  /** Forgets epochs whose records are all before this ordinal, up to one that the ring's oldest segment begins in. */
  forgetBefore(ordinal: number, oldest: number | undefined): void {
    while (this.#epochs[1] !== undefined && this.#epochs[1].base < ordinal && this.#epochs[0]?.epoch !== oldest) {
      if (this.#isUnwritten && this.#epochs.length === 2) return;
      this.#epochs.shift();
    }
  }

  get #running(): EpochBase {
    return this.#epochs.at(-1) as EpochBase;
  }
}

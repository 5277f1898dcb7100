/** What waits to be sent, since when, and how long it will take at the pace of the last minutes. Pure. */

/** The pace is measured over at most this time, and at least the other. */
const spanLongestMs = 120_000;
const spanShortestMs = 5_000;
const sampleEveryMs = 1_000;

export interface BacklogStatus {
  /** Records that no full node has named in a receipt yet. */
  readonly records: number;
  /** Records that a full node has and the journal still keeps, because older ones are missing there. */
  readonly stored: number;
  /** Readings in them, about: what records of late held. */
  readonly rows: number;
  /** Their size, about. */
  readonly bytes: number;
  /** When the oldest was sealed, Unix seconds. Absent where nothing waits, or where another run of the agent sealed it. */
  readonly sinceS?: number;
  /** How long it takes at the present pace, in seconds; absent where it does not shrink. */
  readonly remainingS?: number;
}

export class BacklogPace {
  #samples: readonly (readonly [atMs: number, records: number])[] = [];

  /** Notes how many records wait now; to be called now and then. */
  note(nowMs: number, records: number): void {
    const last = this.#samples.at(-1);
    if (last && nowMs - last[0] < sampleEveryMs) return;
    this.#samples = [...this.#samples.filter(([atMs]) => nowMs - atMs <= spanLongestMs), [nowMs, records]];
  }

  /** Seconds until so many have gone; undefined where they become no fewer, or it was not watched long enough. */
  remainingS(nowMs: number, records: number): number | undefined {
    if (records === 0) return 0;
    const most = this.#samples.reduce((best, sample) => (sample[1] >= best[1] ? sample : best), [nowMs, records]);
    const spanMs = nowMs - most[0];
    if (spanMs < spanShortestMs || most[1] <= records) return undefined;
    return Math.ceil((records * spanMs) / (most[1] - records) / 1_000);
  }
}

/** Readings that a record holds: running mean, from what the configuration says to what is sealed. */
export class RowsOfRecord {
  #rows: number;

  constructor(sealEveryS: number, intervalsS: readonly number[]) {
    const shortestS = Math.min(...intervalsS, Number.POSITIVE_INFINITY);
    this.#rows = Number.isFinite(shortestS) ? Math.max(1, Math.floor(sealEveryS / shortestS)) : 1;
  }

  get mean(): number {
    return this.#rows;
  }

  note(rows: number): void {
    this.#rows += (rows - this.#rows) / 16;
  }
}

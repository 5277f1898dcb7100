/** Runs of sequences in ascending order, with gaps between. Pure. Bounded: of too many runs the highest are forgotten. */

const spansMax = 1_024;

interface Span {
  readonly first: number;
  readonly last: number;
}

export class SequenceSpans {
  #spans: readonly Span[] = [];

  /** How many sequences are in it. */
  get size(): number {
    return this.#spans.reduce((sum, { first, last }) => sum + last - first + 1, 0);
  }

  add(first: number, last: number): void {
    const before = this.#spans.slice(0, this.#placeOf(first - 1));
    const after = this.#spans.slice(before.length);
    const touching = after.findIndex((span) => span.first > last + 1);
    const rest = touching < 0 ? [] : after.slice(touching);
    const merged = touching < 0 ? after : after.slice(0, touching);
    const whole = {
      first: Math.min(first, merged[0]?.first ?? first),
      last: Math.max(last, merged.at(-1)?.last ?? last),
    };
    this.#spans = [...before, whole, ...rest].slice(0, spansMax);
  }

  /** The last sequence of the run that has this one; undefined where none has. */
  endOf(sequence: number): number | undefined {
    const span = this.#spans[this.#placeOf(sequence)];
    return span && span.first <= sequence ? span.last : undefined;
  }

  /** The first sequence at or behind this one that is in a run. */
  startFrom(sequence: number): number {
    const span = this.#spans[this.#placeOf(sequence)];
    return span ? Math.max(span.first, sequence) : Number.POSITIVE_INFINITY;
  }

  /** Forgets all up to and with this one. */
  dropThrough(through: number): void {
    const place = this.#placeOf(through + 1);
    this.#spans = this.#spans
      .slice(place)
      .map((span) => (span.first > through ? span : { first: through + 1, last: span.last }));
  }

  clear(): void {
    this.#spans = [];
  }

  /** Place of the first run that ends at or behind the sequence. */
  #placeOf(sequence: number): number {
    let [low, high] = [0, this.#spans.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#spans[middle] as Span).last < sequence) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

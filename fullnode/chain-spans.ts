/** Sequences without a gap: how the spans of a chain grow, and what they are when made anew. */
import type { SequenceRange, Span } from "./store.ts";

/** The span that has a sequence. */
export function spanAt(spans: readonly Span[], sequence: number): Span | undefined {
  let low = 0;
  let high = spans.length - 1;
  while (low <= high) {
    const middle = (low + high) >>> 1;
    const span = spans[middle] as Span;
    if (sequence < span.first) high = middle - 1;
    else if (sequence > span.last) low = middle + 1;
    else return span;
  }
  return undefined;
}

/** The spans with one more, joined where they touch or overlap. */
export function withSpan(spans: readonly Span[], added: Span): Span[] {
  const last = spans.at(-1);
  if (last === undefined || last.last < added.first - 1) return [...spans, added];
  if (last.last === added.first - 1) return [...spans.slice(0, -1), { ...added, first: last.first }];
  const before = spans.filter((span) => span.last < added.first - 1);
  const after = spans.filter((span) => span.first > added.last + 1);
  const touching = spans.slice(before.length, spans.length - after.length);
  const end = [...touching, added].reduce((a, b) => (b.last > a.last ? b : a));
  const first = Math.min(added.first, touching[0]?.first ?? added.first);
  return [...before, { ...end, first }, ...after];
}

/** The same spans, made of all the records and voids of an epoch. */
export function spansOf(
  seats: readonly { readonly sequence: number; readonly digest: Uint8Array }[],
  voids: readonly SequenceRange[],
): Span[] {
  const firstOf = new Map<number, number>(); // by the record that declares the void
  for (const { first, last } of voids) firstOf.set(last + 1, Math.min(first, firstOf.get(last + 1) ?? first));
  return seats.reduce<Span[]>(
    (spans, { sequence, digest }) =>
      withSpan(spans, { first: firstOf.get(sequence) ?? sequence, last: sequence, digest }),
    [],
  );
}

/** The spans where all up to `gone` is passed that is not there: the ones that reach it begin at 1, joined. */
export function withoutGone(spans: readonly Span[], gone: number): readonly Span[] {
  const reached = gone === 0 ? -1 : spans.findLastIndex((span) => span.first <= gone + 1);
  const end = spans[reached];
  if (end === undefined || (reached === 0 && end.first === 1)) return spans;
  return [{ ...end, first: 1 }, ...spans.slice(reached + 1)];
}

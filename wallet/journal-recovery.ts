/** What a start reads of the journal: its tail, from the newest state that is whole and no further back than rows are pending. */
import { firstCommitBlocksMax, readCommit } from "./journal-block.ts";
import { decodeBody, type JournalState } from "./journal-body.ts";
import { type JournalDisk, JournalError } from "./journal-ring.ts";
import type { SegmentSpan } from "./journal-segments.ts";
import { type Commit, type Walk, walkSegment } from "./journal-walk.ts";

export interface TailReader {
  /** A commit of before the state: only its pending rows count, and which rows it signed. */
  older(commit: Commit): void;
  /** How things stood before the commits to come, the first of which is of this epoch. */
  state(state: JournalState, epoch: number): void;
  commit(commit: Commit): void;
}

/** Reads the newest segment, and older ones as far back as the state and pending rows ask for. Gives the newest one's walk. */
export function readTail(ring: JournalDisk, spans: readonly SegmentSpan[], reader: TailReader): Walk {
  let first = spans.length - 1;
  while (first >= 0 && stateOf(ring, spans[first] as SegmentSpan) === undefined) first--;
  const begin = spans[first];
  const found = begin && stateOf(ring, begin);
  if (found === undefined)
    throw new JournalError(
      `no segment of the ${ring.segments} in ${ring.folder} begins with a whole commit; this is no journal, or all of it is damaged`,
    );
  const oldest = found.state.oldestPendingCommit;
  const from = oldest === 0 ? first : spans.findLastIndex((span) => span.firstCommit <= oldest);
  for (const span of spans.slice(Math.max(0, from), first))
    for (const commit of walkSpan(ring, span).commits) if (commit.header.commitNumber >= oldest) reader.older(commit);
  reader.state(found.state, found.epoch);
  let walk: Walk | undefined;
  for (const span of spans.slice(first)) {
    walk = walkSpan(ring, span, walk?.commits.at(-1));
    for (const commit of walk.commits) reader.commit(commit);
  }
  return walk as Walk;
}

export function walkSpan(ring: JournalDisk, span: SegmentSpan, before?: Commit): Walk {
  return walkSegment(ring.read(span.segment), span.segment, span.generation, before);
}

/** How things stood before a segment, where its first commit is whole. */
function stateOf(ring: JournalDisk, span: SegmentSpan): { state: JournalState; epoch: number } | undefined {
  const first = readCommit(ring.read(span.segment, Math.min(firstCommitBlocksMax, ring.segmentBlocks)), 0);
  if (first?.header.segment !== span.segment || first.header.generation !== span.generation) return undefined;
  const { state } = decodeBody(first.body);
  return state && { state, epoch: first.header.epoch };
}

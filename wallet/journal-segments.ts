/** The segments in use and what can be read back from them: records by sequence, rows by their time. */
import { createHash } from "node:crypto";
import type { Sha256 } from "../protocol/cose-sign1.ts";
import { decodeRecord } from "../protocol/record.ts";
import { blockBytes, commitBlocksMax, isBlank, readCommit } from "./journal-block.ts";
import { decodeBody } from "./journal-body.ts";
import type { JournalRing } from "./journal-ring.ts";
import type { KnownRow } from "./journal-rows.ts";
import { firstCommitBehindDamage, walkSegment } from "./journal-walk.ts";

export const sha256: Sha256 = (bytes) => new Uint8Array(createHash("sha256").update(bytes).digest());

/** Segments whose records are kept in memory once read. */
const loadedMax = 2;

export interface SegmentSpan {
  readonly segment: number;
  readonly generation: number;
  readonly firstCommit: number;
  readonly firstSequence: number;
}

interface Loaded {
  readonly firstCommit: number;
  readonly records: Map<number, Uint8Array>;
  /** Sequences by meter, plan and time of their rows; made by the first search. */
  rows?: Map<string, number[]>;
}

type TimeRanges = Map<string, { firstS: number; lastS: number }>;

/**
 * The segments in use, oldest first, by their first whole commits. A segment whose first block was spoilt is still one:
 * what lies behind the damage may wait for its receipt.
 */
export function findSpans(ring: JournalRing): SegmentSpan[] {
  const spans: SegmentSpan[] = [];
  for (let segment = 0; segment < ring.segments; segment++) {
    const header = firstCommit(ring, segment);
    if (header?.segment !== segment) continue;
    const { generation, commitNumber, firstSequence } = header;
    spans.push({ segment, generation, firstCommit: commitNumber, firstSequence });
  }
  return spans.sort((a, b) => a.firstCommit - b.firstCommit);
}

function firstCommit(ring: JournalRing, segment: number): ReturnType<typeof firstCommitBehindDamage> {
  const head = ring.read(segment, Math.min(2 * commitBlocksMax, ring.segmentBlocks));
  const first = readCommit(head, 0);
  if (first) return first.header;
  const blank = Array.from({ length: head.length / blockBytes }, (_, i) =>
    head.subarray(i * blockBytes).subarray(0, blockBytes),
  );
  return blank.every(isBlank) ? undefined : firstCommitBehindDamage(ring.read(segment), segment);
}

export class JournalSegments {
  readonly #ring: JournalRing;
  readonly #loaded = new Map<number, Loaded>();
  readonly #ranges = new Map<number, { firstCommit: number; ranges: TimeRanges }>();

  constructor(ring: JournalRing) {
    this.#ring = ring;
  }

  /** The records of a segment by sequence. Those of the newest one stay up to date through {@link added}. */
  records(span: SegmentSpan): Map<number, Uint8Array> {
    return this.#load(span).records;
  }

  /** A record was appended to this segment. */
  added(span: SegmentSpan, sequence: number, bytes: Uint8Array): void {
    const loaded = this.#loaded.get(span.segment);
    if (loaded?.firstCommit !== span.firstCommit) return;
    loaded.records.set(sequence, bytes);
    if (loaded.rows) indexRows(loaded.rows, sequence, bytes);
  }

  /** Rows in records of this meter, plan and time, newest first. The last span is the one being written. */
  *rowsAt(spans: readonly SegmentSpan[], meter: number, plan: number, timeS: number): Generator<KnownRow> {
    for (const span of spans.toReversed()) {
      if (!this.#mayHold(span, `${meter}/${plan}`, timeS)) continue;
      const loaded = this.#load(span);
      const rows = this.#rowsOf(loaded);
      if (span !== spans.at(-1))
        this.#ranges.set(span.segment, { firstCommit: span.firstCommit, ranges: rangesOf(rows) });
      for (const sequence of (rows.get(`${meter}/${plan}/${timeS}`) ?? []).toReversed()) {
        const { content } = decodeRecord(loaded.records.get(sequence) as Uint8Array, sha256);
        if (content.kind !== "reading") continue;
        for (const row of content.rows)
          if (row.timeS === timeS) yield { generation: content.generation, row, codes: content.codes, sequence };
      }
    }
  }

  #load(span: SegmentSpan): Loaded {
    const known = this.#loaded.get(span.segment);
    if (known?.firstCommit === span.firstCommit) return known;
    const records = new Map<number, Uint8Array>();
    // The records of one commit follow each other by one.
    for (const commit of walkSegment(this.#ring.read(span.segment), span.segment, span.generation).commits)
      for (const [index, bytes] of decodeBody(commit.body).records.entries())
        records.set(commit.header.firstSequence + index, bytes);
    this.#loaded.delete(span.segment);
    for (const old of this.#loaded.keys()) if (this.#loaded.size >= loadedMax) this.#loaded.delete(old);
    const loaded = { firstCommit: span.firstCommit, records };
    this.#loaded.set(span.segment, loaded);
    return loaded;
  }

  #rowsOf(loaded: Loaded): Map<string, number[]> {
    if (loaded.rows) return loaded.rows;
    const rows = new Map<string, number[]>();
    for (const [sequence, bytes] of loaded.records) indexRows(rows, sequence, bytes);
    loaded.rows = rows;
    return rows;
  }

  /** Whether rows of this time can lie in a segment, by the times that an earlier search found there. */
  #mayHold(span: SegmentSpan, key: string, timeS: number): boolean {
    const known = this.#ranges.get(span.segment);
    if (known?.firstCommit !== span.firstCommit) return true;
    const range = known.ranges.get(key);
    return range !== undefined && timeS >= range.firstS && timeS <= range.lastS;
  }
}

function indexRows(rows: Map<string, number[]>, sequence: number, bytes: Uint8Array): void {
  const { content } = decodeRecord(bytes, sha256);
  if (content.kind !== "reading") return;
  for (const row of content.rows) {
    const key = `${content.meter}/${content.plan}/${row.timeS}`;
    const sequences = rows.get(key);
    if (sequences) sequences.push(sequence);
    else rows.set(key, [sequence]);
  }
}

function rangesOf(rows: ReadonlyMap<string, readonly number[]>): TimeRanges {
  const ranges: TimeRanges = new Map();
  for (const key of rows.keys()) {
    const end = key.lastIndexOf("/");
    const timeS = Number(key.slice(end + 1));
    const range = ranges.get(key.slice(0, end));
    if (range === undefined) ranges.set(key.slice(0, end), { firstS: timeS, lastS: timeS });
    else {
      range.firstS = Math.min(range.firstS, timeS);
      range.lastS = Math.max(range.lastS, timeS);
    }
  }
  return ranges;
}

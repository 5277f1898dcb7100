/** The segments in use and what can be read back from them: records by their place in the chain, rows by their time. */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import type { Sha256 } from "../protocol/cose-sign1.ts";
import { decodeRecord, type RecordContent } from "../protocol/record.ts";
import { blockBytes, commitBlocksMax, formatVersion, formatVersionOf, isBlank, readCommit } from "./journal-block.ts";
import { decodeBody } from "./journal-body.ts";
import { type JournalDisk, JournalError } from "./journal-ring.ts";
import type { KnownRow } from "./journal-rows.ts";
import { firstCommitBehindDamage, walkSegment } from "./journal-walk.ts";

export const sha256: Sha256 = (bytes) => new Uint8Array(createHash("sha256").update(bytes).digest());

/** Segments whose records are kept in memory once read. */
const loadedMax = 2;

export interface SegmentSpan {
  readonly segment: number;
  readonly generation: number;
  readonly firstCommit: number;
  /** Epoch of the first commit, and the sequence of its first record, or the next one where it has none. */
  readonly epoch: number;
  readonly firstSequence: number;
}

interface Loaded {
  readonly firstCommit: number;
  /** By ordinal, see journal-epochs.ts. */
  readonly records: Map<number, Uint8Array>;
  /** Ordinals by meter, plan and time of their rows; made by the first search. */
  rows?: Map<string, number[]>;
}

/** Bits of a filter: three a row, for the 15,000 rows of a segment of minute batches, let 4 of 100 others pass. */
const filterBits = 2 ** 17;

/** Tells which rows a segment cannot hold (a Bloom filter), so that a search reads only segments that may hold one. */
class RowFilter {
  readonly #bits = new Uint8Array(filterBits / 8);

  add(key: string): void {
    for (const bit of bitsOf(key)) this.#bits[bit >>> 3] = (this.#bits[bit >>> 3] as number) | (1 << (bit & 7));
  }

  mayHold(key: string): boolean {
    return bitsOf(key).every((bit) => ((this.#bits[bit >>> 3] as number) & (1 << (bit & 7))) !== 0);
  }
}

function bitsOf(key: string): number[] {
  const one = crc32(key);
  const other = crc32(`${key}/`);
  return [one % filterBits, other % filterBits, (one ^ (other >>> 15)) >>> 15];
}

/**
 * The segments in use, oldest first, by their first whole commits. A segment whose first block was spoilt is still one:
 * what lies behind the damage may wait for its receipt.
 */
export function findSpans(ring: JournalDisk): SegmentSpan[] {
  const spans: SegmentSpan[] = [];
  for (let segment = 0; segment < ring.segments; segment++) {
    const header = firstCommit(ring, segment);
    if (header?.segment !== segment) continue;
    const { generation, commitNumber, epoch, firstSequence } = header;
    spans.push({ segment, generation, firstCommit: commitNumber, epoch, firstSequence });
  }
  return spans.sort((a, b) => a.firstCommit - b.firstCommit);
}

function firstCommit(ring: JournalDisk, segment: number): ReturnType<typeof firstCommitBehindDamage> {
  const head = ring.read(segment, Math.min(2 * commitBlocksMax, ring.segmentBlocks));
  const first = readCommit(head, 0);
  if (first) return first.header;
  const version = formatVersionOf(head.subarray(0, blockBytes)) ?? formatVersion;
  if (version !== formatVersion)
    throw new JournalError(
      `segment ${segment} in ${ring.folder} has format version ${version}, this program knows ${formatVersion}: run the version that wrote it`,
    );
  const blank = Array.from({ length: head.length / blockBytes }, (_, i) =>
    head.subarray(i * blockBytes).subarray(0, blockBytes),
  );
  return blank.every(isBlank) ? undefined : firstCommitBehindDamage(ring.read(segment), segment);
}

export class JournalSegments {
  readonly #ring: JournalDisk;
  readonly #ordinalOf: (epoch: number, sequence: number) => number;
  readonly #loaded = new Map<number, Loaded>();
  readonly #filters = new Map<number, { firstCommit: number; filter: RowFilter }>();

  constructor(ring: JournalDisk, ordinalOf: (epoch: number, sequence: number) => number) {
    this.#ring = ring;
    this.#ordinalOf = ordinalOf;
  }

  /** The records of a segment by ordinal. Those of the newest one stay up to date through {@link added}. */
  records(span: SegmentSpan): Map<number, Uint8Array> {
    return this.#load(span).records;
  }

  /** Records from one ordinal to another, both included, as far as they are there. */
  *recordsFrom(
    spans: readonly SegmentSpan[],
    first: number,
    last: number,
  ): Generator<[ordinal: number, bytes: Uint8Array]> {
    const begins = (span: SegmentSpan): number => this.#ordinalOf(span.epoch, span.firstSequence);
    const start = spans.findLastIndex((span) => begins(span) <= first);
    for (const [index, span] of spans.entries()) {
      if (index < start) continue;
      if (begins(span) > last) return;
      const records = this.records(span);
      const next = spans[index + 1];
      // By their places and not through all of them: a backlog is read a few at a time.
      const end = next ? Math.min(last, begins(next) - 1) : last;
      for (let ordinal = Math.max(first, begins(span)); ordinal <= end; ordinal++) {
        const bytes = records.get(ordinal);
        if (bytes !== undefined) yield [ordinal, bytes];
      }
    }
  }

  /** A record was appended to this segment. */
  added(span: SegmentSpan, ordinal: number, bytes: Uint8Array, content: RecordContent): void {
    const loaded = this.#loaded.get(span.segment);
    if (loaded?.firstCommit === span.firstCommit) {
      loaded.records.set(ordinal, bytes);
      if (loaded.rows) indexRows(loaded.rows, ordinal, content);
    }
    const known = this.#filters.get(span.segment);
    if (known?.firstCommit === span.firstCommit) for (const key of rowKeys(content)) known.filter.add(key);
  }

  /** Rows in records of this meter, plan and time, newest first. */
  *rowsAt(spans: readonly SegmentSpan[], meter: number, plan: number, timeS: number): Generator<KnownRow> {
    const key = `${meter}/${plan}/${timeS}`;
    for (const span of spans.toReversed()) {
      if (!this.#filterOf(span).mayHold(key)) continue;
      const loaded = this.#load(span);
      for (const ordinal of (this.#rowsOf(loaded).get(key) ?? []).toReversed()) {
        const { content } = decodeRecord(loaded.records.get(ordinal) as Uint8Array, sha256);
        if (content.kind !== "reading") continue;
        const { generation, clockState, codes, epoch, sequence } = content;
        for (const row of content.rows)
          if (row.timeS === timeS) yield { generation, clockState, row, codes, epoch, sequence };
      }
    }
  }

  #load(span: SegmentSpan): Loaded {
    const known = this.#loaded.get(span.segment);
    this.#loaded.delete(span.segment);
    if (known?.firstCommit === span.firstCommit) {
      this.#loaded.set(span.segment, known); // the newest in use goes last
      return known;
    }
    const records = new Map<number, Uint8Array>();
    // The records of one commit follow each other by one.
    for (const { header, body } of walkSegment(this.#ring.read(span.segment), span.segment, span.generation).commits)
      for (const [index, bytes] of decodeBody(body).records.entries())
        records.set(this.#ordinalOf(header.epoch, header.firstSequence + index), bytes);
    for (const old of this.#loaded.keys()) if (this.#loaded.size >= loadedMax) this.#loaded.delete(old);
    const loaded = { firstCommit: span.firstCommit, records };
    this.#loaded.set(span.segment, loaded);
    return loaded;
  }

  #rowsOf(loaded: Loaded): Map<string, number[]> {
    if (loaded.rows) return loaded.rows;
    const rows = new Map<string, number[]>();
    for (const [ordinal, bytes] of loaded.records) indexRows(rows, ordinal, decodeRecord(bytes, sha256).content);
    loaded.rows = rows;
    return rows;
  }

  #filterOf(span: SegmentSpan): RowFilter {
    const known = this.#filters.get(span.segment);
    if (known?.firstCommit === span.firstCommit) return known.filter;
    const filter = new RowFilter();
    for (const key of this.#rowsOf(this.#load(span)).keys()) filter.add(key);
    this.#filters.set(span.segment, { firstCommit: span.firstCommit, filter });
    return filter;
  }
}

function indexRows(rows: Map<string, number[]>, ordinal: number, content: RecordContent): void {
  for (const key of rowKeys(content)) {
    const ordinals = rows.get(key);
    if (ordinals) ordinals.push(ordinal);
    else rows.set(key, [ordinal]);
  }
}

/** Meter, plan and time of each row in a record. */
function rowKeys(content: RecordContent): string[] {
  return content.kind === "reading" ? content.rows.map(({ timeS }) => `${content.meter}/${content.plan}/${timeS}`) : [];
}

/**
 * The journal: the only durable thing on the device. Sequence, chain, idempotency and the released position are what its
 * own tail says; no second file can disagree with it. See wallet/README.md for the format and its recovery.
 */
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { syncFolder } from "../platform/durable-file.ts";
import { type DecodedRecord, decodeRecord, eventCodes } from "../protocol/record.ts";
import { WalletRefusal } from "../protocol/wallet-message.ts";
import { blockBytes, type CommitHeader, commitBlocksMax, encodeCommit, fillerBlock, isBlank } from "./journal-block.ts";
import {
  type CommitBody,
  commitRecordsMax,
  decodeBody,
  encodeBody,
  type JournalState,
  type LastRow,
  type PendingRow,
} from "./journal-body.ts";
import { JournalError, JournalRing, segmentBlocksDefault } from "./journal-ring.ts";
import { JournalRows, type KnownRow } from "./journal-rows.ts";
import { findSpans, JournalSegments, type SegmentSpan, sha256 } from "./journal-segments.ts";
import {
  type Commit,
  commitHash,
  generationOf,
  type Hole,
  touchedFrom,
  unwholeFrom,
  type Walk,
  walkSegment,
} from "./journal-walk.ts";

/** Blocks at a segment's end that only a released position is written to: it is on disk before what it releases goes. */
const reserveBlocks = 1;

/** Sequences, both ends included, that may have been used for records which are not there any more. */
export interface LostSequences {
  readonly first: number;
  readonly last: number;
}

export interface NewRecord {
  readonly bytes: Uint8Array;
  readonly decoded: DecodedRecord;
}

const emptyState: JournalState = {
  nextSequence: 1,
  lastDigest: new Uint8Array(32),
  generation: 0,
  lastRows: [],
  oldestPendingCommit: 0,
};

export class Journal {
  readonly epoch: number;
  /** What opening found to be voided: sequences that a spoilt write at the tail may have taken. */
  readonly lost: LostSequences | undefined;
  readonly #ring: JournalRing;
  readonly #segments: JournalSegments;
  readonly #rows = new JournalRows();
  /** Oldest first; the last one is being written. */
  #spans: SegmentSpan[];
  #nextBlock = 0;
  #commitNumber = 0;
  #lastHash: Uint8Array = emptyState.lastDigest;
  #nextSequence = emptyState.nextSequence;
  #lastDigest = emptyState.lastDigest;
  #generation = emptyState.generation;
  #released = { epoch: 0, through: 0 };
  #receipt: Uint8Array | undefined;
  #receiptWritten = true;
  /** A spoilt write lies at the beginning of the next segment: the commit that voids it must cover it. */
  #spoiltAhead = false;

  /** Makes ring and first commit. Needs fsync: not under Node's permission model. */
  static create(folder: string, epoch: number, segments: number, segmentBlocks = segmentBlocksDefault): void {
    if (existsSync(folder)) throw new JournalError(`${folder} is there already; it was left as it is`);
    const aside = `${folder}.new`;
    rmSync(aside, { recursive: true, force: true }); // of a creation that was cut short
    mkdirSync(aside, { mode: 0o700 });
    JournalRing.preallocate(aside, segments, segmentBlocks);
    const ring = JournalRing.open(aside);
    const body = encodeBody({ records: [], pendingRows: [], state: emptyState });
    const header = { segment: 0, generation: 1, block: 0, commitNumber: 0, records: 0, pendingRows: 0, epoch };
    const rest = { firstSequence: 1, releasedEpoch: epoch, releasedThrough: 0, previousHash: new Uint8Array(32) };
    ring.write(0, 0, encodeCommit({ ...header, ...rest }, body));
    ring.close();
    renameSync(aside, folder);
    syncFolder(dirname(folder));
  }

  /** Opens a journal and recovers what its tail says. Throws {@link JournalError}. */
  constructor(folder: string) {
    this.#ring = JournalRing.open(folder);
    this.#segments = new JournalSegments(this.#ring);
    this.#spans = findSpans(this.#ring);
    const walk = this.#walkTail();
    const last = walk.commits.at(-1) as Commit;
    this.epoch = last.header.epoch;
    this.#commitNumber = last.header.commitNumber + 1;
    this.#lastHash = last.hash;
    this.#released = { epoch: last.header.releasedEpoch, through: last.header.releasedThrough };
    this.#nextBlock = walk.nextBlock;
    const ahead = this.#spoiltBlocksAhead(walk.nextBlock - walk.spoiltBlocks);
    this.#spoiltAhead = ahead > 0;
    // Later commits may tell of sequences whose records lie in a hole; and each spoilt block may have held a commit.
    const told = Math.max(this.#nextSequence, last.header.firstSequence + last.header.records);
    const end = told + (walk.spoiltBlocks + ahead) * commitRecordsMax;
    this.lost = end > this.#nextSequence ? { first: this.#nextSequence, last: end - 1 } : undefined;
  }

  get nextSequence(): number {
    return this.#nextSequence;
  }
  get lastDigest(): Uint8Array {
    return this.#lastDigest;
  }
  get generation(): number {
    return this.#generation;
  }
  get releasedThrough(): number {
    return this.#released.epoch === this.epoch ? this.#released.through : 0;
  }
  /** Oldest first. */
  get pendingRows(): readonly PendingRow[] {
    return this.#rows.pending;
  }
  get segments(): number {
    return this.#ring.segments;
  }
  /** Segments that hold something that may not be overwritten, the one being written included. */
  get segmentsInUse(): number {
    return this.#spans.filter((_, index) => !this.#isRecyclable(index)).length;
  }
  get firstSequence(): number {
    return this.#spans[0]?.firstSequence ?? this.#nextSequence;
  }
  /** Rows are still pending in the segment that is overwritten next: unless they are signed now, the ring stands still. */
  get pendingRowsInTheWay(): boolean {
    const after = this.#spans[this.#spans.findIndex((span) => span.segment === this.#nextSegment) + 1];
    const oldest = this.#rows.oldestPendingCommit;
    return after !== undefined && after !== this.#spans[0] && oldest !== undefined && oldest < after.firstCommit;
  }

  lastRow(meter: number, plan: number): LastRow | undefined {
    return this.#rows.last(meter, plan);
  }

  /**
   * Appends records and pending rows as one commit. **Point of no return:** when this returns they are on disk. Throws
   * {@link WalletRefusal} `ring-full` with nothing written; any other error means that the process must end.
   */
  append(records: readonly NewRecord[], pendingRows: readonly PendingRow[] = []): void {
    const content = { records: records.map((record) => record.bytes), pendingRows };
    const first = records[0]?.decoded.content.sequence ?? this.#nextSequence;
    const receipt = this.#receiptWritten ? undefined : this.#receipt;
    const body = encodeBody({ ...content, ...(receipt && { receipt }) });
    const commitNumber = this.#write(content, first, body);
    for (const { bytes, decoded } of records) this.#applyRecord(bytes, decoded);
    for (const pending of pendingRows) this.#rows.addPending(pending, commitNumber);
  }

  /** Leaves these sequences unused from now on: the next record is `sequence`. Lasts only once that record is appended. */
  skipTo(sequence: number): void {
    if (sequence < this.#nextSequence) throw new RangeError("sequences are never reused");
    this.#nextSequence = sequence;
  }

  /** The records from one sequence to another, both included, as far as they are there and fit into `bytesMax`. */
  records(from: number, to: number, bytesMax: number): [number, Uint8Array][] {
    const found: [number, Uint8Array][] = [];
    let bytes = 0;
    const start = this.#spans.findLastIndex((span) => span.firstSequence <= from);
    for (const span of this.#spans.slice(Math.max(0, start))) {
      if (span.firstSequence > to) break;
      for (const [sequence, record] of this.#segments.records(span)) {
        if (sequence < from || sequence > to) continue;
        bytes += record.length + 16;
        if (bytes > bytesMax && found.length > 0) return found;
        found.push([sequence, record]);
      }
    }
    return found;
  }

  /**
   * A row of this meter, plan and time: one that is the `same`, of whatever clock generation, else one of the running
   * generation. The answer is the same before and after a restart, and wherever in the ring the row lies.
   */
  findRow(meter: number, plan: number, timeS: number, same: (known: KnownRow) => boolean): KnownRow | undefined {
    const near = this.#rows.near(meter, plan, timeS);
    const exact = near.find(same);
    if (exact) return exact;
    const last = this.lastRow(meter, plan);
    if (last === undefined || timeS > last.latestS) return undefined;
    let running = near.find((known) => known.generation === this.#generation);
    for (const known of this.#segments.rowsAt(this.#spans, meter, plan, timeS)) {
      if (same(known)) return known;
      if (known.generation === this.#generation) running ??= known;
    }
    return running;
  }

  /** Marks everything up to and with `through` as stored elsewhere, on the strength of a receipt that the caller verified. */
  release(through: number, receipt: Uint8Array): void {
    if (through <= this.releasedThrough) return;
    this.#released = { epoch: this.epoch, through };
    this.#receipt = receipt;
    this.#receiptWritten = false;
  }

  /** Reads the whole ring, a segment a step and the oldest first: yields the holes of each, for a check in the background. */
  *check(): Generator<readonly Hole[]> {
    let before: Commit | undefined;
    for (const span of this.#spans) {
      const isThere = this.#spans.includes(span); // the ring may have gone on since the last step
      const walk: Walk | undefined = isThere ? this.#walk(span, before) : undefined;
      before = walk?.commits.at(-1);
      if (walk) yield walk.holes;
    }
  }

  close(): void {
    this.#ring.close();
  }

  // ── recovery ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Reads the newest segment, and older ones as far back as the state and pending rows ask for, and applies what they say. */
  #walkTail(): Walk {
    const newest = this.#spans.length - 1;
    let first = newest;
    while (first >= 0 && this.#stateOf(this.#spans[first] as SegmentSpan) === undefined) first--;
    const begin = this.#spans[first];
    if (begin === undefined)
      throw new JournalError(
        `no segment of the ${this.#ring.segments} in ${this.#ring.folder} begins with a whole commit; this is no journal, or all of it is damaged`,
      );
    const state = this.#stateOf(begin) as JournalState;
    const oldest = state.oldestPendingCommit;
    const from = oldest === 0 ? first : this.#spans.findLastIndex((span) => span.firstCommit <= oldest);
    for (const span of this.#spans.slice(Math.max(0, from), first))
      for (const commit of this.#walk(span).commits) this.#applyCommit(commit, oldest);
    this.#nextSequence = state.nextSequence;
    this.#lastDigest = state.lastDigest;
    this.#generation = state.generation;
    this.#rows.setLastRows(state.lastRows);
    let walk: Walk | undefined;
    for (const span of this.#spans.slice(first)) {
      walk = this.#walk(span, walk?.commits.at(-1));
      for (const commit of walk.commits) this.#applyCommit(commit, 0);
    }
    return walk as Walk;
  }

  #walk(span: SegmentSpan, before?: Commit): Walk {
    const predecessor = before && { commitNumber: before.header.commitNumber, hash: before.hash };
    return walkSegment(this.#ring.read(span.segment), span.segment, span.generation, predecessor);
  }

  /** How things stood before a segment, where its first commit is whole. */
  #stateOf(span: SegmentSpan): JournalState | undefined {
    const [first] = this.#walk(span).commits;
    return first?.header.block === 0 ? decodeBody(first.body).state : undefined;
  }

  /** Blocks at the beginning of the next segment which a commit may have touched that no longer fitted into the newest one. */
  #spoiltBlocksAhead(tailBlock: number): number {
    if (tailBlock + commitBlocksMax + reserveBlocks <= this.#ring.segmentBlocks) return 0;
    const index = this.#spans.findIndex((span) => span.segment === this.#nextSegment);
    // The position that releases a segment is on disk before the segment is overwritten: this one was not touched by us.
    if (index >= 0 && !this.#isRecyclable(index)) return 0;
    const bytes = this.#ring.read(this.#nextSegment);
    const span = this.#spans[index];
    const touched = touchedFrom(bytes, 0, (span?.generation ?? 0) + 1, true);
    // The first block of a segment in use was written.
    return touched || (span && isBlank(bytes.subarray(0, blockBytes)) ? 1 : 0);
  }

  #applyCommit(commit: Commit, pendingFrom: number): void {
    const { header } = commit;
    const body = decodeBody(commit.body);
    if (body.receipt) this.#receipt = body.receipt;
    for (const bytes of body.records) this.#applyRecord(bytes, decodeRecord(bytes, sha256));
    if (header.commitNumber >= pendingFrom)
      for (const pending of body.pendingRows) this.#rows.addPending(pending, header.commitNumber);
  }

  #applyRecord(bytes: Uint8Array, { content, digest }: DecodedRecord): void {
    this.#nextSequence = content.sequence + 1;
    this.#lastDigest = digest;
    this.#generation = Math.max(this.#generation, content.generation);
    this.#segments.added(this.#spans.at(-1) as SegmentSpan, content.sequence, bytes);
    if (content.kind === "reading") {
      this.#rows.addRecord(content);
      return;
    }
    for (const [code, meter] of content.events)
      if (code === eventCodes.meterReplaced) this.#rows.forgetStands(meter as number);
  }

  // ── the ring ────────────────────────────────────────────────────────────────────────────────────────────────────────

  get #nextSegment(): number {
    return ((this.#spans.at(-1) as SegmentSpan).segment + 1) % this.#ring.segments;
  }

  /** Writes one commit where it belongs; gives its number. */
  #write(content: CommitBody, firstSequence: number, body: Uint8Array): number {
    const here = this.#spans.at(-1) as SegmentSpan;
    const bytes = this.#commit(content, firstSequence, { ...here, block: this.#nextBlock }, body);
    const end = this.#nextBlock + bytes.length / blockBytes;
    if (!this.#spoiltAhead && end <= this.#ring.segmentBlocks - reserveBlocks) {
      this.#ring.write(here.segment, this.#nextBlock, bytes);
      return this.#written(bytes, end);
    }
    return this.#writeToNextSegment(content, firstSequence);
  }

  #writeToNextSegment(content: CommitBody, firstSequence: number): number {
    const index = this.#spans.findIndex((other) => other.segment === this.#nextSegment);
    if (index >= 0 && !this.#isRecyclable(index))
      throw new WalletRefusal(
        "ring-full",
        `${this.#ring.segments} segments; records from ${this.releasedThrough + 1} on wait for a receipt`,
      );
    if (!this.#receiptWritten && this.#nextBlock < this.#ring.segmentBlocks) this.#writeReleased();
    const segment = this.#nextSegment;
    const old = this.#ring.read(segment);
    const generation = Math.max(generationOf(old), this.#spans[index]?.generation ?? 0) + 1;
    const span = { segment, generation, firstCommit: this.#commitNumber, firstSequence };
    const body = { ...content, ...(this.#receipt && { receipt: this.#receipt }), state: this.#state() };
    const bytes = this.#commit(content, firstSequence, { ...span, block: 0 }, encodeBody(body));
    if (bytes.length > old.length)
      throw new JournalError(`the state of ${bytes.length} bytes is longer than a segment`);
    this.#ring.write(segment, 0, bytes);
    this.#spans = [...this.#spans.filter((other) => other.segment !== segment), span];
    this.#spoiltAhead = false;
    const commitNumber = this.#written(bytes, bytes.length / blockBytes);
    // What is spoilt here was voided by this very commit, or is older: it must not look like the trace of a write to come.
    for (const block of unwholeFrom(old, this.#nextBlock, generation === 1))
      this.#ring.write(segment, block, fillerBlock(segment, block));
    return commitNumber;
  }

  /** A commit of nothing but the released position and its receipt, in the segment's reserve. */
  #writeReleased(): void {
    const nothing = { records: [], pendingRows: [] };
    const body = encodeBody({ ...nothing, ...(this.#receipt && { receipt: this.#receipt }) });
    const place = { ...(this.#spans.at(-1) as SegmentSpan), block: this.#nextBlock };
    const bytes = this.#commit(nothing, this.#nextSequence, place, body);
    if (this.#nextBlock + bytes.length / blockBytes > this.#ring.segmentBlocks) return;
    this.#ring.write(place.segment, place.block, bytes);
    this.#written(bytes, place.block + bytes.length / blockBytes);
  }

  #commit(
    { records, pendingRows }: CommitBody,
    firstSequence: number,
    { segment, generation, block }: Pick<CommitHeader, "segment" | "generation" | "block">,
    body: Uint8Array,
  ): Buffer {
    const header = {
      ...{ segment, generation, block, firstSequence },
      commitNumber: this.#commitNumber,
      records: records.length,
      pendingRows: pendingRows.length,
      epoch: this.epoch,
      releasedEpoch: this.#released.epoch,
      releasedThrough: this.#released.through,
      previousHash: this.#lastHash,
    };
    return encodeCommit(header, body);
  }

  #written(bytes: Buffer, nextBlock: number): number {
    this.#nextBlock = nextBlock;
    this.#lastHash = commitHash(bytes);
    this.#receiptWritten = true;
    return this.#commitNumber++;
  }

  #state(): JournalState {
    return {
      nextSequence: this.#nextSequence,
      lastDigest: this.#lastDigest,
      generation: this.#generation,
      lastRows: this.#rows.lastRows,
      oldestPendingCommit: this.#rows.oldestPendingCommit ?? 0,
    };
  }

  #isRecyclable(index: number): boolean {
    const next = this.#spans[index + 1];
    if (next === undefined) return false;
    const oldestPending = this.#rows.oldestPendingCommit ?? Number.POSITIVE_INFINITY;
    return next.firstSequence - 1 <= this.releasedThrough && next.firstCommit <= oldestPending;
  }
}

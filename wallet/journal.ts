/**
 * The journal: the only durable thing on the device. Sequence, chain, idempotency and the released position are what its
 * own tail says; no second file can disagree with it. See wallet/README.md for the format and its recovery.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { syncFolder } from "../platform/durable-file.ts";
import type { Sha256 } from "../protocol/cose-sign1.ts";
import { quantityOfCode } from "../protocol/quantity.ts";
import { type DecodedRecord, decodeRecord, type ReadingContent, type Row } from "../protocol/record.ts";
import { WalletRefusal } from "../protocol/wallet-message.ts";
import { blockBytes, type CommitHeader, commitBlocksMax, encodeCommit, readCommit } from "./journal-block.ts";
import {
  type CommitBody,
  decodeBody,
  encodeBody,
  type JournalState,
  type LastRow,
  type PendingRow,
} from "./journal-body.ts";
import { JournalError, JournalRing, segmentBlocksDefault } from "./journal-ring.ts";
import { type Commit, commitHash, generationOf, type Hole, touchedFrom, walkSegment } from "./journal-walk.ts";

export const sha256: Sha256 = (bytes) => new Uint8Array(createHash("sha256").update(bytes).digest());

/** Rows kept in memory a meter and plan, so that an agent's second try is answered without reading the ring. */
const recentRowsMax = 256;

/** A row that the journal has: its values, and the sequence of its record (0 while it is pending). */
export interface KnownRow {
  readonly generation: number;
  readonly row: Row;
  readonly codes: readonly number[];
  readonly sequence: number;
}

interface SegmentSpan {
  readonly segment: number;
  readonly generation: number;
  readonly firstCommit: number;
  readonly firstSequence: number;
}

/** What opening the journal found. */
export interface Recovery {
  /** Blocks at the tail that may have been acknowledged and were spoilt; their sequences must be voided. */
  readonly spoiltBlocks: number;
  readonly holes: readonly Hole[];
}

export interface NewRecord {
  readonly bytes: Uint8Array;
  readonly decoded: DecodedRecord;
}

export class Journal {
  readonly epoch: number;
  readonly recovery: Recovery;
  readonly #ring: JournalRing;
  /** Oldest first; the last one is being written. */
  #spans: SegmentSpan[];
  #nextBlock = 0;
  #commitNumber = 0;
  #lastHash: Uint8Array = new Uint8Array(32);
  #nextSequence = 1;
  #lastDigest: Uint8Array = new Uint8Array(32);
  #generation = 0;
  #released = { epoch: 0, through: 0 };
  #receipt: Uint8Array | undefined;
  #receiptWritten = true;
  #pending: { commit: number; pending: PendingRow }[] = [];
  readonly #lastRows = new Map<string, LastRow>();
  readonly #recent = new Map<string, KnownRow[]>();
  readonly #cache = new Map<number, { firstCommit: number; records: Map<number, Uint8Array> }>();
  #leftOver: { segment: number; blocks: number } | undefined;

  /** Makes ring and first commit. Needs fsync: not under Node's permission model. */
  static create(folder: string, epoch: number, segments: number, segmentBlocks = segmentBlocksDefault): void {
    if (existsSync(folder)) throw new JournalError(`${folder} is there already; it was left as it is`);
    const aside = `${folder}.new`;
    rmSync(aside, { recursive: true, force: true }); // of a creation that was cut short
    mkdirSync(aside, { mode: 0o700 });
    JournalRing.preallocate(aside, segments, segmentBlocks);
    const ring = JournalRing.open(aside);
    const state = {
      nextSequence: 1,
      lastDigest: new Uint8Array(32),
      generation: 0,
      lastRows: [],
      oldestPendingCommit: 0,
    };
    const body = encodeBody({ records: [], pendingRows: [], state });
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
    this.#spans = this.#findSpans();
    const newest = this.#spans.at(-1);
    if (newest === undefined)
      throw new JournalError(
        `no whole commit in any of the ${this.#ring.segments} segments of ${folder}; this is no journal, or all of it is damaged`,
      );
    const { commits, walk } = this.#walkTail(newest);
    const last = commits.at(-1) as Commit;
    this.epoch = last.header.epoch;
    this.#commitNumber = last.header.commitNumber + 1;
    this.#lastHash = last.hash;
    this.#released = { epoch: last.header.releasedEpoch, through: last.header.releasedThrough };
    this.#nextBlock = walk.nextBlock;
    const spoiltBehind = this.#spoiltInNextSegment(newest, walk.nextBlock - walk.spoiltBlocks);
    this.recovery = { spoiltBlocks: walk.spoiltBlocks + spoiltBehind, holes: walk.holes };
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
  get pendingRows(): readonly PendingRow[] {
    return this.#pending.map((item) => item.pending);
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

  lastRow(meter: number, plan: number): LastRow | undefined {
    return this.#lastRows.get(`${meter}/${plan}`);
  }
  get lastRows(): readonly LastRow[] {
    return [...this.#lastRows.values()];
  }

  /**
   * Appends records and pending rows as one commit. **Point of no return:** when this returns they are on disk. Throws
   * {@link WalletRefusal} `ring-full` with nothing written; any other error means that the process must end.
   */
  append(records: readonly NewRecord[], pendingRows: readonly PendingRow[] = []): void {
    const content: CommitBody = { records: records.map((record) => record.bytes), pendingRows };
    const here = this.#spans.at(-1) as SegmentSpan;
    const withReceipt = this.#receipt && !this.#receiptWritten ? { ...content, receipt: this.#receipt } : content;
    const first = records[0]?.decoded.content.sequence ?? this.#nextSequence;
    const header = {
      commitNumber: this.#commitNumber,
      records: records.length,
      pendingRows: pendingRows.length,
      epoch: this.epoch,
      firstSequence: first,
      releasedEpoch: this.#released.epoch,
      releasedThrough: this.#released.through,
      previousHash: this.#lastHash,
    };
    let place: Pick<CommitHeader, "segment" | "generation" | "block"> = { ...here, block: this.#nextBlock };
    let bytes = encodeCommit({ ...header, ...place }, encodeBody(withReceipt));
    // What a spoilt write left in the next segment is covered at once by the commit that voids it.
    const fits = !this.#leftOver && this.#nextBlock + bytes.length / blockBytes <= this.#ring.segmentBlocks;
    if (!fits) {
      const span = this.#nextSpan(first);
      const body = { ...content, ...(this.#receipt && { receipt: this.#receipt }), state: this.#state() };
      place = { ...span, block: 0 };
      bytes = encodeCommit({ ...header, ...place }, encodeBody(body));
      this.#ring.write(span.segment, 0, bytes);
      this.#spans = [...this.#spans.filter((other) => other.segment !== span.segment), span];
      this.#cache.delete(span.segment);
    } else this.#ring.write(place.segment, place.block, bytes);
    this.#nextBlock = place.block + bytes.length / blockBytes;
    this.#lastHash = commitHash(bytes);
    this.#receiptWritten = true;
    this.#commitNumber++;
    this.#clearLeftOver();
    for (const record of records) this.#applyRecord(record);
    for (const pending of pendingRows) this.#applyPending(pending, header.commitNumber);
  }

  /** Leaves these sequences unused from now on: the next record is `sequence`. Lasts only once that record is appended. */
  skipTo(sequence: number): void {
    if (sequence < this.#nextSequence) throw new RangeError("sequences are never reused");
    this.#nextSequence = sequence;
  }

  /** Starts a clock generation. Lasts only once a record of it is appended. */
  beginGeneration(generation: number): void {
    this.#generation = generation;
  }

  /** The records from one sequence to another, both included, as far as they are there and fit into `bytesMax`. */
  records(from: number, to: number, bytesMax: number): [number, Uint8Array][] {
    const found: [number, Uint8Array][] = [];
    let bytes = 0;
    for (let index = this.#spanOf(from); index < this.#spans.length; index++) {
      const span = this.#spans[index] as SegmentSpan;
      if (span.firstSequence > to) break;
      for (const [sequence, record] of this.#recordsOf(span)) {
        if (sequence < from || sequence > to) continue;
        bytes += record.length + 16;
        if (bytes > bytesMax && found.length > 0) return found;
        found.push([sequence, record]);
      }
    }
    return found;
  }

  /** A row of this meter, plan and time: of the running generation, or one of an earlier one that `fits` accepts. */
  findRow(meter: number, plan: number, timeS: number, fits: (known: KnownRow) => boolean): KnownRow | undefined {
    const matches = (known: KnownRow): boolean =>
      known.row.timeS === timeS && (known.generation === this.#generation || fits(known));
    const recent = this.#recent.get(`${meter}/${plan}`) ?? [];
    const near = recent.findLast(matches);
    if (near) return near;
    const last = this.lastRow(meter, plan);
    // Every row that was ever sealed in this generation lies at or before the last one.
    if (last === undefined || (last.generation === this.#generation && timeS > last.timeS)) return undefined;
    return this.#searchRing(meter, plan, matches);
  }

  /** Marks everything up to and with `through` as stored elsewhere, on the strength of a receipt that the caller verified. */
  release(through: number, receipt: Uint8Array): void {
    if (through <= this.releasedThrough) return;
    this.#released = { epoch: this.epoch, through };
    this.#receipt = receipt;
    this.#receiptWritten = false;
  }

  close(): void {
    this.#ring.close();
  }

  // ── recovery ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The segments in use, oldest first, by what their first blocks say. */
  #findSpans(): SegmentSpan[] {
    const spans: SegmentSpan[] = [];
    for (let segment = 0; segment < this.#ring.segments; segment++) {
      const bytes = this.#ring.read(segment, Math.min(commitBlocksMax, this.#ring.segmentBlocks));
      const first = readCommit(bytes, 0);
      if (first === undefined || first.header.segment !== segment) continue;
      const { generation, commitNumber, firstSequence } = first.header;
      spans.push({ segment, generation, firstCommit: commitNumber, firstSequence });
    }
    return spans.sort((a, b) => a.firstCommit - b.firstCommit);
  }

  /** Reads the newest segment, and older ones as far back as rows are still pending, and applies what they say. */
  #walkTail(newest: SegmentSpan): { commits: Commit[]; walk: ReturnType<typeof walkSegment> } {
    const walk = walkSegment(this.#ring.read(newest.segment), newest.segment, newest.generation);
    const first = walk.commits[0] as Commit;
    const state = decodeBody(first.body).state;
    if (state === undefined) throw new JournalError(`segment ${newest.segment}: its first commit carries no state`);
    const oldest = state.oldestPendingCommit;
    const from = oldest === 0 ? -1 : this.#spans.findLastIndex((span) => span.firstCommit <= oldest);
    for (const span of from < 0 ? [] : this.#spans.slice(from, -1))
      for (const commit of walkSegment(this.#ring.read(span.segment), span.segment, span.generation).commits)
        this.#applyCommit(commit, oldest);
    this.#setState(state);
    for (const commit of walk.commits) this.#applyCommit(commit, 0);
    return { commits: [...walk.commits], walk };
  }

  /** Blocks of the next segment that a commit may have touched which no longer fitted into the newest one. */
  #spoiltInNextSegment(newest: SegmentSpan, tailBlock: number): number {
    if (tailBlock + commitBlocksMax <= this.#ring.segmentBlocks) return 0;
    const segment = (newest.segment + 1) % this.#ring.segments;
    const bytes = this.#ring.read(segment);
    const span = this.#spans.find((other) => other.segment === segment);
    const firstIsBlank = bytes.subarray(0, blockBytes).every((byte) => byte === 0);
    // A first block that is neither blank nor part of a whole commit is itself the trace of a write.
    const generation = span?.generation ?? (firstIsBlank ? 0 : generationOf(bytes));
    const touched = Math.max(touchedFrom(bytes, 0, generation + 1), span || firstIsBlank ? 0 : 1);
    if (touched > 0) this.#leftOver = { segment, blocks: touched };
    return touched;
  }

  /** Zeroes what a spoilt write left behind the first commit of its segment, now that its sequences are voided on disk. */
  #clearLeftOver(): void {
    const leftOver = this.#leftOver;
    if (leftOver === undefined) return;
    this.#leftOver = undefined;
    const zeros = Buffer.alloc(blockBytes);
    for (let block = this.#nextBlock; block < leftOver.blocks; block++)
      this.#ring.write(leftOver.segment, block, zeros);
  }

  #setState(state: JournalState): void {
    this.#nextSequence = state.nextSequence;
    this.#lastDigest = state.lastDigest;
    this.#generation = state.generation;
    this.#lastRows.clear();
    for (const last of state.lastRows) this.#lastRows.set(`${last.meter}/${last.plan}`, last);
  }

  #applyCommit(commit: Commit, pendingFrom: number): void {
    const body = decodeBody(commit.body);
    if (body.receipt) this.#receipt = body.receipt;
    for (const bytes of body.records) this.#applyRecord({ bytes, decoded: decodeRecord(bytes, sha256) });
    if (commit.header.commitNumber >= pendingFrom)
      for (const pending of body.pendingRows) this.#applyPending(pending, commit.header.commitNumber);
  }

  #applyRecord({ bytes, decoded }: NewRecord): void {
    const { content } = decoded;
    this.#nextSequence = content.sequence + 1;
    this.#lastDigest = decoded.digest;
    this.#generation = Math.max(this.#generation, content.generation);
    const span = this.#spans.at(-1) as SegmentSpan;
    const cached = this.#cache.get(span.segment);
    if (cached?.firstCommit === span.firstCommit) cached.records.set(content.sequence, bytes);
    if (content.kind !== "reading") return;
    this.#pending = this.#pending.filter(({ pending }) => !isRowOf(pending, content));
    for (const row of content.rows) this.#remember(content, row, content.generation, content.codes, content.sequence);
  }

  #applyPending(pending: PendingRow, commit: number): void {
    this.#pending.push({ commit, pending });
    this.#remember(pending, pending.row, pending.generation, pending.codes, 0);
  }

  #remember(
    of: { meter: number; plan: number },
    row: Row,
    generation: number,
    codes: readonly number[],
    sequence: number,
  ): void {
    const key = `${of.meter}/${of.plan}`;
    const rows = this.#recent.get(key) ?? [];
    this.#recent.set(key, rows);
    const pendingIndex = rows.findLastIndex(
      (known) => known.row.timeS === row.timeS && known.generation === generation,
    );
    const known = { generation, row, codes, sequence };
    if (pendingIndex >= 0) rows[pendingIndex] = known;
    else rows.push(known);
    if (rows.length > recentRowsMax) rows.splice(0, rows.length - recentRowsMax);
    const last = this.#lastRows.get(key);
    if (last && (last.generation > generation || (last.generation === generation && last.timeS >= row.timeS))) return;
    const stands = codes
      .map((code, index): [number, number | undefined] => [code, row.values[index]])
      .filter(
        (pair): pair is [number, number] => pair[1] !== undefined && quantityOfCode(pair[0])?.cumulative === true,
      );
    const registers = stands.length > 0 ? stands : (last?.registers ?? []);
    this.#lastRows.set(key, { meter: of.meter, plan: of.plan, generation, timeS: row.timeS, registers });
  }

  // ── the ring ────────────────────────────────────────────────────────────────────────────────────────────────────────

  #state(): JournalState {
    return {
      nextSequence: this.#nextSequence,
      lastDigest: this.#lastDigest,
      generation: this.#generation,
      lastRows: this.lastRows,
      oldestPendingCommit: this.#pending[0]?.commit ?? 0,
    };
  }

  /** The segment that follows, if it may be overwritten. */
  #nextSpan(firstSequence: number): SegmentSpan {
    const here = this.#spans.at(-1) as SegmentSpan;
    const segment = (here.segment + 1) % this.#ring.segments;
    const index = this.#spans.findIndex((span) => span.segment === segment);
    if (index >= 0 && !this.#isRecyclable(index))
      throw new WalletRefusal(
        "ring-full",
        `${this.#ring.segments} segments; records from ${this.releasedThrough + 1} on wait for a receipt`,
      );
    const generation = Math.max(generationOf(this.#ring.read(segment)), this.#spans[index]?.generation ?? 0) + 1;
    return { segment, generation, firstCommit: this.#commitNumber, firstSequence };
  }

  #isRecyclable(index: number): boolean {
    const next = this.#spans[index + 1];
    if (next === undefined) return false;
    const oldestPending = this.#pending[0]?.commit ?? Number.POSITIVE_INFINITY;
    return next.firstSequence - 1 <= this.releasedThrough && next.firstCommit <= oldestPending;
  }

  /** Index of the segment that would hold this sequence. */
  #spanOf(sequence: number): number {
    return Math.max(
      0,
      this.#spans.findLastIndex((span) => span.firstSequence <= sequence),
    );
  }

  #recordsOf(span: SegmentSpan): Map<number, Uint8Array> {
    const cached = this.#cache.get(span.segment);
    if (cached?.firstCommit === span.firstCommit) return cached.records;
    const records = new Map<number, Uint8Array>();
    for (const commit of walkSegment(this.#ring.read(span.segment), span.segment, span.generation).commits)
      for (const bytes of decodeBody(commit.body).records)
        records.set(decodeRecord(bytes, sha256).content.sequence, bytes);
    for (const old of this.#cache.keys()) if (this.#cache.size >= 2) this.#cache.delete(old);
    this.#cache.set(span.segment, { firstCommit: span.firstCommit, records });
    return records;
  }

  #searchRing(meter: number, plan: number, matches: (known: KnownRow) => boolean): KnownRow | undefined {
    for (const span of [...this.#spans].reverse())
      for (const bytes of [...this.#recordsOf(span).values()].reverse()) {
        const { content } = decodeRecord(bytes, sha256);
        if (content.kind !== "reading" || content.meter !== meter || content.plan !== plan) continue;
        for (const row of content.rows) {
          const known = { generation: content.generation, row, codes: content.codes, sequence: content.sequence };
          if (matches(known)) return known;
        }
      }
    return undefined;
  }
}

function isRowOf(pending: PendingRow, content: ReadingContent): boolean {
  return (
    pending.meter === content.meter &&
    pending.plan === content.plan &&
    pending.generation === content.generation &&
    content.rows.some((row) => row.timeS === pending.row.timeS)
  );
}

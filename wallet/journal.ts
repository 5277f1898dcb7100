/**
 * The journal: the only durable thing on the device. Sequence, chain, idempotency and the released position are what its
 * own tail says; no second file can disagree with it. See wallet/README.md for the format and its recovery.
 */
import { type DecodedRecord, decodeRecord, eventCodes } from "../protocol/record.ts";
import { WalletRefusal } from "../protocol/wallet-message.ts";
import {
  type CommitBody,
  commitRecordsMax,
  decodeBody,
  type HistoryState,
  type JournalState,
  type LastRow,
  type PendingRow,
} from "./journal-body.ts";
import { createJournal } from "./journal-creation.ts";
import { declaresDrop } from "./journal-dropping.ts";
import { epochsMax, type JournalEpoch, JournalEpochs, type Place, type SequenceRange } from "./journal-epochs.ts";
import { JournalHistory } from "./journal-history.ts";
import { readTail, walkSpan } from "./journal-recovery.ts";
import { JournalRelease } from "./journal-release.ts";
import { type JournalDisk, JournalError, JournalRing } from "./journal-ring.ts";
import { JournalRows, type KnownRow } from "./journal-rows.ts";
import { findSpans, JournalSegments, type SegmentSpan, sha256 } from "./journal-segments.ts";
import { JournalTail } from "./journal-tail.ts";
import type { Commit, Hole, Walk } from "./journal-walk.ts";

export interface NewRecord {
  readonly bytes: Uint8Array;
  readonly decoded: DecodedRecord;
}

export class Journal {
  readonly #ring: JournalDisk;
  readonly #epochs = new JournalEpochs();
  readonly #segments: JournalSegments;
  readonly #rows = new JournalRows();
  readonly #history = new JournalHistory();
  readonly #release = new JournalRelease();
  readonly #tail: JournalTail;
  #lastDigest: Uint8Array = new Uint8Array(32);
  #generation = 0;
  #lost: SequenceRange | undefined;
  /** A spoilt write lies at the beginning of the next segment: the commit that voids it must cover it. */
  #spoiltAhead = false;
  /** Ordinal up to which the next append drops what is not released. */
  #dropping: number | undefined;
  /** The same as a tail says whose next commit, with the events about it, is not on disk, or not whole. */
  #dropAnnounced: Place | undefined;

  /** Makes a journal, see journal-creation.ts. */
  static readonly create = createJournal;

  /** Opens a journal and recovers what its tail says; for "read" also beside a wallet that runs. Throws {@link JournalError}. */
  constructor(folder: string | JournalDisk, access: "write" | "read" = "write") {
    this.#ring = typeof folder === "string" ? JournalRing.open(folder, access) : folder;
    this.#segments = new JournalSegments(this.#ring, (epoch, sequence) => this.#epochs.ordinalOf(epoch, sequence));
    this.#tail = new JournalTail(this.#ring, findSpans(this.#ring));
    const walk = readTail(this.#ring, this.#spans, {
      older: (commit) => this.#applyOlder(commit),
      state: (state, epoch) => this.#applyState(state, epoch),
      commit: (commit) => this.#applyCommit(commit),
    });
    this.#tail.continueBehind(walk);
    const { header } = walk.commits.at(-1) as Commit;
    this.#release.setPosition(this.#positionOf({ epoch: header.releasedEpoch, sequence: header.releasedThrough }));
    this.#forgetEpochs();
    // What lets a segment go is on disk before the segment is overwritten: else it was not touched.
    const mayBeTouched = this.#dropAnnounced !== undefined || this.#nextIsFree();
    const ahead = mayBeTouched ? this.#tail.spoiltBlocksAhead(walk.nextBlock - walk.spoiltBlocks) : 0;
    this.#spoiltAhead = ahead > 0;
    // Later commits may tell of sequences whose records lie in a hole; and each spoilt block may have held a commit.
    const told = Math.max(this.nextSequence, header.firstSequence + header.records);
    const end = told + (walk.spoiltBlocks + ahead) * commitRecordsMax;
    this.#lost = end > this.nextSequence ? { first: this.nextSequence, last: end - 1 } : undefined;
  }

  /** The running epoch. */
  get epoch(): number {
    return this.#epochs.running;
  }
  /** Epochs with records in the ring, oldest first, the running one last. */
  get epochs(): readonly JournalEpoch[] {
    const oldest = this.#oldestOrdinal;
    return this.#epochs.all.flatMap(({ epoch, base }) => {
      const { first, last } = this.#epochs.extentOf(epoch) as SequenceRange;
      if (last < Math.max(first, oldest) && epoch !== this.epoch) return [];
      const through = Math.min(this.#release.releasedFrom(first), last) - base;
      return [{ epoch, first: Math.max(first, oldest) - base, through, last: last - base }];
    });
  }
  get nextSequence(): number {
    return this.#epochs.nextSequence;
  }
  /** Digest of the newest record, of whatever epoch; zeros before the first. */
  get lastDigest(): Uint8Array {
    return this.#lastDigest;
  }
  get generation(): number {
    return this.#generation;
  }
  /** Of the running epoch. */
  get releasedThrough(): number {
    return (this.epochs.at(-1) as JournalEpoch).through;
  }
  /** The receipt that the released position rests on. */
  get receipt(): Uint8Array | undefined {
    return this.#release.receipt;
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
  /** Oldest sequence of the running epoch that can be read back. */
  get firstSequence(): number {
    return (this.epochs.at(-1) as JournalEpoch).first;
  }
  /**
   * Sequences of the running epoch that may have been used for records which are not there any more: a spoilt write at the
   * tail may have taken them. To be voided before anything else is sealed.
   */
  get lost(): SequenceRange | undefined {
    return this.#lost;
  }
  /** Rows are still pending in the segment that is overwritten next: unless they are signed now, the ring stands still. */
  get pendingRowsInTheWay(): boolean {
    const after = this.#spans[this.#tail.nextIndex + 1];
    const oldest = this.#rows.oldestPendingCommit;
    return after !== undefined && after !== this.#spans[0] && oldest !== undefined && oldest < after.firstCommit;
  }
  /** Of the newest `started`. */
  get lastStarted(): HistoryState["lastStarted"] {
    return this.#history.state.lastStarted;
  }
  /** The newest boot whose times count from it. */
  get relative(): HistoryState["relative"] {
    return this.#history.state.relative;
  }
  /** TPM counter value of the newest `started` that has one. */
  get counter(): number | undefined {
    return this.#history.state.counter;
  }

  /** Number of a meter's installation: 0 until it is replaced. */
  installation(meter: number): number {
    return this.#history.state.installations.get(meter) ?? 0;
  }

  lastRow(meter: number, plan: number): LastRow | undefined {
    return this.#rows.last(meter, plan);
  }

  /**
   * Appends records and pending rows as one commit. **Point of no return:** when this returns they are on disk. Throws
   * {@link WalletRefusal} `ring-full` with nothing written; any other error means that the process must end.
   */
  append(records: readonly NewRecord[], pendingRows: readonly PendingRow[] = []): void {
    const dropping = this.#dropping;
    this.#dropping = undefined;
    const { epoch, sequence } = records[0]?.decoded.content ?? { epoch: this.epoch, sequence: this.nextSequence };
    if (epoch !== this.epoch) throw new RangeError(`a record of epoch ${epoch} in epoch ${this.epoch}`);
    if (this.#epochs.isUnwritten && records.length === 0) throw new RangeError("an epoch begins with a record");
    if (dropping !== undefined && !declaresDrop(records, dropping, this.#epochs))
      throw new RangeError("records are dropped by a commit that says so");
    const content = { records: records.map((record) => record.bytes), pendingRows };
    const commitNumber = this.#write(content, { epoch, sequence }, dropping);
    this.#epochs.wereWritten();
    for (const { bytes, decoded } of records) this.#applyRecord(bytes, decoded);
    for (const pending of pendingRows) this.#rows.addPending(pending, commitNumber);
    if (records.length > 0) this.#lost = undefined;
  }

  /** Leaves these sequences unused from now on: the next record is `sequence`. Lasts only once that record is appended. */
  skipTo(sequence: number): void {
    if (sequence < this.nextSequence) throw new RangeError("sequences are never reused");
    this.#epochs.continueAt(sequence);
  }

  /** Whether the journal can take another epoch: its state holds so many at most. */
  get canBeginEpoch(): boolean {
    return this.#epochs.written.length < epochsMax;
  }

  /**
   * The next append begins this epoch, with sequence 1; the chain goes on. Until then nothing on disk has changed. Throws
   * {@link JournalError} where the ring has records of too many epochs, see {@link canBeginEpoch}.
   */
  beginEpoch(epoch: number): void {
    if (epoch === this.epoch && this.#epochs.isUnwritten) return;
    if (this.#epochs.written.some((other) => other.epoch === epoch)) throw new RangeError(`epoch ${epoch} was there`);
    if (!this.canBeginEpoch)
      throw new JournalError(
        `the journal has records of ${epochsMax} epochs, and takes no more until the oldest of them are released and overwritten`,
      );
    this.#epochs.begin(epoch, true);
    // A spoilt write at the tail may have been the beginning of this very epoch.
    if (this.#lost) this.#lost = { first: 1, last: this.#lost.last - this.#lost.first + 1 };
  }

  /** The records from one sequence of an epoch to another, both included, as far as they are there and fit into `bytesMax`. */
  records(from: number, to: number, bytesMax: number, epoch = this.epoch): [number, Uint8Array][] {
    const extent = this.#epochs.extentOf(epoch);
    if (extent === undefined) return [];
    const base = extent.first - 1;
    const found: [number, Uint8Array][] = [];
    let bytes = 0;
    for (const [ordinal, record] of this.#recordsFrom(base + from, Math.min(base + to, extent.last))) {
      bytes += record.length + 16;
      if (bytes > bytesMax && found.length > 0) return found;
      found.push([ordinal - base, record]);
    }
    return found;
  }

  /**
   * A row of this meter, plan and time: one that is the `same`, of whatever clock generation, else one of the running
   * generation. The answer is the same before and after a restart, and wherever in the ring the row lies.
   */
  findRow(
    meter: number,
    plan: number,
    timeS: number,
    same: (known: KnownRow) => boolean,
    generation = this.#generation,
  ): KnownRow | undefined {
    const last = this.#rows.last(meter, plan);
    if (last === undefined || timeS > last.latestS) return undefined;
    const near = this.#rows.near(meter, plan, timeS);
    const exact = near.find(same);
    if (exact) return exact;
    let running = near.find((known) => known.generation === generation);
    for (const known of this.#segments.rowsAt(this.#spans, meter, plan, timeS)) {
      if (same(known)) return known;
      if (known.generation === generation) running ??= known;
    }
    return running;
  }

  /**
   * Marks everything of an epoch up to and with `through` as stored elsewhere, on the strength of a receipt that the caller
   * verified. Where an epoch before it is incomplete, it waits in memory for that.
   */
  release(through: number, receipt: Uint8Array, epoch = this.epoch): void {
    this.releaseRun(epoch, 1, through, receipt);
  }

  /** Marks some records of an epoch as stored elsewhere. Waits in memory until all before them are released. */
  releaseRun(epoch: number, from: number, to: number, receipt: Uint8Array): void {
    const extent = this.#epochs.extentOf(epoch);
    const base = (extent?.first ?? 1) - 1;
    const run = { first: base + from, last: Math.min(base + to, extent?.last ?? 0) };
    if (run.last < run.first) return;
    this.#release.add(run, receipt, (first, last) => this.#recordsFrom(first, last).next().done === false);
  }

  /**
   * Gives up the unreleased records of the segment that is overwritten next, for a full ring whose operator wants that. Holds
   * for the next {@link append} only, whose records must begin with a `dropped` event for each of these ranges. Undefined
   * where nothing can be dropped, or need be.
   */
  dropOldest(): readonly (SequenceRange & { readonly epoch: number })[] | undefined {
    if (this.#nextIsFree()) return undefined;
    const index = this.#tail.nextIndex;
    const next = this.#spans[index + 1];
    if (next === undefined || (this.#rows.oldestPendingCommit ?? next.firstCommit) < next.firstCommit) return undefined;
    const announced = this.#dropAnnounced ? this.#positionOf(this.#dropAnnounced) : 0;
    const last = Math.max(announced, index < 0 ? 0 : this.#firstOrdinal(next) - 1);
    if (!Number.isFinite(last)) return undefined;
    this.#dropping = last;
    const first = this.#settledPosition + 1;
    return this.#epochs.all.flatMap(({ epoch, base }) => {
      const extent = this.#epochs.extentOf(epoch) as SequenceRange;
      const range = { epoch, first: Math.max(first, extent.first) - base, last: Math.min(last, extent.last) - base };
      return range.first <= range.last ? [range] : [];
    });
  }

  /** Reads the whole ring, a segment a step and the oldest first: yields the holes of each, for a check in the background. */
  *check(): Generator<readonly Hole[]> {
    let before: Commit | undefined;
    for (const span of this.#spans) {
      const isThere = this.#spans.includes(span); // the ring may have gone on since the last step
      const walk: Walk | undefined = isThere ? walkSpan(this.#ring, span, before) : undefined;
      before = walk?.commits.at(-1);
      if (walk) yield walk.holes;
    }
  }

  close(): void {
    this.#ring.close();
  }

  // ── what the commits say ────────────────────────────────────────────────────────────────────────────────────────────

  #applyOlder({ header, body }: Commit): void {
    const { records, pendingRows } = decodeBody(body);
    for (const bytes of records) {
      const { content } = decodeRecord(bytes, sha256);
      if (content.kind === "reading") this.#rows.addRecord(content);
    }
    for (const pending of pendingRows) this.#rows.addPending(pending, header.commitNumber);
  }

  #applyState(state: JournalState, epoch: number): void {
    this.#epochs.set(state.epochs.length > 0 ? state.epochs : [{ epoch, base: 0 }], state.nextSequence);
    this.#lastDigest = state.lastDigest;
    this.#generation = state.generation;
    this.#rows.setLastRows(state.lastRows);
    this.#history.set(state);
  }

  #applyCommit({ header, body }: Commit): void {
    if (header.epoch !== this.epoch) this.#epochs.begin(header.epoch, false);
    const { records, pendingRows, receipt, dropping } = decodeBody(body);
    if (receipt) this.#release.setReceipt(receipt);
    this.#dropAnnounced = dropping;
    for (const bytes of records) this.#applyRecord(bytes, decodeRecord(bytes, sha256));
    for (const pending of pendingRows) this.#rows.addPending(pending, header.commitNumber);
  }

  #applyRecord(bytes: Uint8Array, { content, digest }: DecodedRecord): void {
    this.#epochs.continueAt(content.sequence + 1);
    this.#lastDigest = digest;
    this.#generation = Math.max(this.#generation, content.generation);
    this.#segments.added(this.#tail.newest, this.#epochs.nextOrdinal - 1, bytes, content);
    if (content.kind === "reading") {
      this.#rows.addRecord(content);
      return;
    }
    this.#history.addRecord(content);
    for (const [code, meter] of content.events)
      if (code === eventCodes.meterReplaced) this.#rows.forgetStands(meter as number);
  }

  // ── what is released, and what is there ─────────────────────────────────────────────────────────────────────────────

  #recordsFrom(first: number, last: number): Generator<[ordinal: number, bytes: Uint8Array]> {
    return this.#segments.recordsFrom(this.#spans, first, last);
  }

  /** Ordinal of a segment's first record, or of the next one where it has none. */
  #firstOrdinal(span: SegmentSpan): number {
    return this.#epochs.ordinalOf(span.epoch, span.firstSequence);
  }
  get #oldestOrdinal(): number {
    const oldest = this.#firstOrdinal(this.#spans[0] as SegmentSpan);
    return Number.isFinite(oldest) ? oldest : 0;
  }
  get #spans(): readonly SegmentSpan[] {
    return this.#tail.spans;
  }

  /** The ordinal of a place on disk. An epoch that is not known any more lies before all that are. */
  #positionOf({ epoch, sequence }: Place): number {
    const ordinal = this.#epochs.ordinalOf(epoch, sequence);
    return Number.isFinite(ordinal) ? ordinal : (this.#epochs.all[0]?.base ?? 0);
  }

  /** All up to here are released, or sealed as dropped. */
  get #settledPosition(): number {
    const { dropped } = this.#history.state;
    return Math.max(this.#release.position, dropped ? this.#positionOf(dropped) : 0);
  }

  #isRecyclable(index: number): boolean {
    const next = this.#spans[index + 1];
    if (next === undefined) return false;
    const oldestPending = this.#rows.oldestPendingCommit ?? Number.POSITIVE_INFINITY;
    return this.#firstOrdinal(next) - 1 <= this.#settledPosition && next.firstCommit <= oldestPending;
  }

  #nextIsFree(): boolean {
    if (this.#dropAnnounced && this.#positionOf(this.#dropAnnounced) > this.#settledPosition) return false;
    const index = this.#tail.nextIndex;
    return index < 0 || this.#isRecyclable(index);
  }

  #forgetEpochs(): void {
    this.#epochs.forgetBefore(this.#oldestOrdinal, this.#spans[0]?.epoch);
  }

  // ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Writes one commit where it belongs; gives its number. */
  #write(content: CommitBody, first: Place, dropping: number | undefined): number {
    const receipt = this.#release.isWritten ? undefined : this.#release.receipt;
    const commit = { content: { ...content, ...(receipt && { receipt }) }, first, released: this.#released };
    const isVoid = this.#lost !== undefined && first.sequence > this.#lost.last;
    const mayFill = isVoid || this.#nextIsFree();
    const number = dropping === undefined && !this.#spoiltAhead ? this.#tail.append(commit, mayFill) : undefined;
    const commitNumber = number ?? this.#writeToNextSegment(content, first, dropping);
    this.#release.wasWritten();
    return commitNumber;
  }

  #writeToNextSegment(content: CommitBody, first: Place, dropping: number | undefined): number {
    if (dropping === undefined && !this.#nextIsFree())
      throw new WalletRefusal(
        "ring-full",
        `${this.#ring.segments} segments; records from ${this.#released.sequence + 1} of epoch ${this.#released.epoch} on wait for a receipt`,
      );
    const released = this.#released;
    const receipt = this.#release.receipt && { receipt: this.#release.receipt };
    if (!this.#release.isWritten || dropping !== undefined) {
      // On disk before what it lets go is overwritten.
      const announced = dropping === undefined ? {} : { dropping: this.#epochs.placeOf(dropping) };
      const reserve = { records: [], pendingRows: [], ...receipt, ...announced };
      this.#tail.appendToReserve({ content: reserve, first: this.#epochs.nextWritten, released });
    }
    const full = { ...content, ...receipt, state: this.#state() };
    const commitNumber = this.#tail.appendToNextSegment({ content: full, first, released });
    this.#spoiltAhead = false;
    this.#dropAnnounced = undefined;
    this.#forgetEpochs();
    return commitNumber;
  }

  get #released(): Place {
    return this.#epochs.placeOf(this.#release.position);
  }

  #state(): JournalState {
    return {
      ...this.#history.state,
      epochs: this.#epochs.written,
      nextSequence: this.#epochs.nextWritten.sequence,
      lastDigest: this.#lastDigest,
      generation: this.#generation,
      lastRows: this.#rows.lastRows,
      oldestPendingCommit: this.#rows.oldestPendingCommit ?? 0,
    };
  }
}

/** Where the next commit goes, and writing it there: behind the newest one, in its segment's reserve, or in the next segment. */
import { blockBytes, type CommitHeader, commitBlocksMax, encodeCommit, fillerBlock, isBlank } from "./journal-block.ts";
import { type CommitBody, encodeBody } from "./journal-body.ts";
import type { Place } from "./journal-epochs.ts";
import { type JournalDisk, JournalError } from "./journal-ring.ts";
import type { SegmentSpan } from "./journal-segments.ts";
import { type Commit, commitHash, touchedFrom, type Walk, whatIsThere } from "./journal-walk.ts";

/** Blocks at a segment's end that only a released position is written to: it is on disk before what it releases goes. */
const reserveBlocks = 1;
/**
 * Blocks before those that a full ring leaves for voids. Without them a ring that is full when a power cut spoils its newest record could
 * stay full for ever, where a full node has that record: its receipts name a digest that nobody can compare any more.
 */
const voidBlocks = 3;

/** A commit that is to be written: what it holds, its first or next sequence, and the released position. */
export interface NewCommit {
  readonly content: CommitBody;
  readonly first: Place;
  readonly released: Place;
}

export class JournalTail {
  readonly #ring: JournalDisk;
  /** Oldest first; the last one is being written. */
  #spans: readonly SegmentSpan[];
  #nextBlock = 0;
  #commitNumber = 0;
  #lastHash: Uint8Array = new Uint8Array(32);
  /** Of the commit that is being written. */
  readonly #memory = Buffer.alloc(commitBlocksMax * blockBytes);

  constructor(ring: JournalDisk, spans: readonly SegmentSpan[]) {
    this.#ring = ring;
    this.#spans = spans;
  }

  /** Goes on behind what is there. */
  continueBehind({ commits, nextBlock }: Walk): void {
    const { header, hash } = commits.at(-1) as Commit;
    this.#commitNumber = header.commitNumber + 1;
    this.#lastHash = hash;
    this.#nextBlock = nextBlock;
  }

  get spans(): readonly SegmentSpan[] {
    return this.#spans;
  }
  get newest(): SegmentSpan {
    return this.#spans.at(-1) as SegmentSpan;
  }
  /** The segment that is used when this one is full. */
  get nextSegment(): number {
    return (this.newest.segment + 1) % this.#ring.segments;
  }
  /** Its index in the spans; −1 where it was never used. */
  get nextIndex(): number {
    return this.#spans.findIndex((span) => span.segment === this.nextSegment);
  }

  /**
   * Writes a commit behind the newest one and gives its number; undefined, and nothing written, where it does not fit.
   * @param mayFill whether it may take the blocks that are left for voids
   */
  append(commit: NewCommit, mayFill: boolean): number | undefined {
    const bytes = this.#encode(commit, { ...this.newest, block: this.#nextBlock });
    const end = this.#ring.segmentBlocks - reserveBlocks - (mayFill ? 0 : voidBlocks);
    if (this.#nextBlock + bytes.length / blockBytes > end) return undefined;
    return this.#write(bytes, this.newest.segment, this.#nextBlock);
  }

  /** The same where the reserve may be used. */
  appendToReserve(commit: NewCommit): void {
    if (this.#nextBlock >= this.#ring.segmentBlocks) return;
    const bytes = this.#encode(commit, { ...this.newest, block: this.#nextBlock });
    if (this.#nextBlock + bytes.length / blockBytes <= this.#ring.segmentBlocks)
      this.#write(bytes, this.newest.segment, this.#nextBlock);
  }

  /** Begins the next segment with a commit, over what is there. Gives its number. */
  appendToNextSegment(commit: NewCommit): number {
    const segment = this.nextSegment;
    const old = whatIsThere(this.#ring.chunks(segment));
    const generation = Math.max(old.generation, this.#spans[this.nextIndex]?.generation ?? 0) + 1;
    const { epoch, sequence } = commit.first;
    const span = { segment, generation, firstCommit: this.#commitNumber, epoch, firstSequence: sequence };
    const bytes = this.#encode(commit, { ...span, block: 0 });
    if (bytes.length > this.#ring.segmentBlocks * blockBytes)
      throw new JournalError(`the state of ${bytes.length} bytes is longer than a segment`);
    const commitNumber = this.#write(bytes, segment, 0);
    this.#spans = [...this.#spans.filter((other) => other.segment !== segment), span];
    // What is spoilt here was voided by this very commit, or is older: it must not look like the trace of a write to come.
    const unwhole = generation === 1 ? old.noise : [...old.noise, ...old.blank];
    for (const block of unwhole.filter((it) => it >= this.#nextBlock))
      this.#ring.write(segment, block, fillerBlock(segment, block));
    return commitNumber;
  }

  /**
   * Blocks at the beginning of the next segment which a commit may have touched that no longer fitted into the newest one,
   * whose tail ends, spoilt blocks aside, at `tailBlock`.
   */
  spoiltBlocksAhead(tailBlock: number): number {
    if (tailBlock + commitBlocksMax + reserveBlocks <= this.#ring.segmentBlocks) return 0;
    const bytes = this.#ring.read(this.nextSegment);
    const span = this.#spans[this.nextIndex];
    const touched = touchedFrom(bytes, 0, (span?.generation ?? 0) + 1, true);
    // The first block of a segment in use was written.
    return touched || (span && isBlank(bytes.subarray(0, blockBytes)) ? 1 : 0);
  }

  #encode(
    { content, first, released }: NewCommit,
    { segment, generation, block }: Pick<CommitHeader, "segment" | "generation" | "block">,
  ): Buffer {
    const header = {
      ...{ segment, generation, block, epoch: first.epoch, firstSequence: first.sequence },
      commitNumber: this.#commitNumber,
      records: content.records.length,
      pendingRows: content.pendingRows.length,
      releasedEpoch: released.epoch,
      releasedThrough: released.sequence,
      previousHash: this.#lastHash,
    };
    return encodeCommit(header, encodeBody(content), this.#memory);
  }

  #write(bytes: Buffer, segment: number, block: number): number {
    this.#ring.write(segment, block, bytes);
    this.#nextBlock = block + bytes.length / blockBytes;
    this.#lastHash = commitHash(bytes);
    return this.#commitNumber++;
  }
}

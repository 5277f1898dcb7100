/** Reading a segment back: which commits it holds, where its tail is, and what is neither whole nor untouched. Pure. */
import { createHash } from "node:crypto";
import { blockBytes, blocksMaxAt, type CommitHeader, isBlank, readBlockHeader, readCommit } from "./journal-block.ts";

export interface Commit {
  readonly header: CommitHeader;
  readonly body: Buffer;
  readonly hash: Uint8Array;
}

/** Blocks of a segment that should hold commits and do not. */
export interface Hole {
  readonly segment: number;
  readonly firstBlock: number;
  readonly lastBlock: number;
  /** Numbers of the commits that are missing, as far as their neighbours tell. */
  readonly firstCommit: number;
  readonly lastCommit: number;
  /** Sequences that no commit has any more, as far as the same neighbours tell; of an epoch's end they tell nothing. */
  readonly missing?: { readonly epoch: number; readonly first: number; readonly last: number };
}

export interface Walk {
  readonly commits: readonly Commit[];
  /** First block that was never written in this generation, past anything spoilt. */
  readonly nextBlock: number;
  /** Blocks at the tail that may have been acknowledged and are not whole now. */
  readonly spoiltBlocks: number;
  readonly holes: readonly Hole[];
}

/** The commit that a segment's first one must follow. */
type Predecessor = Pick<Commit, "header" | "hash">;

export function commitHash(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash("sha256").update(bytes).digest());
}

/** Walks a segment from its first commit. `generation` is the one that its first whole commit names. */
export function walkSegment(bytes: Buffer, segment: number, generation: number, before?: Predecessor): Walk {
  const commits: Commit[] = [];
  const holes: Hole[] = [];
  let block = 0;
  let last = before;
  for (;;) {
    const found = nextCommit(bytes, block, segment, generation);
    if (found === undefined) break;
    const { header, body, bytes: commitBytes } = found;
    // Spoilt blocks before a commit that follows its predecessor were voided by that commit: a hole is only where it does not.
    const follows =
      last === undefined
        ? header.block === 0
        : header.commitNumber === last.header.commitNumber + 1 && Buffer.compare(header.previousHash, last.hash) === 0;
    if (!follows) {
      const missing = missingBetween(last?.header, header);
      holes.push({
        segment,
        firstBlock: block,
        lastBlock: Math.max(block, header.block - 1),
        firstCommit: last === undefined ? header.commitNumber - 1 : last.header.commitNumber + 1,
        lastCommit: header.commitNumber - 1,
        ...(missing && { missing }),
      });
    }
    const hash = commitHash(commitBytes);
    commits.push({ header, body, hash });
    last = { header, hash };
    block = header.block + header.blocks;
  }
  const spoiltBlocks = touchedFrom(bytes, block, generation, generation === 1);
  return { commits, nextBlock: block + spoiltBlocks, spoiltBlocks, holes };
}

function missingBetween(before: CommitHeader | undefined, after: CommitHeader): Hole["missing"] {
  if (before === undefined) return undefined;
  const { epoch } = after;
  const first = before.epoch === epoch ? before.firstSequence + before.records : 1;
  const last = after.firstSequence - 1;
  return first <= last ? { epoch, first, last } : undefined;
}

/** The first whole commit of this generation at or behind a block. */
function nextCommit(bytes: Buffer, from: number, segment: number, generation: number): ReturnType<typeof readCommit> {
  for (let block = from; block < bytes.length / blockBytes; block++) {
    const commit = readCommit(bytes, block);
    if (commit && commit.header.generation === generation && commit.header.segment === segment) return commit;
  }
  return undefined;
}

/** The first whole commit of the newest generation in a segment whose first block is not one. */
export function firstCommitBehindDamage(bytes: Buffer, segment: number): CommitHeader | undefined {
  let first: CommitHeader | undefined;
  for (let block = 0; block < bytes.length / blockBytes; block++) {
    const header = readCommit(bytes, block)?.header;
    if (header?.segment === segment && header.generation > (first?.generation ?? 0)) first = header;
  }
  return first;
}

/**
 * How many blocks from here on, up to the last one, bear traces of writes of this generation: all that are not whole blocks
 * of an older one. Zeros are no trace where `blankIsOld`: in a segment that was never used before.
 */
export function touchedFrom(bytes: Buffer, from: number, generation: number, blankIsOld: boolean): number {
  let end = from;
  // One commit is in flight at a time: behind as many clean blocks as it can take, nothing of the tail can lie.
  for (let block = from; block < bytes.length / blockBytes && block < end + blocksMaxAt(from); block++) {
    const header = readBlockHeader(blockAt(bytes, block));
    const isOld = header ? header.generation < generation : blankIsOld && isBlank(blockAt(bytes, block));
    if (!isOld) end = block + 1;
  }
  return end - from;
}

/** What lies in a segment that is to be written over. */
export interface SegmentContent {
  /** The highest generation that any whole block names; 0 where none does. */
  readonly generation: number;
  /** Blocks that hold only zeros, and those that are neither that nor whole. */
  readonly blank: readonly number[];
  readonly noise: readonly number[];
}

/** Looks at each block of a segment, given piece by piece: it happens while the wallet answers, in little memory. */
export function whatIsThere(chunks: Iterable<Buffer>): SegmentContent {
  let generation = 0;
  const blank: number[] = [];
  const noise: number[] = [];
  let block = 0;
  for (const chunk of chunks)
    for (let i = 0; i < chunk.length / blockBytes; i++, block++) {
      const bytes = blockAt(chunk, i);
      const header = readBlockHeader(bytes);
      if (header) generation = Math.max(generation, header.generation);
      else (isBlank(bytes) ? blank : noise).push(block);
    }
  return { generation, blank, noise };
}

function blockAt(bytes: Buffer, block: number): Buffer {
  return bytes.subarray(block * blockBytes, (block + 1) * blockBytes);
}

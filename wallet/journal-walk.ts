/** Reading a segment back: which commits it holds, where its tail is, and what is neither whole nor untouched. Pure. */
import { createHash } from "node:crypto";
import {
  blockBytes,
  type CommitHeader,
  commitBlocksMax,
  isUntouched,
  readBlockHeader,
  readCommit,
} from "./journal-block.ts";

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
  /** Numbers of the commits that are missing. */
  readonly firstCommit: number;
  readonly lastCommit: number;
}

export interface Walk {
  readonly commits: readonly Commit[];
  /** First block that was never written in this generation, past anything spoilt. */
  readonly nextBlock: number;
  /** Blocks at the tail that may have been acknowledged and are not whole now. */
  readonly spoiltBlocks: number;
  readonly holes: readonly Hole[];
}

export function commitHash(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash("sha256").update(bytes).digest());
}

/** Walks a segment from its first commit. `generation` is the one that its first block names. */
export function walkSegment(bytes: Buffer, segment: number, generation: number): Walk {
  const blocks = bytes.length / blockBytes;
  const commits: Commit[] = [];
  const holes: Hole[] = [];
  let block = 0;
  let expected: number | undefined;
  let previousHash: Uint8Array | undefined;
  while (block < blocks) {
    const start = nextCommit(bytes, block, segment, generation);
    if (start === undefined) break;
    const { header, body, bytes: commitBytes } = start;
    const follows =
      (expected === undefined || header.commitNumber === expected) &&
      (previousHash === undefined || Buffer.compare(header.previousHash, previousHash) === 0);
    // Spoilt blocks before a commit that follows its predecessor were voided by that commit: a hole is only where it does not.
    if (!follows)
      holes.push({
        segment,
        firstBlock: block,
        lastBlock: header.block - 1,
        firstCommit: expected ?? 0,
        lastCommit: header.commitNumber - 1,
      });
    const hash = commitHash(commitBytes);
    commits.push({ header, body, hash });
    expected = header.commitNumber + 1;
    previousHash = hash;
    block = header.block + header.blocks;
  }
  const spoiltBlocks = touchedFrom(bytes, block, generation);
  return { commits, nextBlock: block + spoiltBlocks, spoiltBlocks, holes };
}

/** The first whole commit of this generation at or behind a block. */
function nextCommit(bytes: Buffer, from: number, segment: number, generation: number): ReturnType<typeof readCommit> {
  for (let block = from; block < bytes.length / blockBytes; block++) {
    const commit = readCommit(bytes, block);
    if (commit && commit.header.generation === generation && commit.header.segment === segment) return commit;
  }
  return undefined;
}

/** How many blocks from here on, up to the last one, bear traces of writes of this generation. */
export function touchedFrom(bytes: Buffer, from: number, generation: number): number {
  let end = from;
  // A write in flight reaches commitBlocksMax blocks at most; behind so many clean blocks nothing of the tail can lie.
  for (let block = from; block < bytes.length / blockBytes && block < end + commitBlocksMax; block++)
    if (!isUntouched(bytes.subarray(block * blockBytes, (block + 1) * blockBytes), generation)) end = block + 1;
  return end - from;
}

/** The highest generation that any whole block of these names; 0 where none does. */
export function generationOf(bytes: Buffer): number {
  let generation = 0;
  for (let block = 0; block < bytes.length / blockBytes; block++) {
    const header = readBlockHeader(bytes.subarray(block * blockBytes, (block + 1) * blockBytes));
    if (header) generation = Math.max(generation, header.generation);
  }
  return generation;
}

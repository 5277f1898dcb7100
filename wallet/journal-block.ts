/**
 * The journal's bytes on disk. A segment is a row of 4 KiB blocks; a commit is one or more whole blocks, written once.
 * Every block names itself (segment, generation of the segment, block number, commit number) and carries its own CRC-32,
 * so that an old block of a recycled segment, a torn write and noise can be told apart by looking at one block alone.
 *
 * All integers big-endian. Every block:          First block of a commit, besides:
 *    0  4  magic "ECPJ"                            32  2  blocks of the commit
 *    4  2  format version                          34  2  records in it
 *    6  2  part: index of the block in its commit, 36  2  pending rows in it
 *          ffff in a filler
 *    8  4  segment                                 38  2  0
 *   12  4  generation of the segment, from 1       40  4  epoch
 *   16  4  block number in the segment             44  4  first sequence (the next one where it has no record)
 *   20  8  commit number, from 0                   48  4  length of the body in bytes
 *   28  4  CRC-32 of the block, this field 0       52  4  released epoch
 *   32     body                                    56  4  released through
 *                                                  60  4  0
 *                                                  64 32  SHA-256 of the previous commit's blocks
 *                                                  96     body
 */
import { crc32 } from "node:zlib";

export const blockBytes = 4_096;
export const commitBlocksMax = 8;
/** The first commit of a segment carries the journal's state besides: a last row for each meter and plan. */
export const firstCommitBlocksMax = 64;

const magic = 0x4543_504a; // "ECPJ"
export const formatVersion = 1;
const headerBytes = 32;
const firstHeaderBytes = 96;
const crcOffset = 28;
const fillerPart = 0xffff;

const zeros = Buffer.alloc(blockBytes);
const noMemory = Buffer.alloc(0);
const noCrc = Buffer.alloc(4);

/** Most bytes in the body of a commit without state, and with it. */
export const commitBodyBytesMax = bodyBytesOf(commitBlocksMax);
export const firstCommitBodyBytesMax = bodyBytesOf(firstCommitBlocksMax);

function bodyBytesOf(blocks: number): number {
  return blocks * (blockBytes - headerBytes) + headerBytes - firstHeaderBytes;
}

/** Most blocks that a commit can take which begins at this block of its segment. */
export function blocksMaxAt(block: number): number {
  return block === 0 ? firstCommitBlocksMax : commitBlocksMax;
}

export interface BlockHeader {
  readonly part: number;
  readonly segment: number;
  readonly generation: number;
  readonly block: number;
  readonly commitNumber: number;
}

export interface CommitHeader extends Omit<BlockHeader, "part"> {
  readonly blocks: number;
  readonly records: number;
  readonly pendingRows: number;
  readonly epoch: number;
  readonly firstSequence: number;
  readonly releasedEpoch: number;
  readonly releasedThrough: number;
  readonly previousHash: Uint8Array;
}

/** How many blocks a commit with a body of so many bytes takes. */
export function blocksOf(bodyBytes: number): number {
  const beyondFirst = Math.max(0, bodyBytes - (blockBytes - firstHeaderBytes));
  return 1 + Math.ceil(beyondFirst / (blockBytes - headerBytes));
}

/** The blocks of a commit, one after the other, padded with zeros; in `memory` where they fit into it, until it is used again. */
export function encodeCommit(header: Omit<CommitHeader, "blocks">, body: Uint8Array, memory = noMemory): Buffer {
  const blocks = blocksOf(body.length);
  if (blocks > blocksMaxAt(header.block))
    throw new RangeError(`a commit of ${body.length} bytes at block ${header.block}, at most ${commitBodyBytesMax}`);
  const length = blocks * blockBytes;
  const bytes = length <= memory.length ? memory.subarray(0, length).fill(0) : Buffer.alloc(length);
  let taken = 0;
  for (let part = 0; part < blocks; part++) {
    const block = bytes.subarray(part * blockBytes, (part + 1) * blockBytes);
    block.writeUInt32BE(magic, 0);
    block.writeUInt16BE(formatVersion, 4);
    block.writeUInt16BE(part, 6);
    block.writeUInt32BE(header.segment, 8);
    block.writeUInt32BE(header.generation, 12);
    block.writeUInt32BE(header.block + part, 16);
    block.writeBigUInt64BE(BigInt(header.commitNumber), 20);
    if (part === 0) writeFirst(block, header, blocks, body.length);
    const start = part === 0 ? firstHeaderBytes : headerBytes;
    block.set(body.subarray(taken, taken + blockBytes - start), start);
    taken += blockBytes - start;
    block.writeUInt32BE(crc32(block), crcOffset);
  }
  return bytes;
}

function writeFirst(block: Buffer, header: Omit<CommitHeader, "blocks">, blocks: number, bodyBytes: number): void {
  block.writeUInt16BE(blocks, 32);
  block.writeUInt16BE(header.records, 34);
  block.writeUInt16BE(header.pendingRows, 36);
  block.writeUInt32BE(header.epoch, 40);
  block.writeUInt32BE(header.firstSequence, 44);
  block.writeUInt32BE(bodyBytes, 48);
  block.writeUInt32BE(header.releasedEpoch, 52);
  block.writeUInt32BE(header.releasedThrough, 56);
  block.set(header.previousHash, 64);
}

/** Format version of a block that is whole, of whatever version; else undefined. */
export function formatVersionOf(block: Buffer): number | undefined {
  if (block.length !== blockBytes || block.readUInt32BE(0) !== magic) return undefined;
  const stored = block.readUInt32BE(crcOffset);
  let crc = crc32(block.subarray(0, crcOffset));
  crc = crc32(noCrc, crc);
  crc = crc32(block.subarray(crcOffset + 4), crc);
  return crc === stored ? block.readUInt16BE(4) : undefined;
}

/** A block's header where the block is whole and of this format, else undefined. */
export function readBlockHeader(block: Buffer): BlockHeader | undefined {
  if (formatVersionOf(block) !== formatVersion) return undefined;
  return {
    part: block.readUInt16BE(6),
    segment: block.readUInt32BE(8),
    generation: block.readUInt32BE(12),
    block: block.readUInt32BE(16),
    commitNumber: Number(block.readBigUInt64BE(20)),
  };
}

/** The commit that begins at a block of a segment (given whole), or undefined where none that is whole begins there. */
export function readCommit(
  segment: Buffer,
  block: number,
): { header: CommitHeader; body: Buffer; bytes: Buffer } | undefined {
  const first = segment.subarray(block * blockBytes, (block + 1) * blockBytes);
  const own = readBlockHeader(first);
  if (own === undefined || own.part !== 0 || own.block !== block) return undefined;
  const blocks = first.readUInt16BE(32);
  const bodyBytes = first.readUInt32BE(48);
  if (blocks < 1 || blocks > blocksMaxAt(block) || blocksOf(bodyBytes) !== blocks) return undefined;
  const bytes = segment.subarray(block * blockBytes, (block + blocks) * blockBytes);
  if (bytes.length !== blocks * blockBytes) return undefined;
  const body = Buffer.alloc(bodyBytes);
  let taken = first.copy(body, 0, firstHeaderBytes);
  for (let part = 1; part < blocks; part++) {
    const next = bytes.subarray(part * blockBytes, (part + 1) * blockBytes);
    const header = readBlockHeader(next);
    const belongs =
      header !== undefined &&
      header.part === part &&
      header.segment === own.segment &&
      header.generation === own.generation &&
      header.block === block + part &&
      header.commitNumber === own.commitNumber;
    if (!belongs) return undefined;
    taken += next.copy(body, taken, headerBytes);
  }
  const header: CommitHeader = {
    segment: own.segment,
    generation: own.generation,
    block,
    commitNumber: own.commitNumber,
    blocks,
    records: first.readUInt16BE(34),
    pendingRows: first.readUInt16BE(36),
    epoch: first.readUInt32BE(40),
    firstSequence: first.readUInt32BE(44),
    releasedEpoch: first.readUInt32BE(52),
    releasedThrough: first.readUInt32BE(56),
    previousHash: Uint8Array.from(first.subarray(64, 96)),
  };
  return { header, body, bytes };
}

/**
 * A block of no commit and of generation 0. It takes the place of zeros and noise in a segment that is used again, so that
 * there every block is whole before it is written: zeros are then the trace of a write, too.
 */
export function fillerBlock(segment: number, block: number): Buffer {
  const bytes = Buffer.alloc(blockBytes);
  bytes.writeUInt32BE(magic, 0);
  bytes.writeUInt16BE(formatVersion, 4);
  bytes.writeUInt16BE(fillerPart, 6);
  bytes.writeUInt32BE(segment, 8);
  bytes.writeUInt32BE(block, 16);
  bytes.writeUInt32BE(crc32(bytes), crcOffset);
  return bytes;
}

/** Whether a block holds nothing but zeros, as it was made. */
export function isBlank(block: Buffer): boolean {
  return block.equals(zeros);
}

/**
 * Reading a file as the device has it, past the kernel's cache (open(2), O_DIRECT). After a write that failed, the cache goes on showing
 * what was to be written, as if it were on the disk: a start that believed it would acknowledge, and send, what a power cut then takes.
 */
import { closeSync, constants, openSync, readSync } from "node:fs";

/** A direct read goes to memory of this alignment at most. */
const alignmentBytes = 4_096;
const chunkBytes = 65_536;
/** Stands where the device gave nothing. Neither zeros nor the beginning of a block, so that it is taken for what it is: damage. */
const unreadableByte = 0xee;

/** A part of `memory` that lies so that the device can write to it; undefined before the first read has found it. */
const memory = Buffer.alloc(chunkBytes + alignmentBytes);
let alignedAt: number | undefined;
const piece = Buffer.alloc(chunkBytes);

/** The first `length` bytes of a file, whole blocks of 4 KiB. Throws what the system says where it cannot be opened, or is shorter. */
export function readFromDevice(path: string, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let offset = 0;
  for (const chunk of chunksFromDevice(path, length)) offset += chunk.copy(bytes, offset);
  return bytes;
}

/** The same in pieces of 64 KiB at most, each of which holds until the next one is asked for. */
export function* chunksFromDevice(path: string, length: number): Generator<Buffer> {
  const descriptor = openDirect(path);
  try {
    for (let offset = 0; offset < length; offset += chunkBytes) {
      const bytes = piece.subarray(0, Math.min(chunkBytes, length - offset));
      readChunk(descriptor, bytes, offset, path);
      yield bytes;
    }
  } finally {
    closeSync(descriptor);
  }
}

/** A file of a block at most, as the device has it. */
export function readSmallFromDevice(path: string): Buffer {
  const descriptor = openDirect(path);
  try {
    const count = readAligned(descriptor, alignmentBytes, 0);
    return Buffer.from(memory.subarray(alignedAt, (alignedAt ?? 0) + count));
  } finally {
    closeSync(descriptor);
  }
}

/** Some file systems know no direct reads (EINVAL): there the cache has to be believed. */
function openDirect(path: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_DIRECT);
  } catch (error) {
    if (codeOf(error) !== "EINVAL") throw error;
    return openSync(path, constants.O_RDONLY);
  }
}

function readChunk(descriptor: number, into: Buffer, offset: number, path: string): void {
  try {
    readWhole(descriptor, into, offset, path);
  } catch (error) {
    if (codeOf(error) !== "EIO") throw error;
    if (into.length === alignmentBytes) into.fill(unreadableByte);
    else
      for (let at = 0; at < into.length; at += alignmentBytes)
        readChunk(descriptor, into.subarray(at, at + alignmentBytes), offset + at, path);
  }
}

function readWhole(descriptor: number, into: Buffer, offset: number, path: string): void {
  for (let done = 0; done < into.length; ) {
    const count = readAligned(descriptor, into.length - done, offset + done);
    if (count === 0)
      throw new Error(`${path} ends at ${offset + done}, expected ${offset + into.length} bytes at least`);
    memory.copy(into, done, alignedAt, (alignedAt ?? 0) + count);
    done += count;
  }
}

/** Reads into the aligned part of the memory; where that lies is found by trying, since JavaScript knows no addresses. */
function readAligned(descriptor: number, length: number, offset: number): number {
  for (const at of alignedAt === undefined ? candidates() : [alignedAt, ...candidates()]) {
    try {
      const count = readSync(descriptor, memory, at, length, offset);
      alignedAt = at;
      return count;
    } catch (error) {
      if (codeOf(error) !== "EINVAL") throw error;
    }
  }
  throw new Error("no memory that a direct read can go to was found; expected one at a multiple of 16 bytes");
}

function* candidates(): Generator<number> {
  for (let at = 0; at < alignmentBytes; at += 16) yield at;
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}

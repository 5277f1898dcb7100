/**
 * The journal's files: a ring of segments of equal size, made once, written in whole blocks with O_DSYNC. No meaning here.
 *
 * Making the ring needs fsync and is done by `ecp-wallet init`, outside Node's permission model, which forbids it.
 */
import { closeSync, constants, existsSync, fstatSync, fsyncSync, openSync, readdirSync, writeSync } from "node:fs";
import { join } from "node:path";
import { syncFolder } from "../platform/durable-file.ts";
import { chunksFromDevice, readFromDevice } from "./device-read.ts";
import { blockBytes } from "./journal-block.ts";

export const segmentBlocksDefault = 256;
const segmentBlocksMin = 16;
export const segmentsDefault = 64;
export const segmentsMin = 3;
export const segmentsMax = 4_096;

/** The journal cannot be opened or written as it is. The message says what was found where, and what to do. */
export class JournalError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "JournalError";
  }
}

/** The device did not take a write whole. What is on it now only a new start can tell. */
export class JournalWriteError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "JournalWriteError";
  }
}

function segmentPath(folder: string, segment: number): string {
  return join(folder, `segment-${segment.toString().padStart(4, "0")}.ecpj`);
}

/** What holds a journal's bytes: files, or whatever stands in for them where faults are simulated. */
export interface JournalDisk {
  /** Where it is, for people. */
  readonly folder: string;
  readonly segments: number;
  readonly segmentBlocks: number;
  /** A whole segment, or its first `blocks` blocks, as the device has them. */
  read(segment: number, blocks?: number): Buffer;
  /** The same, whole, piece by piece: each holds until the next one is asked for. */
  chunks(segment: number): Iterable<Buffer>;
  /** Writes whole blocks; returns when the device has them. Whatever it throws, the process must end. */
  write(segment: number, block: number, bytes: Buffer): void;
  close(): void;
}

export class JournalRing implements JournalDisk {
  readonly folder: string;
  readonly segments: number;
  readonly segmentBlocks: number;
  readonly #descriptors: readonly number[];

  private constructor(folder: string, descriptors: readonly number[], segmentBlocks: number) {
    this.folder = folder;
    this.#descriptors = descriptors;
    this.segments = descriptors.length;
    this.segmentBlocks = segmentBlocks;
  }

  /** Makes the segments, zeroed and durable. Throws {@link JournalError} where a journal is there already. */
  static preallocate(folder: string, segments: number, segmentBlocks = segmentBlocksDefault): void {
    if (segments < segmentsMin || segments > segmentsMax)
      throw new JournalError(`a ring of ${segments} segments; from ${segmentsMin} to ${segmentsMax} are possible`);
    if (segmentBlocks < segmentBlocksMin)
      throw new JournalError(`segments of ${segmentBlocks} blocks; ${segmentBlocksMin} are needed at least`);
    if (existsSync(segmentPath(folder, 0)))
      throw new JournalError(`${folder} already holds a journal; it was left as it is`);
    const zeros = Buffer.alloc(blockBytes);
    for (let segment = 0; segment < segments; segment++) {
      const descriptor = openSync(segmentPath(folder, segment), "wx", 0o600);
      // In steps of a block: one large write would make one large folio, and every later write then costs all of it.
      for (let block = 0; block < segmentBlocks; block++)
        writeSync(descriptor, zeros, 0, blockBytes, block * blockBytes);
      fsyncSync(descriptor);
      closeSync(descriptor);
    }
    syncFolder(folder);
  }

  /** `access`: "read" for a look at a journal that another process may be writing. */
  static open(folder: string, access: "write" | "read" = "write"): JournalRing {
    const names = existsSync(folder) ? readdirSync(folder).filter((name) => /^segment-\d{4}\.ecpj$/.test(name)) : [];
    if (names.length === 0) throw new JournalError(`no journal in ${folder}; 'ecp-wallet init' makes one`);
    const paths = names.map((_, segment) => segmentPath(folder, segment));
    const missing = paths.find((path) => !existsSync(path));
    if (missing !== undefined) throw new JournalError(`${missing} is missing beside ${names.length} other segments`);
    const flags = access === "read" ? constants.O_RDONLY : constants.O_RDWR | constants.O_DSYNC;
    const descriptors = paths.map((path) => openSync(path, flags));
    const sizes = descriptors.map((descriptor) => fstatSync(descriptor).size);
    const size = sizes[0] as number;
    const odd = sizes.findIndex((other) => other !== size || other % blockBytes !== 0 || other === 0);
    const ring = new JournalRing(folder, descriptors, size / blockBytes);
    if (odd < 0 && names.length >= segmentsMin && size >= segmentBlocksMin * blockBytes) return ring;
    ring.close();
    if (odd >= 0)
      throw new JournalError(
        `${paths[odd]} has ${sizes[odd]} bytes, the first segment ${size}; all must be of one size, in whole blocks of ${blockBytes}`,
      );
    throw new JournalError(
      `${folder} has ${names.length} segments of ${size} bytes; expected at least ${segmentsMin} of ${segmentBlocksMin * blockBytes}`,
    );
  }

  /**
   * A whole segment, or its first `blocks` blocks, as the device has them. Blocks that it does not give come as
   * bytes that are no block: what cannot be read is damaged, and no reason to end.
   */
  read(segment: number, blocks = this.segmentBlocks): Buffer {
    return readFromDevice(segmentPath(this.folder, segment), blocks * blockBytes);
  }

  /** The same, whole, piece by piece: each holds until the next one is asked for. */
  chunks(segment: number): Generator<Buffer> {
    return chunksFromDevice(segmentPath(this.folder, segment), this.segmentBlocks * blockBytes);
  }

  /**
   * Writes whole blocks; returns when the device has them (O_DSYNC). Throws whatever the system says: the caller must then
   * end the process, since what a failed write left behind is known only after reading it anew.
   */
  write(segment: number, block: number, bytes: Buffer): void {
    const written = writeSync(this.#descriptor(segment), bytes, 0, bytes.length, block * blockBytes);
    if (written !== bytes.length)
      throw new JournalWriteError(
        `${segmentPath(this.folder, segment)}: a write of ${bytes.length} bytes was cut at ${written}; is the disk full?`,
      );
  }

  close(): void {
    for (const descriptor of this.#descriptors) closeSync(descriptor);
  }

  #descriptor(segment: number): number {
    return this.#descriptors[segment] as number;
  }
}

/** A journal's disk in memory: what was acknowledged stays, a write that the power cuts leaves what the seed says. */
import type { SeededRandom } from "../../test/protocol/seeded-random.ts";
import { blockBytes } from "../../wallet/journal-block.ts";
import type { JournalDisk } from "../../wallet/journal-ring.ts";

const sectorBytes = 512;

/** The process that wrote has ended in the middle of it. */
export class PowerCut extends Error {
  constructor() {
    super("the power was cut in the middle of a write");
    this.name = "PowerCut";
  }
}

interface Write {
  readonly segment: number;
  readonly offset: number;
  readonly before: Buffer;
}

const cuts = ["nothing", "everything", "first sectors", "some sectors", "noise", "half noise"] as const;

export class MemoryDisk implements JournalDisk {
  readonly folder = "memory";
  readonly segments: number;
  readonly segmentBlocks: number;
  readonly #random: SeededRandom;
  readonly #bytes: readonly Buffer[];
  #last: Write | undefined;
  #cutNext = false;
  /** How many writes were begun. */
  writes = 0;

  constructor(random: SeededRandom, segments: number, segmentBlocks: number) {
    this.#random = random;
    this.segments = segments;
    this.segmentBlocks = segmentBlocks;
    this.#bytes = Array.from({ length: segments }, () => Buffer.alloc(segmentBlocks * blockBytes));
  }

  read(segment: number, blocks = this.segmentBlocks): Buffer {
    return Buffer.from(this.#of(segment).subarray(0, blocks * blockBytes));
  }

  *chunks(segment: number): Generator<Buffer> {
    yield this.read(segment);
  }

  write(segment: number, block: number, bytes: Buffer): void {
    const offset = block * blockBytes;
    const place = this.#of(segment).subarray(offset, offset + bytes.length);
    this.#last = { segment, offset, before: Buffer.from(place) };
    this.writes++;
    if (!this.#cutNext) {
      bytes.copy(place);
      return;
    }
    this.#cutNext = false;
    this.#writePart(place, bytes);
    throw new PowerCut();
  }

  close(): void {
    // Memory needs no closing.
  }

  /** The next write is the last one of its process. */
  cutNext(): void {
    this.#cutNext = true;
  }

  /** What was acknowledged last is noise from now on, as some cards leave it when their power goes. */
  spoilLast(): boolean {
    const last = this.#last;
    if (last === undefined) return false;
    this.#noise(this.#placeOf(last));
    return true;
  }

  /** What a recovery without doubt would do: the last write is as if it had never been. For a control. */
  forgetLast(): void {
    const last = this.#last;
    if (last) last.before.copy(this.#placeOf(last));
  }

  #writePart(place: Buffer, bytes: Buffer): void {
    const sectors = bytes.length / sectorBytes;
    switch (this.#random.pick(cuts)) {
      case "nothing":
        return;
      case "everything":
        bytes.copy(place);
        return;
      case "first sectors":
        bytes.copy(place, 0, 0, this.#random.integer(1, sectors) * sectorBytes);
        return;
      case "some sectors":
        for (let at = 0; at < bytes.length; at += sectorBytes)
          if (this.#random.chance(50)) bytes.copy(place, at, at, at + sectorBytes);
        return;
      case "noise":
        this.#noise(place);
        return;
      case "half noise":
        bytes.copy(place);
        this.#noise(place.subarray(this.#random.integer(0, sectors - 1) * sectorBytes));
        return;
    }
  }

  #noise(place: Buffer): void {
    for (let at = 0; at + 4 <= place.length; at += 4) place.writeUInt32LE(this.#random.uint32(), at);
  }

  #placeOf({ segment, offset, before }: Write): Buffer {
    return this.#of(segment).subarray(offset, offset + before.length);
  }

  #of(segment: number): Buffer {
    return this.#bytes[segment] as Buffer;
  }
}

/**
 * The tiles of one packet by their numbers, like a Map of them, in one piece of memory: an object for each would take fifteen times as
 * much, and a node may hold packets of many thousand devices, or what a hostile network server makes up in their names.
 */
import { tileBytes } from "../protocol/schc.ts";

/** The tile's length, 0 where it is not there, and its bytes. */
const slotBytes = 1 + tileBytes;
/** Memory grows by so many tiles. */
const growthTiles = 16;

export class SchcTiles implements Iterable<[tile: number, bytes: Uint8Array]> {
  #slots = new Uint8Array(0);

  has(tile: number): boolean {
    return (this.#slots[tile * slotBytes] ?? 0) > 0;
  }

  /** To be looked at only: it changes with the next tile that is set. */
  get(tile: number): Uint8Array | undefined {
    const start = tile * slotBytes;
    const length = this.#slots[start] ?? 0;
    return length === 0 ? undefined : this.#slots.subarray(start + 1, start + 1 + length);
  }

  /** @param bytes 1 to 10 of them */
  set(tile: number, bytes: Uint8Array): void {
    const start = tile * slotBytes;
    if (start >= this.#slots.length) {
      const grown = new Uint8Array((Math.floor(tile / growthTiles) + 1) * growthTiles * slotBytes);
      grown.set(this.#slots);
      this.#slots = grown;
    }
    this.#slots[start] = bytes.length;
    this.#slots.set(bytes, start + 1);
  }

  clear(): void {
    this.#slots = new Uint8Array(0);
  }

  *keys(): Iterable<number> {
    for (let tile = 0; tile * slotBytes < this.#slots.length; tile++) if (this.has(tile)) yield tile;
  }

  /** Ascending; copies. */
  *[Symbol.iterator](): Iterator<[number, Uint8Array]> {
    for (const tile of this.keys()) yield [tile, (this.get(tile) as Uint8Array).slice()];
  }
}

/**
 * How much may be on its way at once, in bytes, over all epochs. It begins small after a new connection or a silence, so that
 * the first receipt tells what need not be sent again, and grows by what receipts name, up to the memory that is given to it.
 */

/** What is always allowed, so that the first receipts come soon. */
const firstBytes = 16_384;
/** The newest records have this much for themselves, however full the rest is. */
const liveReserveBytes = 16_384;
/** What a record on its way costs beside its own bytes (bookkeeping, packet header). */
const recordOverheadBytes = 128;

export type Lane = "live" | "backlog";

export class SendWindow {
  readonly #bytesMax: number;
  #limitBytes = firstBytes;
  #usedBytes = 0;
  /** Running mean of a record's size; what is not read yet is taken to have it. */
  #recordBytes = 256;

  constructor(bytesMax: number) {
    this.#bytesMax = Math.max(firstBytes, bytesMax);
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }
  get recordBytes(): number {
    return this.#recordBytes;
  }

  /** About how many records there is room for; 0 where there is none. */
  roomRecords(lane: Lane): number {
    const roomBytes = this.#limitBytes + (lane === "live" ? liveReserveBytes : 0) - this.#usedBytes;
    // Not record by record as each receipt comes: a read costs the same for one as for many.
    const leastBytes = lane === "live" ? 1 : this.#limitBytes / 4;
    return roomBytes < leastBytes ? 0 : Math.max(1, Math.floor(roomBytes / (this.#recordBytes + recordOverheadBytes)));
  }

  take(recordBytes: number): void {
    this.#usedBytes += recordBytes + recordOverheadBytes;
    this.#recordBytes += (recordBytes - this.#recordBytes) / 16;
  }

  giveBack(recordBytes: number): void {
    this.#usedBytes -= recordBytes + recordOverheadBytes;
  }

  /** A receipt names a record of that size that was on its way. */
  grow(recordBytes: number): void {
    this.#limitBytes = Math.min(this.#bytesMax, this.#limitBytes + recordBytes + recordOverheadBytes);
  }

  /** Little is sent until receipts come again. */
  shrink(): void {
    this.#limitBytes = firstBytes;
  }
}

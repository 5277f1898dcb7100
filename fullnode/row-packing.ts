/**
 * Rows and quarter hours as bytes of the store: integers as little-endian base 128, seven bits a byte, signed ones zigzag (0, −1,
 * 1, −2 …). Values lie within ±(2^52 − 1), so every number here is exact.
 */
import type { CodeSummary, SlotSummary } from "./aggregate.ts";

const sevenBits = 0x80;
/** Below this, 32-bit arithmetic is exact. */
const int31 = 2 ** 31;

/** Of what is written one after the other; larger than any row or summary. */
const chunkBytes = 65_536;
/** A code and a value, or one of the other numbers, take at most this. */
const numberBytesMax = 8;

class IntegerWriter {
  #chunk = new Uint8Array(chunkBytes);
  #start = 0;
  #end = 0;

  natural(value: number): void {
    if (this.#end + numberBytesMax > this.#chunk.length) this.#moveToNewChunk();
    const bytes = this.#chunk;
    let at = this.#end;
    let rest = value;
    while (rest >= int31) {
      bytes[at++] = (rest % sevenBits) | sevenBits;
      rest = Math.floor(rest / sevenBits);
    }
    while (rest >= sevenBits) {
      bytes[at++] = (rest & 0x7f) | sevenBits;
      rest >>>= 7;
    }
    bytes[at++] = rest;
    this.#end = at;
  }

  #moveToNewChunk(): void {
    const begun = this.#chunk.subarray(this.#start, this.#end);
    this.#chunk = new Uint8Array(Math.max(chunkBytes, begun.length * 2));
    this.#chunk.set(begun);
    this.#start = 0;
    this.#end = begun.length;
  }

  integer(value: number): void {
    this.natural(value >= 0 ? value * 2 : -value * 2 - 1);
  }

  /** The bytes so far; the next ones begin anew. They share memory with others: a copy is for whoever keeps them. */
  take(): Uint8Array {
    const taken = this.#chunk.subarray(this.#start, this.#end);
    this.#start = this.#end;
    return taken;
  }
}

class IntegerReader {
  readonly #bytes: Uint8Array;
  #position = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get more(): boolean {
    return this.#position < this.#bytes.length;
  }

  natural(): number {
    let value = 0;
    let scale = 1;
    for (;;) {
      const byte = this.#bytes[this.#position++];
      if (byte === undefined) throw new Error("a packed row or slot of the store is cut short");
      value += (byte & 0x7f) * scale;
      if (byte < sevenBits) return value;
      scale *= sevenBits;
    }
  }

  integer(): number {
    const value = this.natural();
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }
}

const writer = new IntegerWriter();

/** Code and value in turn; no bytes where there are no values. */
export function packValues(values: readonly number[]): Uint8Array {
  for (let i = 0; i + 1 < values.length; i += 2) {
    writer.natural(values[i] as number);
    writer.integer(values[i + 1] as number);
  }
  return writer.take();
}

export function unpackValues(bytes: Uint8Array): number[] {
  const reader = new IntegerReader(bytes);
  const values: number[] = [];
  while (reader.more) values.push(reader.natural(), reader.integer());
  return values;
}

/** @param endS end of the quarter hour: times are kept as seconds before it */
export function packSummary({ rows, codes }: SlotSummary, endS: number): Uint8Array {
  writer.natural(rows);
  for (const { code, count, firstTimeS, first, lastTimeS, last, min, max, sum } of codes) {
    writer.natural(code);
    writer.natural(count);
    writer.natural(endS - firstTimeS);
    writer.natural(endS - lastTimeS);
    writer.integer(min);
    writer.natural(first - min);
    writer.natural(last - min);
    writer.natural(max - min);
    writer.integer(sum);
  }
  return writer.take().slice(); // kept with the slot
}

export function unpackSummary(bytes: Uint8Array, endS: number): { rows: number; codes: CodeSummary[] } {
  const reader = new IntegerReader(bytes);
  const rows = reader.natural();
  const codes: CodeSummary[] = [];
  while (reader.more) {
    const code = reader.natural();
    const count = reader.natural();
    const firstTimeS = endS - reader.natural();
    const lastTimeS = endS - reader.natural();
    const min = reader.integer();
    const first = min + reader.natural();
    const last = min + reader.natural();
    const max = min + reader.natural();
    codes.push({ code, count, firstTimeS, first, lastTimeS, last, min, max, sum: reader.integer() });
  }
  return { rows, codes };
}

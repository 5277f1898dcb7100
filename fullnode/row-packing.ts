/**
 * Rows and quarter hours as bytes of the store: integers as little-endian base 128, seven bits a byte, signed ones zigzag (0, −1,
 * 1, −2 …). Values lie within ±(2^52 − 1), so every number here is exact.
 */
import type { CodeSummary, SlotSummary } from "./aggregate.ts";

const sevenBits = 0x80;
/** Below this, 32-bit arithmetic is exact. */
const int31 = 2 ** 31;

class IntegerWriter {
  #bytes = new Uint8Array(4_096);
  #length = 0;

  natural(value: number): void {
    if (this.#length + 8 > this.#bytes.length) {
      const larger = new Uint8Array(this.#bytes.length * 2);
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    let rest = value;
    while (rest >= int31) {
      this.#bytes[this.#length++] = (rest % sevenBits) | sevenBits;
      rest = Math.floor(rest / sevenBits);
    }
    while (rest >= sevenBits) {
      this.#bytes[this.#length++] = (rest & 0x7f) | sevenBits;
      rest >>>= 7;
    }
    this.#bytes[this.#length++] = rest;
  }

  integer(value: number): void {
    this.natural(value >= 0 ? value * 2 : -value * 2 - 1);
  }

  /** The bytes so far; the next ones begin anew. */
  take(): Uint8Array {
    const taken = this.#bytes.slice(0, this.#length);
    this.#length = 0;
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
  return writer.take();
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

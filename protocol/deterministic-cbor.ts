/**
 * Deterministic CBOR (RFC 8949 §4.2.1), strict in both directions, over cbor-x.
 *
 * cbor-x is neither strict nor deterministic by itself: it takes duplicate keys, long integers and broken UTF-8, and makes
 * floats of integers above 2^32-1. So a scan of the bytes refuses all of that first, with a reason for each, before the
 * library sees them; and what the library decoded must encode to the same bytes again.
 */
import { Decoder } from "cbor-x/decode";
import { Encoder } from "cbor-x/encode";
import { Refusal } from "./refusal.ts";

export type CborValue = number | bigint | string | boolean | null | Uint8Array | CborValue[] | CborMap;
export type CborKey = number | string;
export type CborMap = Map<CborKey, CborValue>;

export const messageBytesMax = 65_536;
export const depthMax = 8;
const byteOrderMark = "\ufeff";

const encoder = new Encoder({ useRecords: false, mapsAsObjects: false, variableMapSize: true, tagUint8Array: false });
const decoder = new Decoder({ useRecords: false, mapsAsObjects: false });

/** Encodes a value as deterministic CBOR: keys sorted, integers shortest, no floats. Throws TypeError on what must not be sent. */
export function encodeCbor(value: CborValue): Uint8Array {
  // The encoder hands out views of one buffer that it reuses; callers keep what they get.
  return new Uint8Array(encoder.encode(arranged(value, 1)));
}

/** Decodes deterministic CBOR. Throws {@link Refusal} on anything else. Integers beyond ±(2^53-1) come as bigint. */
export function decodeCbor(bytes: Uint8Array, bytesMax: number = messageBytesMax): CborValue {
  if (bytes.length > bytesMax) throw new Refusal("too-large", `${bytes.length} bytes, at most ${bytesMax}`);
  const end = scan(bytes, 0, 1);
  if (end !== bytes.length) throw new Refusal("trailing-bytes", `${bytes.length - end} after offset ${end}`);
  const value = normal(decoder.decode(bytes) as CborValue);
  if (!equalBytes(encodeCbor(value), bytes)) throw new Refusal("not-reproduced");
  return value;
}

/** Whether two byte strings are the same. Not for secrets: the time depends on the content. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Bytewise lexicographic order, as RFC 8949 §4.2.1 orders encoded keys. */
function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const difference = (a[i] as number) - (b[i] as number);
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

/** A copy that cbor-x encodes deterministically: maps in key order, integers above 2^32-1 as bigint. */
function arranged(value: CborValue, depth: number): unknown {
  if (depth > depthMax) throw new TypeError(`nested deeper than ${depthMax}`);
  switch (typeof value) {
    case "number":
      if (!Number.isSafeInteger(value)) throw new TypeError(`${value} is not a safe integer`);
      // cbor-x writes a float64 for numbers of more than 32 bits, and always eight bytes for a bigint.
      return value > 0xffff_ffff || value < -0x1_0000_0000 ? BigInt(value) : value === 0 ? 0 : value;
    case "bigint":
      // Below -2^63 cbor-x writes a bignum (tag 3) instead of major type 1.
      if (value > 0xffff_ffff_ffff_ffffn || value < -0x8000_0000_0000_0000n) throw new TypeError("over 64 bits");
      return value <= 0xffff_ffffn && value >= -0x1_0000_0000n ? Number(value) : value;
    case "string":
      if (!value.isWellFormed()) throw new TypeError("a string with a lone surrogate");
      if (value.startsWith(byteOrderMark)) throw new TypeError("a string that begins with a byte order mark");
      return value;
    case "boolean":
      return value;
    default:
      break;
  }
  if (value === null || value instanceof Uint8Array) return value;
  if (Array.isArray(value)) return value.map((item) => arranged(item, depth + 1));
  if (value instanceof Map) {
    const keys = [...value.keys()];
    if (!keys.every((key, i) => typeof key === "number" && key >= 0 && (i === 0 || key > (keys[i - 1] as number)))) {
      const encoded = new Map(keys.map((key) => [key, Uint8Array.from(encoder.encode(arranged(key, depth)))]));
      keys.sort((a, b) => compareBytes(encoded.get(a) as Uint8Array, encoded.get(b) as Uint8Array));
    }
    return new Map(keys.map((key) => [arranged(key, depth), arranged(value.get(key) as CborValue, depth + 1)]));
  }
  throw new TypeError(`${typeof value} cannot be encoded`);
}

/** What cbor-x decoded, with 64-bit integers as numbers where they are safe. */
function normal(value: CborValue): CborValue {
  if (typeof value === "bigint") {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : value;
  }
  if (Array.isArray(value)) return value.map(normal);
  if (value instanceof Map) return new Map([...value].map(([key, item]) => [normal(key) as CborKey, normal(item)]));
  return value;
}

/** Checks one data item for RFC 8949 §4.2.1 and our limits; returns the offset behind it. */
function scan(bytes: Uint8Array, start: number, depth: number): number {
  if (depth > depthMax) throw new Refusal("too-deep", `more than ${depthMax} levels at offset ${start}`);
  const initial = bytes[start];
  if (initial === undefined) throw new Refusal("truncated", `at offset ${start}`);
  const major = initial >> 5;
  const information = initial & 31;
  if (major === 7) return scanSimple(information, start);
  if (information === 31) throw new Refusal("indefinite-length", `at offset ${start}`);
  if (information > 27) throw new Refusal("non-minimal-integer", `reserved at offset ${start}`);
  if (major === 6) throw new Refusal("tag", `at offset ${start}`);
  let offset = start + 1;
  let argument = information;
  if (information >= 24) {
    const width = 1 << (information - 24);
    if (offset + width > bytes.length) throw new Refusal("truncated", `at offset ${start}`);
    argument = 0;
    for (let i = 0; i < width; i++) argument = argument * 256 + (bytes[offset + i] as number);
    const least = width === 1 ? 24 : 2 ** (4 * width);
    if (argument < least) throw new Refusal("non-minimal-integer", `at offset ${start}`);
    // A receiver with signed 64-bit integers cannot hold less than -2^63, nor does cbor-x write it.
    if (major === 1 && width === 8 && (bytes[offset] as number) >= 0x80)
      throw new Refusal("not-reproduced", `an integer below -2^63 at offset ${start}`);
    offset += width;
  }
  if (major <= 1) return offset;
  if (major <= 3) {
    const end = offset + argument;
    if (end > bytes.length) throw new Refusal("truncated", `string of ${argument} bytes at offset ${start}`);
    if (major === 3) checkUtf8(bytes, offset, end);
    return end;
  }
  if (argument > bytes.length - offset) throw new Refusal("truncated", `${argument} items at offset ${start}`);
  if (major === 4) {
    for (let i = 0; i < argument; i++) offset = scan(bytes, offset, depth + 1);
    return offset;
  }
  return scanMap(bytes, offset, argument, depth);
}

function scanSimple(information: number, start: number): number {
  if (information >= 20 && information <= 22) return start + 1;
  if (information >= 25 && information <= 27) throw new Refusal("float", `at offset ${start}`);
  if (information === 31) throw new Refusal("indefinite-length", `at offset ${start}`);
  throw new Refusal("simple-value", `at offset ${start}`);
}

function scanMap(bytes: Uint8Array, start: number, pairs: number, depth: number): number {
  let offset = start;
  let previous: Uint8Array | undefined;
  for (let i = 0; i < pairs; i++) {
    const major = (bytes[offset] ?? 0) >> 5;
    const keyEnd = scan(bytes, offset, depth + 1);
    if (major !== 0 && major !== 1 && major !== 3) throw new Refusal("map-key-type", `at offset ${offset}`);
    const key = bytes.subarray(offset, keyEnd);
    const order = previous === undefined ? -1 : compareBytes(previous, key);
    if (order === 0) throw new Refusal("duplicate-key", `at offset ${offset}`);
    if (order > 0) throw new Refusal("unsorted-keys", `at offset ${offset}`);
    previous = key;
    offset = scan(bytes, keyEnd, depth + 1);
  }
  return offset;
}

/** RFC 3629 §4: no overlong forms, no surrogates, nothing above U+10FFFF. */
function checkUtf8(bytes: Uint8Array, start: number, end: number): void {
  // TextDecoder drops a byte order mark at the start (cbor-x uses it for long strings): such a text would not come back.
  if (end - start >= 3 && bytes[start] === 0xef && bytes[start + 1] === 0xbb && bytes[start + 2] === 0xbf)
    throw new Refusal("not-reproduced", `a byte order mark at offset ${start}`);
  let i = start;
  while (i < end) {
    const first = bytes[i] as number;
    const more = first < 0x80 ? 0 : first < 0xc2 ? -1 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : first < 0xf5 ? 3 : -1;
    if (more < 0 || i + more >= end) throw new Refusal("bad-utf8", `at offset ${i}`);
    for (let k = 1; k <= more; k++) {
      const next = bytes[i + k] as number;
      const low = k === 1 && first === 0xe0 ? 0xa0 : k === 1 && first === 0xf0 ? 0x90 : 0x80;
      const high = k === 1 && first === 0xed ? 0x9f : k === 1 && first === 0xf4 ? 0x8f : 0xbf;
      if (next < low || next > high) throw new Refusal("bad-utf8", `at offset ${i}`);
    }
    i += more + 1;
  }
}

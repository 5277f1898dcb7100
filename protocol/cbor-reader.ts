/**
 * Reads one item of deterministic CBOR (RFC 8949 §4.2.1) and refuses all else, with a reason for each. There is one encoding of a
 * value and nothing but it is read, so what was read encodes to the same bytes again; tests hold this against the encoder and
 * against another implementation. Written for speed: a full node reads every record with it.
 */
import type { CborKey, CborValue } from "./deterministic-cbor.ts";
import { Refusal } from "./refusal.ts";

export const depthMax = 8;
/** Longer texts are put together in pieces: an argument list has its limits. */
const textPiece = 4_096;

/** Where reading stands. Nothing here waits, so one place is enough for all. */
let bytes: Uint8Array = new Uint8Array(0);
let offset = 0;

/** The only item in these bytes; byte strings are views of them. Throws {@link Refusal}. */
export function readOnlyItem(from: Uint8Array): CborValue {
  bytes = from;
  offset = 0;
  const value = readItem(1);
  if (offset !== from.length) throw new Refusal("trailing-bytes", `${from.length - offset} after offset ${offset}`);
  return value;
}

function readItem(depth: number): CborValue {
  const start = offset;
  if (depth > depthMax) throw new Refusal("too-deep", `more than ${depthMax} levels at offset ${start}`);
  const initial = bytes[start];
  if (initial === undefined) throw new Refusal("truncated", `at offset ${start}`);
  const major = initial >> 5;
  if (major === 7) return readSimple(initial & 31);
  if (major === 6 && (initial & 31) <= 27) throw new Refusal("tag", `at offset ${start}`);
  const argument = readArgument(initial & 31, major === 1);
  switch (major) {
    case 0:
      return argument <= Number.MAX_SAFE_INTEGER ? argument : exactly(start);
    case 1:
      return argument < Number.MAX_SAFE_INTEGER ? -1 - argument : -1n - exactly(start);
    case 2: {
      const end = endOfString(argument, start);
      const string = bytes.subarray(offset, end);
      offset = end;
      return string;
    }
    case 3:
      return readText(endOfString(argument, start));
    case 4:
      return readArray(argument, start, depth);
    default:
      return readMap(argument, start, depth);
  }
}

/** The argument behind the initial byte; beyond 2^53 only nearly. RFC 8949 §4.2.1: as short as possible. */
function readArgument(information: number, isNegative: boolean): number {
  const start = offset++;
  if (information < 24) return information;
  if (information === 31) throw new Refusal("indefinite-length", `at offset ${start}`);
  if (information > 27) throw new Refusal("non-minimal-integer", `reserved at offset ${start}`);
  const width = 1 << (information - 24);
  if (offset + width > bytes.length) throw new Refusal("truncated", `at offset ${start}`);
  let argument = 0;
  for (let i = 0; i < width; i++) argument = argument * 256 + (bytes[offset + i] as number);
  if (argument < (width === 1 ? 24 : 2 ** (4 * width))) throw new Refusal("non-minimal-integer", `at offset ${start}`);
  // A receiver with signed 64-bit integers cannot hold less than -2^63.
  if (isNegative && width === 8 && (bytes[offset] as number) >= 0x80)
    throw new Refusal("not-reproduced", `an integer below -2^63 at offset ${start}`);
  offset += width;
  return argument;
}

/** The 64 bits behind the initial byte at `start`. */
function exactly(start: number): bigint {
  let value = 0n;
  for (let i = 1; i <= 8; i++) value = value * 256n + BigInt(bytes[start + i] as number);
  return value;
}

function endOfString(length: number, start: number): number {
  const end = offset + length;
  if (end > bytes.length) throw new Refusal("truncated", `string of ${length} bytes at offset ${start}`);
  return end;
}

function readArray(length: number, start: number, depth: number): CborValue[] {
  // An item has one byte at least: no room is made for what cannot be there.
  if (length > bytes.length - offset) throw new Refusal("truncated", `${length} items at offset ${start}`);
  const items = new Array<CborValue>(length);
  for (let i = 0; i < length; i++) {
    const initial = bytes[offset] as number;
    // Most items are integers of one byte.
    if (initial < 24 && depth < depthMax) {
      items[i] = initial;
      offset++;
    } else items[i] = readItem(depth + 1);
  }
  return items;
}

function readMap(pairs: number, start: number, depth: number): Map<CborKey, CborValue> {
  if (pairs > bytes.length - offset) throw new Refusal("truncated", `${pairs} items at offset ${start}`);
  const map = new Map<CborKey, CborValue>();
  let previousStart = 0;
  let previousEnd = 0;
  for (let i = 0; i < pairs; i++) {
    const keyStart = offset;
    const major = (bytes[keyStart] ?? 0) >> 5;
    const key = readItem(depth + 1);
    if (major !== 0 && major !== 1 && major !== 3) throw new Refusal("map-key-type", `at offset ${keyStart}`);
    const order = i === 0 ? -1 : compareWithin(previousStart, previousEnd, keyStart, offset);
    if (order === 0) throw new Refusal("duplicate-key", `at offset ${keyStart}`);
    if (order > 0) throw new Refusal("unsorted-keys", `at offset ${keyStart}`);
    previousStart = keyStart;
    previousEnd = offset;
    map.set(key as CborKey, readItem(depth + 1));
  }
  return map;
}

/** Bytewise lexicographic order of two pieces, as RFC 8949 §4.2.1 orders encoded keys. */
function compareWithin(aStart: number, aEnd: number, bStart: number, bEnd: number): number {
  const length = Math.min(aEnd - aStart, bEnd - bStart);
  for (let i = 0; i < length; i++) {
    const difference = (bytes[aStart + i] as number) - (bytes[bStart + i] as number);
    if (difference !== 0) return difference;
  }
  return aEnd - aStart - (bEnd - bStart);
}

function readSimple(information: number): CborValue {
  const start = offset++;
  if (information === 20 || information === 21) return information === 21;
  if (information === 22) return null;
  if (information >= 25 && information <= 27) throw new Refusal("float", `at offset ${start}`);
  if (information === 31) throw new Refusal("indefinite-length", `at offset ${start}`);
  throw new Refusal("simple-value", `at offset ${start}`);
}

/** RFC 3629 §4: no overlong forms, no surrogates, nothing above U+10FFFF. */
function readText(end: number): string {
  const start = offset;
  // Many decoders drop a byte order mark at the start: such a text would not come back.
  if (end - start >= 3 && bytes[start] === 0xef && bytes[start + 1] === 0xbb && bytes[start + 2] === 0xbf)
    throw new Refusal("not-reproduced", `a byte order mark at offset ${start}`);
  let text = "";
  let points: number[] = [];
  while (offset < end) {
    points.push(readPoint(end));
    if (points.length < textPiece) continue;
    text += String.fromCodePoint(...points);
    points = [];
  }
  return text + String.fromCodePoint(...points);
}

function readPoint(end: number): number {
  const start = offset;
  const first = bytes[start] as number;
  const more = first < 0x80 ? 0 : first < 0xc2 ? -1 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : first < 0xf5 ? 3 : -1;
  if (more < 0 || start + more >= end) throw new Refusal("bad-utf8", `at offset ${start}`);
  let point = more === 0 ? first : first & (0x3f >> more);
  for (let k = 1; k <= more; k++) {
    const next = bytes[start + k] as number;
    const low = k === 1 && first === 0xe0 ? 0xa0 : k === 1 && first === 0xf0 ? 0x90 : 0x80;
    const high = k === 1 && first === 0xed ? 0x9f : k === 1 && first === 0xf4 ? 0x8f : 0xbf;
    if (next < low || next > high) throw new Refusal("bad-utf8", `at offset ${start}`);
    point = point * 64 + (next & 0x3f);
  }
  offset = start + more + 1;
  return point;
}

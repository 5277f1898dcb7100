/**
 * Deterministic CBOR (RFC 8949 §4.2.1), strict in both directions.
 *
 * cbor-x encodes what was put in order for it: by itself it makes floats of integers above 2^32-1 and keeps keys unsorted. What
 * comes in is read by cbor-reader.ts, which takes nothing but the one encoding of a value.
 */
import { Encoder } from "cbor-x/encode";
import { depthMax, readOnlyItem } from "./cbor-reader.ts";
import { Refusal } from "./refusal.ts";

export type CborValue = number | bigint | string | boolean | null | Uint8Array | CborValue[] | CborMap;
export type CborKey = number | string;
export type CborMap = Map<CborKey, CborValue>;

export const messageBytesMax = 65_536;
export { depthMax };

const byteOrderMark = "\ufeff";

const encoder = new Encoder({ useRecords: false, mapsAsObjects: false, variableMapSize: true, tagUint8Array: false });

/** Encodes a value as deterministic CBOR: keys sorted, integers shortest, no floats. Throws TypeError on what must not be sent. */
export function encodeCbor(value: CborValue): Uint8Array {
  // The encoder hands out views of one buffer that it reuses; callers keep what they get.
  return new Uint8Array(encoder.encode(arranged(value, 1)));
}

/**
 * Decodes deterministic CBOR. Throws {@link Refusal} on anything else. Integers beyond ±(2^53-1) come as
 * bigint, byte strings as views of the bytes given.
 */
export function decodeCbor(bytes: Uint8Array, bytesMax: number = messageBytesMax): CborValue {
  if (bytes.length > bytesMax) throw new Refusal("too-large", `${bytes.length} bytes, at most ${bytesMax}`);
  return readOnlyItem(bytes);
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

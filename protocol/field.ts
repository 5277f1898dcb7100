/** Reading the fields of a decoded map with integer keys: each getter gives the value or refuses the message, naming the field. */
import type { CborMap, CborValue } from "./deterministic-cbor.ts";
import { Refusal } from "./refusal.ts";

export function asMap(value: CborValue | undefined, name: string): CborMap {
  if (value instanceof Map) return value;
  throw absentOr(value, name, "a map");
}

export function asArray(value: CborValue | undefined, name: string, itemsMax: number): CborValue[] {
  if (!Array.isArray(value)) throw absentOr(value, name, "an array");
  if (value.length > itemsMax) throw new Refusal("bad-field", `${name}: ${value.length} items, at most ${itemsMax}`);
  return value;
}

/** An integer from min to max, both included. */
export function asInteger(value: CborValue | undefined, name: string, min: number, max: number): number {
  if (typeof value !== "number") throw absentOr(value, name, `an integer from ${min} to ${max}`);
  if (value < min || value > max) throw new Refusal("bad-field", `${name}: ${value} is not from ${min} to ${max}`);
  return value;
}

/** A byte string of exactly `length` bytes, or of `lengthMin` to `length` where that is given. */
export function asBytes(value: CborValue | undefined, name: string, length: number, lengthMin = length): Uint8Array {
  if (!(value instanceof Uint8Array)) throw absentOr(value, name, `a byte string of ${length} bytes`);
  if (value.length > length || value.length < lengthMin)
    throw new Refusal("bad-field", `${name}: ${value.length} bytes instead of ${length}`);
  return new Uint8Array(value);
}

/** A text of at most `bytesMax` bytes of UTF-8, which is what CDDL's `.size` and other languages count. */
export function asText(value: CborValue | undefined, name: string, bytesMax: number): string {
  if (typeof value !== "string") throw absentOr(value, name, "a text string");
  if (utf8Length(value) > bytesMax) throw new Refusal("bad-field", `${name}: longer than ${bytesMax} bytes`);
  return value;
}

function utf8Length(text: string): number {
  let length = 0;
  for (const character of text) {
    const point = character.codePointAt(0) as number;
    length += point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x1_0000 ? 3 : 4;
  }
  return length;
}

function absentOr(value: CborValue | undefined, name: string, wanted: string): Refusal {
  return value === undefined
    ? new Refusal("missing-field", name)
    : new Refusal("bad-field", `${name} is not ${wanted}`);
}

export const uint32Max = 0xffff_ffff;

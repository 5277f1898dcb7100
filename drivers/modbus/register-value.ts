/**
 * From the words of registers to the integer of a quantity code. Pure.
 *
 * Integers stay integers all the way: a raw value of 64 bits is scaled as a fraction of two integers and rounded once, half
 * away from zero. A float is rounded once as well.
 */
import { quantityOfCode } from "../../protocol/quantity.ts";
import { statuses } from "../../protocol/reading-status.ts";
import { type NumberPlace, type ProfileRegister, registersOf, type TextPlace } from "./profile.ts";

/** Why a register gives no value. */
export interface ValueProblem {
  /** Row status: 11 no number or "not available", 8 out of range. */
  readonly status: number;
  /** The meter says by a mark that it has no such value. */
  readonly isAbsent: boolean;
  /** `active-energy-import is out of range: 3.4e+38`. */
  readonly problem: string;
}

/**
 * Beyond these, in the code's unit, a value is wild whatever the house: it is marked, never passed on. Cumulative registers
 * have no limit here: what one may rise by is the wallet's to judge.
 */
const limitsOfUnit: Readonly<Record<string, readonly [number, number]>> = {
  mHz: [0, 100_000],
  mV: [0, 1_500_000_000],
  mA: [-1_000_000_000, 1_000_000_000],
  "1e-3": [-1_100, 1_100],
  "0.1 %": [0, 1_100],
};

/** The bits of a number, as an unsigned integer. `words` begins at the number's first register. */
export function rawOfWords({ type, wordOrder }: Pick<NumberPlace, "type" | "wordOrder">, words: Uint16Array): bigint {
  const count = registersOf(type);
  let raw = 0n;
  for (let i = 0; i < count; i++) {
    const word = words[wordOrder === "high-first" ? i : count - 1 - i]!;
    raw = (raw << 16n) | BigInt(word);
  }
  return raw;
}

/** The number that the bits are in this type: a bigint of an integer type, a number of a float type. */
export function numberOfRaw(type: NumberPlace["type"], raw: bigint): bigint | number {
  if (type === "float32" || type === "float64") {
    const view = new DataView(new ArrayBuffer(8));
    view.setBigUint64(0, raw);
    return type === "float32" ? view.getFloat32(4) : view.getFloat64(0);
  }
  return type.startsWith("u") ? raw : BigInt.asIntN(16 * registersOf(type), raw);
}

/** The integer of a register, in the unit of its code; or why there is none. `words` begins at its first register. */
export function valueOfWords(register: ProfileRegister, words: Uint16Array): number | ValueProblem {
  const raw = rawOfWords(register, words);
  if (register.absentRaws.includes(raw)) return absent(register, `0x${raw.toString(16).toUpperCase()}`);
  const value = numberOfRaw(register.type, raw);
  return typeof value === "bigint" ? integerOfBigint(register, value) : integerOfFloat(register, value);
}

/** The integer of a float's value. */
export function integerOfFloat(register: ProfileRegister, value: number): number | ValueProblem {
  if (Number.isNaN(value)) return absent(register, "NaN");
  if (!Number.isFinite(value)) {
    const problem = `expected a number for ${nameOfCode(register.code)}, got ${value}`;
    return { status: statuses.readError, isAbsent: false, problem };
  }
  const scaled = value * register.unitsPerValue;
  return bounded(register, Math.sign(scaled) * Math.round(Math.abs(scaled)), `${value}`);
}

/** The integer of an integer's value. */
function integerOfBigint(register: ProfileRegister, value: bigint): number | ValueProblem {
  const [numerator, denominator] = fractionOf(register.unitsPerValue);
  const magnitude = (value < 0n ? -value : value) * numerator;
  const rounded = (2n * magnitude + denominator) / (2n * denominator);
  return bounded(register, Number(value < 0n ? -rounded : rounded), `${value}`);
}

function bounded(register: ProfileRegister, rounded: number, shown: string): number | ValueProblem {
  const { code, sign } = register;
  const [min, max] = limitsOfUnit[quantityOfCode(code)?.unit ?? ""] ?? [-Infinity, Infinity];
  const isWild = !Number.isSafeInteger(rounded) || rounded < min || rounded > max;
  if (isWild || (sign === "unsigned" && rounded < 0))
    return { status: statuses.outOfRange, isAbsent: false, problem: `${nameOfCode(code)} is out of range: ${shown}` };
  // "+ 0" turns −0, which deterministic CBOR would write as a float, into 0.
  if (sign === "positive part") return Math.max(0, rounded) + 0;
  if (sign === "negative part") return Math.max(0, -rounded) + 0;
  return rounded + 0;
}

/** The name of a quantity, as the configuration has it. */
export function nameOfCode(code: number): string {
  return quantityOfCode(code)?.name ?? `code ${code}`;
}

function absent(register: ProfileRegister, mark: string): ValueProblem {
  const problem = `expected a number for ${nameOfCode(register.code)}, got ${mark}, which says "not available"`;
  return { status: statuses.readError, isAbsent: true, problem };
}

/** A decimal as it is written, as two integers: 0.1 is 1/10, whatever its binary digits are. */
function fractionOf(decimal: number): readonly [numerator: bigint, denominator: bigint] {
  if (Number.isInteger(decimal)) return [BigInt(decimal), 1n];
  const [mantissa = "", exponent = "0"] = `${decimal}`.split("e");
  const [whole = "", fraction = ""] = mantissa.split(".");
  const power = Number(exponent) - fraction.length;
  const digits = BigInt(whole + fraction);
  return power < 0 ? [digits, 10n ** BigInt(-power)] : [digits * 10n ** BigInt(power), 1n];
}

/** The text of registers, without what fills it up; undefined where it is empty or no text. */
export function textOfWords(
  { type, count }: Pick<TextPlace, "type" | "count">,
  words: Uint16Array,
): string | undefined {
  const codes = Array.from(words.subarray(0, count)).flatMap((word) =>
    type === "ascii" ? [word >> 8, word & 0xff] : [word & 0xff],
  );
  const end = codes.indexOf(0);
  const text = String.fromCharCode(...(end < 0 ? codes : codes.slice(0, end))).trim();
  return /^[\x20-\x7e]+$/.test(text) ? text : undefined;
}

/**
 * What a profile of a meter is: a table of registers, each citing the maker's document.
 *
 * The profiles that come with the program and those that users write have one form (cli/profile.schema.json); this is what
 * becomes of it.
 */

/** Words of 16 bits that a number takes: int16 one, int64 and float64 four. */
export type NumberType = "int16" | "uint16" | "int32" | "uint32" | "int64" | "uint64" | "float32" | "float64";
/** `ascii`: two characters a register, `ascii-low`: one, in the low byte. */
export type TextType = "ascii" | "ascii-low";
export type WordOrder = "high-first" | "low-first";

/** Where a number stands. */
export interface NumberPlace {
  readonly functionCode: 3 | 4;
  /** First register, as in the PDU (from 0). */
  readonly address: number;
  readonly type: NumberType;
  /** Which word of a number of several comes first; bytes within a word are always high first. */
  readonly wordOrder: WordOrder;
}

/** Where a text stands. */
export interface TextPlace {
  readonly functionCode: 3 | 4;
  readonly address: number;
  readonly type: TextType;
  /** Registers. */
  readonly count: number;
}

/** How one register (or several) becomes the integer of a quantity code. */
export interface ProfileRegister extends NumberPlace {
  /** Quantity code: 1 import W, 2 import Wh, … (protocol/: quantities). */
  readonly code: number;
  /** Integer units of the code per unit of the raw value: 1000 from kWh to Wh, 0.1 from tenths of W to W. */
  readonly unitsPerValue: number;
  /**
   * `signed`: as it stands. `unsigned`: below zero is out of range. `positive part`, `negative part`: max(0, v) and
   * max(0, −v) of a signed register, for codes that come as an import and an export.
   */
  readonly sign: "signed" | "unsigned" | "positive part" | "negative part";
  /** Some models of the family refuse it or do not have it: asked for by nobody, it may be left out of a reading. */
  readonly isOptional: boolean;
  /**
   * Raw values that say "not available", as unsigned integers of the type's width (0x7FFFFFFF …); a NaN of a float type is one
   * without being listed.
   */
  readonly absentRaws: readonly bigint[];
  /** The register falls to 0 after this raw value, by design of the meter. */
  readonly wrapsAfterRaw?: bigint;
  /** What the maker calls it, and where that stands. */
  readonly source: string;
}

/** A setting of the meter that changes what registers mean. Read with the first reading and again from time to time. */
export interface ProfileMode extends NumberPlace {
  /** As the maker calls it: `measurement mode`. */
  readonly name: string;
  /** What its values mean. */
  readonly meanings: readonly { readonly raw: number; readonly means: string }[];
  /** Raw values under which the codes of `affects` mean what the table says. */
  readonly accepted: readonly number[];
  /** Codes that cannot be vouched for under any other value. */
  readonly affects: readonly number[];
  /** What an owner does about it, as an instruction: `set the measurement mode to B at the meter`. */
  readonly remedy: string;
  readonly source: string;
}

/** What tells this make from others: every check has to hold. */
export type RecognitionCheck =
  | (NumberPlace & {
      /** Raw values that are codes of models; the one found names the model. */
      readonly equals: readonly { readonly raw: number; readonly model: string }[];
    })
  /** No code: the value must be plausible, such as a frequency from 45 to 65 Hz. Weaker than a code. */
  | (NumberPlace & { readonly between: readonly [number, number] })
  | (TextPlace & { readonly startsWith: readonly { readonly text: string; readonly model: string }[] });

export type Parity = "none" | "even" | "odd";

export interface MeterProfile {
  /** `registers`: the table below. `sunspec`: models found on the device, registers is empty. */
  readonly kind: "registers" | "sunspec";
  /** Name in the configuration: `eastron-sdm630`. */
  readonly id: string;
  readonly make: string;
  /** Models that it is for, the first as the title. */
  readonly models: readonly string[];
  /** `maker`: the maker's own document was read; `secondary`: what others wrote of the meter, which documents names. */
  readonly evidence: "maker" | "secondary";
  /** The documents that the table was made from; one that was not the maker's says so. */
  readonly documents: readonly string[];
  /** What an owner should know: quirks, settings. One sentence each. */
  readonly notes: readonly string[];
  /** Which lines the meter is known to hang on. */
  readonly lines: readonly ("rtu" | "tcp")[];
  readonly registers: readonly ProfileRegister[];
  readonly modes: readonly ProfileMode[];
  /** Codes that it can give, ascending. */
  readonly codes: readonly number[];
  /** Codes read when the configuration names none, ascending. */
  readonly defaultCodes: readonly number[];
  readonly maxRegistersPerRequest: number;
  /** Some models of the family refuse long requests: what all of them answer. */
  readonly fallbackRegistersPerRequest?: number;
  /** Addresses and counts must be multiples of this. */
  readonly countStep: number;
  /** Least pause before each request; 0: t3.5 alone. */
  readonly gapMs: number;
  readonly timeoutMs: number;
  /** Longest answer time ever expected: how long the line rests after a failure. */
  readonly slowestAnswerMs: number;
  /** First of a stretch of at least 20 registers that every such meter has: read when the line must be proven clean. */
  readonly probe: { readonly functionCode: 3 | 4; readonly address: number };
  /** Where the serial number stands; several places are tried in turn. */
  readonly serialNumbers: readonly (NumberPlace | TextPlace)[];
  /** Checks for `ecp scan`; empty where the make cannot be told. */
  readonly recognition: readonly RecognitionCheck[];
  /** Largest step of its energy registers in Wh, where known: what plausibility has to allow for. */
  readonly energyStepWh?: number;
  /** Settings of a meter as it leaves the factory, and the others that it can have. The first of each list is the factory's. */
  readonly factory: {
    readonly unit: number;
    readonly bauds: readonly [number, ...number[]];
    readonly parities: readonly [Parity, ...Parity[]];
    readonly stopBits: 1 | 2;
  };
}

/** Registers that a value of this type takes. */
export function registersOf(type: NumberType): 1 | 2 | 4 {
  if (type === "int16" || type === "uint16") return 1;
  return type === "int64" || type === "uint64" || type === "float64" ? 4 : 2;
}

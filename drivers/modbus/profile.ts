/** What a profile of a meter is: a table of registers, each citing the maker's document. */

/** How one register (or pair) becomes the integer of a quantity code. */
export interface ProfileRegister {
  /** Quantity code: 1 import W, 2 import Wh, … (protocol/: quantities). */
  readonly code: number;
  readonly functionCode: 3 | 4;
  /** First register, as in the PDU (from 0). */
  readonly address: number;
  /** IEEE 754 single, high word first. */
  readonly type: "float32";
  /** Integer units of the code per unit of the register: 1000 from kWh to Wh, from V to mV. */
  readonly unitsPerValue: number;
  /**
   * `signed`: as it stands. `unsigned`: below zero is out of range. `positive part`, `negative part`: max(0, v) and
   * max(0, −v) of a signed register, for codes that come as an import and an export.
   */
  readonly sign: "signed" | "unsigned" | "positive part" | "negative part";
  /** What the maker calls it, and where that stands. */
  readonly source: string;
}

export interface MeterProfile {
  /** Name in the configuration: `eastron-sdm630`. */
  readonly id: string;
  readonly make: string;
  readonly model: string;
  /** The maker's document that the table was made from. */
  readonly document: string;
  readonly registers: readonly ProfileRegister[];
  /** Codes read when the configuration names none, ascending. */
  readonly defaultCodes: readonly number[];
  readonly maxRegistersPerRequest: number;
  /** Addresses and counts must be multiples of this. */
  readonly countStep: number;
  /** Least pause before each request. */
  readonly gapMs: number;
  readonly timeoutMs: number;
  /** Longest answer time ever expected: how long the line rests after a failure. */
  readonly slowestAnswerMs: number;
  /** First of a stretch of at least 20 registers that every such meter has: read when the line must be proven clean. */
  readonly probe: { readonly functionCode: 3 | 4; readonly address: number };
  /** Where the serial number stands. */
  readonly serialNumber?: { readonly functionCode: 3 | 4; readonly address: number; readonly type: "uint32" };
  /** Settings of a meter as it leaves the factory. */
  readonly factory: { readonly unit: number; readonly baud: number; readonly parity: "none" | "even" | "odd" };
}

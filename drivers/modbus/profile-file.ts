/**
 * The form in which profiles are written, JSON or YAML alike, and what a profile is made of.
 *
 * cli/profile.schema.json says the form; here is what a schema cannot say: that quantities, units, types and addresses fit
 * together. Pure.
 */
import { type Quantity, quantityOfName } from "../../protocol/quantity.ts";
import {
  type MeterProfile,
  type NumberPlace,
  type NumberType,
  type Parity,
  type ProfileRegister,
  type RecognitionCheck,
  registersOf,
  type TextPlace,
  type TextType,
  type WordOrder,
} from "./profile.ts";

/** An integer, or hexadecimal digits after 0x. */
type FileInteger = number | string;

interface FileNumberPlace {
  function_code?: 3 | 4;
  address: FileInteger;
  type?: NumberType;
  word_order?: WordOrder;
}

interface FileTextPlace {
  function_code?: 3 | 4;
  address: FileInteger;
  type: TextType;
  count: number;
}

interface FileRegister extends FileNumberPlace {
  quantity: string;
  unit?: string;
  scale?: number;
  sign?: "signed" | "unsigned" | "positive-part" | "negative-part";
  optional?: boolean;
  absent?: FileInteger[];
  wraps_after?: FileInteger;
  source: string;
}

interface FileMode extends FileNumberPlace {
  name: string;
  meanings: { raw: FileInteger; means: string }[];
  accepted: FileInteger[];
  affects: string[];
  remedy: string;
  source: string;
}

type FileCheck = (FileNumberPlace | FileTextPlace) & {
  equals?: { raw: FileInteger; model: string }[];
  between?: [number, number];
  starts_with?: { text: string; model: string }[];
};

/** A profile's file, parsed; its form is that of cli/profile.schema.json, which fills in no defaults. */
export interface ProfileFile {
  id: string;
  make: string;
  models: string[];
  evidence: "maker" | "secondary";
  documents: string[];
  notes?: string[];
  lines: ("rtu" | "tcp")[];
  request: {
    registers_max: number;
    registers_fallback?: number;
    multiple_of?: number;
    gap_ms?: number;
    timeout_ms?: number;
    slowest_answer_ms?: number;
  };
  probe: { function_code?: 3 | 4; address: FileInteger };
  defaults: { function_code: 3 | 4; type: NumberType; word_order?: WordOrder };
  registers: FileRegister[];
  default_quantities: string[];
  modes?: FileMode[];
  serial_numbers?: (FileNumberPlace | FileTextPlace)[];
  recognition?: FileCheck[];
  energy_step_wh?: number;
  factory: { unit: number; bauds: number[]; parities: Parity[]; stop_bits?: 1 | 2 };
}

/** Something in a profile's file that does not fit together; `path` leads to it. */
export class ProfileFileError extends Error {
  override readonly name = "ProfileFileError";
  readonly path: readonly (string | number)[];
  readonly expected: string;
  readonly got: string;

  constructor(path: readonly (string | number)[], expected: string, got: string) {
    super(`${path.join(".")}: expected ${expected}, got ${got}`);
    this.path = path;
    this.expected = expected;
    this.got = got;
  }
}

type Path = readonly (string | number)[];

/** Wire units of a quantity that one unit of the file is. */
const unitsOfWire: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  W: { W: 1, kW: 1e3, MW: 1e6 },
  Wh: { Wh: 1, kWh: 1e3, MWh: 1e6 },
  var: { var: 1, kvar: 1e3, Mvar: 1e6 },
  varh: { varh: 1, kvarh: 1e3, Mvarh: 1e6 },
  VA: { VA: 1, kVA: 1e3, MVA: 1e6 },
  VAh: { VAh: 1, kVAh: 1e3, MVAh: 1e6 },
  mV: { mV: 1, V: 1e3, kV: 1e6 },
  mA: { mA: 1, A: 1e3 },
  mHz: { mHz: 1, Hz: 1e3 },
  "1e-3": { "1": 1e3, "%": 10 },
  "0.1 %": { "%": 10, "1": 1e3 },
  "1": { "1": 1 },
  enum: { "1": 1 },
};

/** Quantities that can be below zero. */
const signedCodes: ReadonlySet<number> = new Set([13, 17, 26, 27, 28, 29]);

/** Codes whose register steps decide what plausibility has to allow for. */
const energyCodes: ReadonlySet<number> = new Set([2, 4]);

/**
 * The profile that a file says.
 * @throws ProfileFileError for the first thing that does not fit together
 */
export function meterProfileOf(file: ProfileFile): MeterProfile {
  const { request, defaults } = file;
  const limit = Math.min(request.registers_max, request.registers_fallback ?? request.registers_max);
  const numberPlace = (place: FileNumberPlace, path: Path): NumberPlace => {
    const type = place.type ?? defaults.type;
    checkCount(registersOf(type), limit, [...path, "type"], type);
    return {
      functionCode: place.function_code ?? defaults.function_code,
      address: addressOf(place.address, registersOf(type), [...path, "address"]),
      type,
      wordOrder: place.word_order ?? defaults.word_order ?? "high-first",
    };
  };
  const textPlace = (place: FileTextPlace, path: Path): TextPlace => {
    checkCount(place.count, limit, [...path, "count"], `${place.count}`);
    return {
      functionCode: place.function_code ?? defaults.function_code,
      address: addressOf(place.address, place.count, [...path, "address"]),
      type: place.type,
      count: place.count,
    };
  };
  file.registers.forEach(({ quantity }, index) => {
    if (file.registers.findIndex((other) => other.quantity === quantity) !== index)
      throw new ProfileFileError(["registers", index, "quantity"], "each quantity once", `${quantity} again`);
  });
  const registers = file.registers
    .map((register, index) => {
      const path = ["registers", index];
      return registerOf(register, numberPlace(register, path), path);
    })
    .sort((a, b) => a.code - b.code);
  const codes = registers.map(({ code }) => code);
  const codeIn = (name: string, path: Path): number => {
    const code = quantityOf(name, path).code;
    if (codes.includes(code)) return code;
    throw new ProfileFileError(path, "a quantity that 'registers' has", name);
  };
  const defaultCodes = file.default_quantities.map((name, index) => codeIn(name, ["default_quantities", index]));
  const timeoutMs = request.timeout_ms ?? 500;
  const energyStepWh = file.energy_step_wh ?? stepOf(registers);
  return {
    kind: "registers",
    id: file.id,
    make: file.make,
    models: file.models,
    evidence: file.evidence,
    documents: file.documents,
    notes: file.notes ?? [],
    lines: file.lines,
    registers,
    modes: (file.modes ?? []).map((mode, index) => {
      const path = ["modes", index];
      const place = numberPlace(mode, path);
      const raw = (value: FileInteger, inside: Path): number => Number(rawOf(value, place.type, inside));
      return {
        ...place,
        name: mode.name,
        meanings: mode.meanings.map((item, n) => ({ ...item, raw: raw(item.raw, [...path, "meanings", n, "raw"]) })),
        accepted: mode.accepted.map((value, n) => raw(value, [...path, "accepted", n])),
        affects: mode.affects.map((name, n) => codeIn(name, [...path, "affects", n])),
        remedy: mode.remedy,
        source: mode.source,
      };
    }),
    codes,
    defaultCodes: defaultCodes.sort((a, b) => a - b),
    maxRegistersPerRequest: request.registers_max,
    ...(request.registers_fallback && { fallbackRegistersPerRequest: request.registers_fallback }),
    countStep: request.multiple_of ?? 1,
    gapMs: request.gap_ms ?? 0,
    timeoutMs,
    slowestAnswerMs: request.slowest_answer_ms ?? 2 * timeoutMs,
    probe: {
      functionCode: file.probe.function_code ?? defaults.function_code,
      address: addressOf(file.probe.address, 20, ["probe", "address"]),
    },
    serialNumbers: (file.serial_numbers ?? []).map((place, index) => {
      const path = ["serial_numbers", index];
      return isText(place, path) ? textPlace(place, path) : numberPlace(place, path);
    }),
    recognition: (file.recognition ?? []).map((check, index): RecognitionCheck => {
      const path = ["recognition", index];
      const { equals, between, starts_with: startsWith } = check;
      if ([equals, between, startsWith].filter((item) => item !== undefined).length !== 1)
        throw new ProfileFileError(path, "one of equals, between and starts_with", "none, or several");
      if (isText(check, path)) {
        if (startsWith !== undefined) return { ...textPlace(check, path), startsWith };
        throw new ProfileFileError(path, "starts_with beside a text", "a number to compare with");
      }
      const place = numberPlace(check, path);
      if (between !== undefined) return { ...place, between };
      if (equals === undefined) throw new ProfileFileError(path, "equals or between beside a number", "starts_with");
      const raw = (value: FileInteger, n: number): number =>
        Number(rawOf(value, place.type, [...path, "equals", n, "raw"]));
      return { ...place, equals: equals.map((item, n) => ({ ...item, raw: raw(item.raw, n) })) };
    }),
    ...(energyStepWh !== undefined && { energyStepWh }),
    factory: {
      unit: file.factory.unit,
      bauds: file.factory.bauds as [number, ...number[]],
      parities: file.factory.parities as [Parity, ...Parity[]],
      stopBits: file.factory.stop_bits ?? 1,
    },
  };
}

function registerOf(register: FileRegister, place: NumberPlace, path: Path): ProfileRegister {
  const quantity = quantityOf(register.quantity, [...path, "quantity"]);
  const sign = register.sign ?? (signedCodes.has(quantity.code) ? "signed" : "unsigned");
  const table = `${place.functionCode === 3 ? "holding" : "input"} register 0x${hex(place.address)}`;
  const wrap = register.wraps_after;
  return {
    ...place,
    code: quantity.code,
    unitsPerValue: exactProduct(register.scale ?? 1, unitOf(quantity, register.unit, [...path, "unit"])),
    sign: sign === "positive-part" ? "positive part" : sign === "negative-part" ? "negative part" : sign,
    isOptional: register.optional ?? false,
    absentRaws: (register.absent ?? []).map((raw, n) => rawOf(raw, place.type, [...path, "absent", n])),
    ...(wrap !== undefined && { wrapsAfterRaw: rawOf(wrap, place.type, [...path, "wraps_after"]) }),
    source: `${table}: ${register.source}${register.unit ? `, ${register.unit}` : ""}`,
  };
}

function quantityOf(name: string, path: Path): Quantity {
  const quantity = quantityOfName(name);
  if (quantity !== undefined) return quantity;
  throw new ProfileFileError(path, "the name of a quantity (protocol/README.md lists them)", name);
}

function unitOf(quantity: Quantity, unit: string | undefined, path: Path): number {
  const units = unitsOfWire[quantity.unit] ?? {};
  const factor = units[unit ?? "1"];
  if (factor !== undefined) return factor;
  throw new ProfileFileError(path, `a unit of ${quantity.name}: ${Object.keys(units).join(", ")}`, unit ?? "none");
}

/** 0.007 × 1000 is 7: the product of two decimals, without the last digits that binary arithmetic adds. */
function exactProduct(scale: number, factor: number): number {
  return Number((scale * factor).toPrecision(15));
}

/** Largest step of energy registers that are integers; a float's step depends on its value, so it is not known. */
function stepOf(registers: readonly ProfileRegister[]): number | undefined {
  const energies = registers.filter(({ code }) => energyCodes.has(code));
  if (energies.length === 0 || energies.some(({ type }) => type.startsWith("float"))) return undefined;
  return Math.ceil(Math.max(...energies.map(({ unitsPerValue }) => unitsPerValue)));
}

function addressOf(value: FileInteger, registers: number, path: Path): number {
  const address = Number(value);
  if (Number.isInteger(address) && address >= 0 && address + registers <= 0x10000) return address;
  throw new ProfileFileError(path, `an address from 0 to 0x${hex(0x10000 - registers)}`, String(value));
}

/** A raw value as the unsigned integer of its type's width; a negative one is taken as two's complement. */
function rawOf(value: FileInteger, type: NumberType, path: Path): bigint {
  const bits = 16 * registersOf(type);
  if (typeof value === "number" && !Number.isSafeInteger(value))
    throw new ProfileFileError(path, "a raw value of more than 53 bits as a text, in quotes", String(value));
  const raw = BigInt(value);
  if (raw < 2n ** BigInt(bits) && raw >= -(2n ** BigInt(bits - 1))) return BigInt.asUintN(bits, raw);
  throw new ProfileFileError(path, `a raw value of ${bits} bits`, String(value));
}

function checkCount(count: number, limit: number, path: Path, got: string): void {
  if (count > limit) throw new ProfileFileError(path, `no more than the ${limit} registers of one request`, got);
}

function isText(place: FileNumberPlace | FileTextPlace, path: Path): place is FileTextPlace {
  const isTextType = place.type === "ascii" || place.type === "ascii-low";
  if (isTextType && !("count" in place)) throw new ProfileFileError(path, "a count of registers beside a text", "none");
  return isTextType;
}

function hex(value: number): string {
  return value.toString(16).toUpperCase().padStart(4, "0");
}

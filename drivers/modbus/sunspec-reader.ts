/**
 * One reading of a SunSpec device: its models are found once, then each is read whole, id, values and scale factors in one
 * answer. Scale factors change while a device runs, so a value and its factor are never taken from two answers.
 */
import { quantityOfCode } from "../../protocol/quantity.ts";
import { statuses } from "../../protocol/reading-status.ts";
import { DriverError } from "../failure.ts";
import type { ModbusLine } from "./line.ts";
import { defaultCodesOf, type MeterReading, statusOfError } from "./meter-reader.ts";
import { readPatiently } from "./patient-read.ts";
import { type MeterProfile, registersOf } from "./profile.ts";
import { nameOfCode, textOfWords, type ValueProblem, valueOfWords } from "./register-value.ts";
import { mayPass } from "./span-reader.ts";
import { ChainError, type FoundModel, findSunspecModels, sunspecBases } from "./sunspec-chain.ts";
import { derPortPoints, derPorts, notImplemented, type SunspecPoint, sunspecModels } from "./sunspec-models.ts";

const functionCode = 3 as const;
const commonId = 1;
/** Model 1: the serial number, 16 registers from its id on. */
const serialOffset = 50;
const serialRegisters = 16;
/** Powers of ten that the specification allows. */
const scaleMax = 10;
const scaleNotImplemented = 0x8000;
/** A chain that ended with a refusal and not with its end mark is believed for so long. */
const cutChainBelievedMs = 15 * 60_000;

/** A reading that cannot be: its status, and one sentence. Never leaves this file. */
class Unreadable extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** A SunSpec device on a line; it remembers where its models stand. */
export class SunspecReader {
  readonly #line: ModbusLine;
  readonly #profile: MeterProfile;
  readonly #unit: number;
  #models: readonly FoundModel[] | undefined;
  #openings = 0;
  /** Of the line's nowMs(): the models are looked for again after it. */
  #believedUntilMs = Number.POSITIVE_INFINITY;
  /** Where "SunS" was found: model 1 after it has 66 registers, which is enough to prove a line clean by. */
  #base: number | undefined;

  constructor(line: ModbusLine, profile: MeterProfile, unit: number) {
    this.#line = line;
    this.#profile = profile;
    this.#unit = unit;
  }

  /**
   * One reading. A bus that fails gives a reading with a status, never an exception.
   * @throws RangeError for a code that the profile does not have
   */
  async read(
    options: { codes?: readonly number[]; only?: readonly number[]; deadlineMs?: number } = {},
  ): Promise<MeterReading> {
    const codes = options.codes ?? defaultCodesOf(this.#profile, options.only);
    const unknown = codes.find((code) => !this.#profile.codes.includes(code));
    if (unknown !== undefined) throw new RangeError(`profile ${this.#profile.id} cannot give ${nameOfCode(unknown)}`);
    const startBeforeMs = this.#line.nowMs() + (options.deadlineMs ?? 5000);
    try {
      const values = await this.#values(codes, startBeforeMs);
      const missing = codes.find((code) => !values.has(code));
      if (missing !== undefined && options.codes !== undefined)
        throw new Unreadable(statuses.notFound, `${this.#where}: no model of the device gives ${nameOfCode(missing)}.`);
      if (values.size === 0)
        throw new Unreadable(
          statuses.incompatible,
          `${this.#where}: no model of the device gives what ${this.#profile.id} reads.`,
        );
      const given = codes.filter((code) => values.has(code));
      return { codes: given, values: given.map((code) => values.get(code) as number), status: statuses.good };
    } catch (error) {
      const status =
        error instanceof Unreadable ? error.status : error instanceof DriverError ? statusOfError(error) : undefined;
      if (status === undefined) throw error;
      return { codes: [...codes], values: codes.map(() => 0), status, detail: (error as Error).message };
    }
  }

  /** The serial number of model 1; undefined where it has none. @throws DriverError */
  async serialNumber(): Promise<string | undefined> {
    const startBeforeMs = this.#line.nowMs() + 5000;
    const models = await this.#find(startBeforeMs).catch((error: unknown) => {
      if (error instanceof Unreadable) return [];
      throw error;
    });
    const common = models.find(({ id }) => id === commonId);
    if (common === undefined || common.registers < serialOffset + serialRegisters) return undefined;
    const words = await this.#words(common.address + serialOffset, serialRegisters, startBeforeMs);
    return textOfWords({ type: "ascii", count: serialRegisters }, words);
  }

  get #where(): string {
    return `${this.#line.description}, unit ${this.#unit}`;
  }

  #words(address: number, count: number, startBeforeMs: number): Promise<Uint16Array> {
    const { gapMs, timeoutMs, slowestAnswerMs } = this.#profile;
    const unit = this.#unit;
    const probe = this.#base === undefined ? {} : { probe: { functionCode, address: this.#base } };
    return readPatiently(this.#line, {
      ...probe,
      ...{ unit, functionCode, address, count, gapMs, timeoutMs, slowestAnswerMs, startBeforeMs },
    });
  }

  /** The device's models, found anew after the line was opened anew. */
  async #find(startBeforeMs: number): Promise<readonly FoundModel[]> {
    const isBelieved = this.#openings === this.#line.reopenings && this.#line.nowMs() < this.#believedUntilMs;
    if (this.#models !== undefined && isBelieved) return this.#models;
    this.#openings = this.#line.reopenings;
    this.#base = undefined;
    this.#models = undefined;
    const chain = await findSunspecModels((address, count, base) => {
      this.#base = base;
      return this.#words(address, count, startBeforeMs);
    }).catch((error: unknown) => {
      if (!(error instanceof ChainError)) throw error;
      throw new Unreadable(statuses.readError, `${this.#where}: ${error.message}.`);
    });
    if (chain === undefined)
      throw new Unreadable(
        statuses.incompatible,
        `${this.#where}: expected "SunS" at register ${sunspecBases.join(", ")}, found it nowhere. Switch SunSpec on at the device, or choose another profile.`,
      );
    if (chain.cutBy === undefined) this.#believedUntilMs = Number.POSITIVE_INFINITY;
    else this.#believedUntilMs = mayPass(chain.cutBy) ? 0 : this.#line.nowMs() + cutChainBelievedMs;
    this.#models = chain.models;
    return chain.models;
  }

  async #values(codes: readonly number[], startBeforeMs: number): Promise<Map<number, number>> {
    const models = await this.#find(startBeforeMs);
    const values = new Map<number, number>();
    for (const { ids, points } of sunspecModels[this.#profile.id] ?? []) {
      const found = models.find(({ id }) => ids.includes(id));
      const wanted = points.filter(({ code }) => codes.includes(code) && !values.has(code));
      if (found === undefined || wanted.length === 0) continue;
      const words = await this.#model(found, wanted, startBeforeMs);
      for (const point of found.id === derPorts.model ? portsOf(words, wanted) : wanted) {
        const value = valueOfPoint(point, words);
        if (value === undefined) continue;
        if (typeof value !== "number") throw new Unreadable(value.status, `${this.#where}: ${value.problem}.`);
        values.set(point.code, value);
      }
    }
    return values;
  }

  /** The words of a model from its id on, as far as the wanted points and their factors reach: one request. */
  async #model(found: FoundModel, wanted: readonly SunspecPoint[], startBeforeMs: number): Promise<Uint16Array> {
    const reach = wanted.map(({ offsets, type, scaleOffset = 0 }) =>
      Math.max(scaleOffset + 1, ...offsets.map((offset) => offset + registersOf(type))),
    );
    const all = found.id === derPorts.model ? found.registers : Math.max(...reach);
    const count = Math.min(all, found.registers, this.#profile.maxRegistersPerRequest);
    const words = await this.#words(found.address, count, startBeforeMs);
    if (words[0] === found.id && words[1] === found.registers - 2) return words;
    this.#models = undefined;
    throw new Unreadable(
      statuses.incompatible,
      `${this.#where}: expected model ${found.id} at register ${found.address}, got ${words[0]}. The models are looked for again.`,
    );
  }
}

/** The wanted points of all storage ports; none where there is no such port, or not all ports came in the answer. */
function portsOf(words: Uint16Array, wanted: readonly SunspecPoint[]): SunspecPoint[] {
  const count = words[derPorts.countOffset] ?? 0;
  const ports = Array.from({ length: count }, (_, port) => derPorts.firstOffset + port * derPorts.registers);
  if (ports.some((port) => port + derPorts.registers > words.length)) return [];
  const storage = ports.filter((port) => words[port] === derPorts.storageType);
  if (storage.length === 0) return [];
  return derPortPoints(storage).filter(({ code }) => wanted.some((point) => point.code === code));
}

/** The integer of a point; undefined where the device does not implement it, or its model is too short for it. */
function valueOfPoint(point: SunspecPoint, words: Uint16Array): number | ValueProblem | undefined {
  const { code, offsets, type, scaleOffset, unitsPerValue, sign, name } = point;
  const scale = scaleOffset === undefined ? 0 : words[scaleOffset];
  if (scale === undefined || (scaleOffset !== undefined && scale === scaleNotImplemented)) return undefined;
  const exponent = (scale << 16) >> 16;
  if (Math.abs(exponent) > scaleMax)
    return { status: statuses.readError, isAbsent: false, problem: `the scale factor of ${name} is ${exponent}` };
  const register = {
    ...({ code, functionCode, address: 0, type, wordOrder: "high-first", isOptional: true, source: name } as const),
    sign: unitsPerValue < 0 ? "signed" : sign,
    // A decimal, so that 10^−3 is a thousandth and not the double next to it.
    unitsPerValue: Number(`${Math.abs(unitsPerValue)}e${exponent}`),
    // An accumulator of 32 bits (acc32) has no such mark: all ones is its largest value.
    absentRaws: type === "uint32" && quantityOfCode(code)?.cumulative ? [] : notImplemented(type),
  } as const;
  let sum = 0;
  for (const offset of offsets) {
    const value =
      offset + registersOf(type) > words.length ? undefined : valueOfWords(register, words.subarray(offset));
    if (value === undefined || (typeof value !== "number" && value.isAbsent)) return undefined;
    if (typeof value !== "number") return value;
    sum += value;
  }
  if (!Number.isSafeInteger(sum))
    return { status: statuses.outOfRange, isAbsent: false, problem: `${name} is out of range` };
  return (unitsPerValue < 0 ? -sum : sum) + 0;
}

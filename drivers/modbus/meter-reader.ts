/**
 * One reading of one meter: blocks of registers in, integers with fixed units out. No float leaves the drivers.
 *
 * A bus that fails gives a reading with a status, never an exception and never a guess: silence is not zero.
 */
import { statuses } from "../../protocol/reading-status.ts";
import { DriverError } from "../failure.ts";
import type { ModbusLine } from "./line.ts";
import { MeterMemory, type SpoiltCode } from "./meter-memory.ts";
import { readPatiently } from "./patient-read.ts";
import {
  type MeterProfile,
  type NumberPlace,
  type ProfileMode,
  type ProfileRegister,
  registersOf,
  type TextPlace,
} from "./profile.ts";
import { nameOfCode, numberOfRaw, rawOfWords, textOfWords, valueOfWords } from "./register-value.ts";
import { mayPass, readSpans, type SpanReading, type SpanReadOptions } from "./span-reader.ts";

export interface MeterReading {
  /** Quantity codes in the order asked for; without those that nobody asked for by name and this meter does not have. */
  readonly codes: readonly number[];
  /** One safe integer a code, in the code's unit; all 0 unless status is 0. */
  readonly values: readonly number[];
  /** 0 ok, 2 time-out, 3 port or connection lost, 4 no such register, 7 not this model, 8 out of range, 11 read error. */
  readonly status: number;
  /** One sentence on what went wrong; with status 0, on what was left out because of a setting of the meter. */
  readonly detail?: string;
}

export interface MeterReadOptions {
  readonly profile: MeterProfile;
  readonly unit: number;
  /** Codes of the profile, each of which must come. Default: the profile's defaultCodes, less those that the meter lacks. */
  readonly codes?: readonly number[];
  /** Without `codes`: of the default ones these alone. */
  readonly only?: readonly number[];
  /** No request of this reading is begun later than this after the call. Default 5000. */
  readonly deadlineMs?: number;
  /** Instead of the profile's. */
  readonly timeoutMs?: number;
  /** What was learned of this meter. Default: nothing. */
  readonly memory?: MeterMemory;
}

/** A code asked for, with where it stands. */
interface Wanted {
  readonly register: ProfileRegister;
  /** The configuration names it, or every meter of this profile has it. */
  readonly isNamed: boolean;
}

/**
 * Reads a meter.
 * @throws RangeError when a code is not in the profile, DriverError `invalid-argument` or `function-refused`: errors of
 *   the program, not of the bus
 */
export async function readMeter(line: ModbusLine, options: MeterReadOptions): Promise<MeterReading> {
  const { profile } = options;
  const memory = options.memory ?? new MeterMemory(profile);
  const codes = options.codes ?? defaultCodesOf(profile, options.only);
  const all = codes.map((code) => ({ register: registerOf(profile, code), isNamed: options.codes !== undefined }));
  const request = spanOptions(line, options, memory);
  try {
    if (memory.isDue(line.nowMs(), line.reopenings)) memory.spoilt = await readModes(line, profile, request);
    const { kept, notes } = withoutSpoilt(all, memory);
    const wanted = kept.filter(({ register, isNamed }) => isNamed || memory.missing(spanOf(register)) === undefined);
    refuseMissing(wanted, memory);
    const spans = wanted.map(({ register }) => spanOf(register));
    const reading = await readSpans(line, spans, request);
    const values = valuesOf(wanted, reading, memory, `${line.description}, unit ${options.unit}`);
    if (values.length === 0)
      throw new Unreadable(statuses.incompatible, notes.join(" ") || "the meter has none of these");
    return {
      codes: values.map(([code]) => code),
      values: values.map(([, value]) => value),
      status: statuses.good,
      ...(notes.length > 0 && { detail: notes.join(" ") }),
    };
  } catch (error) {
    const status = error instanceof Unreadable ? error.status : statusOfThrown(error);
    if (status === undefined) throw error;
    return { codes: [...codes], values: codes.map(() => 0), status, detail: (error as Error).message };
  }
}

/** The codes read where none are asked for by name. */
export function defaultCodesOf(
  { defaultCodes }: MeterProfile,
  only: readonly number[] = defaultCodes,
): readonly number[] {
  return defaultCodes.filter((code) => only.includes(code));
}

/** A reading that cannot be: its status, and one sentence. Never leaves this file. */
class Unreadable extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

function spanOptions(line: ModbusLine, options: MeterReadOptions, memory: MeterMemory): SpanReadOptions {
  const { profile, unit, timeoutMs = profile.timeoutMs, deadlineMs = 5000 } = options;
  return { profile, unit, timeoutMs, startBeforeMs: line.nowMs() + deadlineMs, memory };
}

/** The codes that the meter's settings spoil. A setting that the meter does not have spoils nothing. */
async function readModes(line: ModbusLine, profile: MeterProfile, request: SpanReadOptions): Promise<SpoiltCode[]> {
  const spoilt: SpoiltCode[] = [];
  for (const mode of profile.modes) {
    const reading = await readSpans(line, [spanOf(mode)], request);
    const refusal = reading.refusal(spanOf(mode));
    if (refusal !== undefined && mayPass(refusal)) throw refusal;
    const words = reading.words(spanOf(mode));
    const raw = words === undefined ? undefined : Number(rawOfWords(mode, words));
    if (raw === undefined || mode.accepted.includes(raw)) continue;
    const detail = modeDetail(mode, raw);
    spoilt.push(...mode.affects.map((code) => ({ code, detail })));
  }
  return spoilt;
}

function modeDetail(mode: ProfileMode, raw: number): string {
  const means = mode.meanings.find((meaning) => meaning.raw === raw)?.means ?? "which the profile does not know";
  return `The meter's ${mode.name} is ${raw} (${means}): ${mode.remedy}.`;
}

/** What is left when codes go that a setting spoils; those asked for by name make the reading impossible. */
function withoutSpoilt(all: readonly Wanted[], memory: MeterMemory): { kept: readonly Wanted[]; notes: string[] } {
  const spoiltOf = (code: number): SpoiltCode | undefined => memory.spoilt.find((spoilt) => spoilt.code === code);
  const named = all.find(({ register, isNamed }) => isNamed && spoiltOf(register.code) !== undefined);
  if (named !== undefined)
    throw new Unreadable(statuses.incompatible, spoiltOf(named.register.code)?.detail ?? "a setting of the meter");
  const kept = all.filter(({ register }) => spoiltOf(register.code) === undefined);
  const left = all
    .filter((wanted) => !kept.includes(wanted))
    .map(({ register }) => spoiltOf(register.code)?.detail ?? "");
  return { kept, notes: [...new Set(left)] };
}

function refuseMissing(wanted: readonly Wanted[], memory: MeterMemory): void {
  for (const { register } of wanted) {
    const detail = memory.missing(spanOf(register));
    if (detail !== undefined) throw new Unreadable(statuses.notFound, detail);
  }
}

/** Codes with values. What an optional register lacks is left out unless it was asked for by name. */
function valuesOf(
  wanted: readonly Wanted[],
  reading: SpanReading,
  memory: MeterMemory,
  where: string,
): (readonly [code: number, value: number])[] {
  const values: (readonly [number, number])[] = [];
  for (const { register, isNamed } of wanted) {
    const span = spanOf(register);
    const words = reading.words(span);
    if (words === undefined) {
      const refusal = reading.refusal(span) as DriverError;
      if (mayPass(refusal)) {
        if (isNamed || !register.isOptional) throw refusal;
        continue;
      }
      const { message } = refusal;
      if (!isNamed && !register.isOptional) throw new Unreadable(statuses.incompatible, message);
      memory.addMissing(span, message);
      if (isNamed) throw new Unreadable(statuses.notFound, message);
      continue;
    }
    const value = valueOfWords(register, words);
    if (typeof value === "number") {
      values.push([register.code, value]);
      continue;
    }
    if (value.isAbsent && register.isOptional && !isNamed) continue;
    const status = value.isAbsent && register.isOptional ? statuses.notFound : value.status;
    throw new Unreadable(status, `${where}: ${value.problem} (${register.source})`);
  }
  return values;
}

/**
 * The meter's serial number, decimal digits or the text that it gives; undefined when the profile names no register for it
 * or the meter refuses them all (older models).
 * @throws DriverError for everything else that fails
 */
export async function readSerialNumber(
  line: ModbusLine,
  options: Pick<MeterReadOptions, "profile" | "unit">,
): Promise<string | undefined> {
  const { profile, unit } = options;
  const { gapMs, timeoutMs, slowestAnswerMs, countStep, probe } = profile;
  for (const place of profile.serialNumbers) {
    const { functionCode, address, count } = spanOf(place);
    try {
      const read = { unit, functionCode, address, count, gapMs, timeoutMs, slowestAnswerMs, countStep, probe };
      const serial = serialOf(place, await readPatiently(line, read));
      if (serial !== undefined) return serial;
    } catch (error) {
      if (!(error instanceof DriverError) || error.code !== "modbus-exception") throw error;
    }
  }
  return undefined;
}

function serialOf(place: NumberPlace | TextPlace, words: Uint16Array): string | undefined {
  if (isText(place)) return textOfWords(place, words);
  return `${numberOfRaw(place.type, rawOfWords(place, words))}`;
}

function isText(place: NumberPlace | TextPlace): place is TextPlace {
  return place.type === "ascii" || place.type === "ascii-low";
}

/** The registers of a place. */
function spanOf(place: NumberPlace | TextPlace): { functionCode: 3 | 4; address: number; count: number } {
  const { functionCode, address } = place;
  return { functionCode, address, count: isText(place) ? place.count : registersOf(place.type) };
}

function statusOfThrown(error: unknown): number | undefined {
  return error instanceof DriverError ? statusOfError(error) : undefined;
}

/** Status of a reading that failed with this error; undefined for an error of the program. */
export function statusOfError(error: DriverError): number | undefined {
  switch (error.code) {
    case "invalid-argument":
    case "function-refused":
      return undefined;
    case "timeout":
    case "line-overloaded":
      return statuses.timeout;
    case "crc-error":
    case "wrong-unit":
    case "wrong-reply":
      return statuses.readError;
    case "modbus-exception":
      return statusOfException(error.exceptionCode ?? 0);
    default:
      return statuses.disconnected;
  }
}

/** 1–3: the meter does not have this function, register or count; 10, 11: a gateway could not reach it. */
function statusOfException(exceptionCode: number): number {
  if (exceptionCode >= 1 && exceptionCode <= 3) return statuses.incompatible;
  if (exceptionCode === 10) return statuses.disconnected;
  if (exceptionCode === 11) return statuses.timeout;
  return statuses.readError;
}

function registerOf(profile: MeterProfile, code: number): ProfileRegister {
  const register = profile.registers.find((candidate) => candidate.code === code);
  if (register === undefined) {
    const known = profile.registers.map((candidate) => nameOfCode(candidate.code)).join(", ");
    throw new RangeError(`profile ${profile.id} has no register for ${nameOfCode(code)}; it has ${known}`);
  }
  return register;
}

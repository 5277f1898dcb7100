/**
 * One reading of one meter: blocks of registers in, integers with fixed units out. No float leaves this file.
 *
 * A bus that fails gives a reading with a status, never an exception and never a guess: silence is not zero.
 */
import { DriverError } from "../failure.ts";
import { planBlocks, type RegisterBlock } from "./block-plan.ts";
import type { ModbusLine } from "./line.ts";
import { readPatiently } from "./patient-read.ts";
import type { MeterProfile, ProfileRegister } from "./profile.ts";

/** Row status as it travels (OCMF ST): what became of a reading. */
export const readingStatus = {
  ok: 0,
  timeout: 2,
  disconnected: 3,
  incompatible: 7,
  outOfRange: 8,
  readError: 11,
} as const;

export interface MeterReading {
  /** Quantity codes in the order asked for. */
  readonly codes: readonly number[];
  /** One safe integer a code, in the code's unit; all 0 unless status is 0. */
  readonly values: readonly number[];
  /** 0 ok, 2 time-out, 3 port or connection lost, 7 not this model, 8 out of range, 11 read error. */
  readonly status: number;
  /** One sentence on what went wrong. */
  readonly detail?: string;
}

export interface MeterReadOptions {
  readonly profile: MeterProfile;
  readonly unit: number;
  /** Codes of the profile. Default: the profile's defaultCodes. */
  readonly codes?: readonly number[];
  /** No request of this reading is begun later than this after the call. Default 5000. */
  readonly deadlineMs?: number;
  /** Instead of the profile's. */
  readonly timeoutMs?: number;
}

/**
 * Reads a meter.
 * @throws RangeError when a code is not in the profile, DriverError `invalid-argument` or `function-refused`: errors of
 *   the program, not of the bus
 */
export async function readMeter(line: ModbusLine, options: MeterReadOptions): Promise<MeterReading> {
  const { profile, unit } = options;
  const codes = options.codes ?? profile.defaultCodes;
  const registers = codes.map((code) => registerOf(profile, code));
  const blocks = planBlocks(
    registers.map(({ functionCode, address }) => ({ functionCode, address, count: float32Registers })),
    { ...profile, requestCostRegisters: line.requestCostRegisters(profile.gapMs) },
  );
  const startBeforeMs = line.nowMs() + (options.deadlineMs ?? 5000);
  const failed = (status: number, detail: string): MeterReading => ({
    codes: [...codes],
    values: codes.map(() => 0),
    status,
    detail,
  });

  const words: { block: RegisterBlock; data: Uint16Array }[] = [];
  try {
    for (const block of blocks) {
      const data = await readPatiently(line, {
        ...block,
        unit,
        gapMs: profile.gapMs,
        timeoutMs: options.timeoutMs ?? profile.timeoutMs,
        slowestAnswerMs: profile.slowestAnswerMs,
        countStep: profile.countStep,
        probe: profile.probe,
        startBeforeMs,
      });
      words.push({ block, data });
    }
  } catch (error) {
    const status = error instanceof DriverError ? statusOfError(error) : undefined;
    if (status === undefined) throw error;
    return failed(status, (error as DriverError).message);
  }

  const values: number[] = [];
  for (const register of registers) {
    const { block, data } = words.find(({ block }) => covers(block, register))!;
    const value = integerOf(register, float32At(data, register.address - block.address));
    if (typeof value !== "number") {
      return failed(value.status, `${line.description}, unit ${unit}: ${value.problem} (${register.source})`);
    }
    values.push(value);
  }
  return { codes: [...codes], values, status: readingStatus.ok };
}

/**
 * The meter's serial number as decimal digits; undefined when the profile names no register for it or the meter refuses
 * that register (older models).
 * @throws DriverError for everything else that fails
 */
export async function readSerialNumber(
  line: ModbusLine,
  options: Pick<MeterReadOptions, "profile" | "unit">,
): Promise<string | undefined> {
  const { profile, unit } = options;
  const [place] = profile.serialNumbers;
  if (place === undefined) return undefined;
  const { functionCode, address } = place;
  const { gapMs, timeoutMs, slowestAnswerMs, countStep, probe } = profile;
  try {
    const read = { unit, functionCode, address, count: 2, gapMs, timeoutMs, slowestAnswerMs, countStep, probe };
    const data = await readPatiently(line, read);
    return String(data[0]! * 0x10000 + data[1]!);
  } catch (error) {
    if (error instanceof DriverError && error.code === "modbus-exception") return undefined;
    throw error;
  }
}

/** Status of a reading that failed with this error; undefined for an error of the program. */
export function statusOfError(error: DriverError): number | undefined {
  switch (error.code) {
    case "invalid-argument":
    case "function-refused":
      return undefined;
    case "timeout":
    case "line-overloaded":
      return readingStatus.timeout;
    case "crc-error":
    case "wrong-unit":
    case "wrong-reply":
      return readingStatus.readError;
    case "modbus-exception":
      return statusOfException(error.exceptionCode ?? 0);
    default:
      return readingStatus.disconnected;
  }
}

/** 1–3: the meter does not have this function, register or count; 10, 11: a gateway could not reach it. */
function statusOfException(exceptionCode: number): number {
  if (exceptionCode >= 1 && exceptionCode <= 3) return readingStatus.incompatible;
  if (exceptionCode === 10) return readingStatus.disconnected;
  if (exceptionCode === 11) return readingStatus.timeout;
  return readingStatus.readError;
}

const float32Registers = 2;

function registerOf(profile: MeterProfile, code: number): ProfileRegister {
  const register = profile.registers.find((candidate) => candidate.code === code);
  if (register === undefined) {
    const known = profile.registers.map((candidate) => candidate.code).join(", ");
    throw new RangeError(`profile ${profile.id} has no register for code ${code}; it has ${known}`);
  }
  return register;
}

function covers(block: RegisterBlock, register: ProfileRegister): boolean {
  return (
    block.functionCode === register.functionCode &&
    block.address <= register.address &&
    register.address + float32Registers <= block.address + block.count
  );
}

function float32At(words: Uint16Array, offset: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint16(0, words[offset]!);
  view.setUint16(2, words[offset + 1]!);
  return view.getFloat32(0);
}

/** The integer of a register's value, or why there is none. */
export function integerOf(register: ProfileRegister, value: number): number | { status: number; problem: string } {
  if (!Number.isFinite(value)) {
    return { status: readingStatus.readError, problem: `expected a number for code ${register.code}, got ${value}` };
  }
  const rounded = Math.round(value * register.unitsPerValue);
  if (!Number.isSafeInteger(rounded) || (register.sign === "unsigned" && rounded < 0)) {
    return { status: readingStatus.outOfRange, problem: `code ${register.code} is out of range: ${value}` };
  }
  // "+ 0" turns −0, which deterministic CBOR would write as a float, into 0.
  if (register.sign === "positive part") return Math.max(0, rounded) + 0;
  if (register.sign === "negative part") return Math.max(0, -rounded) + 0;
  return rounded + 0;
}

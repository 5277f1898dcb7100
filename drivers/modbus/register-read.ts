/** One read of registers as a line is asked for it, and the sentences for what can become of it. Pure. */
import { DriverError, messageOf } from "../failure.ts";
import type { ExchangeFailureCode } from "./exchange.ts";

/** What every request on a line says. */
interface LineRequest {
  /** 1–247; Modbus TCP gateways also take 0 and 255. */
  readonly unit: number;
  /**
   * Time for the slave to answer, without the time its bytes need on the wire. Reads of a unit that has answered before are given what
   * it was seen to need instead (answer-times.ts).
   */
  readonly timeoutMs: number;
  /** Least pause on the line before this request; t3.5 is kept in any case. Default 0. */
  readonly gapMs?: number;
  /** Longest answer time ever expected of this meter: the line rests that long after a failure. Default 2 × timeoutMs. */
  readonly slowestAnswerMs?: number;
  /** Not to be sent after this time of the line's nowMs(): it fails with `timeout` instead. */
  readonly startBeforeMs?: number;
}

export interface RegisterRead extends LineRequest {
  /** 3 holding registers, 4 input registers. */
  readonly functionCode: 3 | 4;
  /** First register, as in the PDU (from 0). */
  readonly address: number;
  /** 1–125 registers. */
  readonly count: number;
  /** Counts must be a multiple of this (Eastron: 2). Default 1. */
  readonly countStep?: number;
  /** Where any count can be read for certain: asked there first when an answer of the same length is still owed. */
  readonly probe?: { readonly functionCode: 3 | 4; readonly address: number };
}

/** 43 read device identification, 17 report server id. */
export interface IdentityRequest extends LineRequest {
  readonly functionCode: 17 | 43;
}

export type ReadingRequest = RegisterRead | IdentityRequest;

/** `/dev/ttyUSB0 at 9600 8N1, unit 1, registers 4:0x0000 + 12`. */
export function describeRequest(where: string, read: ReadingRequest): string {
  if (!("count" in read) && read.functionCode === 17) return `${where}, unit ${read.unit}, server id (function 17)`;
  if (!("count" in read)) return `${where}, unit ${read.unit}, device identification (function 43)`;
  const address = read.address.toString(16).toUpperCase().padStart(4, "0");
  return `${where}, unit ${read.unit}, registers ${read.functionCode}:0x${address} + ${read.count}`;
}

/** @throws DriverError invalid-argument for a read that no Modbus line can do ("Application Protocol" V1.1b3 §6.3) */
export function assertRead(read: RegisterRead, where: string): void {
  const whole = (value: number, min: number, max: number): boolean =>
    Number.isInteger(value) && value >= min && value <= max;
  const valid =
    whole(read.unit, 0, 255) &&
    (read.functionCode === 3 || read.functionCode === 4) &&
    whole(read.address, 0, 0xffff) &&
    whole(read.count, 1, 125) &&
    read.address + read.count <= 0x10000 &&
    Number.isFinite(read.timeoutMs) &&
    read.timeoutMs > 0;
  if (valid) return;
  throw new DriverError(
    "invalid-argument",
    `${describeRequest(where, read)}: expected unit 0-255, function 3 or 4, 1-125 registers below 0x10000 and a time-out above 0 ms.`,
  );
}

const advice: Record<ExchangeFailureCode, string> = {
  timeout: "Check power, A/B wiring, baud, parity and the unit number.",
  "crc-error": "Check the line: baud and parity, termination, shielding, two masters on one line.",
  "wrong-unit": "Check that no two devices share the line with equal numbers and that no second master asks.",
  "wrong-reply": "Check that this is a Modbus device and that no second master uses the line.",
};

/** The error for an exchange that ended without an answer. */
export function exchangeError(
  where: string,
  read: ReadingRequest,
  timeoutMs: number,
  failure: { readonly code: ExchangeFailureCode; readonly got: string },
): DriverError {
  return new DriverError(
    failure.code,
    `${describeRequest(where, read)}: expected an answer within ${Math.round(timeoutMs)} ms, got ${failure.got}. ${advice[failure.code]}`,
  );
}

/** The error for a read that is not sent, since its answer could not be told from one to an earlier request. */
export function unprovenError(where: string, read: RegisterRead, cause?: DriverError): DriverError {
  const why = cause === undefined ? "was answered with bytes that had come before" : `was refused (${cause.message})`;
  return new DriverError(
    "timeout",
    `${describeRequest(where, read)}: an answer to an earlier request may still be on its way, and a read of another length ` +
      `${why}; nothing is read until 10 s have passed.`,
    { cause },
  );
}

/** The error for a line on which bytes come without end, so that nothing can be asked. */
export function neverQuietError(where: string): DriverError {
  return new DriverError(
    "crc-error",
    `${where}: expected silence before the next request, got bytes without end. Check that no second master and no ` +
      "device that sends by itself is on this line, and that the path is that of the meters.",
  );
}

/** "Application Protocol" V1.1b3 §7. */
const exceptionNames: Record<number, string> = {
  1: "illegal function",
  2: "illegal data address",
  3: "illegal data value",
  4: "device failure",
  5: "acknowledge, the answer needs longer",
  6: "device busy",
  8: "memory parity error",
  10: "gateway path unavailable",
  11: "gateway target did not respond",
};

/** Whatever modbus-serial rejected with, as a DriverError. */
export function libraryError(where: string, read: ReadingRequest, error: unknown): DriverError {
  if (error instanceof DriverError) return error;
  const exceptionCode = (error as { modbusCode?: unknown }).modbusCode;
  if (typeof exceptionCode === "number") {
    const name = exceptionNames[exceptionCode] ?? "unknown to the specification";
    return new DriverError(
      "modbus-exception",
      `${describeRequest(where, read)}: the unit answered with exception ${exceptionCode} (${name}). ` +
        "Check that the configured profile is that of this very model.",
      { exceptionCode, cause: error },
    );
  }
  return new DriverError("wrong-reply", `${describeRequest(where, read)}: ${messageOf(error)}`, { cause: error });
}

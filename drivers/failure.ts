/**
 * The one error class of the hardware drivers, with a closed list of codes.
 *
 * A message says what was expected, what came, where (port and unit), and what to do next; `code` is what programs
 * decide by. Programmer errors (a bad argument) are `invalid-argument` and are never retryable.
 */

/** Every way in which a driver can fail. */
export const driverErrorCodes = [
  "port-not-found",
  "port-busy",
  "port-not-permitted",
  "port-open-failed",
  "port-lost",
  "port-closed",
  "connection-refused",
  "connection-failed",
  "timeout",
  "crc-error",
  "wrong-unit",
  "wrong-reply",
  "modbus-exception",
  "line-overloaded",
  "function-refused",
  "modem-refused",
  "invalid-argument",
] as const;

export type DriverErrorCode = (typeof driverErrorCodes)[number];

/** Codes after which the very same request may succeed a moment later, with nobody doing anything. */
const retryableCodes: ReadonlySet<DriverErrorCode> = new Set([
  "timeout",
  "crc-error",
  "wrong-unit",
  "wrong-reply",
  "line-overloaded",
]);

/** Modbus exception codes that pass by themselves: 5 acknowledge, 6 busy, 11 gateway target did not respond. */
const passingExceptions: ReadonlySet<number> = new Set([5, 6, 11]);

export interface DriverErrorDetails {
  /** Modbus exception code (1–11) when `code` is `modbus-exception`. */
  readonly exceptionCode?: number;
  readonly cause?: unknown;
}

export class DriverError extends Error {
  override readonly name = "DriverError";
  readonly code: DriverErrorCode;
  /** True when the same request may be sent again without anybody mending anything. */
  readonly retryable: boolean;
  /** Modbus exception code, only with `modbus-exception`. */
  readonly exceptionCode: number | undefined;

  constructor(code: DriverErrorCode, message: string, details: DriverErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.exceptionCode = details.exceptionCode;
    this.retryable =
      retryableCodes.has(code) || (details.exceptionCode !== undefined && passingExceptions.has(details.exceptionCode));
  }
}

/** What an unknown thrown value says of itself, in one line. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

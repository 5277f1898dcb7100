/** A Modbus RTU line: the timing of its characters, and the protocol for it. */
import type { ByteTransport } from "../byte-transport.ts";
import { RtuProtocol } from "./exchange.ts";
import { ModbusLine, type ModbusLineOptions } from "./line.ts";

export interface RtuLineOptions extends Pick<ModbusLineOptions, "timeoutsUntilReopen" | "nowMs"> {
  /** Where it is, for messages: `/dev/ttyUSB0 at 9600 8N1`. */
  readonly description: string;
  readonly openTransport: () => Promise<ByteTransport>;
  readonly baud: number;
  /** Start, data, parity and stop bits of one character: 10 for 8N1, 11 for 8E1. */
  readonly bitsPerCharacter: number;
}

/**
 * Silence between two frames, "MODBUS over Serial Line" V1.02 §2.5.1.1: 3.5 characters, above 19200 baud 1.75 ms.
 */
export function frameGapMs(baud: number, bitsPerCharacter: number): number {
  return baud > 19_200 ? 1.75 : (3.5 * bitsPerCharacter * 1000) / baud;
}

/** Bytes of a request (8) and of an answer around its registers (5). */
const overheadBytes = 13;
/** A slave's usual time to begin its answer. */
export const turnaroundMs = 20;
/** USB adapters gather bytes for up to 16 ms: shorter pauses are no silence. */
const silenceMinMs = 30;

/** @example createRtuLine({ description, openTransport: () => openSerialPort(settings), baud: 9600, bitsPerCharacter: 10 }) */
export function createRtuLine(options: RtuLineOptions): ModbusLine {
  const characterMs = (options.bitsPerCharacter * 1000) / options.baud;
  const gap = frameGapMs(options.baud, options.bitsPerCharacter);
  return new ModbusLine({
    ...options,
    characterMs,
    frameGapMs: gap,
    protocol: new RtuProtocol(Math.max(silenceMinMs, gap)),
    requestCostRegisters: (gapMs) =>
      Math.ceil((overheadBytes * characterMs + turnaroundMs + Math.max(gap, gapMs)) / (2 * characterMs)),
  });
}

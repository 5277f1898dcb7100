/** What the four dialects of simulated modems have in common: a line comes in, lines go out, and frames end some time later. */
import type { EndDevice, TransmitEnd } from "./lora-end-device.ts";
import type { SimulatorTiming } from "./simulator-timing.ts";

export interface ModemSide {
  readonly timing: SimulatorTiming;
  readonly device: EndDevice;
  restart(): void;
}

export interface ModemMachine {
  /** Bytes that end a command. */
  readonly lineEnds: readonly number[];
  readonly lineBytesMax: number;
  /** A command without its end; longer than lineBytesMax means that it was cut. Returns the answer as it is, line ends included. */
  line(text: string): string;
  /** The windows of a frame, or of a join-request, are closed. */
  ended(end: TransmitEnd): string;
  /** The power is off: what is not kept in flash is gone. */
  forget(): void;
  /** It runs again after a restart. */
  started(): string;
}

export const carriageReturn = 0x0d;
export const lineFeed = 0x0a;

/** 16 or 32 hexadecimal digits, which may stand in pairs between colons; in lower case without them. */
export function hexDigits(text: string, digits: number): string | undefined {
  const plain = text.replace(/[:" ]/g, "").toLowerCase();
  return plain.length === digits && /^[0-9a-f]+$/.test(plain) ? plain : undefined;
}

export function hexBytes(text: string): Uint8Array | undefined {
  return /^(?:[0-9a-f]{2})*$/i.test(text) ? Uint8Array.from(Buffer.from(text, "hex")) : undefined;
}

export function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

export function inPairs(hex: string, separator = ":"): string {
  return (hex.match(/../g) ?? []).join(separator);
}

export function keyText(device: EndDevice): string {
  return device.appKey === undefined ? "0".repeat(32) : hexOf(device.appKey);
}

/** An integer of `text` within the bounds; undefined where it is none. */
export function integerIn(text: string, min: number, max: number): number | undefined {
  const number = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  return number >= min && number <= max ? number : undefined;
}

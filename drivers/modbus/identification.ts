/**
 * What a unit says it is: functions 43/14 (read device identification) and 17 (report server id), "Application Protocol"
 * V1.1b3 §6.21 and §6.13. Few meters know them; those that do not, refuse or are silent.
 */
import { DriverError, type DriverErrorCode } from "../failure.ts";
import { encodeRtuFrame } from "./rtu-frame.ts";

export interface DeviceIdentity {
  readonly vendor?: string;
  readonly product?: string;
  readonly revision?: string;
  /** What function 17 tells, where 43 tells nothing. */
  readonly text?: string;
}

/** The part of modbus-serial that asks. */
export interface IdentificationLibrary {
  readDeviceIdentification(deviceIdCode: number, objectId: number): Promise<{ data: unknown }>;
  reportServerID(...unused: number[]): Promise<{ serverId: number; running: boolean; additionalData: Uint8Array }>;
}

/** One exchange with the unit: with function 43 or 17. */
type Ask = <T>(functionCode: 17 | 43, ask: (library: IdentificationLibrary) => Promise<T>) => Promise<T>;

const basicObjects = { vendor: 0, product: 1, revision: 2 } as const;
const basicCategory = 1;
/** Answers that the three basic objects may be spread over. */
const pagesMax = 3;
const textCharactersMax = 100;

/** Ways in which a unit that lacks a function may react to it. */
const refusals: ReadonlySet<DriverErrorCode> = new Set([
  "modbus-exception",
  "timeout",
  "crc-error",
  "wrong-unit",
  "wrong-reply",
]);

/** @throws DriverError when the line itself fails, not when the unit refuses */
export async function identify(ask: Ask): Promise<DeviceIdentity | undefined> {
  return (await basicIdentity(ask)) ?? (await serverIdentity(ask));
}

async function basicIdentity(ask: Ask): Promise<DeviceIdentity | undefined> {
  const texts = new Map<number, string>();
  for (let page = 0; page < pagesMax; page++) {
    // Objects come in the order of their numbers, from the one asked for.
    const from = Math.max(-1, ...texts.keys()) + 1;
    const answer = await unlessRefused(ask(43, (library) => library.readDeviceIdentification(basicCategory, from)));
    const known = texts.size;
    for (const [id, text] of Object.entries(answer?.data ?? {})) {
      const printable = printableText(String(text));
      if (Number(id) <= basicObjects.revision && printable !== "") texts.set(Number(id), printable);
    }
    if (texts.size === known || texts.has(basicObjects.revision)) break;
  }
  if (texts.size === 0) return undefined;
  const entries = Object.entries(basicObjects).flatMap(([name, id]) => {
    const text = texts.get(id);
    return text === undefined ? [] : [[name, text]];
  });
  return Object.fromEntries(entries);
}

async function serverIdentity(ask: Ask): Promise<DeviceIdentity | undefined> {
  // With fewer than two arguments, which it does not use, modbus-serial 8.0.25 takes its callback for one of them.
  const answer = await unlessRefused(ask(17, (library) => library.reportServerID(0, 0)));
  if (answer === undefined) return undefined;
  const text = printableText(String.fromCharCode(...answer.additionalData));
  return { text: text === "" ? `server id ${answer.serverId}` : text };
}

async function unlessRefused<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof DriverError && refusals.has(error.code)) return undefined;
    throw error;
  }
}

/** Printable ASCII, so that nothing a device says can move a terminal's cursor. */
function printableText(text: string): string {
  return text
    .replace(/[^\x20-\x7e]+/g, " ")
    .trim()
    .slice(0, textCharactersMax);
}

/**
 * The frame as the library may have it. Where it says that more follows, modbus-serial asks again by itself, at once and as
 * often as the device likes: so it never says so, and `identify` asks for the rest.
 */
export function asLastPage(frame: Uint8Array): Uint8Array {
  if (frame[1] !== 43 || frame.length < 8 || frame[5] === 0) return frame;
  const pdu = frame.slice(1, -2);
  pdu[4] = 0;
  return encodeRtuFrame(frame[0]!, pdu);
}

/**
 * A dialogue with a modem as a pure state machine: a generator that yields what is to be written and how long to listen, and is given the
 * next line, or undefined where none came in time. It has no port, no timer and no clock, so that a test can be the modem.
 */
import { DriverError } from "../failure.ts";
import type { JoinOutcome, LoraDownlink, ModemFamily, ModemKeys, SendOutcome } from "./modem.ts";
import type { RegionName } from "./region.ts";

export interface Step {
  /** A command without its end; nothing is written where it is absent. */
  readonly write?: string;
  /** Until when a line is waited for, from now; absent: until the moment that was set before. */
  readonly waitMs?: number;
  /** The modem's start-up lines are expected now, and no sign of a reset that nobody asked for. */
  readonly expectsBanner?: boolean;
}

export type Dialogue<T> = Generator<Step, T, string | undefined>;

export type Reply =
  /** `lines`: what came before the word that all is well. */
  | { readonly kind: "ok"; readonly lines: readonly string[] }
  | { readonly kind: "refused"; readonly status: string }
  | { readonly kind: "silent" };

export interface ModemState {
  /** Absent where a family cannot be asked. */
  readonly joined?: boolean;
  readonly dataRate?: number;
  readonly bytesMax?: number;
}

export interface SetUp {
  /** Absent where a family cannot be asked; the first frame tells. */
  readonly joined?: boolean;
  readonly devEui?: string;
}

export interface Uplink {
  readonly port: number;
  /** Hexadecimal, whole bytes; empty for a frame that carries MAC commands alone (LoRa-E5, AT_Slave). */
  readonly hex: string;
  /** The end of the frame's windows, however slow: after it something is wrong. */
  readonly guardMs: number;
  /** The end of the windows at the data rate that is known, for a modem that does not say when it is through. */
  readonly windowsMs: number;
}

/** One family's language. An object serves one modem: it keeps what one line leaves for the next. */
export interface Dialect {
  readonly family: ModemFamily;
  /** The downlink that is complete with this line; any line may be given, in the order in which they came. */
  observe(line: string): LoraDownlink | undefined;
  /** The downlink of which the last line did not come. */
  flush(): LoraDownlink | undefined;
  /** A line that the modem says at its start, and never otherwise unless asked. */
  isBanner(line: string): boolean;
  /** Forgets what is only true until a reset. */
  forget(): void;
  /** Whether it is this kind of modem, by an answer that no other command has; what it says of its firmware. */
  probe(): Dialogue<string | undefined>;
  /** The modem's own address; only reads. */
  devEui(): Dialogue<string | undefined>;
  /** LoRaWAN mode, class A, OTAA, ADR on, unconfirmed; writes only what is otherwise. @throws DriverError */
  setUp(): Dialogue<SetUp>;
  /** @throws DriverError */
  state(): Dialogue<ModemState>;
  join(guardMs: number): Dialogue<JoinOutcome>;
  send(uplink: Uplink): Dialogue<SendOutcome>;
  /** Writes, stores and reads back; gives the DevEUI. The next join uses it after a restart. @throws DriverError */
  provision(keys: ModemKeys, region: RegionName): Dialogue<string>;
  /** Resets the modem and waits until it answers. @throws DriverError */
  restart(): Dialogue<void>;
}

/** Listens until `pick` makes something of a line; undefined when the time is over. */
export function* until<T>(step: Step, pick: (line: string) => T | undefined): Dialogue<T | undefined> {
  for (let line = yield step; line !== undefined; line = yield {}) {
    const found = pick(line);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** How long a command's answer takes at most, where nothing goes over the air. */
export const replyMs = 1_500;
/** Reset and start of the slowest of them. */
export const restartMs = 5_000;

/** Lines of a reply that was to be `ok`. @param name of the command; its value may be a secret and is not part of it */
export function accepted(where: string, name: string, reply: Reply, hint = ""): readonly string[] {
  if (reply.kind === "ok") return reply.lines;
  const came = reply.kind === "refused" ? masked(reply.status) : "no answer";
  const todo = hint || "Check the modem's firmware and its family in the configuration.";
  throw new DriverError(
    reply.kind === "silent" ? "timeout" : "modem-refused",
    `LoRaWAN modem at ${where}: expected it to take ${name}, got ${came}. ${todo}`,
  );
}

/** What was written and read back differs. */
export function unequal(where: string, what: string, came: string | undefined): DriverError {
  return new DriverError(
    "modem-refused",
    `LoRaWAN modem at ${where}: expected the ${what} that was written, read back ${came ?? "nothing"}. Run the command again; if it stays so, reset the module to its factory settings.`,
  );
}

export function unanswered(where: string, command: string): DriverError {
  return new DriverError(
    "timeout",
    `LoRaWAN modem at ${where}: expected an answer after ${command}, got none. Check its power and the speed of the port.`,
  );
}

/** A line fit for a message: LoRa-E5 says the key that it was given. */
export function masked(line: string): string {
  const shown = /^\+KEY:/i.test(line) ? "+KEY: …" : line.replace(/[0-9a-f]{32,}/gi, "…");
  return shown.length > 80 ? `${shown.slice(0, 80)}…` : shown;
}

export function fault(detail: string): { readonly kind: "fault"; readonly detail: string } {
  return { kind: "fault", detail };
}

/** What a modem says that has no command for a frame without payload. */
export const noEmptyFrame = "this modem sends no frame without payload when asked";

/** Sixteen digits in lower case, of whatever a modem puts between them; undefined where it is no EUI. */
export function euiOf(text: string | undefined): string | undefined {
  const digits = text?.replace(/[^0-9a-fA-F]/g, "").toLowerCase();
  return digits?.length === 16 ? digits : undefined;
}

/** `70:b3:d5:…` */
export function withColons(hex: string): string {
  return hex.match(/../g)?.join(":") ?? "";
}

/** A downlink's bytes; undefined where the digits are none, odd in number or too many. */
export function bytesOf(hex: string): Uint8Array | undefined {
  if (!/^(?:[0-9a-fA-F]{2}){1,255}$/.test(hex)) return undefined;
  return Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

/** A number in a modem's line, where it is one. */
export function numberOf(text: string | undefined): number | undefined {
  return text !== undefined && /^-?\d+(?:\.\d+)?$/.test(text) ? Number(text) : undefined;
}

/** A downlink, where port and digits are those of one. */
export function downlinkOf(
  port: string | undefined,
  hex: string | undefined,
  rssi?: string,
  snr?: string,
): LoraDownlink | undefined {
  const number = numberOf(port);
  const bytes = bytesOf(hex ?? "");
  if (number === undefined || number < 1 || number > 255 || bytes === undefined) return undefined;
  const [rssiDbm, snrDb] = [numberOf(rssi), numberOf(snr)];
  return {
    port: number,
    bytes,
    ...(rssiDbm !== undefined && { rssiDbm }),
    ...(snrDb !== undefined && { snrDb }),
  };
}

/** Finds out what LoRaWAN modem is at a port: its family, its speed, its address. Asks only for versions; nothing is set, nothing is sent. */
import type { ByteTransport } from "../byte-transport.ts";
import { DriverError } from "../failure.ts";
import { Conversation } from "./conversation.ts";
import { createDialect } from "./dialects.ts";
import { type Dialogue, until } from "./dialogue.ts";
import { factoryBauds, type LoraTiming, type ModemFamily } from "./modem.ts";

export interface FoundModem {
  readonly family: ModemFamily;
  readonly baud: number;
  /** What it says of its firmware. */
  readonly firmware: string;
  /** 16 hexadecimal digits, where it said them. */
  readonly devEui?: string;
}

export interface ModemSearchOptions {
  /** The port at this speed, 8N1; it is closed by the search. */
  readonly openAt: (baud: number) => Promise<ByteTransport>;
  /** The speeds to try, in their order. */
  readonly bauds: readonly number[];
  readonly timing: LoraTiming;
  readonly signal?: AbortSignal;
}

export interface ModemSearchResult {
  readonly modem?: FoundModem;
  /** What an owner should know: a modem with firmware that is too old. One sentence each. */
  readonly remarks: readonly string[];
  /** The port could not be used. */
  readonly error?: DriverError;
}

/** At these speeds the four families leave the factory; the likely ones first. */
export const modemBauds: readonly number[] = [...new Set(Object.values(factoryBauds))].sort((a, b) => a - b);
/** A modem says its version at once, and 60 characters at 9600 Bd take 63 ms. */
const answerMs = 500;
/** A line that was begun by another program is ended, and answered. */
const quietMs = 150;
const autobaudTries = 2;

/** How long a search takes at most for each speed: the longest is that of a modem which measures the speed itself. */
export const modemSearchMs = 8_000;

type Sign = { readonly family: ModemFamily; readonly firmware?: string } | "before-rui3";

export async function searchModem(options: ModemSearchOptions): Promise<ModemSearchResult> {
  const remarks: string[] = [];
  for (const baud of options.bauds) {
    if (options.signal?.aborted) break;
    let transport: ByteTransport;
    try {
      transport = await options.openAt(baud);
    } catch (error) {
      if (error instanceof DriverError) return { remarks, error };
      throw error;
    }
    try {
      const conversation = new Conversation({ transport, timing: options.timing });
      transport.onClosed((error) => {
        if (error !== undefined) conversation.interrupt(new DriverError("port-lost", `${error.message}`));
      });
      const found = await conversation.run(ask(baud, transport.description));
      if (found === "before-rui3")
        remarks.push(
          `a RAK module at ${baud} 8N1 has firmware from before RUI3: update it with RAK's tool, then scan again`,
        );
      else if (found !== undefined) return { modem: { ...found, baud }, remarks };
    } catch (error) {
      if (error instanceof DriverError) return { remarks, error };
      throw error;
    } finally {
      await transport.close();
    }
  }
  return { remarks };
}

type Answer = Omit<FoundModem, "baud"> | "before-rui3" | undefined;

function* ask(baud: number, where: string): Dialogue<Answer> {
  const sign = (yield* firstSign()) ?? (baud === factoryBauds.rn2483 ? yield* signAfterAutobaud() : undefined);
  if (sign === undefined || sign === "before-rui3") return sign;
  const dialect = createDialect(sign.family, where);
  const firmware = sign.firmware ?? (yield* dialect.probe());
  if (firmware === undefined) return undefined;
  const devEui = yield* dialect.devEui();
  return { family: sign.family, firmware, ...(devEui !== undefined && { devEui }) };
}

/** One question, which each family answers in words of its own, if only to refuse it. */
function* firstSign(): Dialogue<Sign | undefined> {
  yield* until({ write: "", waitMs: quietMs, expectsBanner: true }, () => undefined);
  return yield* until({ write: "AT+VER=?", waitMs: answerMs }, signOf);
}

function* signAfterAutobaud(): Dialogue<Sign | undefined> {
  for (let tries = 0; tries < autobaudTries; tries++) {
    yield* until({ write: "\0U", waitMs: quietMs }, () => undefined);
    const sign = yield* until({ write: "sys get ver", waitMs: answerMs }, signOf);
    if (sign !== undefined) return sign;
  }
  return undefined;
}

function signOf(line: string): Sign | undefined {
  // The manual shows it without the command's name before it.
  const rui3 = /^(?:AT\+VER=|(?=RUI_))(.+)$/i.exec(line)?.[1];
  if (rui3 !== undefined) return { family: "rui3", firmware: rui3.trim() };
  const slave = /^(?:APP|APPLICATION)_VERSION: *(V[\w.]+)$/.exec(line)?.[1];
  if (slave !== undefined) return { family: "at-slave", firmware: slave };
  if (/^\+(?:VER|AT): /.test(line)) return { family: "lora-e5" };
  if (line === "invalid_param" || /^RN2(?:483|903)/.test(line)) return { family: "rn2483" };
  return /^V\d+\.\d+\.\d+$/.test(line) ? "before-rui3" : undefined;
}

/**
 * Seeed LoRa-E5 (Wio-E5), firmware 4.0.x. Source: Seeed "AT Command Specification V1.0" as independent drivers and transcripts quote it
 * (disk91/Disk91_LoRaE5, andresoliva/LoRa-E5, CampusIoT/tutorial wio-lora-e5/AT.md). It has no common word for "done": each command has an
 * end line of its own, `+NAME: …`.
 */
import {
  accepted,
  type Dialect,
  type Dialogue,
  downlinkOf,
  euiOf,
  fault,
  type ModemState,
  type Reply,
  replyMs,
  restartMs,
  type SetUp,
  type Uplink,
  unanswered,
  unequal,
  until,
} from "./dialogue.ts";
import type { JoinOutcome, LoraDownlink, ModemKeys, SendOutcome } from "./modem.ts";
import type { RegionName } from "./region.ts";

/** A command may be lost for a byte that was spoilt, or because the modem slept: it is said again so many times. */
const repeatsMax = 2;
/** Errors of a command that was not understood: unknown, not ended in time, a character that is none. */
const garbled = /ERROR\(-(?:10|22|23|24)\)$/;
/** Some firmware says "Join failed" and then nothing. */
const joinEndMs = 1_000;
const busyRetryMs = 1_000;

/** `AT+CH=NUM`: the channels that every server of the region has; the others come with the join accept, or by ADR. */
const channels: Partial<Readonly<Record<RegionName, string>>> = { EU868: "0-2", AS923: "0-1" };

export class LoraE5 implements Dialect {
  readonly family = "lora-e5";
  readonly #where: string;
  /** The port is a setting of its own, and stays until a reset. */
  #port: number | undefined;
  /** The downlink whose signal's line has not come. */
  #pending: { readonly port: string; readonly hex: string } | undefined;

  constructor(where: string) {
    this.#where = where;
  }

  observe(line: string): LoraDownlink | undefined {
    const [, port, hex] = /^\+\w+: PORT: (\d+); RX: "([0-9A-F ]+)"$/i.exec(line) ?? [];
    if (port !== undefined && hex !== undefined) {
      const before = this.flush();
      this.#pending = { port, hex: hex.replaceAll(" ", "") };
      return before;
    }
    const [, rssi, snr] = /^\+\w+: RXWIN\d+, RSSI (-?\d+), SNR (-?[\d.]+)$/i.exec(line) ?? [];
    return rssi === undefined ? undefined : this.#take(rssi, snr);
  }

  flush(): LoraDownlink | undefined {
    return this.#take();
  }

  /** None is known; that it was reset shows by "Please join network first". */
  isBanner(): boolean {
    return false;
  }

  forget(): void {
    this.#port = undefined;
  }

  *probe(): Dialogue<string | undefined> {
    const reply = yield* command("AT+VER", "VER");
    return reply.kind === "ok" ? reply.lines[0] : undefined;
  }

  *setUp(): Dialogue<SetUp> {
    this.forget();
    yield* this.#settings();
    const devEui = yield* this.devEui();
    return devEui === undefined ? {} : { devEui };
  }

  *devEui(): Dialogue<string | undefined> {
    return yield* this.#readEui("DevEui");
  }

  *state(): Dialogue<ModemState> {
    const [line = ""] = accepted(this.#where, "AT+DR", yield* command("AT+DR", "DR"));
    const dataRate = /\bDR(\d+)\b/.exec(line)?.[1];
    const bytesMax = yield* this.#length();
    return {
      ...(dataRate !== undefined && { dataRate: Number(dataRate) }),
      ...(bytesMax !== undefined && { bytesMax }),
    };
  }

  *join(guardMs: number): Dialogue<JoinOutcome> {
    this.forget();
    let isJoined = false;
    let hasFailed = false;
    const outcome = yield* until({ write: "AT+JOIN", waitMs: guardMs }, (line): JoinOutcome | undefined => {
      const text = /^\+JOIN: ?(.*)$/.exec(line)?.[1] ?? "";
      if (/^(?:Network joined|NetID )/i.test(text)) isJoined = true;
      if (/^Join failed/i.test(text)) hasFailed = true;
      if (/^Joined already/i.test(text)) return { kind: "joined" };
      if (/^Done/i.test(text)) return isJoined ? { kind: "joined" } : { kind: "no-answer", detail: "Join failed" };
      if (hasFailed) return { kind: "no-answer", detail: text };
      const refusal = refusalOf(text);
      return refusal === undefined || "retryInMs" in refusal || refusal.kind === "duty-cycle" ? refusal : fault(text);
    });
    if (outcome === undefined) return isJoined ? { kind: "joined" } : fault("no end of AT+JOIN");
    if (hasFailed && outcome.detail !== undefined)
      yield* until({ waitMs: joinEndMs }, (line) => /^\+JOIN: ?Done/i.test(line) || undefined);
    return outcome;
  }

  *send({ port, hex, guardMs }: Uplink): Dialogue<SendOutcome> {
    if (this.#port !== port) {
      const reply = yield* command(`AT+PORT=${port}`, "PORT");
      if (reply.kind !== "ok") return fault(reply.kind === "silent" ? "no answer to AT+PORT" : reply.status);
      this.#port = port;
    }
    const write = `AT+MSGHEX="${hex}"`;
    for (let repeat = 0; ; repeat++) {
      const begun = yield* until({ write, waitMs: replyMs }, messageText);
      if (begun === undefined) return this.#lost("no answer to AT+MSGHEX");
      if (isUnheard(begun) && repeat < repeatsMax) continue;
      const refusal = refusalOf(begun);
      if (refusal !== undefined) return yield* this.#refused(refusal, begun);
      // A refusal may still come after "Start"; the lines of downlinks are read by observe().
      const ended = yield* until({ waitMs: guardMs }, (line) => {
        const text = messageText(line);
        return text !== undefined && (text === "Done" || refusalOf(text) !== undefined) ? text : undefined;
      });
      if (ended === "Done") return { kind: "sent" };
      if (ended === undefined) return this.#lost("no +MSGHEX: Done");
      return yield* this.#refused(refusalOf(ended) ?? fault(ended), ended);
    }
  }

  *provision({ joinEui, devEui, appKey, subBand }: ModemKeys, region: RegionName): Dialogue<string> {
    const where = this.#where;
    this.forget();
    yield* this.#settings();
    accepted(where, `AT+DR=${region}`, yield* command(`AT+DR=${region}`, "DR"), `Is it a module for ${region}?`);
    const some = subBand === undefined ? channels[region] : `${8 * (subBand - 1)}-${8 * subBand - 1}`;
    if (some !== undefined) accepted(where, "AT+CH=NUM", yield* command(`AT+CH=NUM,${some}`, "CH"));
    if (devEui !== undefined) accepted(where, "AT+ID=DevEui", yield* command(`AT+ID=DevEui,"${devEui}"`, "ID"));
    accepted(where, "AT+ID=AppEui", yield* command(`AT+ID=AppEui,"${joinEui}"`, "ID"));
    yield* this.#writeKey(appKey);
    const written = yield* this.#readEui("DevEui");
    const joinWritten = yield* this.#readEui("AppEui");
    if (written === undefined || (devEui !== undefined && written !== devEui)) throw unequal(where, "DevEUI", written);
    if (joinWritten !== joinEui) throw unequal(where, "JoinEUI", joinWritten);
    return written;
  }

  *restart(): Dialogue<void> {
    this.forget();
    yield* until(
      { write: "AT+RESET", waitMs: replyMs, expectsBanner: true },
      (line) => /^\+RESET:/.test(line) || undefined,
    );
    for (let waitedMs = 0; waitedMs < restartMs; waitedMs += replyMs) if ((yield* this.probe()) !== undefined) return;
    throw unanswered(this.#where, "AT+RESET");
  }

  #take(rssi?: string, snr?: string): LoraDownlink | undefined {
    const pending = this.#pending;
    this.#pending = undefined;
    return pending && downlinkOf(pending.port, pending.hex, rssi, snr);
  }

  /** What the modem still remembers is not known: the port is said again. */
  #lost(detail: string): SendOutcome {
    this.forget();
    return fault(detail);
  }

  *#refused(refusal: SendOutcome, text: string): Dialogue<SendOutcome> {
    if (refusal.kind === "not-joined" || refusal.kind === "fault") this.forget();
    if (refusal.kind !== "too-long") return refusal;
    // What the number after "Length error" means nobody says; this command is clear.
    const bytesMax = yield* this.#length();
    return bytesMax === undefined ? fault(text) : { ...refusal, bytesMax };
  }

  *#settings(): Dialogue<void> {
    const mode = yield* command("AT+MODE", "MODE");
    if (mode.kind !== "ok" || mode.lines[0] !== "LWOTAA")
      accepted(this.#where, "AT+MODE=LWOTAA", yield* command("AT+MODE=LWOTAA", "MODE"));
    for (const [name, value] of [
      ["CLASS", "A"],
      ["ADR", "ON"],
      ["REPT", "1"],
    ] as const)
      accepted(this.#where, `AT+${name}=${value}`, yield* command(`AT+${name}=${value}`, name));
  }

  *#length(): Dialogue<number | undefined> {
    const pick = (line: string): string | undefined => /^\+LW: LEN, ?(\d{1,3})$/i.exec(line)?.[1];
    const bytes = yield* until({ write: "AT+LW=LEN", waitMs: replyMs }, pick);
    return bytes === undefined ? undefined : Number(bytes);
  }

  *#readEui(name: "DevEui" | "AppEui"): Dialogue<string | undefined> {
    const pick = (line: string): string | undefined => new RegExp(`^\\+ID: ${name}, ?(.+)$`, "i").exec(line)?.[1];
    return euiOf(yield* until({ write: `AT+ID=${name}`, waitMs: replyMs }, pick));
  }

  /** Some units say nothing to the key, do not keep it, and every join fails: its echo is what proves it. */
  *#writeKey(appKey: string): Dialogue<void> {
    for (let tries = 0; tries < 2; tries++) {
      const reply = yield* command(`AT+KEY=APPKEY,"${appKey}"`, "KEY");
      if (reply.kind === "refused") accepted(this.#where, "AT+KEY=APPKEY", reply);
      if (reply.kind === "ok") {
        const echo = /^APPKEY[ ,]*(.*)$/i
          .exec(reply.lines[0] ?? "")?.[1]
          ?.replace(/[^0-9a-f]/gi, "")
          .toLowerCase();
        if (echo !== appKey.toLowerCase()) throw unequal(this.#where, "AppKey", "another value");
        return;
      }
      yield* this.restart();
    }
    const todo = "The key was not stored; reset the module to its factory settings (AT+FDEFAULT) and try again.";
    accepted(this.#where, "AT+KEY=APPKEY", { kind: "silent" }, todo);
  }
}

/** One command to its own end line; `lines` has what follows the name. Remarks of the modem's input are no reply. */
function* command(text: string, name: string): Dialogue<Reply> {
  for (let repeat = 0; ; repeat++) {
    const came = yield* until({ write: text, waitMs: replyMs }, (line) => {
      if (isUnheard(line)) return line;
      const [, whose, rest] = /^\+(\w+): ?(.*)$/.exec(line) ?? [];
      if (whose === undefined || rest === undefined) return undefined;
      return whose.toUpperCase() === name || (whose === "AT" && rest.startsWith("ERROR")) ? rest : undefined;
    });
    if (came === undefined) return { kind: "silent" };
    if (isUnheard(came) && repeat < repeatsMax) continue;
    return came.startsWith("ERROR") || isUnheard(came)
      ? { kind: "refused", status: came }
      : { kind: "ok", lines: [came] };
  }
}

/** What a line says of a message; the prefix is that of another command with some firmware. */
function messageText(line: string): string | undefined {
  if (line === "+LOWPOWER: WAKEUP") return line;
  return /^\+(?:AT|MSG|MSGHEX|CMSG|CMSGHEX): ?(.*)$/i.exec(line)?.[1];
}

/** The command was not understood, or swallowed by a modem that slept. */
function isUnheard(text: string): boolean {
  return garbled.test(text) || text === "+LOWPOWER: WAKEUP";
}

type Refusal =
  | { readonly kind: "busy"; readonly retryInMs: number }
  | { readonly kind: "duty-cycle"; readonly retryInMs?: number }
  | { readonly kind: "too-long"; readonly emptyFrameSent: false }
  | { readonly kind: "not-joined" }
  | { readonly kind: "fault"; readonly detail: string };

/** What the text of a refusal means; undefined for any other text. */
function refusalOf(text: string): Refusal | undefined {
  if (/^LoRaWAN modem is busy/i.test(text)) return { kind: "busy", retryInMs: busyRetryMs };
  if (/^Please join network first/i.test(text)) return { kind: "not-joined" };
  const waitMs = /^No band in (\d{1,9}) ?ms/i.exec(text)?.[1];
  if (waitMs !== undefined) return { kind: "duty-cycle", retryInMs: Number(waitMs) };
  if (/^No free channel/i.test(text)) return { kind: "duty-cycle" };
  if (/^Length error/i.test(text)) return { kind: "too-long", emptyFrameSent: false };
  if (/^DR error/i.test(text) || /ERROR\(-\d+\)$/.test(text) || isUnheard(text)) return fault(text);
  return undefined;
}

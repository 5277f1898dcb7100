/**
 * Microchip RN2483 and RN2903. Source: TheThingsNetwork/arduino-device-lib src/TheThingsNetwork.cpp, jpmeijers/RN2483-Arduino-Library
 * src/rn2xx3.cpp, and the command reference as a Python driver quotes it. Each command has one line for an answer; two of them a second one.
 */

import { DriverError } from "../failure.ts";
import {
  accepted,
  type Dialect,
  type Dialogue,
  downlinkOf,
  euiOf,
  fault,
  type ModemState,
  noEmptyFrame,
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

const banner = /^RN2(?:483|903)\w* \d/;
/** Break and 0x55: from them it measures the speed of the port. */
const autobaud = "\0U";
const autobaudTriesMax = 10;
const busyRetryMs = 1_000;
/** So many times in a row it is busy before it is taken for stuck. */
const busyMax = 10;
const repeatsMax = 2;

export class Rn2483 implements Dialect {
  readonly family = "rn2483";
  readonly #where: string;
  #busy = 0;

  constructor(where: string) {
    this.#where = where;
  }

  observe(line: string): LoraDownlink | undefined {
    const [, port, hex] = /^mac_rx (\d+) ([0-9A-F]+)$/i.exec(line) ?? [];
    return downlinkOf(port, hex);
  }

  flush(): undefined {
    return undefined;
  }

  isBanner(line: string): boolean {
    return banner.test(line);
  }

  forget(): void {
    this.#busy = 0;
  }

  *probe(): Dialogue<string | undefined> {
    const isVersion = (line: string): string | undefined => (banner.test(line) ? line : undefined);
    const version = yield* until({ write: "sys get ver", waitMs: replyMs, expectsBanner: true }, isVersion);
    if (version !== undefined) return version;
    for (let tries = 0; tries < autobaudTriesMax; tries++) {
      yield* until({ write: autobaud, waitMs: 100 }, () => undefined);
      const heard = yield* until({ write: "sys get ver", waitMs: 300, expectsBanner: true }, isVersion);
      if (heard !== undefined) return heard;
    }
    return undefined;
  }

  *setUp(): Dialogue<SetUp> {
    this.forget();
    accepted(this.#where, "mac set adr on", yield* command("mac set adr on"));
    const devEui = yield* this.devEui();
    const address = textOf(yield* command("mac get devaddr"));
    // Without an address it was never joined; with one it may be, and the first frame tells.
    return {
      ...(address !== undefined && /^0+$/.test(address) && { joined: false }),
      ...(devEui !== undefined && { devEui }),
    };
  }

  *devEui(): Dialogue<string | undefined> {
    return euiOf(textOf(yield* command("mac get deveui")));
  }

  *state(): Dialogue<ModemState> {
    const [rate = ""] = accepted(this.#where, "mac get dr", yield* command("mac get dr"));
    return /^\d{1,2}$/.test(rate) ? { dataRate: Number(rate) } : {};
  }

  *join(guardMs: number): Dialogue<JoinOutcome> {
    // It is not kept by `mac save`, so it is off after every reset.
    yield* command("mac set adr on");
    const reply = yield* this.#patient("mac join otaa");
    switch (reply) {
      case undefined:
        return fault("no answer to mac join");
      case "ok":
        break;
      case "keys_not_init":
        return { kind: "no-keys" };
      case "no_free_ch":
        return { kind: "duty-cycle" };
      case "busy":
        return { kind: "busy", retryInMs: busyRetryMs };
      default:
        return fault(reply);
    }
    const end = yield* until({ waitMs: guardMs }, (line) => /^(?:accepted|denied)$/.exec(line)?.[0]);
    if (end === "accepted") return { kind: "joined" };
    // It says the same whether nothing came or an accept that does not hold.
    return end === undefined ? fault("no end of mac join") : { kind: "no-answer", detail: end };
  }

  *send({ port, hex, guardMs }: Uplink): Dialogue<SendOutcome> {
    if (hex === "") return fault(noEmptyFrame);
    const reply = yield* this.#patient(`mac tx uncnf ${port} ${hex}`);
    if (reply === undefined) return fault("no answer to mac tx");
    if (reply !== "busy") this.#busy = 0;
    if (reply !== "ok") return yield* this.#refused(reply);
    const end = yield* until({ waitMs: guardMs }, (line) =>
      /^(?:mac_tx_ok|mac_rx .+|mac_err|invalid_data_len|radio_err|radio_tx_ok)$/.test(line) ? line : undefined,
    );
    if (end === undefined) return fault("no end of mac tx");
    if (end === "mac_tx_ok" || end.startsWith("mac_rx")) return { kind: "sent" };
    // ADR lowered the data rate between.
    if (end === "invalid_data_len") return { kind: "too-long", emptyFrameSent: false };
    return fault(end);
  }

  *provision({ joinEui, devEui, appKey, subBand }: ModemKeys, region: RegionName): Dialogue<string> {
    const where = this.#where;
    const version = yield* this.probe();
    if (version === undefined) throw unanswered(where, "sys get ver");
    const isEuropean = version.startsWith("RN2483");
    if (isEuropean ? region !== "EU868" : region !== "US915" && region !== "AU915")
      throw new DriverError(
        "invalid-argument",
        `LoRaWAN modem at ${where}: expected a region of this module, got ${region}; ${version.slice(0, 6)} is for ${isEuropean ? "EU868" : "US915 and AU915"}.`,
      );
    const own = devEui ?? euiOf(textOf(yield* command("sys get hweui")));
    if (own === undefined) throw unequal(where, "hardware's EUI", undefined);
    accepted(where, "mac reset", yield* command(isEuropean ? "mac reset 868" : "mac reset"));
    accepted(where, "mac set deveui", yield* command(`mac set deveui ${own}`));
    accepted(where, "mac set appeui", yield* command(`mac set appeui ${joinEui}`));
    accepted(where, "mac set appkey", yield* command(`mac set appkey ${appKey}`));
    for (const channel of channelsOutside(subBand))
      accepted(where, "mac set ch status", yield* command(`mac set ch status ${channel} off`));
    accepted(where, "mac save", yield* command("mac save", restartMs));
    yield* this.restart();
    const written = yield* this.devEui();
    const joinWritten = euiOf(textOf(yield* command("mac get appeui")));
    if (written !== own) throw unequal(where, "DevEUI", written);
    if (joinWritten !== joinEui) throw unequal(where, "JoinEUI", joinWritten);
    return own;
  }

  *restart(): Dialogue<void> {
    this.forget();
    yield* until(
      { write: "sys reset", waitMs: restartMs, expectsBanner: true },
      (line) => banner.test(line) || undefined,
    );
  }

  /** Sends a command until the modem is not paused, not silenced, and has understood it; what it says in the end. */
  *#patient(text: string): Dialogue<string | undefined> {
    for (let repeat = 0; ; repeat++) {
      const reply = yield* command(text);
      if (reply.kind === "silent") return undefined;
      const word = reply.kind === "refused" ? reply.status : (reply.lines[0] ?? "ok");
      if (repeat === repeatsMax) return word;
      if (word === "silent") yield* command("mac forceENABLE");
      else if (word === "mac_paused") yield* command("mac resume");
      // The command was well formed: a byte was lost on its way.
      else if (word !== "invalid_param") return word;
    }
  }

  *#refused(reply: string): Dialogue<SendOutcome> {
    if (reply === "not_joined") return { kind: "not-joined" };
    // The Things Network's library spells it without the e.
    if (/^frame?_counter_err/.test(reply)) return { kind: "not-joined" };
    if (reply === "no_free_ch") return { kind: "duty-cycle" };
    if (reply === "invalid_data_len") return { kind: "too-long", emptyFrameSent: false };
    if (reply !== "busy") return fault(reply);
    if (++this.#busy < busyMax) return { kind: "busy", retryInMs: busyRetryMs };
    yield* this.restart();
    return fault(`busy ${busyMax} times in a row; it was reset`);
  }
}

/** Of the 64 channels and the 8 wide ones behind them, those that a sub-band has not. */
function channelsOutside(subBand: number | undefined): number[] {
  if (subBand === undefined) return [];
  const all = Array.from({ length: 72 }, (_, channel) => channel);
  return all.filter((channel) => (channel < 64 ? Math.floor(channel / 8) : channel - 64) !== subBand - 1);
}

/** One command and its one line. `ok` with no lines, or the value that was asked for. */
function* command(text: string, waitMs = replyMs): Dialogue<Reply> {
  const line = yield* until({ write: text, waitMs }, (came) => (banner.test(came) || isLate(came) ? undefined : came));
  if (line === undefined) return { kind: "silent" };
  if (line === "ok") return { kind: "ok", lines: [] };
  return text.includes(" get ") && line !== "invalid_param"
    ? { kind: "ok", lines: [line] }
    : { kind: "refused", status: line };
}

function textOf(reply: Reply): string | undefined {
  return reply.kind === "ok" ? reply.lines[0] : undefined;
}

/** The second line of an earlier command, which comes when it comes. */
function isLate(line: string): boolean {
  return /^(?:mac_tx_ok|mac_rx |mac_err|radio_|accepted$|denied$)/.test(line);
}

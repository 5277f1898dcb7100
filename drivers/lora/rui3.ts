/**
 * RAK3172 and kin with RUI3 firmware. Source: RAKWireless/RAK-STM32-RUI, cores/STM32WLE/component/service (mode/cli/atcmd*.c,
 * lora/service_lora*.c), "RUI 5.0.0".
 */
import { atCommand, atStatus, valueIn } from "./at-status.ts";
import {
  accepted,
  type Dialect,
  type Dialogue,
  downlinkOf,
  euiOf,
  fault,
  type ModemState,
  noEmptyFrame,
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

/** `AT+BAND`; AS923 is its first group, AS923-1. */
const bands: Readonly<Record<RegionName, number>> = { EU868: 4, US915: 5, AU915: 6, AS923: 8 };
/** A downlink's line may come just after the one that ends the command. */
const lateLineMs = 250;
/** `AT_BUSY_ERROR` without a time: the MAC is still at work. */
const busyRetryMs = 1_000;
/** What this uplink needs. In low-power mode (LPM) the first byte of a command can be lost. */
const settings = [
  ["AT+NJM", "1"],
  ["AT+CLASS", "A"],
  ["AT+ADR", "1"],
  ["AT+CFM", "0"],
  ["AT+LPM", "0"],
] as const;

export class Rui3 implements Dialect {
  readonly family = "rui3";
  readonly #where: string;

  constructor(where: string) {
    this.#where = where;
  }

  observe(line: string): LoraDownlink | undefined {
    const [, rssi, snr, port, hex] =
      /^\+EVT:RX_(?:1|2|B|C):(-?\d+):(-?\d+):(?:UNICAST|MULTICAST):(\d+):([0-9a-f]+)$/i.exec(line) ?? [];
    return downlinkOf(port, hex, rssi, snr);
  }

  flush(): undefined {
    return undefined;
  }

  isBanner(line: string): boolean {
    return /^RAKwireless |^Current Work Mode:/i.test(line);
  }

  forget(): void {
    // It keeps port and settings in no place but the command and its flash.
  }

  *probe(): Dialogue<string | undefined> {
    let version: string | undefined;
    // The status of what was asked before may come first.
    yield* until({ write: "AT+VER=?", waitMs: replyMs, expectsBanner: true }, (line) => {
      version ??= /^(?:AT\+VER=|(?=RUI_))(.+)$/i.exec(line)?.[1]?.trim();
      return (line === "OK" && version !== undefined) || undefined;
    });
    return version;
  }

  *setUp(): Dialogue<SetUp> {
    yield* this.#lorawanMode();
    yield* this.#settings();
    const devEui = yield* this.devEui();
    const { joined } = yield* this.state();
    return { ...(joined !== undefined && { joined }), ...(devEui !== undefined && { devEui }) };
  }

  *devEui(): Dialogue<string | undefined> {
    return euiOf(valueIn(yield* atCommand("AT+DEVEUI=?")));
  }

  *state(): Dialogue<ModemState> {
    const joined = yield* atCommand("AT+NJS=?");
    accepted(this.#where, "AT+NJS=?", joined);
    const rate = Number(valueIn(yield* atCommand("AT+DR=?")) ?? Number.NaN);
    return { joined: valueIn(joined) === "1", ...(Number.isInteger(rate) && { dataRate: rate }) };
  }

  /** Its own repetitions stay off: one attempt, and the back-off is the caller's. */
  *join(guardMs: number): Dialogue<JoinOutcome> {
    let retryInMs: number | undefined;
    const status = yield* atStatus("AT+JOIN=1:0:10:0", (line) => {
      retryInMs = restrictedMs(line) ?? retryInMs;
    });
    if (status === undefined) return fault("no answer to AT+JOIN");
    if (status === "AT_BUSY_ERROR")
      return retryInMs === undefined ? { kind: "busy", retryInMs: busyRetryMs } : { kind: "duty-cycle", retryInMs };
    if (status !== "OK") return fault(status);
    return (yield* until({ waitMs: guardMs }, joinEvent)) ?? { kind: "no-answer", detail: "no event came" };
  }

  *send({ port, hex, guardMs }: Uplink): Dialogue<SendOutcome> {
    if (hex === "") return fault(noEmptyFrame);
    let retryInMs: number | undefined;
    const status = yield* atStatus(`AT+SEND=${port}:${hex}`, (line) => {
      retryInMs = restrictedMs(line) ?? retryInMs;
    });
    switch (status) {
      case undefined:
        return fault("no answer to AT+SEND");
      case "OK":
        return (yield* windowsClosed(guardMs)) ?? fault("no +EVT:TX_DONE after OK");
      case "AT_BUSY_ERROR":
        return retryInMs === undefined ? { kind: "busy", retryInMs: busyRetryMs } : { kind: "duty-cycle", retryInMs };
      case "AT_NO_NETWORK_JOINED":
        return { kind: "not-joined" };
      case "AT_PARAM_ERROR":
        // The command was well formed, so the payload is too long now: an empty frame is on its way in its place.
        return { kind: "too-long", emptyFrameSent: (yield* windowsClosed(guardMs)) !== undefined };
      default:
        return fault(status);
    }
  }

  *provision({ joinEui, devEui, appKey, subBand }: ModemKeys, region: RegionName): Dialogue<string> {
    const where = this.#where;
    yield* this.#lorawanMode();
    yield* this.#settings();
    accepted(where, "AT+BAND", yield* atCommand(`AT+BAND=${bands[region]}`), `Is it a module for ${region}?`);
    if (subBand !== undefined) {
      const mask = (1 << (subBand - 1)).toString(16).padStart(4, "0");
      accepted(where, "AT+MASK", yield* atCommand(`AT+MASK=${mask}`));
    }
    if (devEui !== undefined) accepted(where, "AT+DEVEUI", yield* atCommand(`AT+DEVEUI=${devEui}`));
    accepted(where, "AT+APPEUI", yield* atCommand(`AT+APPEUI=${joinEui}`));
    accepted(where, "AT+APPKEY", yield* atCommand(`AT+APPKEY=${appKey}`));
    const written = yield* this.devEui();
    const joinWritten = euiOf(valueIn(yield* atCommand("AT+APPEUI=?")));
    if (written === undefined || (devEui !== undefined && written !== devEui)) throw unequal(where, "DevEUI", written);
    if (joinWritten !== joinEui) throw unequal(where, "JoinEUI", joinWritten);
    return written;
  }

  restart(): Dialogue<void> {
    return this.#restart("ATZ");
  }

  *#settings(): Dialogue<void> {
    for (const [name, value] of settings) {
      const reply = yield* atCommand(`${name}=?`);
      if (reply.kind === "refused" && name === "AT+LPM") continue;
      accepted(this.#where, `${name}=?`, reply);
      if (valueIn(reply)?.split(":")[0] === value) continue;
      accepted(this.#where, `${name}=${value}`, yield* atCommand(`${name}=${value}`));
    }
  }

  *#lorawanMode(): Dialogue<void> {
    const mode = yield* atCommand("AT+NWM=?");
    if (valueIn(mode) !== "1" && mode.kind !== "refused") yield* this.#restart("AT+NWM=1");
  }

  /** The change of mode starts it anew too; ATZ prints no status. */
  *#restart(command: string): Dialogue<void> {
    yield* until({ write: command, waitMs: restartMs, expectsBanner: true }, (line) =>
      /^Current Work Mode:/i.test(line) ? true : undefined,
    );
    for (let tries = 0; tries < 3; tries++) if ((yield* this.probe()) !== undefined) return;
    throw unanswered(this.#where, command);
  }
}

/** `Restricted_Wait_<ms>_ms`: what is left of the duty cycle's silence. */
function restrictedMs(line: string): number | undefined {
  const ms = /^Restricted_Wait_(\d{1,9})_ms$/i.exec(line)?.[1];
  return ms === undefined ? undefined : Number(ms);
}

function joinEvent(line: string): JoinOutcome | undefined {
  if (line === "+EVT:JOINED") return { kind: "joined" };
  const reason = /^\+EVT:JOIN_FAILED_(\w+)$/.exec(line)?.[1];
  if (reason === undefined) return undefined;
  if (reason === "RX_TIMEOUT") return { kind: "no-answer" };
  // LoRaMac's event status 7: an accept came that does not hold.
  return reason === "7" ? { kind: "refused", detail: reason } : fault(`join failed: ${reason}`);
}

/** The event that ends an unconfirmed frame comes after its windows; a downlink's line may still follow it. */
function* windowsClosed(guardMs: number): Dialogue<SendOutcome | undefined> {
  let isReceived = false;
  const outcome = yield* until({ waitMs: guardMs }, (line): SendOutcome | undefined => {
    isReceived ||= line.startsWith("+EVT:RX_");
    if (line === "+EVT:TX_DONE" || line === "+EVT:SEND_CONFIRMED_OK") return { kind: "sent" };
    const status = /^\+EVT:SEND_CONFIRMED_FAILED\((\d+)\)$/.exec(line)?.[1];
    return status === undefined ? undefined : fault(`+EVT:SEND_CONFIRMED_FAILED(${status})`);
  });
  if (outcome !== undefined && !isReceived)
    yield* until({ waitMs: lateLineMs }, (line) => line.startsWith("+EVT:RX_") || undefined);
  return outcome;
}

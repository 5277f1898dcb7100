/**
 * ST's LoRaWAN_AT_Slave on an STM32WL: Murata Type 1SJ, Nucleo and others. Source: STMicroelectronics/STM32CubeWL @406f7a20,
 * Projects/NUCLEO-WL55JC/Applications/LoRaWAN/LoRaWAN_AT_Slave/LoRaWAN/App (lora_at.c, lora_command.c). It says nothing when a frame is
 * through, and nothing of whether it is joined.
 */
import { DriverError } from "../failure.ts";
import { atCommand, atStatus, valueIn } from "./at-status.ts";
import {
  accepted,
  type Dialect,
  type Dialogue,
  downlinkOf,
  euiOf,
  fault,
  type ModemState,
  restartMs,
  type SetUp,
  type Uplink,
  unanswered,
  unequal,
  until,
  withColons,
} from "./dialogue.ts";
import type { JoinOutcome, LoraDownlink, ModemKeys, SendOutcome } from "./modem.ts";
import type { RegionName } from "./region.ts";

const bands: Readonly<Record<RegionName, number>> = { AS923: 0, AU915: 1, EU868: 5, US915: 8 };
const busyRetryMs = 1_000;
const banner = /^(?:APP|APPLICATION|MW)_\w*VERSION:/;

export class AtSlave implements Dialect {
  readonly family = "at-slave";
  readonly #where: string;
  /** The downlink whose signal's line has not come. */
  #pending: { readonly port: string; readonly hex: string } | undefined;
  /** The join that a refused frame began: it runs, or it has ended well. */
  #ownJoin: "none" | "runs" | "joined" = "none";

  constructor(where: string) {
    this.#where = where;
  }

  observe(line: string): LoraDownlink | undefined {
    if (this.#ownJoin === "runs" && line.startsWith("+EVT:JOIN"))
      this.#ownJoin = line === "+EVT:JOINED" ? "joined" : "none";
    const [, port, length, hex] = /^\+EVT:(\d{1,3}):([0-9A-F]{2}):([0-9A-F]+)$/i.exec(line) ?? [];
    if (port !== undefined && length !== undefined && hex !== undefined) {
      const before = this.flush();
      if (hex.length === 2 * Number.parseInt(length, 16)) this.#pending = { port, hex };
      return before;
    }
    const [, rssi, snr] = /^\+EVT:RX_\w+,.*\bRSSI (-?\d+), SNR (-?\d+)/.exec(line) ?? [];
    return rssi === undefined ? undefined : this.#take(rssi, snr);
  }

  flush(): LoraDownlink | undefined {
    return this.#take();
  }

  isBanner(line: string): boolean {
    return banner.test(line);
  }

  forget(): void {
    this.#ownJoin = "none";
  }

  *probe(): Dialogue<string | undefined> {
    let version: string | undefined;
    const step = { write: "AT+VER=?", waitMs: 1_500, expectsBanner: true };
    yield* until(step, (line) => {
      version ??= /^(?:APP|APPLICATION)_VERSION: *(V[\w.]+)$/.exec(line)?.[1];
      return line === "OK" && version !== undefined ? true : undefined;
    });
    return version;
  }

  *setUp(): Dialogue<SetUp> {
    this.forget();
    yield* this.#settings();
    const devEui = yield* this.devEui();
    return devEui === undefined ? {} : { devEui };
  }

  *devEui(): Dialogue<string | undefined> {
    return euiOf(valueIn(yield* atCommand("AT+DEUI=?")));
  }

  *state(): Dialogue<ModemState> {
    const reply = yield* atCommand("AT+DR=?");
    accepted(this.#where, "AT+DR=?", reply);
    const rate = Number(valueIn(reply) || Number.NaN);
    return Number.isInteger(rate) ? { dataRate: rate } : {};
  }

  *join(guardMs: number): Dialogue<JoinOutcome> {
    const own = this.#ownJoin;
    this.#ownJoin = "none";
    if (own === "joined") return { kind: "joined" };
    if (own === "none") {
      const status = yield* atStatus("AT+JOIN=1");
      if (status === undefined) return fault("no answer to AT+JOIN");
      if (status === "AT_BUSY_ERROR") return { kind: "busy", retryInMs: busyRetryMs };
      if (status === "AT_DUTYCYCLE_RESTRICTED") return { kind: "duty-cycle" };
      if (status !== "OK") return fault(status);
    }
    const event = yield* until({ waitMs: guardMs }, (line) => /^\+EVT:JOIN(?:ED| FAILED)$/.exec(line)?.[0]);
    if (event === "+EVT:JOINED") return { kind: "joined" };
    return { kind: "no-answer", detail: event ?? "no event came" };
  }

  *send({ port, hex, windowsMs }: Uplink): Dialogue<SendOutcome> {
    const status = yield* atStatus(`AT+SEND=${port}:0:${hex}`);
    switch (status) {
      case undefined:
        return fault("no answer to AT+SEND");
      case "OK":
        // Silence is how an unconfirmed frame ends. What comes down ends it early: after the first window there is no second.
        yield* until({ waitMs: windowsMs }, (line) => line.startsWith("+EVT:RX_") || undefined);
        return { kind: "sent" };
      case "AT_BUSY_ERROR":
        return { kind: "busy", retryInMs: busyRetryMs };
      case "AT_DUTYCYCLE_RESTRICTED":
        return { kind: "duty-cycle" };
      case "AT_NO_NETWORK_JOINED":
        // It begins a join by itself.
        this.#ownJoin = "runs";
        return { kind: "not-joined" };
      case "AT_ERROR":
        // The command was well formed, so the payload is too long now: an empty frame is on its way in its place.
        yield* until({ waitMs: windowsMs }, (line) => line.startsWith("+EVT:RX_") || undefined);
        return { kind: "too-long", emptyFrameSent: true };
      default:
        return fault(status);
    }
  }

  *provision({ joinEui, devEui, appKey, subBand }: ModemKeys, region: RegionName): Dialogue<string> {
    const where = this.#where;
    if (subBand !== undefined)
      throw new DriverError(
        "invalid-argument",
        `LoRaWAN modem at ${where}: expected no sub-band, got ${subBand}; AT_Slave has no command for channels, it tries all of them.`,
      );
    yield* this.#settings();
    accepted(where, "AT+BAND", yield* atCommand(`AT+BAND=${bands[region]}`), `Is it a module for ${region}?`);
    if (devEui !== undefined) accepted(where, "AT+DEUI", yield* atCommand(`AT+DEUI=${withColons(devEui)}`));
    accepted(where, "AT+APPEUI", yield* atCommand(`AT+APPEUI=${withColons(joinEui)}`));
    accepted(where, "AT+APPKEY", yield* atCommand(`AT+APPKEY=${withColons(appKey)}`));
    // LoRaWAN 1.0.x has one root key; the 1.1 stack inside wants it twice.
    accepted(where, "AT+NWKKEY", yield* atCommand(`AT+NWKKEY=${withColons(appKey)}`));
    const written = yield* this.devEui();
    const joinWritten = euiOf(valueIn(yield* atCommand("AT+APPEUI=?")));
    if (written === undefined || (devEui !== undefined && written !== devEui)) throw unequal(where, "DevEUI", written);
    if (joinWritten !== joinEui) throw unequal(where, "JoinEUI", joinWritten);
    accepted(where, "AT+CS", yield* atCommand("AT+CS"));
    return written;
  }

  *restart(): Dialogue<void> {
    yield* until({ write: "ATZ", waitMs: restartMs, expectsBanner: true }, (line) => banner.test(line) || undefined);
    for (let tries = 0; tries < 3; tries++) if ((yield* this.probe()) !== undefined) return;
    throw unanswered(this.#where, "ATZ");
  }

  #take(rssi?: string, snr?: string): LoraDownlink | undefined {
    const pending = this.#pending;
    this.#pending = undefined;
    return pending && downlinkOf(pending.port, pending.hex, rssi, snr);
  }

  *#settings(): Dialogue<void> {
    for (const [name, value] of [
      ["AT+ADR", "1"],
      ["AT+CLASS", "A"],
    ] as const) {
      const reply = yield* atCommand(`${name}=?`);
      accepted(this.#where, `${name}=?`, reply);
      if (valueIn(reply) !== value) accepted(this.#where, `${name}=${value}`, yield* atCommand(`${name}=${value}`));
    }
  }
}

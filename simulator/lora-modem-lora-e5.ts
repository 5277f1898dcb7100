/** Seeed LoRa-E5, firmware 4.0.x, as drivers and transcripts quote Seeed's "AT Command Specification V1.0". */
import { dataRates } from "../drivers/lora/region.ts";
import type { EndDevice, TransmitEnd, TransmitStart } from "./lora-end-device.ts";
import {
  hexBytes,
  hexDigits,
  hexOf,
  inPairs,
  integerIn,
  lineFeed,
  type ModemMachine,
  type ModemSide,
} from "./lora-modem-machine.ts";

const errors = { parameter: -1, unknown: -10, format: -11, mode: -12, tooLong: -21, endSymbol: -22 } as const;
const modes = ["LWOTAA", "LWABP", "TEST"];

export class LoraE5Machine implements ModemMachine {
  readonly lineEnds = [lineFeed];
  readonly lineBytesMax = 528;
  readonly #side: ModemSide;
  readonly #device: EndDevice;
  #mode = "LWOTAA";
  #port = 8;
  #isConfirmed = false;
  #isAsleep = false;

  constructor(side: ModemSide) {
    this.#side = side;
    this.#device = side.device;
  }

  line(text: string): string {
    const command = text.replace(/\r$/, "").trim();
    if (command === "") return "";
    if (this.#isAsleep) {
      this.#isAsleep = false; // what wakes it is lost
      return say("LOWPOWER", "WAKEUP");
    }
    if (text.length > this.lineBytesMax) return error("AT", errors.tooLong);
    if (/^AT$/i.test(command)) return say("AT", "OK");
    const [, given = "", , value] = /^AT\+([A-Z]+)(=(.*))?$/i.exec(command) ?? [];
    if (given === "") return error("AT", errors.unknown);
    return this.#run(given.toUpperCase(), value?.trim());
  }

  ended({ kind, isAnswered, downlink, linkCheck }: TransmitEnd): string {
    if (kind === "join") {
      if (!isAnswered) return say("JOIN", "Join failed", "Done");
      const address = inPairs((this.#device.devAddr ?? 0).toString(16).padStart(8, "0")).toUpperCase();
      return say("JOIN", "Network joined", `NetID 000013 DevAddr ${address}`, "Done");
    }
    const name = this.#isConfirmed ? "CMSGHEX" : "MSGHEX";
    const texts: string[] = [];
    if (this.#isConfirmed && isAnswered) texts.push("ACK Received");
    if (downlink?.pending) texts.push("FPENDING");
    if (linkCheck) texts.push(`Link ${linkCheck.marginDb}, ${linkCheck.gateways}`);
    if (downlink !== undefined) {
      const { port, bytes, window, rssiDbm, snrDb } = downlink;
      if (port !== undefined) texts.push(`PORT: ${port}; RX: "${hexOf(bytes).toUpperCase()}"`);
      texts.push(`RXWIN${window}, RSSI ${rssiDbm}, SNR ${snrDb.toFixed(1)}`);
    }
    return say(name, ...texts, "Done");
  }

  forget(): void {
    this.#port = 8;
    this.#isAsleep = false;
  }

  started(): string {
    return ""; // nothing is said
  }

  #run(name: string, value: string | undefined): string {
    const device = this.#device;
    switch (name) {
      case "VER":
        return say(name, "4.0.11");
      case "RESET":
        // The answer comes out before it starts anew.
        this.#side.restart();
        return say(name, "OK");
      case "LOWPOWER":
        this.#isAsleep = true;
        return say(name, "SLEEP");
      case "ID":
        return this.#id(value);
      case "KEY": {
        const key = /^APPKEY, *(.*)$/i.exec(value ?? "")?.[1];
        const plain = key === undefined ? undefined : hexDigits(key, 32);
        if (plain === undefined) return error(name, errors.parameter);
        device.appKey = hexBytes(plain);
        return say(name, `APPKEY ${plain.toUpperCase()}`);
      }
      case "MODE":
        if (value !== undefined && !modes.includes(value.toUpperCase())) return error(name, errors.parameter);
        this.#mode = value?.toUpperCase() ?? this.#mode;
        return say(name, this.#mode);
      case "DR":
        return this.#dataRate(value);
      case "ADR":
        if (value !== undefined && !/^(ON|OFF)$/i.test(value)) return error(name, errors.parameter);
        device.adr = value === undefined ? device.adr : /^ON$/i.test(value);
        return say(name, device.adr ? "ON" : "OFF");
      case "PORT": {
        const port = value === undefined ? this.#port : integerIn(value, 1, 223);
        if (port === undefined) return error(name, errors.parameter);
        this.#port = port;
        return say(name, `${port}`);
      }
      case "CH":
        return say(name, (value ?? "NUM, 0-2").replace(/, */g, ", "));
      case "CLASS":
        return value === undefined || /^A$/i.test(value) ? say(name, "A") : error(name, errors.parameter);
      case "REPT":
      case "RETRY":
      case "POWER":
        return say(name, value ?? "1");
      case "UART":
        return say(name, (value ?? "").replace(/, */g, ", "));
      case "LW":
        return this.#lorawan(value ?? "");
      case "JOIN":
        return this.#join(value);
      case "MSGHEX":
      case "CMSGHEX":
        return this.#message(name, value ?? "");
      default:
        return error(name, errors.unknown);
    }
  }

  #id(value: string | undefined): string {
    const device = this.#device;
    const address = (device.devAddr ?? 0).toString(16).padStart(8, "0");
    const ids: Readonly<Record<string, string>> = { DevAddr: address, DevEui: device.devEui, AppEui: device.joinEui };
    const shown = (name: string): string => `${name}, ${inPairs(ids[name] || "0".repeat(16)).toUpperCase()}`;
    if (value === undefined) return say("ID", ...Object.keys(ids).map(shown));
    const [, given = "", , text] = /^(\w+)(, *(.*))?$/.exec(value) ?? [];
    const name = Object.keys(ids).find((known) => known.toLowerCase() === given.toLowerCase());
    if (name === undefined) return error("ID", errors.parameter);
    if (text !== undefined) {
      const eui = hexDigits(text, 16);
      if (eui === undefined || name === "DevAddr") return error("ID", errors.parameter);
      device[name === "DevEui" ? "devEui" : "joinEui"] = eui;
      return say("ID", `${name}, ${inPairs(eui).toUpperCase()}`);
    }
    return say("ID", shown(name));
  }

  #dataRate(value: string | undefined): string {
    const device = this.#device;
    if (value !== undefined && /^[A-Z]{2}\d{3}$/i.test(value)) {
      return value.toUpperCase() === device.region ? say("DR", device.region) : error("DR", errors.parameter);
    }
    const dataRate = value === undefined ? device.dataRate : integerIn(value.replace(/^DR/i, ""), 0, 7);
    const rate = dataRates(device.region).find((known) => known.dataRate === dataRate);
    if (rate === undefined || !device.setDataRate(rate.dataRate)) return error("DR", errors.parameter);
    const text = `${device.region} DR${rate.dataRate}  SF${rate.spreadingFactor}  BW${rate.bandwidthKhz}K`;
    return say("DR", `DR${rate.dataRate}`, text);
  }

  #lorawan(value: string): string {
    const [what = "", setting] = value.toUpperCase().split(/, */);
    if (what === "LEN") return say("LW", `LEN, ${this.#device.bytesMax}`);
    if (what === "DC" && (setting === "ON" || setting === "OFF")) {
      this.#device.dutyCycle = setting === "ON" ? "band" : "off";
      return say("LW", `DC, ${setting}`);
    }
    if (what === "JDC" && (setting === "ON" || setting === "OFF")) return say("LW", `JDC, ${setting}`);
    return error("LW", errors.parameter);
  }

  #join(value: string | undefined): string {
    const isForced = /^FORCE$/i.test(value ?? "");
    if (value !== undefined && !isForced) return error("JOIN", errors.parameter);
    if (this.#mode !== "LWOTAA") return error("JOIN", errors.mode);
    if (this.#device.isJoined && !isForced) return say("JOIN", "Joined already");
    const started = this.#device.join();
    if (started.kind !== "started") return say("JOIN", refusalText(started));
    return say("JOIN", "Start", isForced ? "FORCE" : "NORMAL");
  }

  #message(name: string, value: string): string {
    const bytes = hexBytes(value.replace(/[" ]/g, ""));
    if (bytes === undefined) return error(name, errors.parameter);
    const isConfirmed = name === "CMSGHEX";
    const started = this.#device.send(this.#port, bytes, isConfirmed);
    if (started.kind !== "started") return say(name, refusalText(started));
    this.#isConfirmed = isConfirmed;
    return say(name, "Start", ...(isConfirmed ? ["Wait ACK"] : []));
  }
}

function refusalText(started: Exclude<TransmitStart, { kind: "started" }>): string {
  switch (started.kind) {
    case "busy":
      return "LoRaWAN modem is busy";
    case "no-keys":
    case "not-joined":
      return "Please join network first";
    case "duty-cycle":
      return `No band in ${started.retryInMs}ms`;
    case "too-long":
      return `Length error ${started.bytesMax}`;
  }
}

function say(name: string, ...texts: readonly string[]): string {
  return texts.map((text) => `+${name}: ${text}\r\n`).join("");
}

function error(name: string, code: number): string {
  return say(name, `ERROR(${code})`);
}

/** Microchip RN2483 and RN2903, as their command reference and the libraries of TTN and J. P. Meijers know them. */
import type { EndDevice, TransmitEnd, TransmitStart } from "./lora-end-device.ts";
import {
  hexBytes,
  hexDigits,
  hexOf,
  integerIn,
  lineFeed,
  type ModemMachine,
  type ModemSide,
} from "./lora-modem-machine.ts";

interface Saved {
  readonly devEui: string;
  readonly joinEui: string;
  readonly appKey: Uint8Array | undefined;
}

const commandBytesMax = 600;

export class Rn2483Machine implements ModemMachine {
  readonly lineEnds = [lineFeed];
  readonly lineBytesMax = commandBytesMax;
  readonly #side: ModemSide;
  readonly #device: EndDevice;
  /** What `mac save` wrote; at first what the maker of the device did. */
  #saved: Saved;
  #isPaused = false;
  #isConfirmed = false;

  constructor(side: ModemSide) {
    this.#side = side;
    this.#device = side.device;
    this.#saved = this.#keys();
  }

  line(text: string): string {
    // A break and 0x55 before a command are how it measures the speed.
    const [first = "", ...words] = text
      .replace(/^[\0U\xfe]*(?=sys|mac|radio)/, "")
      .trim()
      .split(" ");
    if (text.length > commandBytesMax) return said("invalid_param");
    if (first === "sys") return this.#sys(words);
    if (first === "mac") return this.#mac(words);
    return first === "" ? "" : said("invalid_param");
  }

  ended({ kind, isAnswered, downlink }: TransmitEnd): string {
    if (kind === "join") return said(isAnswered ? "accepted" : "denied");
    if (downlink?.port !== undefined) return said(`mac_rx ${downlink.port} ${hexOf(downlink.bytes).toUpperCase()}`);
    return said(this.#isConfirmed && !isAnswered ? "mac_err" : "mac_tx_ok");
  }

  forget(): void {
    Object.assign(this.#device, this.#saved);
    this.#isPaused = false;
    this.#device.adr = false;
  }

  started(): string {
    return said(this.#version);
  }

  get #version(): string {
    const model = this.#device.region === "EU868" ? "RN2483" : "RN2903";
    return `${model} 1.0.5 Oct 31 2018 15:06:52`;
  }

  #restart(): string {
    this.#side.restart();
    return "";
  }

  #keys(): Saved {
    const { devEui, joinEui, appKey } = this.#device;
    return { devEui, joinEui, appKey };
  }

  #sys([verb, what]: readonly string[]): string {
    if (verb === "reset") return this.#restart();
    if (verb === "get" && what === "ver") return said(this.#version);
    if (verb === "get" && what === "hweui") return said("0004A30B001A2B3C");
    if (verb === "get" && what === "vdd") return said("3294");
    return said("invalid_param");
  }

  #mac(words: readonly string[]): string {
    const [verb, ...rest] = words;
    switch (verb) {
      case "reset":
        this.#device.reset();
        return said("ok");
      case "save":
        this.#saved = this.#keys();
        return said("ok");
      case "pause":
        this.#isPaused = !this.#device.isBusy;
        return said(this.#isPaused ? "4294967245" : "0");
      case "resume":
        this.#isPaused = false;
        return said("ok");
      case "forceENABLE":
        return said("ok");
      case "set":
        return said(this.#set(rest) ? "ok" : "invalid_param");
      case "get":
        return said(this.#get(rest) ?? "invalid_param");
      case "join":
        return this.#join(rest);
      case "tx":
        return this.#tx(rest);
      default:
        return said("invalid_param");
    }
  }

  #set([name, value = "", ...more]: readonly string[]): boolean {
    const device = this.#device;
    switch (name) {
      case "deveui":
      case "appeui": {
        const eui = hexDigits(value, 16);
        if (eui !== undefined) device[name === "deveui" ? "devEui" : "joinEui"] = eui;
        return eui !== undefined;
      }
      case "appkey": {
        const key = hexDigits(value, 32);
        if (key !== undefined) device.appKey = hexBytes(key);
        return key !== undefined;
      }
      case "adr":
        if (value !== "on" && value !== "off") return false;
        device.adr = value === "on";
        return true;
      case "dr": {
        const dataRate = integerIn(value, 0, 7);
        return dataRate !== undefined && device.setDataRate(dataRate);
      }
      case "pwridx":
      case "retx":
      case "linkchk":
        return integerIn(value, 0, 65_535) !== undefined;
      case "rx2":
      case "ch":
        return more.length > 0;
      default:
        return false;
    }
  }

  #get([name]: readonly string[]): string | undefined {
    const device = this.#device;
    switch (name) {
      case "deveui":
        return (device.devEui || "0".repeat(16)).toUpperCase();
      case "appeui":
        return (device.joinEui || "0".repeat(16)).toUpperCase();
      case "devaddr":
        return (device.devAddr ?? 0).toString(16).padStart(8, "0").toUpperCase();
      case "dr":
        return `${device.dataRate}`;
      case "adr":
        return device.adr ? "on" : "off";
      case "upctr":
        return `${device.frameCounterUp}`;
      case "status":
        return ((device.isJoined ? 1 : 0) | (device.adr ? 0x20 : 0)).toString(16).padStart(8, "0").toUpperCase();
      default:
        return undefined;
    }
  }

  #join([mode]: readonly string[]): string {
    if (mode !== "otaa") return said("invalid_param");
    if (this.#isPaused) return said("mac_paused");
    return said(this.#word(this.#device.join()));
  }

  #tx([kind, portText = "", hex = ""]: readonly string[]): string {
    const port = integerIn(portText, 1, 223);
    const bytes = hexBytes(hex);
    if ((kind !== "cnf" && kind !== "uncnf") || port === undefined || bytes === undefined) return said("invalid_param");
    if (this.#isPaused) return said("mac_paused");
    const started = this.#device.send(port, bytes, kind === "cnf");
    if (started.kind === "started") this.#isConfirmed = kind === "cnf";
    return said(this.#word(started));
  }

  #word(started: TransmitStart): string {
    const words: Readonly<Record<TransmitStart["kind"], string>> = {
      started: "ok",
      busy: "busy",
      "no-keys": "keys_not_init",
      "not-joined": "not_joined",
      "too-long": "invalid_data_len",
      "duty-cycle": "no_free_ch",
    };
    return words[started.kind];
  }
}

function said(line: string): string {
  return `${line}\r\n`;
}

/** ST's LoRaWAN_AT_Slave, as STMicroelectronics/STM32CubeWL (LoRaWAN_AT_Slave/LoRaWAN/App/lora_at.c, lora_command.c) answers. */
import type { EndDevice, TransmitEnd } from "./lora-end-device.ts";
import {
  carriageReturn,
  hexBytes,
  hexDigits,
  hexOf,
  inPairs,
  integerIn,
  keyText,
  lineFeed,
  type ModemMachine,
  type ModemSide,
} from "./lora-modem-machine.ts";

const bandOfRegion = { AS923: 0, AU915: 1, EU868: 5, US915: 8 } as const;
const versions = [
  "APPLICATION_VERSION: V1.3.0",
  "MW_LORAWAN_VERSION:  V2.5.0",
  "MW_RADIO_VERSION:    V1.3.0",
  "L2_SPEC_VERSION:     V1.0.4",
  "RP_SPEC_VERSION:     V2-1.0.1",
];

interface Parameter {
  read?(): string;
  write?(value: string): boolean;
}

export class AtSlaveMachine implements ModemMachine {
  readonly lineEnds = [carriageReturn, lineFeed];
  readonly lineBytesMax = 540;
  readonly #side: ModemSide;
  readonly #device: EndDevice;
  readonly #parameters: readonly (readonly [string, Parameter])[];
  #isConfirmed = false;

  constructor(side: ModemSide) {
    this.#side = side;
    this.#device = side.device;
    this.#parameters = this.#allParameters();
  }

  line(text: string): string {
    if (text === "") return "";
    if (text.length > this.lineBytesMax) return status("AT_TEST_PARAM_OVERFLOW");
    if (text === "ATZ") return this.#restart();
    if (text === "AT") return status("OK");
    if (!text.startsWith("AT+")) return status("AT_ERROR");
    const rest = text.slice(3);
    if (rest.startsWith("JOIN=")) return this.#join(rest.slice(5));
    if (rest.startsWith("SEND=")) return this.#send(rest.slice(5));
    if (rest === "CS") return `NVM DATA STORED\r\n${status("OK")}`;
    if (rest === "LINKC") {
      this.#device.wantsLinkCheck = true;
      return status("OK");
    }
    // The first whose name the command begins with.
    const [name, parameter] = this.#parameters.find(([known]) => rest.startsWith(known)) ?? [];
    if (name === undefined || parameter === undefined) return status("AT_ERROR");
    const verb = rest.slice(name.length);
    if (verb === "=?" && parameter.read) return `${parameter.read()}\r\n${status("OK")}`;
    if (verb === "?") return `AT+${name}: get or set\r\n${status("OK")}`;
    const isTaken = verb.startsWith("=") && parameter.write?.(verb.slice(1)) === true;
    return status(isTaken ? "OK" : "AT_PARAM_ERROR");
  }

  ended({ kind, isAnswered, downlink, linkCheck }: TransmitEnd): string {
    if (kind === "join") return event(isAnswered ? "JOINED" : "JOIN FAILED");
    let said = "";
    if (downlink !== undefined) {
      const { window, port, bytes, dataRate, rssiDbm, snrDb } = downlink;
      if (port !== undefined)
        said += event(
          `${port}:${bytes.length.toString(16).padStart(2, "0").toUpperCase()}:${hexOf(bytes).toUpperCase()}`,
        );
      const check = linkCheck ? `, DMODM ${linkCheck.marginDb}, GWN ${linkCheck.gateways}` : "";
      said += event(
        `RX_${window}, PORT ${port ?? 0}, DR ${dataRate}, RSSI ${rssiDbm}, SNR ${Math.round(snrDb)}${check}`,
      );
    }
    // Of an unconfirmed frame nothing is said, nor of one that nobody acknowledged.
    if (this.#isConfirmed && isAnswered) said += event("SEND_CONFIRMED");
    this.#isConfirmed = false;
    return said;
  }

  forget(): void {
    this.#isConfirmed = false;
  }

  started(): string {
    return `${versions.join("\r\n")}\r\n`;
  }

  #restart(): string {
    this.#side.restart();
    return "";
  }

  #join(value: string): string {
    if (value !== "1") return status("AT_PARAM_ERROR");
    const started = this.#device.join();
    if (started.kind === "started") return status("OK");
    if (started.kind === "busy") return status("AT_BUSY_ERROR");
    return status(started.kind === "duty-cycle" ? "AT_DUTYCYCLE_RESTRICTED" : "AT_ERROR");
  }

  #send(value: string): string {
    const [, portText = "", confirmed, hex = ""] = /^(\d{1,3}):([01]):([0-9A-Fa-f]*)$/.exec(value) ?? [];
    const port = integerIn(portText, 1, 199);
    const bytes = hexBytes(hex);
    if (port === undefined || bytes === undefined || bytes.length > 242) return status("AT_PARAM_ERROR");
    const started = this.#device.send(port, bytes, confirmed === "1");
    switch (started.kind) {
      case "started":
        this.#isConfirmed = confirmed === "1";
        return status("OK");
      case "busy":
        return status("AT_BUSY_ERROR");
      case "duty-cycle":
        return status("AT_DUTYCYCLE_RESTRICTED");
      case "not-joined":
        this.#device.join();
        return status("AT_NO_NETWORK_JOINED");
      case "too-long":
        return status(this.#device.sendEmpty().kind === "duty-cycle" ? "AT_DUTYCYCLE_RESTRICTED" : "AT_ERROR");
      default:
        return status("AT_ERROR");
    }
  }

  #allParameters(): readonly (readonly [string, Parameter])[] {
    const device = this.#device;
    const hex = (digits: number, read: () => string, write: (plain: string) => void): Parameter => ({
      read: () => inPairs(read()),
      write: (value) => {
        const plain = value.includes(":") ? hexDigits(value, digits) : undefined;
        if (plain !== undefined) write(plain);
        return plain !== undefined;
      },
    });
    const number = (read: () => number, max: number, write: (value: number) => void): Parameter => ({
      read: () => `${read()}`,
      write: (value) => {
        const given = integerIn(value, 0, max);
        if (given !== undefined) write(given);
        return given !== undefined;
      },
    });
    const key = hex(
      32,
      () => keyText(device),
      (plain) => {
        device.appKey = hexBytes(plain);
      },
    );
    const band = `${bandOfRegion[device.region]}`;
    return [
      ["VER", { read: () => versions.join("\r\n") }],
      [
        "DEUI",
        hex(
          16,
          () => device.devEui || "0".repeat(16),
          (plain) => (device.devEui = plain),
        ),
      ],
      [
        "APPEUI",
        hex(
          16,
          () => device.joinEui || "0".repeat(16),
          (plain) => (device.joinEui = plain),
        ),
      ],
      ["APPKEY", key],
      // LoRaWAN 1.1's second key, which a 1.0.x device has the same as the first.
      ["NWKKEY", { read: () => inPairs(keyText(device)), write: (value) => hexDigits(value, 32) !== undefined }],
      ["BAND", { read: () => band, write: (value) => value === band }],
      ["CLASS", { read: () => "A", write: (value) => value === "A" }],
      [
        "ADR",
        number(
          () => (device.adr ? 1 : 0),
          1,
          (value) => (device.adr = value === 1),
        ),
      ],
      [
        "DCS",
        number(
          () => (device.dutyCycle === "off" ? 0 : 1),
          1,
          (value) => (device.dutyCycle = value === 1 ? "band" : "off"),
        ),
      ],
      [
        "DR",
        {
          read: () => `${device.dataRate}`,
          write: (value) => /^\d$/.test(value) && device.setDataRate(Number(value)),
        },
      ],
      ["DADDR", { read: () => inPairs((device.devAddr ?? 0).toString(16).padStart(8, "0")) }],
    ];
  }
}

function status(word: string): string {
  return `\r\n${word}\r\n`;
}

function event(text: string): string {
  return `+EVT:${text}\r\n`;
}

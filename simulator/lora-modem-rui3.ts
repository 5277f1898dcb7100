/** RAK3172 with RUI3 firmware, as RAKWireless/RAK-STM32-RUI (cores/STM32WLE/component/service, "RUI 5.0.0") answers. */
import type { EndDevice, TransmitEnd } from "./lora-end-device.ts";
import {
  carriageReturn,
  hexBytes,
  hexDigits,
  hexOf,
  integerIn,
  keyText,
  lineFeed,
  type ModemMachine,
  type ModemSide,
} from "./lora-modem-machine.ts";

interface Parameter {
  read(): string;
  /** Whether the value was one. */
  write?(value: string): boolean;
}

const bandOfRegion = { EU868: 4, US915: 5, AU915: 6, AS923: 8 } as const;

export class Rui3Machine implements ModemMachine {
  readonly lineEnds = [carriageReturn, lineFeed];
  readonly lineBytesMax = 2_048;
  readonly #side: ModemSide;
  readonly #device: EndDevice;
  readonly #parameters: ReadonlyMap<string, Parameter>;
  #echoes = false;
  #isConfirmed = false;
  #isLowPower = false;
  #lastDownlink = "";
  #lastAck = 0;
  /** Attempts to join that are still to come, and the pause between them. */
  #joining: { left: number; periodMs: number; callOff: () => void } | undefined;

  constructor(side: ModemSide) {
    this.#side = side;
    this.#device = side.device;
    this.#parameters = this.#allParameters();
  }

  line(text: string): string {
    const echo = this.#echoes ? `${text}\r\n` : "";
    return text === "" ? echo : echo + this.#answer(text);
  }

  #answer(text: string): string {
    if (text.length > this.lineBytesMax) return status("AT_TEST_PARAM_OVERFLOW");
    if (/^ATZ$/i.test(text)) return this.#restart();
    if (/^ATE$/i.test(text)) this.#echoes = !this.#echoes;
    if (/^ATE?$/i.test(text)) return status("OK");
    const [, name, verb, value = ""] = /^AT\+([A-Z0-9]+)(=\?|\?|=)?(.*)$/i.exec(text) ?? [];
    if (name === undefined) return status("AT_COMMAND_NOT_FOUND");
    const command = name.toUpperCase();
    if (command === "JOIN" && verb !== "=?" && verb !== "?") return this.#join(value);
    if (command === "SEND" && verb === "=") return this.#send(value);
    const parameter = this.#parameters.get(command);
    if (parameter === undefined) return status("AT_COMMAND_NOT_FOUND");
    if (verb === "=?") return `AT+${command}=${parameter.read()}\r\n${status("OK")}`;
    if (verb === "?") return `AT+${command}: get or set\r\n${status("OK")}`;
    const isTaken = verb === "=" && parameter.write?.(value) === true;
    if (command === "NWM" && isTaken) return this.#restart();
    return status(isTaken ? "OK" : "AT_PARAM_ERROR");
  }

  ended({ kind, isAnswered, downlink, linkCheck }: TransmitEnd): string {
    if (kind === "join") {
      if (isAnswered) this.#joining = undefined;
      else this.#joinAgain();
      return event(isAnswered ? "JOINED" : "JOIN_FAILED_RX_TIMEOUT");
    }
    let said = linkCheck ? event(`LINKCHECK:0:${linkCheck.marginDb}:${linkCheck.gateways}:-80:8`) : "";
    if (downlink?.port !== undefined) {
      const { window, rssiDbm, snrDb, port, bytes } = downlink;
      this.#lastDownlink = `${port}:${hexOf(bytes).toUpperCase()}`;
      said += event(`RX_${window}:${rssiDbm}:${Math.round(snrDb)}:UNICAST:${port}:${hexOf(bytes)}`);
    }
    this.#lastAck = isAnswered ? 1 : 0;
    if (!this.#isConfirmed) return said + event("TX_DONE");
    return said + event(isAnswered ? "SEND_CONFIRMED_OK" : "SEND_CONFIRMED_FAILED(4)");
  }

  forget(): void {
    this.#joining?.callOff();
    this.#joining = undefined;
  }

  started(): string {
    return (
      "RAKwireless RAK3172-E Example\r\n------------------------------------------------------\r\n" +
      "Current Work Mode: LoRaWAN.\r\n"
    );
  }

  #restart(): string {
    this.#side.restart();
    return "";
  }

  /** `start:auto:period:extra attempts`; without values, one attempt. */
  #join(value: string): string {
    const [start = "1", , period = "8", extra = "0"] = value.split(":");
    const periodS = integerIn(period, 7, 255);
    const left = integerIn(extra, 0, 255);
    if (!/^[01]?(?::[01])?(?::\d+){0,2}$/.test(value) || periodS === undefined || left === undefined)
      return status("AT_PARAM_ERROR");
    if (start === "0") {
      this.forget();
      return status("OK");
    }
    if (this.#joining !== undefined) return status("AT_BUSY_ERROR");
    const started = this.#device.join();
    switch (started.kind) {
      case "started":
        this.#joining = { left, periodMs: periodS * 1_000, callOff: () => {} };
        return status("OK");
      case "duty-cycle":
        return restricted(started.retryInMs);
      case "busy":
        return status("AT_BUSY_ERROR");
      default:
        return status("AT_ERROR");
    }
  }

  #joinAgain(): void {
    const joining = this.#joining;
    if (joining === undefined) return;
    if (joining.left === 0) {
      this.#joining = undefined;
      return;
    }
    joining.left--;
    joining.callOff = this.#side.timing.after(joining.periodMs, () => {
      if (this.#device.join().kind !== "started") this.#joinAgain();
    });
  }

  #send(value: string): string {
    const [, portText = "", hex = ""] = /^(\d{1,3}):([0-9A-F]*)$/i.exec(value) ?? [];
    const port = integerIn(portText, 1, 223);
    const bytes = hexBytes(hex);
    if (port === undefined || bytes === undefined || bytes.length < 1 || bytes.length > 250)
      return status("AT_PARAM_ERROR");
    const started = this.#device.send(port, bytes, this.#isConfirmed);
    switch (started.kind) {
      case "started":
        return status("OK");
      case "not-joined":
        return status("AT_NO_NETWORK_JOINED");
      case "duty-cycle":
        return restricted(started.retryInMs);
      case "busy":
        return status("AT_BUSY_ERROR");
      case "too-long": {
        // An empty frame goes out in its place, to get rid of the MAC commands; its event comes too.
        const empty = this.#device.sendEmpty();
        if (empty.kind === "duty-cycle") return restricted(empty.retryInMs);
        return status(empty.kind === "started" ? "AT_PARAM_ERROR" : "AT_BUSY_ERROR");
      }
      default:
        return status("AT_ERROR");
    }
  }

  #allParameters(): ReadonlyMap<string, Parameter> {
    const device = this.#device;
    const fixed = (text: string): Parameter => ({ read: () => text });
    const bit = (read: () => boolean, write: (on: boolean) => void): Parameter => ({
      read: () => (read() ? "1" : "0"),
      write: (value) => {
        const number = integerIn(value, 0, 1);
        if (number !== undefined) write(number === 1);
        return number !== undefined;
      },
    });
    const hex = (digits: number, read: () => string, write: (plain: string) => void): Parameter => ({
      read: () => read().toUpperCase(),
      write: (value) => {
        const plain = value.includes(":") ? undefined : hexDigits(value, digits);
        if (plain !== undefined) write(plain);
        return plain !== undefined;
      },
    });
    const only = (...values: string[]): Parameter => ({
      read: () => values[0]!,
      write: (value) => values.includes(value),
    });
    const euis = { dev: device.devEui, join: device.joinEui };
    return new Map<string, Parameter>([
      ["VER", fixed("RUI_4.1.1_RAK3172-E")],
      ["SN", fixed("0000000000000000")],
      ["NWM", only("1", "0", "2")],
      ["NJM", only("1")],
      ["CLASS", only("A")],
      ["BAND", only(String(bandOfRegion[device.region]))],
      [
        "DEVEUI",
        hex(
          16,
          () => device.devEui || euis.dev,
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
      [
        "APPKEY",
        hex(
          32,
          () => keyText(device),
          (plain) => (device.appKey = hexBytes(plain)),
        ),
      ],
      [
        "ADR",
        bit(
          () => device.adr,
          (on) => (device.adr = on),
        ),
      ],
      [
        "CFM",
        bit(
          () => this.#isConfirmed,
          (on) => (this.#isConfirmed = on),
        ),
      ],
      ["CFS", { read: () => `${this.#lastAck}` }],
      ["RETY", only("0", "1", "2", "3", "4", "5", "6", "7")],
      [
        "LPM",
        bit(
          () => this.#isLowPower,
          (on) => (this.#isLowPower = on),
        ),
      ],
      [
        "DCS",
        bit(
          () => device.dutyCycle !== "off",
          (on) => (device.dutyCycle = on ? "band" : "off"),
        ),
      ],
      ["NJS", { read: () => (device.isJoined ? "1" : "0") }],
      [
        "LINKCHECK",
        bit(
          () => device.wantsLinkCheck,
          (on) => (device.wantsLinkCheck = on),
        ),
      ],
      ["RECV", { read: () => this.#lastDownlink }],
      [
        "DR",
        {
          read: () => `${device.dataRate}`,
          write: (value) => {
            const dataRate = integerIn(value, 0, 7);
            return dataRate !== undefined && device.setDataRate(dataRate);
          },
        },
      ],
    ]);
  }
}

function status(word: string): string {
  return `${word}\r\n`;
}

function event(text: string): string {
  return `+EVT:${text}\r\n`;
}

function restricted(waitMs: number): string {
  return `Restricted_Wait_${waitMs}_ms\r\n${status("AT_BUSY_ERROR")}`;
}

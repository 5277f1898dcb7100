/** A modem's port whose other end is a function, on a virtual clock. */
import assert from "node:assert/strict";
import type { ByteTransport } from "../../../drivers/byte-transport.ts";
import { createLoraModem, type LoraDownlink, type LoraModem, type ModemFamily } from "../../../drivers/lora/modem.ts";
import type { RegionName } from "../../../drivers/lora/region.ts";
import { loraTimingOf, VirtualTiming } from "../../../simulator/simulator-timing.ts";

/** The lines that answer a command, or none. */
export type Script = (command: string) => readonly string[] | undefined;

export class ScriptedPort {
  readonly timing = new VirtualTiming();
  readonly loraTiming = loraTimingOf(this.timing, (ms) => ms);
  readonly commands: string[] = [];
  opened = 0;
  isCurrent = true;
  script: Script;
  #hear: (bytes: Uint8Array) => void = () => undefined;
  #close: (error?: Error) => void = () => undefined;

  constructor(script: Script) {
    this.script = script;
  }

  open = async (): Promise<ByteTransport> => {
    this.opened++;
    let isOpen = true;
    return {
      description: "/dev/test at 9600 8N1",
      write: async (bytes) => {
        const command = Buffer.from(bytes).toString("latin1").trim();
        if (command !== "") this.commands.push(command);
        const lines = command === "" ? [] : (this.script(command) ?? []);
        this.timing.after(1, () => isOpen && this.say(...lines));
      },
      onData: (listener) => {
        this.#hear = listener;
      },
      onClosed: (listener) => {
        this.#close = listener;
      },
      isCurrent: async () => this.isCurrent,
      close: async () => {
        isOpen = false;
      },
    };
  };

  /** Byte by byte. */
  say(...lines: readonly string[]): void {
    for (const byte of Buffer.from(lines.map((line) => `${line}\r\n`).join(""), "latin1"))
      this.#hear(Uint8Array.of(byte));
  }

  pull(): void {
    this.#close(new Error("the device went away"));
  }

  /** Lets virtual time pass until `promise` is settled. */
  async wait<T>(promise: Promise<T>): Promise<T> {
    let isSettled = false;
    const settled = promise.finally(() => {
      isSettled = true;
    });
    settled.catch(() => undefined);
    for (let step = 0; step < 20_000 && !isSettled; step++) await this.timing.advance(50);
    assert.ok(isSettled, "still not settled after 1,000 s");
    return settled;
  }
}

export interface DriverRig {
  readonly port: ScriptedPort;
  readonly modem: LoraModem;
  readonly downlinks: LoraDownlink[];
  readonly lost: string[];
}

export function rigOf(script: Script, family: ModemFamily = "rui3", region: RegionName = "EU868"): DriverRig {
  const port = new ScriptedPort(script);
  const modem = createLoraModem({ openTransport: port.open, family, region, timing: port.loraTiming });
  const rig: DriverRig = { port, modem, downlinks: [], lost: [] };
  modem.onDownlink((downlink) => rig.downlinks.push(downlink));
  modem.onLost((reason) => rig.lost.push(reason));
  return rig;
}

/** A RUI3 module that is well, joined and at DR3. */
export function healthyRui3(command: string): readonly string[] {
  const values: Readonly<Record<string, string>> = {
    "AT+VER": "RUI_4.1.0_RAK3172-E",
    "AT+NWM": "1",
    "AT+NJM": "1",
    "AT+CLASS": "A",
    "AT+ADR": "1",
    "AT+CFM": "0",
    "AT+LPM": "0",
    "AT+DEVEUI": "AC1F09FFFE000001",
    "AT+NJS": "1",
    "AT+DR": "3",
  };
  const [name = ""] = command.split("=");
  if (command.startsWith("AT+SEND=")) return ["OK", "+EVT:TX_DONE"];
  return values[name] === undefined ? ["AT_COMMAND_NOT_FOUND"] : [`${name}=${values[name]}`, "OK"];
}

/** An AT modem as a machine of bytes: a line comes in at the pace of its speed, a dialect answers, and what it is told to do wrong goes wrong. */
import { factoryBauds, type ModemFamily } from "../drivers/lora/modem.ts";
import type { EndDevice } from "./lora-end-device.ts";
import { AtSlaveMachine } from "./lora-modem-at-slave.ts";
import { LoraE5Machine } from "./lora-modem-lora-e5.ts";
import type { ModemMachine, ModemSide } from "./lora-modem-machine.ts";
import { Rn2483Machine } from "./lora-modem-rn2483.ts";
import { Rui3Machine } from "./lora-modem-rui3.ts";
import type { SimulatorTiming } from "./simulator-timing.ts";

/** One thing that goes wrong, once, at the next command that `command` matches. */
export type ModemFault =
  /** The first byte of the next line comes in spoilt, as from low-power sleep. */
  | { readonly kind: "garbage-first-byte" }
  /** Nothing is done and nothing said. */
  | { readonly kind: "silence"; readonly command: RegExp }
  /** Nothing is done; these lines are the answer: a refusal, nonsense. */
  | { readonly kind: "answer"; readonly command: RegExp; readonly lines: readonly string[] }
  /** It is done; these lines come before its answer: an event between echo and status. */
  | { readonly kind: "interjection"; readonly command: RegExp; readonly lines: readonly string[] }
  /** The power fails: it is begun, half of the first line of its answer comes out, and the modem starts anew. */
  | { readonly kind: "reset"; readonly command: RegExp };

export interface SimulatedModemOptions {
  readonly timing: SimulatorTiming;
  readonly family: ModemFamily;
  readonly device: EndDevice;
  /** 0: no pace. Default: the family's factory setting. */
  readonly baud?: number;
}

const bitsPerCharacter = 10;
const restartMs = 400;
const faultsMax = 1_000;

export class SimulatedModem {
  readonly family: ModemFamily;
  readonly device: EndDevice;
  readonly #timing: SimulatorTiming;
  readonly #characterMs: number;
  readonly #machine: ModemMachine;
  #faults: ModemFault[] = [];
  #line: number[] = [];
  #isFirstByte = true;
  #inFreeMs = 0;
  #outFreeMs = 0;
  /** Changes with each restart: what was on its way then is lost. */
  #life = 0;
  #isDown = false;
  /** A command wants it to start anew, which it does when the answer is out. */
  #restarts = false;
  #onOutput: (bytes: Uint8Array) => void = () => {};

  constructor({ timing, family, device, baud = factoryBauds[family] }: SimulatedModemOptions) {
    this.family = family;
    this.device = device;
    this.#timing = timing;
    this.#characterMs = baud === 0 ? 0 : (1_000 * bitsPerCharacter) / baud;
    const side: ModemSide = {
      timing,
      device,
      restart: () => {
        this.#restarts = true;
      },
    };
    this.#machine = machineOf(family, side);
    device.onEnd = (end) => this.#say(this.#machine.ended(end));
  }

  onOutput(listener: (bytes: Uint8Array) => void): void {
    this.#onOutput = listener;
  }

  /** Bytes of the host, in whatever pieces. */
  receive(bytes: Uint8Array): void {
    if (this.#isDown) return;
    this.#inFreeMs = Math.max(this.#inFreeMs, this.#timing.nowMs());
    for (const byte of bytes) {
      this.#inFreeMs += this.#characterMs;
      this.#byte(byte);
    }
  }

  /** Faults happen in the order in which they are given, each once. @throws RangeError on too many */
  inject(...faults: readonly ModemFault[]): void {
    this.#faults.push(...faults);
    if (this.#faults.length > faultsMax) throw new RangeError(`more than ${faultsMax} faults wait`);
  }

  /** Says something that nobody asked for. */
  interject(line: string): void {
    this.#say(`${line}\r\n`);
  }

  /** A power cycle. */
  reset(): void {
    this.#restart();
  }

  #byte(given: number): void {
    let byte = given;
    const isEnd = this.#machine.lineEnds.includes(byte);
    if (this.#isFirstByte && !isEnd && this.#faults[0]?.kind === "garbage-first-byte") {
      this.#faults.shift();
      byte = 0xfe;
    }
    this.#isFirstByte = isEnd;
    if (!isEnd) {
      // What is over the limit is swallowed, so that memory is bounded; the machine is told of the length.
      if (this.#line.length <= this.#machine.lineBytesMax) this.#line.push(byte);
      return;
    }
    const line = Buffer.from(this.#line).toString("latin1");
    this.#line = [];
    const life = this.#life;
    this.#later(this.#inFreeMs, () => {
      if (life === this.#life) this.#command(line);
    });
  }

  #obey(line: string): void {
    this.#say(this.#machine.line(line));
    if (!this.#restarts) return;
    const life = this.#life;
    this.#later(this.#outFreeMs, () => {
      if (life === this.#life) this.#restart();
    });
  }

  #command(line: string): void {
    const fault = this.#faults[0];
    if (fault === undefined || fault.kind === "garbage-first-byte" || !fault.command.test(line)) {
      this.#obey(line);
      return;
    }
    this.#faults.shift();
    switch (fault.kind) {
      case "silence":
        return;
      case "answer":
        for (const text of fault.lines) this.interject(text);
        return;
      case "interjection":
        for (const text of fault.lines) this.interject(text);
        this.#obey(line);
        return;
      case "reset": {
        const said = this.#machine.line(line);
        this.#emit(Buffer.from(said.slice(0, Math.floor(said.length / 2)).replace(/\r?\n[\s\S]*$/, ""), "latin1"));
        this.#restart();
      }
    }
  }

  #say(text: string): void {
    if (this.#isDown || text === "") return;
    const bytes = Buffer.from(text, "latin1");
    this.#outFreeMs = Math.max(this.#outFreeMs, this.#timing.nowMs()) + bytes.length * this.#characterMs;
    const life = this.#life;
    this.#later(this.#outFreeMs, () => {
      if (life === this.#life) this.#emit(bytes);
    });
  }

  #emit(bytes: Uint8Array): void {
    if (bytes.length > 0) this.#onOutput(Uint8Array.from(bytes));
  }

  #restart(): void {
    this.#life++;
    this.#restarts = false;
    this.#isDown = true;
    this.#line = [];
    this.#isFirstByte = true;
    this.device.reset();
    this.#machine.forget();
    const life = this.#life;
    this.#timing.after(restartMs, () => {
      if (life !== this.#life) return;
      this.#isDown = false;
      this.#say(this.#machine.started());
    });
  }

  /** Never within the call that asked: a host that writes gets its answer later. */
  #later(atMs: number, work: () => void): void {
    this.#timing.after(Math.max(0, atMs - this.#timing.nowMs()), work);
  }
}

function machineOf(family: ModemFamily, side: ModemSide): ModemMachine {
  switch (family) {
    case "rui3":
      return new Rui3Machine(side);
    case "lora-e5":
      return new LoraE5Machine(side);
    case "rn2483":
      return new Rn2483Machine(side);
    case "at-slave":
      return new AtSlaveMachine(side);
  }
}

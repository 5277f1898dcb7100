/**
 * A modem, the radio between it and a network server, and that server's queue of downlinks, as far as airtime and loss go: class A, so
 * what comes down comes in the receive windows of an uplink that was heard. No bytes of a modem's dialect and no LoRaWAN frames are made:
 * simulator/ does that, and campaign lora-day runs over it.
 */
import { airtimeMs } from "../drivers/lora/airtime.ts";
import type { LoraDownlink, LoraModem, LoraTiming } from "../drivers/lora/modem.ts";
import type { SeededRandom } from "../test/protocol/seeded-random.ts";
import { region } from "./lora-airtime.ts";
import type { VirtualWorld } from "./simulation/virtual-world.ts";

const rx1DelayMs = 1_000;
/** From the first window's begin to the end of the second one, where nothing comes. */
const windowsMs = 2_500;

/** The time of the uplink, on the world's clock. `settled`: all that an event woke has done its work. */
export function timingOf(world: VirtualWorld, settled: () => Promise<void>): LoraTiming {
  return {
    clock: { wallMs: () => world.wallMs, monotonicMs: () => world.nowMs },
    pause: (ms, signal) =>
      new Promise((resolve) => {
        signal?.addEventListener("abort", () => resolve(), { once: true });
        world.after(Math.ceil(ms), () => {
          resolve();
          return settled();
        });
      }),
  };
}

/** Whether a frame at that moment is lost. */
export type Loss = (nowMs: number) => boolean;

export function independentLoss(random: SeededRandom, percent: number): Loss {
  return () => random.chance(percent);
}

/** Share of frames lost in each of two states, and how long each lasts on average, in seconds. */
export interface Bursts {
  readonly goodLossPercent: number;
  readonly badLossPercent: number;
  readonly goodS: number;
  readonly badS: number;
}

/** Gilbert and Elliott's channel, in continuous time: both directions of a link share its state. */
export function burstLoss(random: SeededRandom, { goodLossPercent, badLossPercent, goodS, badS }: Bursts): Loss {
  let [isGood, untilMs] = [true, 0];
  return (nowMs) => {
    while (untilMs <= nowMs) {
      isGood = untilMs === 0 || !isGood;
      untilMs += 1 - Math.log(1 - random.integer(0, 999_999) / 1e6) * (isGood ? goodS : badS) * 1_000;
    }
    return random.chance(isGood ? goodLossPercent : badLossPercent);
  };
}

/** The far side of the network server: takes an uplink that was heard, and gives what waits for the device, at most one a time. */
export interface FarEnd {
  uplink(port: number, bytes: Uint8Array, fCnt: number): void;
  downlink(): LoraDownlink | undefined;
}

export class RadioModem implements LoraModem {
  readonly family = "rui3";
  readonly description = "simulated radio";
  readonly firmware = "simulated";
  readonly #world: VirtualWorld;
  readonly #timing: LoraTiming;
  readonly #dataRate: number;
  readonly #isLost: { readonly up: Loss; readonly down: Loss };
  readonly #farEnd: FarEnd;
  #listener: (downlink: LoraDownlink) => void = () => undefined;
  #fCnt = 0;
  /** `hourMs`: most airtime in any hour. */
  readonly counts = { frames: 0, airtimeMs: 0, framesLost: 0, downlinks: 0, downlinksLost: 0, hourMs: 0 };
  /** Frames of the last hour: when each ended. */
  readonly #hour: { readonly endMs: number; readonly onAirMs: number }[] = [];

  constructor(
    world: VirtualWorld,
    timing: LoraTiming,
    options: { readonly dataRate: number; readonly up: Loss; readonly down: Loss; readonly farEnd: FarEnd },
  ) {
    this.#world = world;
    this.#timing = timing;
    this.#dataRate = options.dataRate;
    this.#isLost = options;
    this.#farEnd = options.farEnd;
  }

  async begin() {
    return { joined: true };
  }
  async join() {
    return { kind: "joined" as const };
  }
  async state() {
    return { joined: true, dataRate: this.#dataRate };
  }

  async send(port: number, bytes: Uint8Array) {
    const { counts } = this;
    const onAirMs = airtimeMs(region, this.#dataRate, bytes.length);
    const fCnt = this.#fCnt++;
    counts.frames++;
    counts.airtimeMs += onAirMs;
    await this.#timing.pause(onAirMs);
    this.#meter(onAirMs);
    const isHeard = !this.#isLost.up(this.#world.nowMs);
    if (isHeard) this.#farEnd.uplink(port, bytes, fCnt);
    else counts.framesLost++;
    await this.#timing.pause(rx1DelayMs);
    const downlink = isHeard ? this.#farEnd.downlink() : undefined;
    if (downlink) {
      counts.downlinks++;
      if (this.#isLost.down(this.#world.nowMs)) counts.downlinksLost++;
      else this.#listener(downlink);
    }
    await this.#timing.pause(windowsMs);
    return { kind: "sent" as const };
  }

  /** The fullest hour that ended with a frame. */
  #meter(onAirMs: number): void {
    const { nowMs } = this.#world;
    this.#hour.push({ endMs: nowMs, onAirMs });
    while ((this.#hour[0]?.endMs ?? nowMs) <= nowMs - 3_600_000) this.#hour.shift();
    const totalMs = this.#hour.reduce((sum, frame) => sum + frame.onAirMs, 0);
    this.counts.hourMs = Math.max(this.counts.hourMs, totalMs);
  }

  onDownlink(listener: (downlink: LoraDownlink) => void): void {
    this.#listener = listener;
  }
  onLost(): void {}
  async provision() {
    return { devEui: "0000000000000000" };
  }
  async close(): Promise<void> {}
}

/** The air between devices and gateways: what is sent is heard after its airtime, or lost; nothing here knows what a frame means. */
import { AirtimeMeter, onAirMs, type RadioSettings, type SubBandRule } from "./lora-airtime-meter.ts";
import type { SimulatorTiming } from "./simulator-timing.ts";

/** How frames get lost in one direction. A number is the chance of each by itself. */
export type LossModel = number | GilbertElliott;

/** Losses in bursts: a chain of two states that may change before each frame. */
export interface GilbertElliott {
  /** The chance to go from good to bad, and back, before a frame. */
  readonly toBad: number;
  readonly toGood: number;
  readonly lossInGood: number;
  readonly lossInBad: number;
}

export interface HeardFrame extends RadioSettings {
  readonly phyPayload: Uint8Array;
  readonly startMs: number;
  readonly endMs: number;
  readonly rssiDbm: number;
  readonly snrDb: number;
}

export interface UplinkEvent extends RadioSettings {
  readonly device: string;
  readonly startMs: number;
  readonly endMs: number;
  readonly phyBytes: number;
  /** At how many gateways it arrived. */
  readonly gateways: number;
}

export interface LoraRadioOptions {
  readonly timing: SimulatorTiming;
  /** A number in [0, 1). */
  readonly random: () => number;
  readonly subBands: readonly SubBandRule[];
  readonly lossUp?: LossModel;
  readonly lossDown?: LossModel;
}

/** How far a downlink may be from the opening of a receive window and still be found by it. */
const windowToleranceMs = 10;
/** How long a receiver looks for a preamble: the least number of symbols, and the error of its clock. */
const windowSymbols = 8;

export class LoraRadio {
  readonly #timing: SimulatorTiming;
  readonly #random: () => number;
  readonly #subBands: readonly SubBandRule[];
  readonly #gateways = new Set<(frame: HeardFrame) => void>();
  readonly #meters = new Map<string, AirtimeMeter>();
  readonly #downlinks: (HeardFrame & { endMs: number })[] = [];
  readonly #up: LossProcess;
  readonly #down: LossProcess;
  /** Told of each uplink when it ends, for tallies and live tables. */
  onUplink: (event: UplinkEvent) => void = () => {};

  constructor(options: LoraRadioOptions) {
    this.#timing = options.timing;
    this.#random = options.random;
    this.#subBands = options.subBands;
    this.#up = new LossProcess(options.random, options.lossUp ?? 0);
    this.#down = new LossProcess(options.random, options.lossDown ?? 0);
  }

  /** From the next frame on. */
  setLoss(direction: "up" | "down", model: LossModel): void {
    (direction === "up" ? this.#up : this.#down).model = model;
  }

  meterOf(device: string): AirtimeMeter {
    const known = this.#meters.get(device);
    if (known !== undefined) return known;
    const meter = new AirtimeMeter(this.#subBands);
    this.#meters.set(device, meter);
    return meter;
  }

  addGateway(listener: (frame: HeardFrame) => void): () => void {
    this.#gateways.add(listener);
    return () => this.#gateways.delete(listener);
  }

  /** Sends an uplink now. `done` is told when it has left, with its exact times. */
  transmitUp(
    device: string,
    settings: RadioSettings,
    phyPayload: Uint8Array,
    done: (startMs: number, endMs: number) => void,
  ): void {
    const startMs = this.#timing.nowMs();
    const durationMs = onAirMs(settings, phyPayload.length, true);
    const endMs = startMs + durationMs;
    this.meterOf(device).add(settings.frequencyHz, startMs, endMs);
    this.#timing.after(durationMs, () => {
      const heard = [...this.#gateways].filter(() => !this.#up.loses());
      const { rssiDbm, snrDb } = this.#signal(settings);
      for (const gateway of heard) gateway({ ...plain(settings), phyPayload, startMs, endMs, rssiDbm, snrDb });
      this.onUplink({
        ...plain(settings),
        device,
        startMs,
        endMs,
        phyBytes: phyPayload.length,
        gateways: heard.length,
      });
      done(startMs, endMs);
    });
  }

  /** A gateway's frame that will begin at `startMs`, which is still to come. */
  transmitDown(settings: RadioSettings, phyPayload: Uint8Array, startMs: number): void {
    const endMs = startMs + onAirMs(settings, phyPayload.length, false);
    const frame = { ...plain(settings), phyPayload, startMs, endMs, ...this.#signal(settings) };
    this.#downlinks.push(frame);
    // It stays a little longer than it lasts: a receiver's timer may come late.
    this.#timing.after(endMs - this.#timing.nowMs() + 1_000, () => {
      this.#downlinks.splice(this.#downlinks.indexOf(frame), 1);
    });
  }

  /**
   * A device's receive window that opens at `startMs`. `done` gets the frame when it has ended, or undefined when the window closes.
   * Whether a frame meets the window is a matter of the two nominal starts, so that a late timer of this process changes nothing.
   */
  listenDown(
    settings: RadioSettings,
    startMs: number,
    done: (frame: HeardFrame | undefined, closedAtMs: number) => void,
  ): void {
    const closesMs =
      startMs + windowToleranceMs + (windowSymbols * 2 ** settings.spreadingFactor) / settings.bandwidthKhz;
    this.#timing.after(closesMs - this.#timing.nowMs(), () => {
      const frame = this.#downlinks.find(
        (sent) =>
          Math.abs(sent.startMs - startMs) <= windowToleranceMs &&
          sent.frequencyHz === settings.frequencyHz &&
          sent.spreadingFactor === settings.spreadingFactor &&
          sent.bandwidthKhz === settings.bandwidthKhz,
      );
      if (frame === undefined || this.#down.loses()) {
        done(undefined, closesMs);
        return;
      }
      this.#timing.after(frame.endMs - this.#timing.nowMs(), () => done(frame, frame.endMs));
    });
  }

  #signal({ spreadingFactor }: RadioSettings): { rssiDbm: number; snrDb: number } {
    // A cellar: near what the spreading factor still takes (−7.5 dB at SF7, 2.5 less for each step).
    const snrDb = Math.round((10 - 2.5 * (spreadingFactor - 7) - 12 + 6 * this.#random()) * 4) / 4;
    return { rssiDbm: Math.round(-105 + snrDb), snrDb };
  }
}

class LossProcess {
  readonly #random: () => number;
  #isBad = false;
  model: LossModel;

  constructor(random: () => number, model: LossModel) {
    this.#random = random;
    this.model = model;
  }

  loses(): boolean {
    const { model } = this;
    if (typeof model === "number") return model > 0 && this.#random() < model;
    if (this.#random() < (this.#isBad ? model.toGood : model.toBad)) this.#isBad = !this.#isBad;
    return this.#random() < (this.#isBad ? model.lossInBad : model.lossInGood);
  }
}

/** Of an object that may hold more, what the radio needs. */
function plain({ frequencyHz, spreadingFactor, bandwidthKhz }: RadioSettings): RadioSettings {
  return { frequencyHz, spreadingFactor, bandwidthKhz };
}

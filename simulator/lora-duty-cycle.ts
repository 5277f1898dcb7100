/** The duty cycle as modem firmware keeps it: silence after each frame, on its sub-band or on its channel; forgotten at a reset. */
import type { SubBandRule } from "./lora-airtime-meter.ts";

/** `band`: LoRaMac-node and what is built on it. `channel`: RN2483. `off`: switched off, as some modules are delivered. */
export type DutyCycleMode = "band" | "channel" | "off";

/** What TTN's library sets on an RN2483: 0.33 % on each of three channels, 0.2 % on each of five. */
const firstChannelsDutyCycle = 1 / 300;
const otherChannelsDutyCycle = 1 / 500;
const firstChannelsMhz = [868.1, 868.3, 868.5];

export class DutyCycleGuard {
  mode: DutyCycleMode;
  readonly #subBands: readonly SubBandRule[];
  readonly #freeAtMs = new Map<string | number, number>();

  constructor(mode: DutyCycleMode, subBands: readonly SubBandRule[]) {
    this.mode = mode;
    this.#subBands = subBands;
  }

  freeAtMs(frequencyHz: number): number {
    return this.mode === "off" ? 0 : (this.#freeAtMs.get(this.#keyOf(frequencyHz)) ?? 0);
  }

  took(frequencyHz: number, startMs: number, onAirMs: number): void {
    const band = this.#bandOf(frequencyHz);
    if (band === undefined) return;
    const mhz = frequencyHz / 1e6;
    const share =
      this.mode === "channel"
        ? firstChannelsMhz.includes(mhz)
          ? firstChannelsDutyCycle
          : otherChannelsDutyCycle
        : band.dutyCycle;
    this.#freeAtMs.set(this.#keyOf(frequencyHz), startMs + onAirMs / share);
  }

  forget(): void {
    this.#freeAtMs.clear();
  }

  #keyOf(frequencyHz: number): string | number {
    return this.mode === "channel" ? frequencyHz : `${this.#bandOf(frequencyHz)?.fromMhz}`;
  }

  #bandOf(frequencyHz: number): SubBandRule | undefined {
    return this.#subBands.find(({ fromMhz, toMhz }) => frequencyHz / 1e6 >= fromMhz && frequencyHz / 1e6 < toMhz);
  }
}

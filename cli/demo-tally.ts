/**
 * What a demo counts, from what its parts say. Pure. Parts die and come back, and what they said last may be lost: so the
 * totals are sequences (which only rise) and never sums of messages, and the end takes the wallet's own word.
 */
import type { AgentEvent } from "../agent/event.ts";

const receiptTimesMax = 100_000;

export interface MeterView {
  readonly name: string;
  readonly timeS: number;
  readonly status: string;
  readonly values: Readonly<Record<string, number>>;
  readonly sequence: number;
  readonly detail: string;
}

/** A frame as the radio itself measured it. */
export interface RadioFrame {
  readonly spreadingFactor: number;
  readonly phyBytes: number;
  /** At how many gateways it arrived; 0: lost. */
  readonly gateways: number;
  readonly airtimeMs: number;
  /** Of all frames so far. */
  readonly frames: number;
  readonly hourMs: number;
  readonly worstHourShare: number | null;
}

export interface LoraView {
  readonly condition: string;
  readonly detail: string;
  readonly frames: number;
  readonly airtimeMs: number;
  readonly lost: number;
  readonly last: RadioFrame | undefined;
}

export interface DemoSummary {
  readonly readings: number;
  readonly sealed: number;
  readonly acknowledged: number;
  readonly missing: number;
  readonly refused: number;
  readonly receiptP50Ms: number | null;
  readonly receiptP99Ms: number | null;
  /** Only with `--uplink lora`, by the radio's own meter. */
  readonly frames?: number;
  readonly airtimeMs?: number;
  /** Of the sub-band that came nearest to its limit in any hour: 1 is all of it. */
  readonly worstHourShare?: number | null;
}

export class DemoTally {
  readonly meters = new Map<number, MeterView>();
  /** Sequence before the first record of this run. */
  #before: number | undefined;
  #sealed = 0;
  #acknowledged = 0;
  #readings = 0;
  #refused = 0;
  readonly #lastReadingS = new Map<number, number>();
  #receiptMs: number[] = [];
  #lora: LoraView | undefined;

  /** Undefined without LoRaWAN. */
  get lora(): LoraView | undefined {
    return this.#lora;
  }

  get sealed(): number {
    return Math.max(0, this.#sealed - (this.#before ?? this.#sealed));
  }
  get acknowledged(): number {
    return Math.max(0, this.#acknowledged - (this.#before ?? this.#acknowledged));
  }
  get waiting(): number {
    return this.#sealed - this.#acknowledged;
  }
  get readings(): number {
    return this.#readings;
  }

  /** Sequences that were sealed before this run began are not its own. */
  begin(sealedBefore: number): void {
    this.#before = sealedBefore;
    this.#sealed = Math.max(this.#sealed, sealedBefore);
  }

  /** The wallet's own word on what is sealed and released. */
  wallet(sealed: number, acknowledged: number): void {
    this.#sealed = Math.max(this.#sealed, sealed);
    this.#acknowledged = Math.max(this.#acknowledged, acknowledged);
  }

  /** Takes an agent's event; returns whether it says something new (an agent that was started again repeats itself). */
  take(event: AgentEvent): boolean {
    switch (event.event) {
      case "resumed":
        this.wallet(event.sealed, event.acknowledged);
        return true;
      case "reading": {
        const isNew = event.timeS > (this.#lastReadingS.get(event.meter) ?? 0);
        this.#lastReadingS.set(event.meter, Math.max(event.timeS, this.#lastReadingS.get(event.meter) ?? 0));
        if (isNew) this.#readings++;
        const { name, timeS, status, values, detail = "" } = event;
        const sequence = this.meters.get(event.meter)?.sequence ?? 0;
        this.meters.set(event.meter, { name, timeS, status, values, detail, sequence });
        return true;
      }
      case "sealed": {
        const isNew = event.sequence > this.#sealed;
        this.#sealed = Math.max(this.#sealed, event.sequence);
        const meter = this.meters.get(event.meter);
        if (meter) this.meters.set(event.meter, { ...meter, sequence: Math.max(meter.sequence, event.sequence) });
        return isNew;
      }
      case "acknowledged":
        this.#acknowledged = Math.max(this.#acknowledged, event.through);
        for (const ms of event.receiptMs) if (this.#receiptMs.length < receiptTimesMax) this.#receiptMs.push(ms);
        return true;
      case "refused":
        this.#refused++;
        return true;
      case "lora-state":
        this.#lora = { ...this.#loraSoFar(), condition: event.condition, detail: event.detail ?? "" };
        return true;
      default:
        return true;
    }
  }

  /** A frame on the air. A radio that was started again counts anew, so the sums are made here. */
  frame(frame: RadioFrame): void {
    const before = this.#loraSoFar();
    this.#lora = {
      ...before,
      frames: before.frames + 1,
      airtimeMs: before.airtimeMs + frame.airtimeMs,
      lost: before.lost + (frame.gateways === 0 ? 1 : 0),
      last: frame,
    };
  }

  #loraSoFar(): LoraView {
    return this.#lora ?? { condition: "", detail: "", frames: 0, airtimeMs: 0, lost: 0, last: undefined };
  }

  nodeRefused(count: number): void {
    this.#refused += count;
  }

  /** Milliseconds from sealed to acknowledged that this share of the records stayed within; null before the first. */
  receiptMs(share: number): number | null {
    if (this.#receiptMs.length === 0) return null;
    const sorted = [...this.#receiptMs].sort((a, b) => a - b);
    return Math.round((sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] as number) * 10) / 10;
  }

  summary(): DemoSummary {
    return {
      readings: this.#readings,
      sealed: this.sealed,
      acknowledged: this.acknowledged,
      missing: this.sealed - this.acknowledged,
      refused: this.#refused,
      receiptP50Ms: this.receiptMs(0.5),
      receiptP99Ms: this.receiptMs(0.99),
      ...(this.#lora && {
        frames: this.#lora.frames,
        airtimeMs: Math.round(this.#lora.airtimeMs),
        worstHourShare: this.#lora.last?.worstHourShare ?? null,
      }),
    };
  }
}

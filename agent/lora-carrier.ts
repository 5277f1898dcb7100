/**
 * LoRaWAN on the hub: the rows that go this way, their batches, and the uplink that sends their records. Loaded only where hub.yaml
 * has it. The agent gives it what it needs of the rest (wallet, knowledge of what is stored), and passes on what comes down.
 */
import type { LoraModem, LoraTiming } from "../drivers/lora/modem.ts";
import type { MeterProfile } from "../drivers/modbus/profile.ts";
import { type LoraConfiguration, loraPlan, type MeterConfiguration } from "./configuration.ts";
import type { EpochForwarders } from "./epoch-forwarders.ts";
import type { AgentEvent } from "./event.ts";
import { automaticLengthS, LoraBatch } from "./lora-batch.ts";
import { loraCodes } from "./lora-codes.ts";
import { repeatDelaysFor } from "./lora-repeats.ts";
import { LoraSource } from "./lora-source.ts";
import type { LoraStateStore } from "./lora-state-store.ts";
import type { LoraStatus } from "./lora-status.ts";
import { LoraUplink } from "./lora-uplink.ts";
import type { RowPlan } from "./row-sealing.ts";
import type { WalletClient } from "./wallet-client.ts";

/** Beside a broker a record waits so long for a receipt before it costs airtime. */
const fallbackAfterMs = 600_000;
/**
 * Batches end by the clock, at the full hour, on every hub of a street: their frames would meet on the air. Each waits for a random time of
 * up to this share of the batch, and of up to this; a record that a broker does not deliver waits longer by as much.
 */
const spreadShare = 0.05;
const spreadMaxMs = 300_000;

export interface LoraCarrierOptions {
  readonly configuration: LoraConfiguration;
  readonly meters: readonly MeterConfiguration[];
  readonly profileOf: (id: string) => MeterProfile;
  readonly modem: LoraModem;
  readonly timing: LoraTiming;
  readonly store: LoraStateStore;
  readonly bootId: string;
  readonly random: () => number;
}

/** What the agent gives when it has met the wallet. */
export interface LoraHost {
  readonly wallet: WalletClient;
  readonly forwarders: EpochForwarders;
  readonly emit: (event: AgentEvent) => void;
  /** 41 bytes that came down: the wallet is to judge them. */
  readonly onReceipt: (bytes: Uint8Array) => void;
}

/** The uplink's own words, and what the configuration makes of them. */
export interface LoraCarrierStatus extends LoraStatus {
  readonly slotS: number;
  /** Seconds that a batch covers now. */
  readonly batchS: number;
  readonly isFallback: boolean;
  readonly sinceStartMs: number;
}

export class LoraCarrier {
  /** What of readings goes this way. */
  readonly plan: RowPlan;
  readonly #options: LoraCarrierOptions;
  #source: LoraSource | undefined;
  #uplink: LoraUplink | undefined;
  #startedMs = 0;
  /** The data rate that `#lengthS` was found for. */
  #lengthOf: number | undefined;
  #lengthS: number | undefined;

  constructor(options: LoraCarrierOptions) {
    this.#options = options;
    const { slotS, codes, batchS } = options.configuration;
    const longestS = batchS === "auto" ? 86_400 : batchS;
    this.plan = {
      plan: loraPlan,
      thinning: { slotS, codes },
      batch: () => new LoraBatch(() => this.#batchLengthS(), { slotS, longestS }),
    };
  }

  start(host: LoraHost): void {
    const { configuration, modem, timing, store, bootId, random } = this.#options;
    const { region, fairUseSPerDay, receiptsH, when } = configuration;
    const { wallet, forwarders, emit, onReceipt } = host;
    this.#startedMs = timing.clock.monotonicMs();
    this.#source = new LoraSource({
      read: (from, to, epoch) => wallet.read(from, to, epoch, true),
      forwarders,
      nowMs: timing.clock.monotonicMs,
      ripeAfterMs: when === "fallback" ? fallbackAfterMs + random() * spreadMaxMs : 0,
      holdMs: () => random() * Math.min(spreadMaxMs, this.#batchLengthS() * 1_000 * spreadShare),
    });
    this.#uplink = new LoraUplink({
      ...{ modem, region, source: this.#source, timing, store, bootId, random, onReceipt },
      ...(fairUseSPerDay !== undefined && { fairUseSPerDay }),
      repeatDelaysMs: repeatDelaysFor(receiptsH),
      onState: (state) => emit({ event: "lora-state", ...state }),
      emit: (event) => emit({ event: "lora", lora: event }),
    });
    this.#uplink.start();
  }

  /** A record of these rows was sealed. */
  sealed(epoch: number, sequence: number): void {
    this.#source?.sealed(epoch, sequence);
  }

  /** There may be a new record, or a receipt was taken. */
  news(): void {
    this.#source?.news();
  }

  /** To be called every second or so. */
  look(): void {
    this.#source?.look();
  }

  async stop(): Promise<void> {
    await this.#uplink?.stop();
  }

  status(): LoraCarrierStatus | undefined {
    const { slotS, when } = this.#options.configuration;
    const status = this.#uplink?.status();
    const sinceStartMs = this.#options.timing.clock.monotonicMs() - this.#startedMs;
    return status && { ...status, slotS, batchS: this.#batchLengthS(), isFallback: when === "fallback", sinceStartMs };
  }

  #batchLengthS(): number {
    const { configuration } = this.#options;
    if (configuration.batchS !== "auto") return configuration.batchS;
    const dataRate = this.#uplink?.dataRate;
    if (this.#lengthS === undefined || dataRate !== this.#lengthOf) {
      const { region, fairUseSPerDay, slotS } = configuration;
      this.#lengthS = automaticLengthS({ region, dataRate, fairUseSPerDay, slotS, meters: this.#codesOfMeters() });
      this.#lengthOf = dataRate;
    }
    return this.#lengthS;
  }

  #codesOfMeters(): readonly (readonly number[])[] {
    const { meters, profileOf, configuration } = this.#options;
    return meters.map(({ codes, profile }) => loraCodes(codes ?? profileOf(profile).defaultCodes, configuration.codes));
  }
}

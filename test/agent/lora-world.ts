/** A LoRaWAN modem, a radio that loses frames, and a full node (lora-node.ts), in memory and on virtual time. */
import type { LoraRecord, LoraRecordSource } from "../../agent/lora-record.ts";
import type { LoraStateStore } from "../../agent/lora-state-store.ts";
import type { LoraEvent, LoraState } from "../../agent/lora-status.ts";
import { LoraUplink } from "../../agent/lora-uplink.ts";
import type { LoraUplinkOptions } from "../../agent/lora-uplink-options.ts";
import { airtimeMs } from "../../drivers/lora/airtime.ts";
import type { JoinOutcome, LoraDownlink, LoraModem, SendOutcome } from "../../drivers/lora/modem.ts";
import { payloadBytesMax, type RegionName } from "../../drivers/lora/region.ts";
import { decodeLoraReceipt, storedSequences } from "../../protocol/lora-receipt.ts";
import type { SeededRandom } from "../protocol/seeded-random.ts";
import { epoch, LoraNode } from "./lora-node.ts";
import { VirtualMachine, VirtualProcess } from "./virtual-machine.ts";

interface AirFrame {
  readonly port: number;
  readonly bytes: Uint8Array;
  readonly startMs: number;
  readonly endMs: number;
}

export class LoraWorld {
  readonly machine = new VirtualMachine();
  /** 0 to below 1. */
  readonly random: () => number;
  readonly region: RegionName;
  dataRate = 0;
  /** How often each frame goes (NbTrans). */
  transmissions = 1;
  /** Whether the driver sees that. */
  tellsTransmissions = true;
  /** FOpts in each frame, at most. */
  fOptsMax = 0;
  lossUp = 0;
  lossDown = 0;
  /** Nothing comes down at all. */
  isDeaf = false;
  /** What the modem says of how much fits; undefined: nothing, as most do. */
  room: number | undefined;
  sourceFailure: Error | undefined;
  joined = true;
  /** What the next frames and joins meet, in turn; then all goes well. */
  readonly outcomes: SendOutcome[] = [];
  readonly joinOutcomes: JoinOutcome[] = [];
  beginFailure: Error | undefined;
  readonly frames: AirFrame[] = [];
  readonly joins: number[] = [];
  /** Every join request and frame: when it was on the air. */
  readonly air: { readonly startMs: number; readonly endMs: number }[] = [];
  readonly sealed: LoraRecord[] = [];
  readonly #node = new LoraNode(this.sealed);
  /** Named by a receipt. */
  readonly released = new Set<number>();
  readonly events: LoraEvent[] = [];
  readonly states: LoraState[] = [];
  saved: Uint8Array | undefined;
  /** What reading and writing the state file meet. */
  storeFailure: Error | undefined;
  forgets = false;
  uplink: LoraUplink | undefined;
  process = new VirtualProcess(this.machine);
  #fCnt = 0;
  #news: () => void = () => undefined;
  #downlink: (downlink: LoraDownlink) => void = () => undefined;
  #lost: (reason: string) => void = () => undefined;

  constructor(random: SeededRandom, region: RegionName = "EU868") {
    this.random = () => random.uint32() / 2 ** 32;
    this.region = region;
  }

  /** What the node has stored, by sequence. */
  get stored(): ReadonlySet<number> {
    return this.#node.stored;
  }

  /** A process with an uplink; the one before it is dead. */
  start(options: Partial<LoraUplinkOptions> = {}): LoraUplink {
    this.process.kill();
    this.process = new VirtualProcess(this.machine);
    const process = this.process;
    this.uplink = new LoraUplink({
      modem: this.#modem(process),
      region: this.region,
      source: this.#source(process),
      timing: process.timing,
      store: this.#store(process),
      bootId: this.machine.bootId,
      onReceipt: (bytes) => this.#released(bytes),
      onState: (state) => this.states.push(state),
      emit: (event) => this.events.push(event),
      random: this.random,
      ...options,
    });
    this.uplink.start();
    return this.uplink;
  }

  seal(bytes: number): void {
    const sequence = this.sealed.length + 1;
    const content = Uint8Array.from({ length: bytes }, () => Math.floor(this.random() * 256));
    this.sealed.push({ epoch, sequence, bytes: content });
    this.#news();
  }

  /** The modem says that it is no more, as after a reset in mid-command. */
  loseModem(reason: string): void {
    this.#lost(reason);
  }

  hears(downlink: LoraDownlink): void {
    this.#downlink(downlink);
  }

  /** Most airtime in any window of that length, each frame that touches it counted in full. */
  fullestMs(windowMs: number): number {
    let fullest = 0;
    let sum = 0;
    let first = 0;
    for (const { startMs, endMs } of this.air) {
      sum += endMs - startMs;
      for (let old = this.air[first]; old && old.endMs <= endMs - windowMs; old = this.air[++first])
        sum -= old.endMs - old.startMs;
      fullest = Math.max(fullest, sum);
    }
    return fullest;
  }

  get #view(): { joined: boolean; dataRate: number; bytesMax?: number } {
    const { joined, dataRate, room } = this;
    return { joined, dataRate, ...(room !== undefined && { bytesMax: room }) };
  }

  get #isLostDown(): boolean {
    return this.isDeaf || this.random() < this.lossDown;
  }

  #source(process: VirtualProcess): LoraRecordSource {
    return {
      next: (excluded) => {
        if (this.sourceFailure) return process.survive(Promise.reject(this.sourceFailure));
        const waiting = this.sealed.filter(
          ({ sequence }) => !this.released.has(sequence) && !excluded(epoch, sequence),
        );
        const newest = waiting.at(-1);
        return process.survive(Promise.resolve(newest === this.sealed.at(-1) ? newest : waiting[0]));
      },
      isStored: (_, sequence) => this.released.has(sequence),
      onNews: (listener) => {
        this.#news = () => process.isAlive && listener();
      },
    };
  }

  #store(process: VirtualProcess): LoraStateStore {
    const meet = (): void => {
      if (this.storeFailure) throw this.storeFailure;
    };
    return {
      read: () =>
        process.survive(
          Promise.resolve().then(() => {
            meet();
            return this.forgets ? undefined : this.saved;
          }),
        ),
      write: (bytes) =>
        process.survive(
          this.machine.wait(20).then(() => {
            // One that died meanwhile had its write cut off, or not.
            if (!process.isAlive && this.random() < 0.5) return;
            meet();
            this.saved = bytes;
          }),
        ),
    };
  }

  #modem(process: VirtualProcess): LoraModem {
    const live = <T>(work: Promise<T>): Promise<T> => process.survive(work);
    return {
      family: "rui3",
      description: "/dev/ttyUSB9",
      firmware: "4.2.0",
      begin: () =>
        live(
          this.machine.wait(100).then(() => {
            if (this.beginFailure) throw this.beginFailure;
            return { joined: this.joined };
          }),
        ),
      join: () => live(this.#join()),
      send: (port, bytes) => live(this.#send(port, bytes)),
      state: () => live(this.machine.wait(5).then(() => this.#view)),
      onDownlink: (listener) => {
        this.#downlink = (downlink) => process.isAlive && listener(downlink);
      },
      onLost: (listener) => {
        this.#lost = (reason) => process.isAlive && listener(reason);
      },
      provision: () => Promise.reject(new Error("not here")),
      close: () => Promise.resolve(),
    };
  }

  async #join(): Promise<JoinOutcome> {
    const outcome = this.joinOutcomes.shift() ?? { kind: "joined" as const };
    if (outcome.kind === "busy" || outcome.kind === "duty-cycle" || outcome.kind === "no-keys") return outcome;
    this.joins.push(this.machine.nowMs);
    // A join request is as long as a payload of ten bytes makes a frame.
    await this.#onAir(10, 0);
    await this.machine.wait(6_000);
    this.joined = outcome.kind === "joined";
    return outcome;
  }

  async #onAir(bytes: number, dataRate: number): Promise<{ startMs: number; endMs: number }> {
    const room = (payloadBytesMax(this.region, dataRate, { repeaterSafe: false, dwell: false }) ?? bytes) - bytes;
    const fOpts = Math.max(0, Math.min(room, Math.floor(this.random() * (this.fOptsMax + 1))));
    await this.machine.wait(30);
    const startMs = this.machine.nowMs;
    const frame = { startMs, endMs: startMs + airtimeMs(this.region, dataRate, bytes, fOpts) };
    this.air.push(frame);
    await this.machine.wait(frame.endMs - startMs);
    return frame;
  }

  async #send(port: number, bytes: Uint8Array): Promise<SendOutcome> {
    const outcome = this.outcomes.shift() ?? { kind: "sent" as const };
    if (outcome.kind === "too-long" && outcome.emptyFrameSent) await this.#onAir(0, this.dataRate);
    if (outcome.kind !== "sent") return outcome;
    if (!this.joined) return { kind: "not-joined" };
    if (bytes.length > (payloadBytesMax(this.region, this.dataRate) ?? 11))
      return { kind: "too-long", emptyFrameSent: false };
    const frame = { port, bytes, ...(await this.#onAir(bytes.length, this.dataRate)) };
    this.frames.push(frame);
    this.room = undefined;
    const fCnt = this.#fCnt++;
    if (this.random() >= this.lossUp) this.#node.receive(port, bytes, fCnt, this.machine.nowMs);
    await this.machine.wait(2_000);
    for (let again = 1; again < this.transmissions; again++) {
      await this.#onAir(bytes.length, this.dataRate);
      await this.machine.wait(2_000);
    }
    const downlink = this.#node.take();
    if (downlink && !this.#isLostDown) this.#downlink(downlink);
    return this.transmissions > 1 && this.tellsTransmissions && outcome.kind === "sent"
      ? { ...outcome, transmissions: this.transmissions }
      : outcome;
  }

  /** As the wallet would, which verifies. */
  #released(bytes: Uint8Array): void {
    for (const [first, last] of storedSequences(decodeLoraReceipt(bytes)))
      for (let sequence = first; sequence <= last; sequence++) this.released.add(sequence);
    this.#news();
  }
}

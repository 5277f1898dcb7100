/**
 * The records that go over LoRaWAN, as the uplink asks for them: read back from the wallet in their bare form, those that a receipt
 * has named left out. What may leave so is the wallet's word (its policy's plans, and events); the others it withholds.
 */
import { contentTypes, decodeCose } from "../protocol/cose-sign1.ts";
import { decodeRecordPayload, recordBytesMax } from "../protocol/record.ts";
import type { ReadAnswer } from "../protocol/wallet-message.ts";
import type { EpochForwarders } from "./epoch-forwarders.ts";
import type { LoraRecord, LoraRecordSource } from "./lora-record.ts";

/** So many records are known by their place at most; later ones are looked for once a receipt has named some of these. */
const knownMax = 4_096;
/** While records ripen, how far each epoch has got is noted so often. */
const markEveryMs = 15_000;

interface KnownRecord {
  readonly epoch: number;
  readonly sequence: number;
  /** Whose rows it has; undefined: events. */
  readonly meter: number | undefined;
}

interface Mark {
  readonly atMs: number;
  /** The highest sequence of each epoch then. */
  readonly highest: ReadonlyMap<number, number>;
}

export interface LoraSourceOptions {
  /** A bare read of the wallet. */
  readonly read: (from: number, to: number, epoch: number) => Promise<ReadAnswer>;
  readonly forwarders: Pick<EpochForwarders, "all" | "of">;
  readonly nowMs: () => number;
  /** A record goes this way once no receipt has named it for so long; 0: at once. */
  readonly ripeAfterMs: number;
  /** How long what was sealed just now is held back, so that hubs whose batches end by the same clock do not send at once. */
  readonly holdMs?: () => number;
}

export class LoraSource implements LoraRecordSource {
  readonly #options: LoraSourceOptions;
  readonly #listeners: (() => void)[] = [];
  /** Unstored when they were looked at last; ascending within an epoch. */
  #known: KnownRecord[] = [];
  /** Through which sequence each epoch was looked through. */
  readonly #searched = new Map<number, number>();
  #marks: Mark[] = [];
  /** Records of that epoch from that sequence on are held back. */
  #held: { readonly epoch: number; readonly from: number; readonly untilMs: number } | undefined;

  constructor(options: LoraSourceOptions) {
    this.#options = options;
  }

  onNews(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /** A batch was closed. What is closed beside it is held back with it. */
  sealed(epoch: number, sequence: number): void {
    const { holdMs = () => 0, nowMs } = this.#options;
    if (!this.#isHeld(epoch, sequence)) this.#held = { epoch, from: sequence, untilMs: nowMs() + holdMs() };
    this.news();
  }

  #isHeld(epoch: number, sequence: number): boolean {
    const held = this.#held;
    return held?.epoch === epoch && sequence >= held.from && this.#options.nowMs() < held.untilMs;
  }

  /** There may be a new record, or a receipt was taken. */
  news(): void {
    for (const listener of this.#listeners) listener();
  }

  /** To be called every second or so: records ripen with time. */
  look(): void {
    const { ripeAfterMs, nowMs, forwarders } = this.#options;
    if (this.#held && nowMs() >= this.#held.untilMs) {
      this.#held = undefined;
      this.news();
    }
    if (ripeAfterMs === 0) return;
    const atMs = nowMs();
    const last = this.#marks.at(-1);
    if (last && atMs - last.atMs < markEveryMs) return;
    const ripeBefore = this.#marks[0];
    const highest = new Map(forwarders.all.map(({ epoch, forwarder }) => [epoch, forwarder.highest]));
    const marks = [...this.#marks, { atMs, highest }];
    const ripe = marks.findLastIndex((mark) => atMs - mark.atMs >= ripeAfterMs);
    this.#marks = marks.slice(Math.max(0, ripe));
    if (this.#marks[0] !== ripeBefore) this.news();
  }

  /** The highest sequence of an epoch that may go. */
  #ripe(epoch: number, highest: number): number {
    const { ripeAfterMs, nowMs } = this.#options;
    if (ripeAfterMs === 0) return highest;
    const oldest = this.#marks[0];
    return oldest && nowMs() - oldest.atMs >= ripeAfterMs ? (oldest.highest.get(epoch) ?? 0) : 0;
  }

  isStored(epoch: number, sequence: number): boolean {
    const { forwarders } = this.#options;
    if (forwarders.all.length === 0) return false; // the wallet was not met yet
    const forwarder = forwarders.of(epoch);
    return forwarder === undefined || forwarder.isStored(sequence); // an epoch that is complete is no longer named
  }

  async next(excluded: (epoch: number, sequence: number) => boolean): Promise<LoraRecord | undefined> {
    await this.#search();
    for (const record of this.#inOrder()) {
      const { epoch, sequence } = record;
      if (excluded(epoch, sequence) || this.#isHeld(epoch, sequence)) continue;
      const bytes = (await this.#options.read(sequence, sequence, epoch)).records[0]?.[1];
      if (bytes !== undefined) return { epoch, sequence, bytes };
      this.#known = this.#known.filter((other) => other !== record); // recycled since it was found
    }
    return undefined;
  }

  /** The newest of each meter, newest first; then the others, oldest first. */
  #inOrder(): KnownRecord[] {
    const newest = new Map<number, KnownRecord>();
    for (const record of this.#known)
      if (record.meter !== undefined) {
        newest.delete(record.meter); // a map keeps the place of what is set again
        newest.set(record.meter, record);
      }
    const first = [...newest.values()].reverse();
    return [...first, ...this.#known.filter((record) => !first.includes(record))];
  }

  /** Looks through what was sealed since the last time. Rejects where the wallet is away; it goes on from there the next time. */
  async #search(): Promise<void> {
    const { forwarders } = this.#options;
    this.#known = this.#known.filter(({ epoch, sequence }) => !this.isStored(epoch, sequence));
    for (const epoch of this.#searched.keys()) if (!forwarders.of(epoch)) this.#searched.delete(epoch);
    for (const { epoch, forwarder } of forwarders.all) {
      const to = this.#ripe(epoch, forwarder.highest);
      for (;;) {
        const from = forwarder.unstoredFrom((this.#searched.get(epoch) ?? forwarder.through) + 1);
        if (from > to || this.#known.length >= knownMax) break;
        const { records, withheld = [] } = await this.#options.read(from, to, epoch);
        for (const [sequence, bytes] of records)
          if (!this.isStored(epoch, sequence)) this.#known.push({ epoch, sequence, meter: meterOf(bytes) });
        // An answer that is empty means that nothing of it exists.
        this.#searched.set(epoch, Math.max(records.at(-1)?.[0] ?? 0, withheld.at(-1) ?? 0) || to);
      }
    }
  }
}

function meterOf(record: Uint8Array): number | undefined {
  const content = decodeRecordPayload(decodeCose(record, contentTypes.record, recordBytesMax).payload);
  return content.kind === "reading" ? content.meter : undefined;
}

/**
 * Which frame goes next: the newest record first, then what is under way in fragments, then what waits from before, then repeats. Knows
 * of nothing but records, sessions and time; whether there is airtime for the frame is lora-uplink.ts's to see.
 */

import { decodeLoraReceipt, storedSequences } from "../protocol/lora-receipt.ts";
import { packetBytesMax, packetOf, recordPort } from "../protocol/lorawan.ts";
import { Refusal } from "../protocol/refusal.ts";
import { tileBytes } from "../protocol/schc.ts";
import type { LoraRecord, LoraRecordSource } from "./lora-record.ts";
import { LoraRepeats } from "./lora-repeats.ts";
import { type LoraSession, LoraSessions } from "./lora-sessions.ts";
import type { LoraUplinkState } from "./lora-state.ts";
import type { LoraEvent, LoraSessionOutcome } from "./lora-status.ts";

/** Of each limit, what repeats may fill: the rest stays free for what is new. */
const repeatShare = 0.75;
/** Records that no packet can hold, remembered so that each is told of once. */
const tooLargeMax = 1_024;
/** How far a receipt's bitmap reaches. */
const bitmapReach = 32;

export interface OutgoingFrame {
  readonly port: number;
  /** Its FRMPayload is no longer than this. */
  readonly bytesMax: number;
  /** Of each limit, what it may fill. */
  readonly share: number;
  /** Makes it: from here on it counts as on its way. */
  take(nowMs: number): Uint8Array;
  /** What became of it. "unknown": it may have been on the air. */
  done(outcome: "sent" | "not-sent" | "unknown", nowMs: number): void;
}

/** Carries MAC commands only. */
export const emptyFrame: OutgoingFrame = {
  port: recordPort,
  bytesMax: 0,
  share: 1,
  take: () => new Uint8Array(),
  done: () => undefined,
};

/** What was found to send; its sessions are looked up again when a frame is made. */
export interface Pending {
  readonly record: LoraRecord | undefined;
}

export interface OutboxOptions {
  readonly source: LoraRecordSource;
  readonly repeatDelaysMs: readonly number[];
  readonly emit: (event: LoraEvent) => void;
  readonly random: () => number;
}

type OutboxState = Pick<LoraUplinkState, "sessions" | "repeats" | "tooLarge">;

export class LoraOutbox {
  readonly #source: LoraRecordSource;
  readonly #emit: (event: LoraEvent) => void;
  readonly #sessions = new LoraSessions();
  readonly #repeats: LoraRepeats;
  /** By epoch and sequence. */
  readonly #tooLarge = new Map<string, readonly [epoch: number, sequence: number]>();
  #hasHeard = false;
  /** Went out last, whole: a receipt that comes with it may be older than it. */
  #last: LoraRecord | undefined;

  constructor({ source, repeatDelaysMs, emit, random }: OutboxOptions) {
    this.#source = source;
    this.#emit = emit;
    this.#repeats = new LoraRepeats(repeatDelaysMs, random);
  }

  restore({ sessions, repeats, tooLarge }: OutboxState, elapsedMs: number, nowMs: number): void {
    this.#sessions.restore(sessions, elapsedMs, nowMs);
    this.#repeats.restore(repeats, elapsedMs, nowMs);
    for (const record of tooLarge) this.#tooLarge.set(record.join(), record);
  }

  state(nowMs: number): OutboxState {
    return {
      sessions: this.#sessions.state(nowMs),
      repeats: this.#repeats.state(nowMs),
      tooLarge: [...this.#tooLarge.values()],
    };
  }

  status(nowMs: number) {
    return {
      sessions: this.#sessions.status(nowMs),
      awaitingReceipt: this.#repeats.size,
      tooLarge: this.#tooLarge.size,
    };
  }

  /** Takes in what receipts and answers have said since, and ends the sessions that are over. */
  tidy(nowMs: number): void {
    if (this.#hasHeard) this.#sessions.heard(nowMs);
    this.#hasHeard = false;
    const isStored = (epoch: number, sequence: number): boolean => this.#source.isStored(epoch, sequence);
    for (const session of this.#sessions.open)
      if (isStored(session.epoch, session.sequence)) this.#end(session, "stored", nowMs);
    for (const { session, outcome } of this.#sessions.ended) this.#end(session, outcome, nowMs);
    this.#repeats.forget(isStored);
    for (const [name, [epoch, sequence]] of this.#tooLarge) if (isStored(epoch, sequence)) this.#tooLarge.delete(name);
  }

  #end(session: LoraSession, outcome: LoraSessionOutcome, nowMs: number): void {
    const { epoch, sequence, sender } = session;
    this.#sessions.end(session);
    if (outcome === "acknowledged") this.#repeats.acknowledged(epoch, sequence, nowMs);
    else if (outcome !== "stored") this.#repeats.sent(epoch, sequence, nowMs);
    this.#emit({ event: "session-ended", port: sender.port, epoch, sequence, outcome });
  }

  /** Something came down, whatever it was. */
  heard(): void {
    this.#hasHeard = true;
  }

  /** A downlink on a port of fragments; false where no session is meant. */
  answered(port: number, bytes: Uint8Array, nowMs: number): boolean {
    return this.#sessions.received(port, bytes, nowMs);
  }

  /**
   * What a receipt says before anybody has verified it, good for one thing: a record that went out before it was written and that it
   * does not name is sent again now, not later. A lie costs airtime, within the budget.
   */
  hinted(bytes: Uint8Array): void {
    let receipt: ReturnType<typeof decodeLoraReceipt>;
    try {
      receipt = decodeLoraReceipt(bytes);
    } catch (error) {
      if (error instanceof Refusal) return;
      throw error;
    }
    const { type, sequence: through } = receipt;
    const named = storedSequences(receipt);
    const [first, last] = type === 1 ? [1, through + bitmapReach] : [through - bitmapReach, through];
    for (const { epoch, sequence } of [...this.#repeats.records]) {
      if (epoch !== receipt.epoch || sequence < first || sequence > last) continue;
      if (epoch === this.#last?.epoch && sequence === this.#last.sequence) continue;
      if (!named.some(([from, to]) => sequence >= from && sequence <= to)) this.#repeats.missing(epoch, sequence);
    }
  }

  /** When there may be something to send without any news. */
  nextDueMs(nowMs: number): number | undefined {
    const due = [this.#sessions.nextDueMs(nowMs), this.#repeats.nextDueMs(nowMs)].filter((ms) => ms !== undefined);
    return due.length === 0 ? undefined : Math.min(...due);
  }

  /** Whether there is anything to send now. Rejects as the source does. */
  async pending(nowMs: number): Promise<Pending | undefined> {
    const record = await this.#nextRecord(nowMs);
    return record !== undefined || this.#sessions.due(nowMs).length > 0 ? { record } : undefined;
  }

  /** The frame of it to send now, where at most `bytesMax` bytes of FRMPayload fit; "no-room" where all of it needs more. */
  frame({ record }: Pending, bytesMax: number, nowMs: number): OutgoingFrame | "no-room" | undefined {
    const due = this.#sessions.due(nowMs);
    const isNewer = record !== undefined && (due[0] === undefined || isBefore(due[0], record));
    const offers = [isNewer && record, ...due, !isNewer && record].filter((offer) => typeof offer === "object");
    let isTight = false;
    for (const offer of offers) {
      const frame = "sender" in offer ? this.#fragment(offer, bytesMax, nowMs) : this.#whole(offer, bytesMax, nowMs);
      if (frame === "no-room") isTight = true;
      else if (frame) return frame;
    }
    return isTight ? "no-room" : undefined;
  }

  async #nextRecord(nowMs: number): Promise<LoraRecord | undefined> {
    for (;;) {
      const record = await this.#source.next(
        (epoch, sequence) =>
          this.#sessions.has(epoch, sequence) ||
          this.#repeats.isWaiting(epoch, sequence, nowMs) ||
          this.#tooLarge.has([epoch, sequence].join()),
      );
      if (record === undefined) return undefined;
      const { length } = packetOf(record.bytes);
      if (length <= packetBytesMax) return record;
      this.#refuse(record, length);
    }
  }

  #refuse({ epoch, sequence }: LoraRecord, bytes: number): void {
    const [oldest] = this.#tooLarge.keys();
    if (this.#tooLarge.size >= tooLargeMax && oldest !== undefined) this.#tooLarge.delete(oldest);
    this.#tooLarge.set([epoch, sequence].join(), [epoch, sequence]);
    this.#emit({ event: "too-large", epoch, sequence, bytes });
  }

  #shareOf({ epoch, sequence }: { readonly epoch: number; readonly sequence: number }): number {
    return this.#repeats.tries(epoch, sequence) === 0 ? 1 : repeatShare;
  }

  #fragment(session: LoraSession, bytesMax: number, nowMs: number): OutgoingFrame | "no-room" | undefined {
    const { sender } = session;
    const frame = sender.next(bytesMax, nowMs);
    if (frame === undefined || frame === "no-room") return frame;
    return {
      port: sender.port,
      bytesMax: frame.bytes.length,
      share: this.#shareOf(session),
      take: () => {
        this.#last = undefined;
        return frame.bytes;
      },
      done: (outcome, atMs) => {
        if (outcome === "sent") sender.sent(frame, atMs);
      },
    };
  }

  /** A record in one frame, or the first fragment of its session. */
  #whole(record: LoraRecord, bytesMax: number, nowMs: number): OutgoingFrame | "no-room" | undefined {
    const packet = packetOf(record.bytes);
    const { epoch, sequence } = record;
    if (packet.length > bytesMax) return this.#firstFragment(record, packet.length, bytesMax, nowMs);
    return {
      port: recordPort,
      bytesMax: packet.length,
      share: this.#shareOf(record),
      take: (atMs) => {
        this.#last = record;
        this.#repeats.sent(epoch, sequence, atMs);
        return packet;
      },
      done: (outcome) => {
        if (outcome === "not-sent") this.#repeats.notSent(epoch, sequence);
        else this.#emit({ event: "record", epoch, sequence, tries: this.#repeats.tries(epoch, sequence) });
      },
    };
  }

  #firstFragment(
    record: LoraRecord,
    packetBytes: number,
    bytesMax: number,
    nowMs: number,
  ): OutgoingFrame | "no-room" | undefined {
    const tiles = Math.floor((bytesMax - 1) / tileBytes);
    if (tiles < 1) return "no-room";
    const yielding = this.#sessions.yielding(nowMs);
    const port = this.#sessions.nextPort ?? yielding?.sender.port;
    if (port === undefined) return undefined;
    let first: OutgoingFrame | undefined;
    return {
      port,
      bytesMax: Math.min(1 + tiles * tileBytes, 1 + packetBytes),
      share: this.#shareOf(record),
      take: (atMs) => {
        if (yielding && this.#sessions.nextPort === undefined) this.#end(yielding, "displaced", atMs);
        const session = this.#sessions.begin(record, atMs);
        const frame = session && this.#fragment(session, bytesMax, atMs);
        if (typeof frame !== "object") throw new Error(`no first fragment for ${packetBytes} bytes`);
        first = frame;
        const { epoch, sequence } = record;
        this.#emit({ event: "record", epoch, sequence, tries: this.#repeats.tries(epoch, sequence) + 1 });
        return first.take(atMs);
      },
      done: (outcome, atMs) => first?.done(outcome, atMs),
    };
  }
}

/** Whether a record is newer than one that is under way; which of two epochs is the newer one, the source knows. */
function isBefore(session: LoraSession, record: LoraRecord): boolean {
  return record.epoch !== session.epoch || record.sequence > session.sequence;
}

/**
 * Which sealed records to send next: a window over the sequence between what is released and what is sealed. Pure: the
 * caller reads, publishes, and tells what came back. Nothing here is durable, and nothing needs to be: after a restart, a
 * new connection or a silence it begins again behind what is released; full nodes take a record twice without harm.
 */
import { BackOff } from "../platform/back-off.ts";

export const windowRecordsMax = 64;
const silenceFirstMs = 4_000;
const silenceLongestMs = 120_000;

export class Forwarder {
  #through = 0;
  #highest = 0;
  #cursor = 1;
  /** Sent and not acknowledged: sequence → when it was sent. */
  readonly #inFlight = new Map<number, number>();
  readonly #sealedAt = new Map<number, number>();
  #silence = new BackOff({ firstMs: silenceFirstMs, longestMs: silenceLongestMs, jitter: 0.2 });
  #waitMs: number;

  constructor() {
    this.#waitMs = this.#silence.next();
  }

  get through(): number {
    return this.#through;
  }
  get highest(): number {
    return this.#highest;
  }
  /** Records sealed and not released. */
  get waiting(): number {
    return this.#highest - this.#through;
  }

  /** What the wallet says at a start: everything up to `highest` is sealed, up to `through` released. */
  begin(through: number, highest: number): void {
    this.#through = Math.max(this.#through, through);
    this.#highest = Math.max(this.#highest, highest);
    this.restart();
  }

  sealed(sequence: number, nowMs: number): void {
    if (sequence > this.#highest) this.#highest = sequence;
    if (sequence > this.#through && !this.#sealedAt.has(sequence) && this.#sealedAt.size < 100_000)
      this.#sealedAt.set(sequence, nowMs);
  }

  /** The sequences to read and publish now; undefined where the window is full or nothing waits. */
  next(): { from: number; to: number } | undefined {
    const room = windowRecordsMax - this.#inFlight.size;
    if (room <= 0 || this.#cursor > this.#highest) return undefined;
    return { from: this.#cursor, to: Math.min(this.#highest, this.#cursor + room - 1) };
  }

  /** These of the sequences asked for were published; what is missing among them does not exist (void, recycled). */
  published(range: { from: number; to: number }, sequences: readonly number[], complete: boolean, nowMs: number): void {
    for (const sequence of sequences) this.#inFlight.set(sequence, nowMs);
    this.#cursor = complete ? range.to + 1 : (sequences.at(-1) ?? range.from) + 1;
  }

  /** The wallet has released everything up to `through`; returns, for the records sealed here, how long that took. */
  released(through: number, stored: readonly (readonly [first: number, last: number])[], nowMs: number): number[] {
    const receiptMs: number[] = [];
    if (through > this.#through) {
      for (const [sequence, sealedAt] of this.#sealedAt) {
        if (sequence > through) continue;
        receiptMs.push(nowMs - sealedAt);
        this.#sealedAt.delete(sequence);
      }
      this.#through = through;
      this.#cursor = Math.max(this.#cursor, through + 1);
      this.#silence.reset();
      this.#waitMs = this.#silence.next();
    }
    for (const sequence of this.#inFlight.keys())
      if (sequence <= through || stored.some(([first, last]) => sequence >= first && sequence <= last))
        this.#inFlight.delete(sequence);
    return receiptMs;
  }

  /** Whether what is in flight has waited too long for a receipt and everything not released must be sent again. */
  isSilent(nowMs: number): boolean {
    let oldest = Number.POSITIVE_INFINITY;
    for (const sentAt of this.#inFlight.values()) oldest = Math.min(oldest, sentAt);
    return nowMs - oldest > this.#waitMs;
  }

  /** Begins again behind what is released; after a silence the next one may last longer. */
  restart(afterSilence = false): void {
    this.#inFlight.clear();
    this.#cursor = this.#through + 1;
    if (afterSilence) this.#waitMs = this.#silence.next();
  }
}

/**
 * Which sealed records to send next: a window over the sequence between what is released and what is sealed. Pure: the
 * caller reads, publishes, and tells what came back. Nothing here is durable, and nothing needs to be: after a restart, a
 * new connection or a silence it begins again behind what is released; full nodes take a record twice without harm.
 */
import { BackOff } from "../platform/back-off.ts";

export const windowRecordsMax = 64;
const silenceFirstMs = 4_000;
const silenceLongestMs = 120_000;
const sealedTimesMax = 10_000;

export class Forwarder {
  #epoch: number | undefined;
  #through = 0;
  #highest = 0;
  /** Next sequence to send. */
  #cursor = 1;
  /** Sent, and not known to be stored. */
  readonly #inFlight = new Set<number>();
  /** When this process sealed what is not released yet. */
  readonly #sealedAt = new Map<number, number>();
  readonly #silence: BackOff;
  #patienceMs: number;
  /** Since when something that was sent waits for a receipt; undefined where nothing does. */
  #waitingSinceMs: number | undefined;

  constructor(random: () => number = Math.random) {
    this.#silence = new BackOff({ firstMs: silenceFirstMs, longestMs: silenceLongestMs, jitter: 0.2, random });
    this.#patienceMs = this.#silence.next();
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
  get inFlight(): number {
    return this.#inFlight.size;
  }

  /** What the wallet says when it is met: everything up to `highest` is sealed, up to `through` released. Sends it anew. */
  begin(epoch: number, through: number, highest: number): void {
    if (epoch !== this.#epoch) {
      this.#through = 0;
      this.#highest = 0;
      this.#sealedAt.clear();
    }
    this.#epoch = epoch;
    this.learn(through, highest);
    this.restart();
  }

  /** The same in passing: records that the wallet sealed by itself (events, closed batches) become known. */
  learn(through: number, highest: number): void {
    this.#highest = Math.max(this.#highest, highest);
    if (through > this.#through) this.#advance(through);
  }

  sealed(sequence: number, nowMs: number): void {
    this.#highest = Math.max(this.#highest, sequence);
    if (sequence > this.#through && !this.#sealedAt.has(sequence) && this.#sealedAt.size < sealedTimesMax)
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
    for (const sequence of sequences) if (sequence > this.#through) this.#inFlight.add(sequence);
    this.#cursor = Math.max(this.#through, complete ? range.to : (sequences.at(-1) ?? range.from)) + 1;
    if (sequences.length > 0) this.#waitingSinceMs ??= nowMs;
  }

  /** The wallet has released everything up to `through`; returns, for the records sealed here, how long that took. */
  released(through: number, stored: readonly (readonly [first: number, last: number])[], nowMs: number): number[] {
    const receiptMs: number[] = [];
    for (const [sequence, sealedAt] of this.#sealedAt) if (sequence <= through) receiptMs.push(nowMs - sealedAt);
    if (through > this.#through) {
      this.#advance(through);
      this.#silence.reset();
      this.#patienceMs = this.#silence.next();
      this.#waitingSinceMs = this.#cursor > through + 1 ? nowMs : undefined;
    }
    for (const sequence of this.#inFlight)
      if (stored.some(([first, last]) => sequence >= first && sequence <= last)) this.#inFlight.delete(sequence);
    return receiptMs;
  }

  #advance(through: number): void {
    this.#through = through;
    this.#cursor = Math.max(this.#cursor, through + 1);
    for (const sequence of this.#sealedAt.keys()) if (sequence <= through) this.#sealedAt.delete(sequence);
    for (const sequence of this.#inFlight) if (sequence <= through) this.#inFlight.delete(sequence);
  }

  /** Whether what was sent has waited too long for a receipt that moves on, and must be sent again. */
  isSilent(nowMs: number): boolean {
    return this.#waitingSinceMs !== undefined && nowMs - this.#waitingSinceMs > this.#patienceMs;
  }

  /** Begins again behind what is released; after a silence the next one may last longer. */
  restart(afterSilence = false): void {
    this.#inFlight.clear();
    this.#cursor = this.#through + 1;
    this.#waitingSinceMs = undefined;
    if (afterSilence) this.#patienceMs = this.#silence.next();
  }
}

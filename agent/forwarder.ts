/**
 * Which sealed records of an epoch to send next: the newest at once, then what waits longest. Pure: the caller reads,
 * publishes, and tells what left and what came back. Nothing here is durable, and nothing needs to be: after a restart it
 * begins again behind what is released; full nodes take records in any order and twice without harm.
 *
 * What a receipt names, be it in its ranges above a gap, is not sent again. What left this hub and is not named by a receipt in
 * good time is sent again by itself; how long that is follows what receipts took before. After a new connection all that was
 * on its way may be lost, but little is sent until the first receipt tells how much of it is.
 */
import { type Lane, SendWindow } from "./send-window.ts";
import { SequenceSpans } from "./sequence-spans.ts";

/** So many of the newest records go before all that waits. */
export const liveRecordsMax = 16;
const patienceFirstMs = 4_000;
const patienceLongestMs = 120_000;
/** A receipt may take this many times what receipts took before. */
const patienceFactor = 3;
const sealedTimesMax = 10_000;
export const windowBytesDefault = 524_288;

export interface SequenceRange {
  readonly from: number;
  readonly to: number;
}

interface OnItsWay {
  readonly bytes: number;
  /** When it left this hub: when the broker had it. Undefined while it waits for that. */
  leftMs: number | undefined;
}

export class Forwarder {
  readonly #window: SendWindow;
  readonly #random: () => number;
  #epoch: number | undefined;
  #through = 0;
  #highest = 0;
  /** All below it is released, stored, absent or on its way. */
  #cursor = 1;
  /** In the order of sending. */
  readonly #onTheirWay = new Map<number, OnItsWay>();
  /** Above `through`: what a receipt names as stored, and what does not exist (void, recycled). */
  readonly #settled = new SequenceSpans();
  /** Sent again: when it left first, and how often. One that a node never takes must not be sent every few seconds. */
  readonly #again = new Map<number, { readonly firstMs: number; readonly times: number }>();
  /** When this process sealed what is not stored yet. */
  readonly #sealedAt = new Map<number, number>();
  /** What receipts take, from a record's leaving on: running mean. */
  #latencyMs = 0;
  #silences = 0;
  #silentSinceMs = Number.NEGATIVE_INFINITY;
  #patienceMs: number;
  /** When a receipt last named something new, or something was sent after a quiet time. */
  #progressMs: number | undefined;

  constructor(window: SendWindow = new SendWindow(windowBytesDefault), random: () => number = Math.random) {
    this.#window = window;
    this.#random = random;
    this.#patienceMs = this.#patience();
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
  /** Of those, the ones that no receipt names yet. */
  get unstored(): number {
    return this.waiting - this.#settled.size;
  }
  get inFlight(): number {
    return this.#onTheirWay.size;
  }
  /** When the oldest that waits was sealed, on the caller's clock; undefined where another process sealed it. */
  get oldestSealedMs(): number | undefined {
    return this.#sealedAt.get((this.#settled.endOf(this.#through + 1) ?? this.#through) + 1);
  }

  /** Whether a receipt names it, released or not; what does not exist counts as stored. */
  isStored(sequence: number): boolean {
    return sequence <= this.#through || this.#settled.endOf(sequence) !== undefined;
  }

  /** The first sequence at or behind this one that is not stored. */
  unstoredFrom(sequence: number): number {
    const from = Math.max(sequence, this.#through + 1);
    return (this.#settled.endOf(from) ?? from - 1) + 1;
  }

  /** What the wallet says when it is met: everything up to `highest` is sealed, up to `through` released. */
  begin(epoch: number, through: number, highest: number): void {
    if (epoch !== this.#epoch || through < this.#through) {
      // A wallet that forgot a release needs a receipt once more, and gets one for whatever is sent again.
      this.#settled.clear();
      if (epoch !== this.#epoch) this.#sealedAt.clear();
      this.#through = through;
      this.#highest = highest;
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
  next(lane: Lane): SequenceRange | undefined {
    const room = this.#window.roomRecords(lane);
    if (room === 0) return undefined;
    const from = this.#firstUnsent(
      lane === "live" ? Math.max(this.#cursor, this.#highest - liveRecordsMax + 1) : this.#cursor,
    );
    if (lane === "backlog") this.#cursor = from;
    if (from > this.#highest) return undefined;
    const end = Math.min(this.#highest, from + room - 1, this.#settled.startFrom(from) - 1);
    let to = from;
    while (to < end && !this.#onTheirWay.has(to + 1)) to++;
    return { from, to };
  }

  #firstUnsent(start: number): number {
    let sequence = start;
    while (sequence <= this.#highest) {
      const end = this.#onTheirWay.has(sequence) ? sequence : this.#settled.endOf(sequence);
      if (end === undefined) return sequence;
      sequence = end + 1;
    }
    return sequence;
  }

  /**
   * These of the sequences asked for are on their way; what is missing before the last of them, or in a complete answer, does
   * not exist.
   */
  published(
    range: SequenceRange,
    records: readonly (readonly [sequence: number, bytes: number])[],
    complete: boolean,
    nowMs: number,
  ): void {
    let expected = range.from;
    for (const [sequence, bytes] of records) {
      if (sequence > expected) this.#settle(expected, sequence - 1);
      expected = sequence + 1;
      if (sequence <= this.#through || this.#onTheirWay.has(sequence)) continue;
      this.#onTheirWay.set(sequence, { bytes, leftMs: undefined });
      this.#window.take(bytes);
    }
    if (complete && expected <= range.to) this.#settle(expected, range.to);
    if (records.length > 0) this.#progressMs ??= nowMs;
  }

  /** The broker has it (or the radio has sent it): from now on a receipt is due. */
  left(sequence: number, nowMs: number): void {
    const record = this.#onTheirWay.get(sequence);
    if (record) record.leftMs ??= nowMs;
  }

  /**
   * The wallet has verified a receipt and released everything up to `through`; `stored` are its ranges above. Returns, for the
   * records sealed here and named for the first time, how long that took.
   */
  released(through: number, stored: readonly (readonly [first: number, last: number])[], nowMs: number): number[] {
    const ranges = [[this.#through + 1, through] as const, ...stored];
    const isNamed = (sequence: number): boolean =>
      ranges.some(([first, last]) => sequence >= first && sequence <= last);
    const receiptMs: number[] = [];
    for (const [sequence, sealedAt] of this.#sealedAt)
      if (isNamed(sequence)) {
        receiptMs.push(nowMs - sealedAt);
        this.#sealedAt.delete(sequence);
      }
    for (const [sequence, { bytes, leftMs }] of this.#onTheirWay)
      if (isNamed(sequence)) {
        const firstMs = this.#again.get(sequence)?.firstMs ?? leftMs;
        if (firstMs !== undefined) this.#latencyMs += (nowMs - firstMs - this.#latencyMs) / 8;
        this.#window.grow(bytes);
      }
    const unstored = this.unstored;
    if (through > this.#through) this.#advance(through);
    for (const [first, last] of stored)
      if (last > this.#through) this.#settle(Math.max(first, this.#through + 1), Math.min(last, this.#highest));
    if (this.unstored < unstored) {
      this.#silences = 0;
      this.#patienceMs = this.#patience();
      this.#progressMs = this.#isQuiet ? undefined : nowMs;
    }
    return receiptMs;
  }

  #advance(through: number): void {
    this.#through = through;
    this.#highest = Math.max(this.#highest, through);
    this.#cursor = Math.max(this.#cursor, through + 1);
    this.#settled.dropThrough(through);
    for (const sequence of this.#sealedAt.keys()) if (sequence <= through) this.#sealedAt.delete(sequence);
    for (const sequence of this.#onTheirWay.keys()) if (sequence <= through) this.#land(sequence);
    // A receipt can come for what was taken back, and not yet sent again.
    for (const sequence of this.#again.keys()) if (sequence <= through) this.#again.delete(sequence);
  }

  /** Nobody need wait for these any more. */
  #settle(first: number, last: number): void {
    if (last < first) return;
    this.#settled.add(first, last);
    for (const sequence of this.#onTheirWay.keys()) if (sequence >= first && sequence <= last) this.#land(sequence);
  }

  #land(sequence: number): void {
    this.#window.giveBack(this.#onTheirWay.get(sequence)?.bytes ?? 0);
    this.#onTheirWay.delete(sequence);
    this.#again.delete(sequence);
  }

  /** Nothing that was sent waits for a receipt that moves on. */
  get #isQuiet(): boolean {
    return this.#onTheirWay.size === 0 && this.#settled.size === 0;
  }

  /**
   * Takes back what has waited too long for a receipt, so that next() gives it again; to be called now and then. With each
   * silence in which no receipt says anything new, the next may last longer. Tells whether anything was taken back.
   */
  expire(nowMs: number): boolean {
    const late: [sequence: number, leftMs: number][] = [];
    for (const [sequence, { leftMs }] of this.#onTheirWay) {
      if (leftMs === undefined) continue;
      const patienceMs = Math.min(patienceLongestMs, this.#patienceMs * 2 ** (this.#again.get(sequence)?.times ?? 0));
      if (nowMs - leftMs > patienceMs) late.push([sequence, leftMs]);
    }
    for (const [sequence, leftMs] of late) {
      const { firstMs, times } = this.#again.get(sequence) ?? { firstMs: leftMs, times: 0 };
      this.#land(sequence);
      this.#again.set(sequence, { firstMs, times: Math.min(10, times + 1) });
      this.#cursor = Math.min(this.#cursor, sequence);
    }
    const isStuck = late.length === 0 && this.#isStuck(nowMs);
    if (isStuck) this.restart(true);
    if (late.length === 0 && !isStuck) return false;
    if (nowMs - Math.max(this.#silentSinceMs, this.#progressMs ?? nowMs) > this.#patienceMs) {
      this.#silentSinceMs = nowMs;
      this.#silences++;
      this.#patienceMs = this.#patience();
      this.#window.shrink();
    }
    return true;
  }

  /** All was sent and is stored, and still the node does not move on: it has lost what it once had. */
  #isStuck(nowMs: number): boolean {
    return (
      this.waiting > 0 &&
      this.#onTheirWay.size === 0 &&
      this.#firstUnsent(this.#cursor) > this.#highest &&
      nowMs - (this.#progressMs ?? nowMs) > this.#patienceMs
    );
  }

  #patience(): number {
    const fullMs = Math.max(patienceFirstMs, patienceFactor * this.#latencyMs) * 2 ** Math.min(this.#silences, 10);
    return Math.min(patienceLongestMs, fullMs) * (0.8 + 0.2 * this.#random());
  }

  /** What is on its way may be lost: there is a new connection. `all`: what receipts named goes once more as well. */
  restart(all = false): void {
    for (const sequence of [...this.#onTheirWay.keys()]) this.#land(sequence);
    this.#again.clear();
    if (all) this.#settled.clear();
    this.#cursor = this.#through + 1;
    this.#progressMs = undefined;
    this.#window.shrink();
  }
}

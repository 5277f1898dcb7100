/**
 * Records that went out whole and that no verified receipt names yet: when each is sent again. None is ever dropped here; one that is
 * forgotten because there are too many counts as never sent.
 */
export const usualRepeatDelaysMs: readonly number[] = [5, 15, 30, 60, 120, 240, 480, 720].map(
  (minutes) => minutes * 60_000,
);
/** The least that chance makes of a delay. */
const jitterMin = 0.75;
const receiptGraceMs = 900_000;

/**
 * For a full node that gives one receipt in `receiptsH` hours: before that a record without one is not lost, and if it is, that receipt shows
 * it. What has come again it answers at once, so from then on all is as usual.
 */
export function repeatDelaysFor(receiptsH: number | undefined): readonly number[] {
  if (receiptsH === undefined) return usualRepeatDelaysMs;
  return [(receiptsH * 3_600_000 + receiptGraceMs) / jitterMin, ...usualRepeatDelaysMs];
}

/** An SCHC ACK said that it was stored; only where no receipt confirms that for a day, and by the next daily batch, was it a lie or a loss. */
const acknowledgedDelayMs = 26 * 3_600_000;
const recordsMax = 512;

/** Plain data, whole milliseconds. */
export interface RepeatState {
  readonly epoch: number;
  readonly sequence: number;
  readonly tries: number;
  readonly dueInMs: number;
}

interface Sent {
  readonly epoch: number;
  readonly sequence: number;
  readonly tries: number;
  readonly dueMs: number;
}

export class LoraRepeats {
  readonly #delaysMs: readonly number[];
  readonly #random: () => number;
  readonly #sent = new Map<string, Sent>();

  constructor(delaysMs: readonly number[], random: () => number) {
    if (delaysMs.length === 0) throw new RangeError("at least one delay is needed");
    this.#delaysMs = delaysMs;
    this.#random = random;
  }

  restore(states: readonly RepeatState[], elapsedMs: number, nowMs: number): void {
    for (const { dueInMs, ...record } of states)
      this.#sent.set(key(record.epoch, record.sequence), { ...record, dueMs: nowMs + dueInMs - elapsedMs });
  }

  state(nowMs: number): RepeatState[] {
    return [...this.#sent.values()].map(({ dueMs, ...record }) => ({
      ...record,
      dueInMs: Math.max(0, Math.ceil(dueMs - nowMs)),
    }));
  }

  get size(): number {
    return this.#sent.size;
  }

  /** How often it was sent; 0: never. */
  tries(epoch: number, sequence: number): number {
    return this.#sent.get(key(epoch, sequence))?.tries ?? 0;
  }

  /** It was sent, and is not due again yet. */
  isWaiting(epoch: number, sequence: number, nowMs: number): boolean {
    const sent = this.#sent.get(key(epoch, sequence));
    return sent !== undefined && sent.dueMs > nowMs;
  }

  /** It goes out (again). */
  sent(epoch: number, sequence: number, nowMs: number): void {
    const tries = this.tries(epoch, sequence) + 1;
    const delayMs = this.#delaysMs[Math.min(tries, this.#delaysMs.length) - 1] as number;
    this.#put({ epoch, sequence, tries, dueMs: nowMs + delayMs * (jitterMin + 0.5 * this.#random()) });
  }

  /** The full node says that it has it, in words that nobody can verify. */
  acknowledged(epoch: number, sequence: number, nowMs: number): void {
    const tries = Math.max(1, this.tries(epoch, sequence));
    this.#put({ epoch, sequence, tries, dueMs: nowMs + acknowledgedDelayMs });
  }

  /** It did not go out after all: due at once, and that try does not count. */
  notSent(epoch: number, sequence: number): void {
    const sent = this.#sent.get(key(epoch, sequence));
    if (sent === undefined) return;
    if (sent.tries <= 1) this.#sent.delete(key(epoch, sequence));
    else this.#sent.set(key(epoch, sequence), { ...sent, tries: sent.tries - 1, dueMs: Number.NEGATIVE_INFINITY });
  }

  /** It seems to be missing at the full node: due at once. */
  missing(epoch: number, sequence: number): void {
    const sent = this.#sent.get(key(epoch, sequence));
    if (sent) this.#sent.set(key(epoch, sequence), { ...sent, dueMs: Number.NEGATIVE_INFINITY });
  }

  #put(sent: Sent): void {
    this.#sent.delete(key(sent.epoch, sent.sequence));
    this.#sent.set(key(sent.epoch, sent.sequence), sent);
    if (this.#sent.size <= recordsMax) return;
    const [oldest] = this.#sent.keys();
    if (oldest !== undefined) this.#sent.delete(oldest);
  }

  /** Forgets what needs no repeating. */
  forget(isStored: (epoch: number, sequence: number) => boolean): void {
    for (const [name, { epoch, sequence }] of this.#sent) if (isStored(epoch, sequence)) this.#sent.delete(name);
  }

  /** The records that wait, for who knows more of them. */
  get records(): Iterable<{ readonly epoch: number; readonly sequence: number }> {
    return this.#sent.values();
  }

  /** When the next one of those that are not due yet is. */
  nextDueMs(nowMs: number): number | undefined {
    let next: number | undefined;
    for (const { dueMs } of this.#sent.values())
      if (dueMs > nowMs && (next === undefined || dueMs < next)) next = dueMs;
    return next;
  }
}

function key(epoch: number, sequence: number): string {
  return `${epoch}:${sequence}`;
}

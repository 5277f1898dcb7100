/**
 * When to join, and when to join again. The delays between join requests keep within what LoRaWAN 1.0.x §7 allows to a device that hears
 * nothing: 36 s of airtime in the first hour, 36 s in the ten hours after it, then 8.7 s a day. They outlive a restart.
 */
const firstMs = 30_000;
const longestMs = 12 * 3_600_000;
/** After so long joined the next trouble is a new one. */
const stableMs = 3_600_000;
/** Frames that nothing answered, at least, before a silent link is taken for a dead one. */
const framesMin = 8;

/** Plain data, whole milliseconds. */
export interface JoinState {
  readonly failures: number;
  readonly nextInMs: number;
  /** Since the last downlink or join; absent: none yet. */
  readonly silentMs?: number;
  readonly unansweredFrames: number;
}

export class JoinPolicy {
  readonly #random: () => number;
  readonly #linkDeadAfterMs: number;
  #failures = 0;
  #nextMs = Number.NEGATIVE_INFINITY;
  #heardMs: number | undefined;
  #joinedMs: number | undefined;
  #unansweredFrames = 0;

  /** @param linkDeadAfterMs 0: a link that says nothing is never given up */
  constructor(linkDeadAfterMs: number, random: () => number) {
    this.#linkDeadAfterMs = linkDeadAfterMs;
    this.#random = random;
  }

  restore(state: JoinState, elapsedMs: number, nowMs: number): void {
    this.#failures = state.failures;
    this.#nextMs = nowMs + state.nextInMs - elapsedMs;
    this.#heardMs = state.silentMs === undefined ? undefined : nowMs - elapsedMs - state.silentMs;
    this.#unansweredFrames = state.unansweredFrames;
  }

  state(nowMs: number): JoinState {
    return {
      failures: this.#failures,
      nextInMs: Math.max(0, Math.ceil(this.#nextMs - nowMs)),
      ...(this.#heardMs !== undefined && { silentMs: Math.max(0, Math.floor(nowMs - this.#heardMs)) }),
      unansweredFrames: this.#unansweredFrames,
    };
  }

  /** How long until a join request may go; 0: now. */
  waitMs(nowMs: number): number {
    return Math.max(0, this.#nextMs - nowMs);
  }

  /** A request goes out: counted as failed until it is known better, also by another process. */
  requested(nowMs: number): void {
    const delayMs = Math.min(longestMs, firstMs * 2 ** Math.min(this.#failures, 30));
    this.#failures++;
    this.#nextMs = nowMs + delayMs * (0.5 + 0.5 * this.#random());
  }

  /** Nothing was on the air after all. */
  notRequested(retryInMs: number, nowMs: number): void {
    this.#failures = Math.max(0, this.#failures - 1);
    this.#nextMs = nowMs + retryInMs;
  }

  joined(nowMs: number): void {
    this.#heardMs = nowMs;
    this.#joinedMs = nowMs;
    this.#unansweredFrames = 0;
  }

  /** A downlink came, so the link works: the next trouble begins with the first delay. */
  heard(nowMs: number): void {
    this.#heardMs = nowMs;
    this.#unansweredFrames = 0;
    this.#failures = 0;
  }

  /** A frame is out to which something should come down. A modem that joins, and forgets it at once, is not to join in a loop. */
  frameSent(nowMs: number): void {
    this.#heardMs ??= nowMs;
    this.#unansweredFrames++;
    if (this.#joinedMs !== undefined && nowMs - this.#joinedMs >= stableMs) this.#failures = 0;
  }

  /** Nothing has come down for so long, though answers were due, that the network may have forgotten this device. */
  isLinkDead(nowMs: number): boolean {
    if (this.#linkDeadAfterMs === 0 || this.#heardMs === undefined) return false;
    return this.#unansweredFrames >= framesMin && nowMs - this.#heardMs >= this.#linkDeadAfterMs;
  }

  /** Milliseconds since the last downlink or join. */
  silentMs(nowMs: number): number | undefined {
    return this.#heardMs === undefined ? undefined : nowMs - this.#heardMs;
  }
}

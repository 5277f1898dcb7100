/**
 * Records on their way into a broker: two queues, the newest first, and no more unacknowledged at a time than the broker takes
 * (MQTT 5 §4.9, Receive Maximum). What mqtt.js is given it keeps in memory until the PUBACK, so it is given little.
 */
import type { Lane } from "./send-window.ts";

/** Unacknowledged at a time, where the broker allows as many. mqtt.js would take 65,535, and then stall for ever. */
export const unacknowledgedMax = 256;
/** Read ahead for each lane, so that the broker never waits for the wallet. A read brings at most 48 KiB. */
const queuedBytesEnough = 32_768;
/** A broker that acknowledges nothing for so many of its usual times, within these limits, is gone. */
const stallTimes = 4;
const stallShortestMs = 5_000;
const stallLongestMs = 30_000;

interface Queued {
  readonly record: Uint8Array;
  readonly onLeft: () => void;
}

export class PublishQueue {
  readonly #send: (record: Uint8Array, acknowledged: () => void) => void;
  readonly #nowMs: () => number;
  readonly #limit: number;
  readonly #queues: Record<Lane, Queued[]> = { live: [], backlog: [] };
  readonly #queuedBytes: Record<Lane, number> = { live: 0, backlog: 0 };
  /** By number in the order of sending: when each was sent. */
  readonly #unacknowledged = new Map<number, number>();
  #sent = 0;
  #lastAcknowledged = 0;
  /** When the broker acknowledged last, or was given something after it had acknowledged all. */
  #quietSinceMs = 0;
  #acknowledgeMs = 0;

  constructor(
    send: (record: Uint8Array, acknowledged: () => void) => void,
    nowMs: () => number,
    receiveMaximum = unacknowledgedMax,
  ) {
    this.#send = send;
    this.#nowMs = nowMs;
    this.#limit = Math.max(1, Math.min(unacknowledgedMax, receiveMaximum)); // 0 is an error of the broker's (§3.2.2.3.3)
  }

  takes(lane: Lane): boolean {
    return this.#queuedBytes[lane] < queuedBytesEnough;
  }

  push(record: Uint8Array, lane: Lane, onLeft: () => void): void {
    this.#queues[lane].push({ record, onLeft });
    this.#queuedBytes[lane] += record.length;
    this.#pump();
  }

  /** How long a broker that owes acknowledgements has given none, where that is too long; undefined where all is well. */
  stalledMs(): number | undefined {
    if (this.#unacknowledged.size === 0) return undefined;
    const quietMs = this.#nowMs() - this.#quietSinceMs;
    const patienceMs = Math.min(stallLongestMs, Math.max(stallShortestMs, stallTimes * this.#acknowledgeMs));
    return quietMs > patienceMs ? quietMs : undefined;
  }

  /**
   * How long a record has waited that later ones have overtaken, where that is too long. Acknowledgements come in order (MQTT 5
   * §4.6); some brokers drop a message over their quota without a word, and then nothing else would ever send it again.
   */
  overtakenMs(): number | undefined {
    const [oldest] = this.#unacknowledged;
    if (oldest === undefined || oldest[0] > this.#lastAcknowledged) return undefined;
    const waitedMs = this.#nowMs() - oldest[1];
    return waitedMs > stallLongestMs ? waitedMs : undefined;
  }

  #pump(): void {
    while (this.#unacknowledged.size < this.#limit) {
      const lane = this.#queues.live.length > 0 ? "live" : "backlog";
      const next = this.#queues[lane].shift();
      if (!next) return;
      this.#queuedBytes[lane] -= next.record.length;
      const sentMs = this.#nowMs();
      if (this.#unacknowledged.size === 0) this.#quietSinceMs = sentMs;
      const number = ++this.#sent;
      this.#unacknowledged.set(number, sentMs);
      this.#send(next.record, () => {
        this.#unacknowledged.delete(number);
        this.#lastAcknowledged = Math.max(this.#lastAcknowledged, number);
        this.#quietSinceMs = this.#nowMs();
        this.#acknowledgeMs += (this.#quietSinceMs - sentMs - this.#acknowledgeMs) / 8;
        next.onLeft();
        this.#pump();
      });
    }
  }
}

/**
 * Whose records are taken next. Each device has a queue and a bucket of tokens; devices with tokens take turns, a few records at a
 * time, and those without have what time is left. So a hub that drains the backlog of weeks has the node to itself while nobody else wants it,
 * and one that floods it holds up nobody: junk costs its own bucket, and what costs a verification for nothing costs much.
 * Strangers share one small queue, whatever names they give themselves.
 */
import type { Clock } from "../platform/clock.ts";

export const queuedRecordsMax = 20_000;
const queuedBytesMax = 64 * 1024 * 1024;
/** Of one device. Without tokens, only while the node has room for twice of what is there. */
const queuedPerDeviceMax = 5_000;
const queuedWithoutTokensMax = 256;
const queuedOfStrangersMax = 512;
/** Records of one device in its turn: its receipt and its place on the disk are shared by as many. */
const turnRecordsMax = 32;
/** A hub with ten meters sends ten records a second at most; in bursts, what its window holds. */
const tokensPerSecond = 50;
const tokensMax = 2_000;
export const tokenCosts = { record: 1, badForm: 5, badSignature: 50 } as const;
const queuesMax = 50_000;

export interface Queued {
  readonly topic: string;
  readonly payload: Uint8Array;
}

interface DeviceQueue<T> {
  readonly isStrangers: boolean;
  messages: T[];
  /** Messages before this one are taken. */
  head: number;
  tokens: number;
  filledMs: number;
  waits: boolean;
}

export class DeviceQueues<T extends Queued> {
  readonly #clock: Clock;
  readonly #isKnown: (topic: string) => boolean;
  readonly #queues = new Map<string, DeviceQueue<T>>();
  readonly #strangers: DeviceQueue<T>;
  /** Queues with messages: of devices with tokens, and of the others. */
  #ready: DeviceQueue<T>[] = [];
  #spent: DeviceQueue<T>[] = [];
  /** What goes before everything: records that the node itself has kept. */
  #first: T[] = [];
  #count = 0;
  #bytes = 0;

  /** @param isKnown whether a topic is that of an enrolled device */
  constructor(clock: Clock, isKnown: (topic: string) => boolean) {
    this.#clock = clock;
    this.#isKnown = isKnown;
    this.#strangers = newQueue(true, clock.monotonicMs());
  }

  get length(): number {
    return this.#count + this.#first.length;
  }

  /** Returns false where there is no room for it. */
  add(message: T): boolean {
    if (this.#count >= queuedRecordsMax || this.#bytes >= queuedBytesMax) return false;
    const queue = this.#queueOf(message.topic);
    if (queue.messages.length - queue.head >= this.#limitOf(queue)) return false;
    queue.messages.push(message);
    this.#count++;
    this.#bytes += message.payload.length;
    this.#wait(queue);
    return true;
  }

  /** Adds what was taken before, and must not be refused now. */
  addFirst(message: T): void {
    this.#first.push(message);
  }

  /** At most `limit` messages; those of one device in their order. */
  take(limit: number): T[] {
    const taken = this.#first.splice(0, limit);
    const nowMs = this.#clock.monotonicMs();
    this.#promote(nowMs);
    while (taken.length < limit) {
      const queue = this.#ready.shift() ?? this.#spent.shift();
      if (queue === undefined) break;
      fill(queue, nowMs);
      const end = Math.min(queue.messages.length, queue.head + turnRecordsMax, queue.head + limit - taken.length);
      queue.tokens = Math.max(queue.tokens - (end - queue.head) * tokenCosts.record, -tokensMax);
      for (; queue.head < end; queue.head++) {
        const message = queue.messages[queue.head] as T;
        this.#count--;
        this.#bytes -= message.payload.length;
        taken.push(message);
      }
      queue.waits = false;
      if (queue.head === queue.messages.length) {
        queue.messages = [];
        queue.head = 0;
        continue;
      }
      if (queue.head > queuedPerDeviceMax) {
        queue.messages = queue.messages.slice(queue.head);
        queue.head = 0;
      }
      this.#wait(queue);
    }
    return taken;
  }

  /** Takes tokens from the device for more than a record: one of {@link tokenCosts}. */
  charge(topic: string, tokens: number): void {
    const queue = this.#queueOf(topic);
    queue.tokens = Math.max(queue.tokens - tokens, -tokensMax);
  }

  #wait(queue: DeviceQueue<T>): void {
    if (queue.waits) return;
    queue.waits = true;
    (queue.tokens > 0 ? this.#ready : this.#spent).push(queue);
  }

  #limitOf(queue: DeviceQueue<T>): number {
    if (queue.isStrangers) return queuedOfStrangersMax;
    const hasRoom = this.#count < queuedRecordsMax / 2 && this.#bytes < queuedBytesMax / 2;
    return queue.tokens > 0 || hasRoom ? queuedPerDeviceMax : queuedWithoutTokensMax;
  }

  /** Devices that have tokens again. */
  #promote(nowMs: number): void {
    if (this.#spent.length === 0) return;
    const stillSpent: DeviceQueue<T>[] = [];
    for (const queue of this.#spent) {
      fill(queue, nowMs);
      (queue.tokens > 0 ? this.#ready : stillSpent).push(queue);
    }
    this.#spent = stillSpent;
  }

  #queueOf(topic: string): DeviceQueue<T> {
    const known = this.#queues.get(topic);
    if (known) return known;
    if (!this.#isKnown(topic)) return this.#strangers;
    if (this.#queues.size >= queuesMax)
      for (const [other, { messages }] of this.#queues) if (messages.length === 0) this.#queues.delete(other);
    const queue = newQueue<T>(false, this.#clock.monotonicMs());
    this.#queues.set(topic, queue);
    return queue;
  }
}

function newQueue<T>(isStrangers: boolean, filledMs: number): DeviceQueue<T> {
  return { isStrangers, messages: [], head: 0, tokens: tokensMax, filledMs, waits: false };
}

function fill(queue: DeviceQueue<unknown>, nowMs: number): void {
  queue.tokens = Math.min(queue.tokens + ((nowMs - queue.filledMs) / 1_000) * tokensPerSecond, tokensMax);
  queue.filledMs = nowMs;
}

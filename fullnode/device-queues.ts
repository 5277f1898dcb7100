/**
 * Whose records are taken next. Each device has a queue and a bucket of tokens; devices with tokens take turns, a few records at a
 * time, and those without have what time is left. So a hub that drains the backlog of weeks has the node to itself while nobody else
 * wants it. Junk is charged to the device that it came from: one that has sent much of it is a suspect, whose records are examined
 * a few at a time, after all others, but for one turn in a tenth of a second. Strangers share one small queue, whatever names they give themselves, and are suspects always.
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
/** What junk costs: it is forgiven at the rate of the tokens. */
export const junkCosts = { badForm: 5, badSignature: 50 } as const;
/** Ten broken signatures at once; at most so much is remembered as is forgiven in a minute. */
const suspectFrom = 500;
const junkMax = 3_000;
const judgeEveryMs = 100;
/**
 * How often a suspect has a turn although others wait: anybody can send junk in the name of a device where the broker lets him, and
 * what that device sends itself must come through in the end.
 */
const suspectsTurnMs = 100;
const queuesMax = 50_000;

type Standing = "ready" | "spent" | "suspect";

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
  /** See {@link junkCosts}. */
  junk: number;
  filledMs: number;
  waits: boolean;
}

export class DeviceQueues<T extends Queued> {
  readonly #clock: Clock;
  readonly #isKnown: (topic: string) => boolean;
  readonly #onDropped: (message: T) => void;
  readonly #queues = new Map<string, DeviceQueue<T>>();
  readonly #strangers: DeviceQueue<T>;
  /** Queues with messages: of devices with tokens, of those without, and of suspects. */
  readonly #waiting: Record<Standing, DeviceQueue<T>[]> = { ready: [], spent: [], suspect: [] };
  /** What goes before everything: records that the node itself has kept. */
  #first: T[] = [];
  #judgeNextMs = 0;
  #suspectsNextMs: number;
  #makeRoomNextMs = 0;
  #count = 0;
  #bytes = 0;

  /**
   * @param isKnown whether a topic is that of an enrolled device
   * @param onDropped a message that had found room is let go after all
   */
  constructor(clock: Clock, isKnown: (topic: string) => boolean, onDropped: (message: T) => void) {
    this.#clock = clock;
    this.#isKnown = isKnown;
    this.#onDropped = onDropped;
    this.#strangers = newQueue(true, clock.monotonicMs());
    this.#suspectsNextMs = clock.monotonicMs() + suspectsTurnMs;
  }

  get length(): number {
    return this.#count + this.#first.length;
  }

  /** Returns false where there is no room for it. */
  add(message: T): boolean {
    if (this.#isFull && !this.#makeRoom()) return false;
    const queue = this.#queueOf(message.topic);
    if (queue.messages.length - queue.head >= this.#limitOf(queue)) return false;
    queue.messages.push(message);
    this.#count++;
    this.#bytes += message.payload.length;
    this.#wait(queue);
    return true;
  }

  get #isFull(): boolean {
    return this.#count >= queuedRecordsMax || this.#bytes >= queuedBytesMax;
  }

  /** Suspects keep what they may have now that the node is full. Looks rarely. Returns whether there is room then. */
  #makeRoom(): boolean {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs < this.#makeRoomNextMs) return false;
    this.#makeRoomNextMs = nowMs + judgeEveryMs;
    for (const queue of this.#waiting.suspect)
      for (const message of queue.messages.splice(queue.head + this.#limitOf(queue))) {
        this.#count--;
        this.#bytes -= message.payload.length;
        this.#onDropped(message);
      }
    return !this.#isFull;
  }

  /** Adds what was taken before, and must not be refused now. */
  addFirst(message: T): void {
    this.#first.push(message);
  }

  /** Whether somebody waits who is no suspect. */
  get hasTrusted(): boolean {
    return this.#first.length > 0 || this.#waiting.ready.length > 0 || this.#waiting.spent.length > 0;
  }

  /** At most `limit` messages, of suspects at most `suspectsLimit`; those of one device in their order. */
  take(limit: number, suspectsLimit = limit): T[] {
    const taken = this.#first.splice(0, limit);
    const { ready, spent, suspect } = this.#waiting;
    const nowMs = this.#clock.monotonicMs();
    this.#judgeAgain(nowMs);
    let suspects = 0;
    let isTheirTurn = suspect.length > 0 && nowMs >= this.#suspectsNextMs;
    while (taken.length < limit) {
      const trusted = isTheirTurn ? undefined : (ready.shift() ?? spent.shift());
      const suspectsRoom = isTheirTurn ? turnRecordsMax : suspectsLimit - suspects;
      const queue = trusted ?? (suspectsRoom > 0 ? suspect.shift() : undefined);
      if (queue === undefined) break;
      isTheirTurn = false;
      if (trusted === undefined) this.#suspectsNextMs = nowMs + suspectsTurnMs;
      const room = Math.min(limit - taken.length, trusted ? turnRecordsMax : suspectsRoom, turnRecordsMax);
      const end = Math.min(queue.messages.length, queue.head + room);
      if (trusted === undefined) suspects += end - queue.head;
      fill(queue, nowMs);
      queue.tokens = Math.max(queue.tokens - (end - queue.head), 0);
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

  /** A device has sent junk: one of {@link junkCosts}. */
  charge(topic: string, cost: number): void {
    const queue = this.#queueOf(topic);
    const wasTrusted = queue.junk < suspectFrom;
    queue.junk = Math.min(queue.junk + cost, junkMax);
    if (wasTrusted && queue.junk >= suspectFrom) this.#judgeNextMs = 0;
  }

  #wait(queue: DeviceQueue<T>): void {
    if (queue.waits) return;
    queue.waits = true;
    this.#waiting[standingOf(queue)].push(queue);
  }

  #limitOf(queue: DeviceQueue<T>): number {
    if (queue.isStrangers) return queuedOfStrangersMax;
    const hasRoom = this.#count < queuedRecordsMax / 2 && this.#bytes < queuedBytesMax / 2;
    return hasRoom || standingOf(queue) === "ready" ? queuedPerDeviceMax : queuedWithoutTokensMax;
  }

  /** Devices have tokens again, their junk is forgiven, or they have become suspects since they were put in line. */
  #judgeAgain(nowMs: number): void {
    if (nowMs < this.#judgeNextMs) return;
    this.#judgeNextMs = nowMs + judgeEveryMs;
    for (const standing of ["ready", "spent", "suspect"] as const) {
      const queues = this.#waiting[standing];
      let kept = 0;
      for (const queue of queues) {
        fill(queue, nowMs);
        const now = standingOf(queue);
        if (now === standing) queues[kept++] = queue;
        else this.#waiting[now].push(queue);
      }
      queues.length = kept;
    }
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
  return { isStrangers, messages: [], head: 0, tokens: tokensMax, junk: 0, filledMs, waits: false };
}

function standingOf(queue: DeviceQueue<unknown>): Standing {
  return queue.isStrangers || queue.junk >= suspectFrom ? "suspect" : queue.tokens > 0 ? "ready" : "spent";
}

function fill(queue: DeviceQueue<unknown>, nowMs: number): void {
  const tokens = ((nowMs - queue.filledMs) / 1_000) * tokensPerSecond;
  queue.tokens = Math.min(queue.tokens + tokens, tokensMax);
  queue.junk = Math.max(queue.junk - tokens, 0);
  queue.filledMs = nowMs;
}

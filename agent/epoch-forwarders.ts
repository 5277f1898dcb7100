/**
 * Which records to send next, over all epochs that the wallet still holds: the newest of the running one first, then what
 * waits, oldest epoch first; where those wait for receipts, the running one goes on beside them. They share one window. Pure,
 * like the forwarder that it is made of.
 */
import type { WalletHello } from "../protocol/wallet-hello.ts";
import { Forwarder, type SequenceRange, windowBytesDefault } from "./forwarder.ts";
import { type Lane, SendWindow } from "./send-window.ts";

export interface EpochForwarder {
  readonly epoch: number;
  readonly forwarder: Forwarder;
}

/** What to read and publish next. */
export interface NextRecords extends EpochForwarder {
  readonly lane: Lane;
  readonly range: SequenceRange;
}

export class EpochForwarders {
  readonly #window: SendWindow;
  /** Oldest first, the running one last. */
  #epochs: readonly EpochForwarder[] = [];
  #before: Forwarder;

  constructor(windowBytes = windowBytesDefault) {
    this.#window = new SendWindow(windowBytes);
    this.#before = new Forwarder(this.#window);
  }

  /** What the wallet says; `anew` when it is met: then all that is not released is sent again. */
  meet(hello: WalletHello, anew: boolean): void {
    const known = new Map(this.#epochs.map(({ epoch, forwarder }) => [epoch, forwarder]));
    const states = [
      ...hello.earlierEpochs,
      { epoch: hello.epoch, through: hello.through, last: hello.nextSequence - 1 },
    ];
    this.#epochs = states.map(({ epoch, through, last }) => {
      const forwarder = known.get(epoch) ?? new Forwarder(this.#window);
      if (anew || !known.has(epoch)) forwarder.begin(epoch, through, last);
      else forwarder.learn(through, last);
      known.delete(epoch);
      return { epoch, forwarder };
    });
    for (const forwarder of known.values()) forwarder.restart(); // it is complete: what it has of the window is free
  }

  get all(): readonly EpochForwarder[] {
    return this.#epochs;
  }
  /** That of the running epoch; an empty one before the wallet was met. */
  get running(): Forwarder {
    return this.#epochs.at(-1)?.forwarder ?? this.#before;
  }
  /** Records that wait for a receipt. */
  get waiting(): number {
    return this.#epochs.reduce((sum, { forwarder }) => sum + forwarder.waiting, 0);
  }
  /** Of those, the ones that no receipt names yet. */
  get unstored(): number {
    return this.#epochs.reduce((sum, { forwarder }) => sum + forwarder.unstored, 0);
  }
  /** When the oldest that no receipt names was sealed, on the caller's clock; undefined where another process sealed it. */
  get oldestSealedMs(): number | undefined {
    return this.#epochs.find(({ forwarder }) => forwarder.unstored > 0)?.forwarder.oldestSealedMs;
  }
  /** Running mean of a record's size in bytes. */
  get recordBytes(): number {
    return this.#window.recordBytes;
  }
  of(epoch: number): Forwarder | undefined {
    return this.#epochs.find((item) => item.epoch === epoch)?.forwarder;
  }

  /** The next records of the lanes that `takes` says yes to; undefined where nothing may go now. */
  next(takes: (lane: Lane) => boolean): NextRecords | undefined {
    const running = this.#epochs.at(-1);
    if (!running) return undefined;
    if (takes("live")) {
      const range = running.forwarder.next("live");
      if (range) return { ...running, lane: "live", range };
    }
    if (!takes("backlog")) return undefined;
    for (const item of this.#epochs) {
      const range = item.forwarder.next("backlog");
      if (range) return { ...item, lane: "backlog", range };
    }
    return undefined;
  }

  /** Takes back what has waited too long for a receipt. */
  expire(nowMs: number): void {
    for (const { forwarder } of this.#epochs) forwarder.expire(nowMs);
  }

  /** There is a new connection: what was sent may be lost. */
  restart(): void {
    for (const { forwarder } of this.#epochs) forwarder.restart();
  }
}

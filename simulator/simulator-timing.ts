/** Time as a simulation sees it: real, or a virtual clock on which a day passes in seconds. */
import type { LoraTiming } from "../drivers/lora/modem.ts";

export interface SimulatorTiming {
  /** Milliseconds of a clock that never jumps. */
  nowMs(): number;
  /** Does `work` after `ms`; what it returns calls it off. */
  after(ms: number, work: () => void): () => void;
}

/** Real time, of which an end can be made: nothing is done after close(). */
export class RealTiming implements SimulatorTiming {
  readonly #timers = new Set<NodeJS.Timeout>();
  #isOpen = true;

  nowMs(): number {
    return performance.now();
  }

  after(ms: number, work: () => void): () => void {
    if (!this.#isOpen) return () => {};
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      work();
    }, ms);
    this.#timers.add(timer);
    return () => {
      clearTimeout(timer);
      this.#timers.delete(timer);
    };
  }

  close(): void {
    this.#isOpen = false;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }
}

interface Event {
  readonly atMs: number;
  readonly order: number;
  /** Undefined when it was called off. */
  work: (() => void) | undefined;
}

/**
 * A clock that stands still until it is advanced. Work of one moment is done in the order in which it was asked for; between two
 * pieces of it `settle` gives promises their turn, so that code that awaits sees the same order as in real time.
 */
export class VirtualTiming implements SimulatorTiming {
  #nowMs: number;
  #order = 0;
  /** A heap by time, then by order. */
  readonly #events: Event[] = [];

  constructor(startMs = 0) {
    this.#nowMs = startMs;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  after(ms: number, work: () => void): () => void {
    const event: Event = { atMs: this.#nowMs + Math.max(0, ms), order: this.#order++, work };
    this.#push(event);
    return () => {
      event.work = undefined;
    };
  }

  /** Does everything that is due until `ms` from now, and stands there then. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms;
    await settle();
    while (this.#events.length > 0 && this.#events[0]!.atMs <= untilMs) {
      const event = this.#pop();
      if (event.work === undefined) continue;
      this.#nowMs = Math.max(this.#nowMs, event.atMs);
      event.work();
      await settle();
    }
    this.#nowMs = untilMs;
  }

  #push(event: Event): void {
    const heap = this.#events;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (!isBefore(event, heap[above]!)) break;
      heap[at] = heap[above]!;
      at = above;
    }
    heap[at] = event;
  }

  #pop(): Event {
    const heap = this.#events;
    const first = heap[0]!;
    const moved = heap.pop()!;
    if (heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= heap.length) break;
      if (below + 1 < heap.length && isBefore(heap[below + 1]!, heap[below]!)) below++;
      if (!isBefore(heap[below]!, moved)) break;
      heap[at] = heap[below]!;
      at = below;
    }
    heap[at] = moved;
    return first;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

/** A turn of the event loop: promises that have become due are done, and those that they lead to. */
function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** The same clock as the drivers and the agent take it. @param wallMs Unix time of a moment of `timing` */
export function loraTimingOf(timing: SimulatorTiming, wallMs: (timingMs: number) => number): LoraTiming {
  return {
    clock: { monotonicMs: () => timing.nowMs(), wallMs: () => wallMs(timing.nowMs()) },
    pause: (ms, signal) =>
      new Promise((resolve) => {
        if (signal?.aborted) {
          resolve();
          return;
        }
        const ended = (): void => {
          callOff();
          signal?.removeEventListener("abort", ended);
          resolve();
        };
        const callOff = timing.after(ms, ended);
        signal?.addEventListener("abort", ended);
      }),
  };
}

/**
 * Time of a simulation, and what happens in it: one event after the other, in the order of their times, ties in the order of their making.
 * All chance comes from the seed, and everything of note goes into a digest: so two runs can be told to be the same.
 */
import { createHash } from "node:crypto";
import { SeededRandom } from "../../test/protocol/seeded-random.ts";

/** 2027-01-15 08:00:00 UTC, on the hour. */
export const worldStartS = 1_800_000_000;
const traceLinesMax = 400;

interface Event {
  readonly atMs: number;
  readonly order: number;
  readonly happen: () => void | Promise<void>;
}

export class VirtualWorld {
  readonly random: SeededRandom;
  readonly #hash = createHash("sha256");
  readonly #trace: string[] = [];
  /** A heap: none happens before the one at half its index. */
  readonly #events: Event[] = [];
  #order = 0;
  #nowMs = 0;
  happened = 0;

  constructor(seed: number) {
    this.random = new SeededRandom(seed);
  }

  /** Milliseconds since the world began. */
  get nowMs(): number {
    return this.#nowMs;
  }
  get wallMs(): number {
    return worldStartS * 1_000 + this.#nowMs;
  }

  /** Makes something happen later. */
  after(delayMs: number, happen: () => void | Promise<void>): void {
    this.#push({ atMs: this.#nowMs + Math.max(0, Math.round(delayMs)), order: this.#order++, happen });
  }

  /** Makes something happen again and again. */
  every(periodMs: number, happen: () => void | Promise<void>): void {
    const again = async (): Promise<void> => {
      await happen();
      this.after(periodMs, again);
    };
    this.after(periodMs, again);
  }

  async runUntil(endMs: number): Promise<void> {
    for (;;) {
      const next = this.#events[0];
      if (next === undefined || next.atMs > endMs) break;
      this.#pop();
      this.#nowMs = next.atMs;
      this.happened++;
      const done = next.happen();
      if (done) await done;
    }
    this.#nowMs = endMs;
  }

  /** Notes something that two runs of one seed must agree in. */
  note(...parts: readonly (string | number)[]): void {
    const line = `${this.#nowMs} ${parts.join(" ")}`;
    this.#hash.update(`${line}\n`);
    this.#trace.push(line);
    if (this.#trace.length > traceLinesMax) this.#trace.splice(0, traceLinesMax / 2);
  }

  /** The last things noted. */
  get trace(): readonly string[] {
    return this.#trace;
  }

  digest(): string {
    return this.#hash.copy().digest("hex");
  }

  #push(event: Event): void {
    const events = this.#events;
    let at = events.length;
    events.push(event);
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (!isBefore(event, events[above] as Event)) break;
      events[at] = events[above] as Event;
      at = above;
    }
    events[at] = event;
  }

  #pop(): void {
    const events = this.#events;
    const last = events.pop() as Event;
    if (events.length === 0) return;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= events.length) break;
      if (below + 1 < events.length && isBefore(events[below + 1] as Event, events[below] as Event)) below++;
      if (!isBefore(events[below] as Event, last)) break;
      events[at] = events[below] as Event;
      at = below;
    }
    events[at] = last;
  }
}

function isBefore(one: Event, other: Event): boolean {
  return one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order);
}

/** Counts what was refused, and says so at a bounded rate: junk may come by the thousand a second and must not fill a log. */
import type { Clock } from "../platform/clock.ts";
import type { VerdictReason } from "./verdict.ts";

export interface RefusedSample<Reason extends string = VerdictReason> {
  readonly reason: Reason;
  /** How many of this reason since the last sample of it. */
  readonly count: number;
  /** The newest of them. */
  readonly topic: string;
  readonly detail?: string;
}

export const sampleIntervalMs = 1_000;

interface Tally {
  total: number;
  unsaid: number;
  saidMs: number;
  last: { topic: string; detail?: string };
}

export class RefusalTally<Reason extends string = VerdictReason> {
  readonly #tallies = new Map<Reason, Tally>();
  readonly #clock: Clock;
  readonly #say: (sample: RefusedSample<Reason>) => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(clock: Clock, say: (sample: RefusedSample<Reason>) => void) {
    this.#clock = clock;
    this.#say = say;
  }

  add(reason: Reason, topic: string, detail?: string): void {
    const last = { topic: topic.slice(0, 100), ...(detail !== undefined && { detail: detail.slice(0, 200) }) };
    const tally = this.#tallies.get(reason) ?? { total: 0, unsaid: 0, saidMs: Number.NEGATIVE_INFINITY, last };
    this.#tallies.set(reason, tally);
    tally.total++;
    tally.unsaid++;
    tally.last = last;
    if (this.#clock.monotonicMs() - tally.saidMs >= sampleIntervalMs) this.#sayOne(reason, tally);
    else this.#timer ??= setTimeout(() => this.flush(), sampleIntervalMs).unref();
  }

  /** Says what was counted and not said yet. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    for (const [reason, tally] of this.#tallies) if (tally.unsaid > 0) this.#sayOne(reason, tally);
  }

  get totals(): Partial<Record<Reason, number>> {
    const totals: Partial<Record<Reason, number>> = {};
    for (const [reason, { total }] of this.#tallies) totals[reason] = total;
    return totals;
  }

  get total(): number {
    return [...this.#tallies.values()].reduce((sum, { total }) => sum + total, 0);
  }

  #sayOne(reason: Reason, tally: Tally): void {
    const count = tally.unsaid;
    tally.unsaid = 0;
    tally.saidMs = this.#clock.monotonicMs();
    this.#say({ reason, count, ...tally.last });
  }
}

/** The world's time as drivers, uplink, radio and full node ask for it; and processes on it, for which time ends when they are killed. */
import { setImmediate as turn } from "node:timers/promises";
import type { LoraTiming } from "../../drivers/lora/modem.ts";
import type { Clock } from "../../platform/clock.ts";
import type { SimulatorTiming } from "../../simulator/simulator-timing.ts";
import type { VirtualWorld } from "./virtual-world.ts";

export class WorldTiming implements SimulatorTiming {
  readonly #world: VirtualWorld;
  /** What works outside the world's time, on other threads: the world waits for it. */
  readonly #working: (() => Promise<void>)[] = [];

  constructor(world: VirtualWorld) {
    this.#world = world;
  }

  nowMs(): number {
    return this.#world.nowMs;
  }

  after(ms: number, work: () => void): () => void {
    let isOff = false;
    // Rounded up, as timers are: who waits for what is left of a millisecond would wait for no time at all.
    this.#world.after(Math.ceil(ms), async () => {
      if (isOff) return;
      work();
      await this.settle();
    });
    return () => {
      isOff = true;
    };
  }

  /** The world stands still while this is under way. */
  waitFor(idle: () => Promise<void>): void {
    this.#working.push(idle);
  }

  /** Lets everything happen that follows from what has happened, before the next moment comes. */
  async settle(): Promise<void> {
    await turn();
    for (let idle = this.#working.shift(); idle !== undefined; idle = this.#working.shift()) {
      await idle();
      await turn();
    }
  }
}

/** A process of the hub: after its end nothing that it waits for ever comes. */
export class HubProcess {
  readonly #timing: WorldTiming;
  readonly #bootedMs: number;
  readonly #wallMs: () => number;
  isAlive = true;

  constructor(timing: WorldTiming, bootedMs: number, wallMs: () => number) {
    this.#timing = timing;
    this.#bootedMs = bootedMs;
    this.#wallMs = wallMs;
  }

  get clock(): Clock {
    return { wallMs: this.#wallMs, monotonicMs: () => this.#timing.nowMs() - this.#bootedMs };
  }

  get timing(): LoraTiming {
    return {
      clock: this.clock,
      pause: (ms, signal) =>
        new Promise((resolve) => {
          const done = (): void => {
            callOff();
            if (this.isAlive) resolve();
          };
          const callOff = this.#timing.after(ms, done);
          if (signal?.aborted) done();
          else signal?.addEventListener("abort", done, { once: true });
        }),
    };
  }

  kill(): void {
    this.isAlive = false;
  }
}

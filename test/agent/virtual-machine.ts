/** A machine with a clock of its own: a day runs in a moment, processes die in mid-step, and a reboot starts the monotonic clock anew. */
import { randomUUID } from "node:crypto";
import type { LoraTiming } from "../../drivers/lora/modem.ts";
import type { Clock } from "../../platform/clock.ts";

interface Timer {
  readonly atMs: number;
  readonly ring: () => void;
}

/** 2026-03-01. */
const firstMs = 1_772_323_200_000;

export class VirtualMachine {
  /** True time, in milliseconds since the world began. */
  nowMs = 0;
  bootId: string = randomUUID();
  /** False: the machine has no battery for its clock, and no network to set it. */
  isClockSet = true;
  #bootedMs = -60_000;
  #timers: Timer[] = [];

  readonly clock: Clock = {
    // Real clocks give fractions too.
    monotonicMs: () => this.nowMs - this.#bootedMs + 0.25,
    wallMs: () => (this.isClockSet ? firstMs + this.nowMs : this.nowMs - this.#bootedMs),
  };

  reboot(): void {
    this.bootId = randomUUID();
    this.#bootedMs = this.nowMs;
  }

  after(ms: number, ring: () => void): () => void {
    const timer = { atMs: this.nowMs + Math.max(0, ms), ring };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  /** For who is part of the machine and never dies: its modem, the network. */
  wait(ms: number): Promise<void> {
    return new Promise((resolve) => this.after(ms, resolve));
  }

  /** Lets time pass, as far as `untilMs`, or until `isOver`. */
  async run(untilMs: number, isOver: () => boolean = () => false): Promise<void> {
    for (;;) {
      await new Promise(setImmediate);
      if (isOver()) return;
      const next = this.#timers.reduce<Timer | undefined>(
        (soonest, timer) => (soonest && soonest.atMs <= timer.atMs ? soonest : timer),
        undefined,
      );
      if (next === undefined || next.atMs > untilMs) break;
      this.#timers = this.#timers.filter((timer) => timer !== next);
      this.nowMs = Math.max(this.nowMs, next.atMs);
      next.ring();
    }
    this.nowMs = Math.max(this.nowMs, untilMs);
  }
}

/** What a process has of its machine. After its end nothing that it waits for ever comes. */
export class VirtualProcess {
  readonly #machine: VirtualMachine;
  isAlive = true;

  constructor(machine: VirtualMachine) {
    this.#machine = machine;
  }

  get timing(): LoraTiming {
    const machine = this.#machine;
    return {
      clock: machine.clock,
      pause: (ms, signal) =>
        this.survive(
          new Promise<void>((resolve) => {
            const cancel = machine.after(ms, resolve);
            signal?.addEventListener("abort", () => {
              cancel();
              resolve();
            });
          }),
        ),
    };
  }

  kill(): void {
    this.isAlive = false;
  }

  /** The same, for as long as the process lives. */
  survive<T>(promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      promise.then(
        (value) => this.isAlive && resolve(value),
        (error: unknown) => this.isAlive && reject(error),
      );
    });
  }
}

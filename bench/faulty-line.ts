/** A line between a hub and its broker that can be cut, fall silent, be slow and lose packets: a TCP proxy on 127.0.0.1. */
import { type AddressInfo, createConnection, createServer, type Server, type Socket } from "node:net";
import type { SeededRandom } from "../test/protocol/seeded-random.ts";

/**
 * - cut: connections are reset, new ones refused.
 * - half-open: nothing passes, and nobody is told; connections of that time never carry anything again (a router forgot them).
 * - slow: 2 s each way.
 * - lossy: of each hundred packets five come late, as TCP's own repetition makes them, with all that are behind them.
 */
export const lineFaults = ["cut", "half-open", "slow", "lossy"] as const;
export type LineFault = (typeof lineFaults)[number];

const slowMs = 2_000;
const lossOfHundred = 5;
/** TCP repeats after 200 ms at the earliest (RFC 6298 wants 1 s, Linux has 200 ms); twice as long each time. */
const repetitionMs = 200;

export class FaultyLine {
  readonly #brokerPort: number;
  readonly #random: SeededRandom;
  readonly #pairs = new Set<{ near: Socket; far: Socket }>();
  readonly #forgotten = new Set<Socket>();
  readonly #onArrival: () => void;
  #server: Server | undefined;
  #fault: LineFault | undefined;
  port = 0;

  /** `onArrival` is told of each connection that comes while the line is not half-open. */
  constructor(brokerPort: number, random: SeededRandom, onArrival: () => void) {
    this.#onArrival = onArrival;
    this.#brokerPort = brokerPort;
    this.#random = random;
  }

  async open(): Promise<void> {
    const server = createServer((near) => this.#join(near));
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(this.port, "127.0.0.1", resolve));
    this.port = (server.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    for (const { near, far } of this.#pairs) {
      near.resetAndDestroy();
      far.resetAndDestroy();
    }
    this.#pairs.clear();
    for (const socket of this.#forgotten) socket.destroy();
    this.#forgotten.clear();
    if (server) await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  async set(fault: LineFault | undefined): Promise<void> {
    const before = this.#fault;
    this.#fault = fault;
    if (before === "cut") await this.open();
    if (fault === "cut") await this.close();
    if (fault !== "half-open") return;
    for (const { near, far } of this.#pairs) this.#forget(near, far);
    this.#pairs.clear();
  }

  /** They stay as they are, and nobody ever hears of them again. */
  #forget(...sockets: readonly Socket[]): void {
    for (const socket of sockets) {
      this.#forgotten.add(socket);
      socket.removeAllListeners("data").removeAllListeners("close").resume();
    }
  }

  #join(near: Socket): void {
    if (this.#fault === "half-open") {
      this.#forget(near.on("error", () => undefined)); // it is taken, and nothing is ever said
      return;
    }
    this.#onArrival();
    const far = createConnection({ host: "127.0.0.1", port: this.#brokerPort });
    const pair = { near, far };
    this.#pairs.add(pair);
    this.#carry(near, far, pair);
    this.#carry(far, near, pair);
  }

  #carry(from: Socket, to: Socket, pair: { near: Socket; far: Socket }): void {
    let dueMs = 0;
    const later = (action: () => void): void => {
      dueMs = Math.max(dueMs, performance.now() + this.#delayMs());
      setTimeout(action, Math.max(0, dueMs - performance.now()));
    };
    from.setNoDelay(true);
    from.on("data", (bytes) => later(() => to.destroyed || to.write(bytes)));
    from.on("error", () => undefined);
    from.on("close", () => {
      if (!this.#pairs.delete(pair)) return;
      later(() => to.destroy());
    });
  }

  #delayMs(): number {
    if (this.#fault === "slow") return slowMs;
    if (this.#fault !== "lossy") return 0;
    let delayMs = 0;
    for (let again = repetitionMs; this.#random.chance(lossOfHundred); again *= 2) delayMs += again;
    return delayMs;
  }
}

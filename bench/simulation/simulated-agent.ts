/**
 * The agent's process on the hub: reads the meters at their slots, gives the rows to the wallet, and sends what is sealed by the real
 * forwarder. What {@link Agent} does between sockets, timers and drivers is done here by the world's events.
 */
import { type EpochForwarder, EpochForwarders } from "../../agent/epoch-forwarders.ts";
import { PublishQueue } from "../../agent/publish-queue.ts";
import { decodeReceipt } from "../../protocol/receipt.ts";
import type { Row } from "../../protocol/record.ts";
import type { WalletHello } from "../../protocol/wallet-hello.ts";
import {
  readReadAnswer,
  readReleaseAnswer,
  readSealAnswer,
  sealRowsMax,
  WalletRefusal,
} from "../../protocol/wallet-message.ts";
import type { FaultPlan, PlantedBug } from "./fault-plan.ts";
import { meterRow } from "./meter-truth.ts";
import type { SealedTruth } from "./sealed-truth.ts";
import type { SimulatedNetwork } from "./simulated-network.ts";
import { type SimulatedWallet, WalletAway } from "./simulated-wallet.ts";
import { type VirtualWorld, worldStartS } from "./virtual-world.ts";

const helloEveryMs = 30_000;
const reconnectMs = 500;
export const fullCodes = [2, 4];
const thinCodes = [2];
const thinEvery = 4;
const rowsBufferedMax = 2_000;
/** Refusals that a receipt or time ends. */
const passing: ReadonlySet<string> = new Set(["ring-full", "rate-exceeded"]);

export interface AgentParts {
  readonly world: VirtualWorld;
  readonly truth: SealedTruth;
  readonly plan: FaultPlan;
  readonly wallet: SimulatedWallet;
  readonly network: () => SimulatedNetwork;
  readonly bug: PlantedBug | undefined;
}

interface MeterRows {
  readonly meter: number;
  readonly plan: number;
  readonly codes: readonly number[];
  rows: Row[];
}

export class SimulatedAgent {
  readonly #parts: AgentParts;
  #forwarders = new EpochForwarders();
  #rows: MeterRows[] = [];
  #isRunning = false;
  /** Of the connection, while there is one. */
  #queue: PublishQueue | undefined;
  /** The wallet was asked for its state since it was away last. */
  #walletMet = false;
  #helloMs = 0;
  #readThroughS = worldStartS;
  /** What PUBACKs have named, for a control. */
  readonly #pubacked = new Set<number>();
  readonly counts = { readings: 0, ringFull: 0, refusals: 0, rowsLost: 0, starts: 0 };

  constructor(parts: AgentParts) {
    this.#parts = parts;
  }

  get isRunning(): boolean {
    return this.#isRunning;
  }
  get waiting(): number {
    return this.#forwarders.waiting;
  }
  get unsealed(): number {
    return this.#rows.reduce((sum, { rows }) => sum + rows.length, 0);
  }

  /** Everything that the process knew is gone. */
  start(): void {
    this.#forwarders = new EpochForwarders();
    this.#rows = [];
    this.#walletMet = false;
    this.#isRunning = true;
    this.#queue = this.#parts.network().isHubConnected ? this.#newQueue() : undefined;
    this.#pubacked.clear();
    this.counts.starts++;
    this.#readThroughS = Math.max(this.#readThroughS, this.#nowS);
  }

  crash(): void {
    this.#isRunning = false;
    this.#parts.world.note("agent ended");
  }

  get #nowS(): number {
    return Math.floor(this.#parts.world.wallMs / 1_000);
  }

  /** The meters' slots that have ended since the last call. */
  readMeters(): void {
    if (!this.#isRunning) return;
    const { slotS, meters, twoPlans } = this.#parts.plan;
    for (let timeS = this.#readThroughS + slotS; timeS <= this.#nowS; timeS += slotS) {
      for (let meter = 0; meter < meters; meter++) {
        const row = meterRow(meter, timeS);
        this.#keep(meter, 0, fullCodes, row);
        if (twoPlans && (timeS / slotS) % thinEvery === 0)
          this.#keep(meter, 1, thinCodes, { ...row, values: row.values.slice(0, 1) });
        this.counts.readings++;
      }
      this.#readThroughS = timeS;
    }
    this.sealRows();
  }

  #keep(meter: number, plan: number, codes: readonly number[], row: Row): void {
    let kept = this.#rows.find((one) => one.meter === meter && one.plan === plan);
    if (!kept) {
      kept = { meter, plan, codes, rows: [] };
      this.#rows.push(kept);
    }
    kept.rows.push(row);
    if (kept.rows.length > rowsBufferedMax) {
      kept.rows.shift();
      this.counts.rowsLost++;
    }
  }

  /** POINT OF NO RETURN for each row: once the wallet has answered, it must reach the store. */
  sealRows(): void {
    if (!this.#isRunning) return;
    const { slotS } = this.#parts.plan;
    for (const buffered of this.#rows)
      while (buffered.rows.length > 0) {
        const { meter, plan, codes, rows } = buffered;
        const first = rows[0] as Row;
        let count = 1;
        while (count < Math.min(rows.length, sealRowsMax) && rows[count]?.timeS === first.timeS + count * slotS)
          count++;
        const run = rows.slice(0, plan === 0 ? count : 1);
        try {
          const request = { type: "seal", meter, plan, slotS, codes, rows: run } as const;
          const { sequences } = this.#parts.wallet.ask(request, readSealAnswer);
          buffered.rows = rows.slice(run.length);
          for (const { timeS } of run) this.#parts.truth.sealed(meter, timeS, this.#parts.wallet.writes);
          for (const sequence of new Set(sequences))
            if (sequence > 0) this.#forwarders.running.sealed(sequence, this.#parts.world.nowMs);
        } catch (error) {
          if (error instanceof WalletAway) {
            this.#walletMet = false;
            return;
          }
          if (!(error instanceof WalletRefusal)) throw error;
          if (!passing.has(error.reason)) {
            this.#parts.truth.violated(`the wallet refused a row: ${error.message}`);
            buffered.rows = rows.slice(1);
          }
          this.counts.ringFull++;
          break;
        }
      }
  }

  /** There is a new connection to the broker. */
  connected(): void {
    if (!this.#isRunning) return;
    this.#queue = this.#newQueue();
    if (this.#parts.bug !== "window-never-restarted") this.#forwarders.restart();
    this.forward();
  }

  #newQueue(): PublishQueue {
    const { world, network } = this.#parts;
    const send = (record: Uint8Array, acknowledged: () => void): void => network().publish(record, acknowledged);
    return new PublishQueue(send, () => world.nowMs);
  }

  /** A PUBACK means that the broker has a message, and nothing else. */
  #left(forwarder: EpochForwarder["forwarder"], sequence: number): void {
    const { world, bug } = this.#parts;
    if (bug !== "trim-on-puback") {
      forwarder.left(sequence, world.nowMs);
      return;
    }
    this.#pubacked.add(sequence);
    let { through } = forwarder;
    while (this.#pubacked.delete(through + 1)) through++;
    forwarder.released(through, [], world.nowMs);
  }

  /** Sends what the window has room for. */
  forward(): void {
    const { network } = this.#parts;
    if (!this.#isRunning) return;
    if (this.#queue?.stalledMs() !== undefined) network().cutHub(reconnectMs);
    if (!network().isHubConnected) this.#queue = undefined;
    try {
      this.#meetWallet();
      this.#send();
    } catch (error) {
      if (!(error instanceof WalletAway)) throw error;
      this.#walletMet = false;
    }
  }

  #meetWallet(): void {
    const { world, wallet } = this.#parts;
    if (this.#walletMet && world.nowMs - this.#helloMs < helloEveryMs) return;
    const hello: WalletHello = wallet.hello();
    this.#forwarders.meet(hello, !this.#walletMet);
    this.#walletMet = true;
    this.#helloMs = world.nowMs;
  }

  #send(): void {
    const { world, wallet, bug } = this.#parts;
    if (bug !== "window-never-restarted") this.#forwarders.expire(world.nowMs);
    const queue = this.#queue;
    if (queue === undefined) return;
    for (;;) {
      const next = this.#forwarders.next((lane) => queue.takes(lane));
      if (next === undefined) return;
      const { epoch, forwarder, lane, range } = next;
      const { records } = wallet.ask({ type: "read", from: range.from, to: range.to, epoch }, readReadAnswer);
      for (const [sequence, record] of records) queue.push(record, lane, () => this.#left(forwarder, sequence));
      const complete = records.length === 0 || (records.at(-1)?.[0] ?? 0) === range.to;
      const sent = records.map(([sequence, record]) => [sequence, record.length] as const);
      forwarder.published(range, sent, complete, world.nowMs);
    }
  }

  /** The agent only carries a receipt: the wallet verifies it. */
  receipt(bytes: Uint8Array): void {
    if (!this.#isRunning) return;
    const { world, wallet } = this.#parts;
    try {
      const { epoch, through } = wallet.ask({ type: "release", receipt: bytes }, readReleaseAnswer);
      const ranges = decodeReceipt(bytes).content.ranges.map((range) => [range.first, range.last] as const);
      this.#forwarders.of(epoch)?.released(through, ranges, world.nowMs);
      world.note("released", epoch, through);
      this.sealRows();
    } catch (error) {
      if (error instanceof WalletAway) {
        this.#walletMet = false;
        return;
      }
      if (!(error instanceof WalletRefusal)) throw error;
      this.counts.refusals++;
      this.#helloMs = Number.NEGATIVE_INFINITY;
      world.note("receipt refused", error.reason);
    }
    this.forward();
  }
}

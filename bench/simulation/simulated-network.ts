/**
 * What lies between hub and full node: two connections and a broker that keeps nothing over its own end. Messages are late, come twice,
 * pass each other or get lost; a connection that ends takes what is on its way with it, now and then after it arrived.
 */
import type { NetworkPlan } from "./fault-plan.ts";
import type { VirtualWorld } from "./virtual-world.ts";

const queuedMax = 1_000;
const redeliveryMaxMs = 30_000;

export interface NetworkEnds {
  /** A record reaches the full node. */
  readonly toNode: (payload: Uint8Array) => void;
  readonly toHub: (receipt: Uint8Array) => void;
  readonly hubConnected: () => void;
}

export class SimulatedNetwork {
  readonly #world: VirtualWorld;
  readonly #plan: NetworkPlan;
  readonly #ends: NetworkEnds;
  /** Counts the connections of the hub; what an earlier one carried is gone. */
  #connection = 0;
  #isHubConnected = false;
  #isBrokerUp = true;
  #isNodeConnected = false;
  #queue: Uint8Array[] = [];
  /** Faults go on until the calm. */
  #isCalm = false;
  readonly counts = { published: 0, delivered: 0, lost: 0, doubled: 0, receiptsLost: 0, cuts: 0, brokerCrashes: 0 };

  constructor(world: VirtualWorld, plan: NetworkPlan, ends: NetworkEnds) {
    this.#world = world;
    this.#plan = plan;
    this.#ends = ends;
  }

  get isHubConnected(): boolean {
    return this.#isHubConnected;
  }

  connectHub(): void {
    if (this.#isHubConnected || !this.#isBrokerUp) return;
    this.#isHubConnected = true;
    this.#connection++;
    this.#world.note("hub connected", this.#connection);
    this.#ends.hubConnected();
  }

  cutHub(forMs: number): void {
    if (!this.#isHubConnected) return;
    this.counts.cuts++;
    this.#isHubConnected = false;
    this.#world.note("hub cut", Math.round(forMs));
    this.#world.after(forMs, () => this.connectHub());
  }

  /** The broker ends without a word, and all that it held with it. */
  crashBroker(forMs: number): void {
    if (!this.#isBrokerUp) return;
    this.counts.brokerCrashes++;
    this.#world.note("broker crashed", this.#queue.length);
    this.#isBrokerUp = false;
    this.#isNodeConnected = false;
    this.#queue = [];
    this.#isHubConnected = false;
    this.#world.after(forMs, () => {
      this.#isBrokerUp = true;
      this.connectHub();
    });
  }

  /** The node is there and has subscribed, or has gone. */
  setNode(connected: boolean): void {
    this.#isNodeConnected = connected && this.#isBrokerUp;
    if (!this.#isNodeConnected) return;
    const waiting = this.#queue;
    this.#queue = [];
    for (const payload of waiting) this.#toNode(payload);
  }

  get nodeMustConnect(): boolean {
    return this.#isBrokerUp && !this.#isNodeConnected;
  }

  calm(): void {
    this.#isCalm = true;
  }

  /** `acknowledged` is called by the broker's PUBACK: it has the message, and no more is said. */
  publish(payload: Uint8Array, acknowledged: () => void): void {
    if (!this.#isHubConnected) return;
    this.counts.published++;
    const connection = this.#connection;
    this.#world.after(this.#delayMs(), () => {
      const isGone = connection !== this.#connection || !this.#isHubConnected;
      // It may have been the last thing to arrive.
      if (isGone && !(this.#isBrokerUp && this.#chance(30))) {
        this.counts.lost++;
        return;
      }
      this.#world.after(this.#delayMs(), () => {
        if (connection === this.#connection && this.#isHubConnected) acknowledged();
      });
      if (this.#chance(this.#plan.lostPercent)) this.counts.lost++;
      else this.#route(payload);
    });
  }

  receipt(bytes: Uint8Array): void {
    if (!this.#isBrokerUp || !this.#isNodeConnected) {
      this.counts.receiptsLost++;
      return;
    }
    const copies = this.#chance(this.#plan.doubledPercent) ? 2 : 1;
    for (let copy = 0; copy < copies; copy++)
      this.#world.after(this.#delayMs() + this.#delayMs(), () => {
        if (this.#isHubConnected && !this.#chance(this.#plan.lostPercent)) this.#ends.toHub(bytes);
        else this.counts.receiptsLost++;
      });
  }

  #route(payload: Uint8Array): void {
    if (this.#isNodeConnected) this.#toNode(payload);
    else if (this.#plan.queues && this.#queue.length < queuedMax) this.#queue.push(payload);
    else this.counts.lost++;
  }

  #toNode(payload: Uint8Array): void {
    const deliver = (): void => {
      if (this.#isNodeConnected) {
        this.counts.delivered++;
        this.#ends.toNode(payload);
      } else this.counts.lost++;
    };
    this.#world.after(this.#delayMs(), deliver);
    if (!this.#chance(this.#plan.doubledPercent)) return;
    this.counts.doubled++;
    this.#world.after(this.#delayMs() + this.#world.random.integer(0, redeliveryMaxMs), deliver);
  }

  #delayMs(): number {
    const { delayMinMs, delayMaxMs, latePercent, lateByMs } = this.#plan;
    const late = this.#chance(latePercent) ? this.#world.random.integer(0, lateByMs) : 0;
    return this.#world.random.integer(delayMinMs, delayMaxMs) + late;
  }

  #chance(ofHundred: number): boolean {
    return ofHundred > 0 && !this.#isCalm && this.#world.random.chance(ofHundred);
  }
}

/**
 * Batches of one house over a radio that loses frames, on a virtual clock: the real wallet, the agent's real uplink with its budget and
 * repeats, the full node's real intake, record path and embedded store behind ChirpStack's events. What a program does takes no time on
 * this clock; frames and receive windows do.
 */
import { setImmediate as immediate } from "node:timers/promises";
import { LoraUplink } from "../agent/lora-uplink.ts";
import { chirpStackUp } from "../test/fullnode/lorawan-fixture.ts";
import type { SeededRandom } from "../test/protocol/seeded-random.ts";
import { region } from "./lora-airtime.ts";
import { batchS, House, type SealedBatch, startS } from "./lora-house.ts";
import { chirpStackSent, LoraNode, type NodeDownlink } from "./lora-node.ts";
import { type FarEnd, type Loss, RadioModem, timingOf } from "./lora-radio.ts";
import { VirtualWorld } from "./simulation/virtual-world.ts";

const devEui = "a840410000000001";
/** A year: longer than any course. */
const neverMs = 31_536_000_000;
/** What is sent late must still come, to be counted as late. */
const drainMs = 60 * 3_600_000; // the last record, whose receipt was lost, goes again after 26 hours

export interface Course {
  readonly dataRate: number;
  readonly batches: number;
  readonly loss: (random: SeededRandom) => { readonly up: Loss; readonly down: Loss };
  /** As a control: each batch goes out once, and nothing comes down. */
  readonly once?: boolean;
}

export interface Delivery {
  readonly batches: number;
  /** At the full node before the second batch after it is sealed. */
  readonly inTwoPeriods: number;
  readonly missing: number;
  readonly airtimeMs: number;
  readonly frames: number;
  readonly downlinks: number;
  readonly released: number;
  readonly medianS: number;
  readonly p999S: number;
  /** Most airtime in any hour. */
  readonly hourMs: number;
}

/** ChirpStack's queue of downlinks for one device, and the full node behind it. */
class NetworkServer implements FarEnd {
  readonly #node: LoraNode;
  readonly #queue: NodeDownlink[] = [];

  constructor(node: LoraNode) {
    this.#node = node;
  }

  uplink(port: number, bytes: Uint8Array, fCnt: number): void {
    this.#node.receive(chirpStackUp(devEui, { fCnt, fPort: port, bytes }));
  }

  queue(downlink: NodeDownlink): void {
    this.#queue.push(downlink);
  }

  downlink(): NodeDownlink | undefined {
    const downlink = this.#queue.shift();
    if (downlink) this.#node.receive(chirpStackSent(downlink));
    return downlink;
  }
}

/** Records that wait, as the agent keeps them. */
class Source {
  readonly #waiting = new Map<number, SealedBatch>();
  readonly #stored = new Set<number>();
  #listener: () => void = () => undefined;

  add(batch: SealedBatch): void {
    this.#waiting.set(batch.sequence, batch);
    this.#listener();
  }

  named(runs: readonly (readonly [first: number, last: number])[]): void {
    for (const sequence of [...this.#waiting.keys()])
      if (runs.some(([first, last]) => sequence >= first && sequence <= last)) {
        this.#waiting.delete(sequence);
        this.#stored.add(sequence);
      }
    this.#listener();
  }

  /** The newest one, then the oldest. */
  async next(excluded: (epoch: number, sequence: number) => boolean): Promise<SealedBatch | undefined> {
    const all = [...this.#waiting.values()];
    const newest = all.at(-1);
    if (newest && !excluded(newest.epoch, newest.sequence)) return newest;
    return all.find(({ epoch, sequence }) => !excluded(epoch, sequence));
  }
  isStored(_epoch: number, sequence: number): boolean {
    return this.#stored.has(sequence);
  }
  onNews(listener: () => void): void {
    this.#listener = listener;
  }
  get released(): number {
    return this.#stored.size;
  }
}

export async function deliver(seed: number, { dataRate, batches, loss, once = false }: Course): Promise<Delivery> {
  const world = new VirtualWorld(seed);
  const node = new LoraNode();
  /** An event of the world is over when all that it woke has done its work. */
  const settled = async (): Promise<void> => {
    await immediate();
    await node.idle();
    await immediate();
  };
  const timing = timingOf(world, settled);
  const house = new House(world.random, [{ name: "node", publicKey: node.keys.publicKey, share: node.keys.share }]);
  const { publicKey, share, sign } = house.key;
  node.enrol([{ devEui, publicKey, share, sign, epoch: house.epoch }], world.wallMs);
  const storedMs = new Map<number, number>();
  const farEnd = new NetworkServer(node);
  await node.open({
    clock: timing.clock,
    after: () => () => undefined, // settled() saves
    stored: (_device, sequence) => {
      if (!storedMs.has(sequence)) storedMs.set(sequence, world.nowMs);
    },
    downlink: (downlink) => farEnd.queue(downlink),
  });
  const channel = loss(world.random);
  const modem = new RadioModem(world, timing, { dataRate, farEnd, ...channel, ...(once && { down: () => true }) });
  const source = new Source();
  let state: Uint8Array | undefined;
  const uplink = new LoraUplink({
    ...{ modem, region, source, timing, bootId: "bench" },
    store: {
      read: async () => state,
      write: async (bytes) => {
        state = bytes;
      },
    },
    onReceipt: (bytes) => source.named(house.release(bytes)),
    onState: () => undefined,
    emit: () => undefined,
    random: () => world.random.integer(0, 999_999) / 1_000_000,
    linkDeadAfterMs: 0,
    ...(once && { repeatDelaysMs: [neverMs] }),
  });
  for (const event of house.events()) source.add(event);
  uplink.start();
  const sealedMs = new Map<number, number>();
  for (let i = 1; i <= batches; i++)
    world.after(i * batchS * 1_000, () => {
      const batch = house.seal(startS + i * batchS);
      sealedMs.set(batch.sequence, world.nowMs);
      source.add(batch);
      return settled();
    });
  await world.runUntil(batches * batchS * 1_000 + drainMs);
  const stopped = uplink.stop();
  await world.runUntil(world.nowMs + 3_600_000);
  await stopped;
  await node.close();
  const tookMs = [...sealedMs].map(([sequence, ms]) => (storedMs.get(sequence) ?? Number.POSITIVE_INFINITY) - ms);
  tookMs.sort((a, b) => a - b);
  const at = (share: number): number => Math.round((tookMs[Math.floor((tookMs.length - 1) * share)] ?? 0) / 100) / 10;
  return {
    batches,
    inTwoPeriods: tookMs.filter((ms) => ms <= 2 * batchS * 1_000).length,
    missing: tookMs.filter((ms) => ms === Number.POSITIVE_INFINITY).length,
    ...{ airtimeMs: modem.counts.airtimeMs, frames: modem.counts.frames, downlinks: modem.counts.downlinks },
    released: source.released,
    ...{ medianS: at(0.5), p999S: at(0.999) },
    hourMs: modem.counts.hourMs,
  };
}

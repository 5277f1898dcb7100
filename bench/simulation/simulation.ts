/**
 * A hub, its wallet with the journal, the way to the full node and that node, in one process and in virtual time: the real wallet, journal,
 * forwarder, path of records and store, with simulated meters, disk, network and processes between them. Faults come from the seed, and the
 * same seed gives the same run. After the faults there is a calm; then everything that was sealed must be in the store, once, as it was read.
 */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { isDeepStrictEqual } from "node:util";
import { addRow, emptySummary, type GrowingSummary, quarterEndS, type SlotSummary } from "../../fullnode/aggregate.ts";
import type { Store } from "../../fullnode/store.ts";
import type { StoredRow } from "../../fullnode/store-reading.ts";
import { createSqliteStore } from "../../fullnode/store-sqlite.ts";
import { readEnrolAnswer } from "../../protocol/wallet-message.ts";
import { emptyPolicy, type PolicyMeter, type WalletPolicy } from "../../wallet/policy.ts";
import { type FaultPlan, faultPlanOf, type PlantedBug } from "./fault-plan.ts";
import { meterRow } from "./meter-truth.ts";
import { rowKey, SealedTruth } from "./sealed-truth.ts";
import { fullCodes, SimulatedAgent } from "./simulated-agent.ts";
import { SimulatedNetwork } from "./simulated-network.ts";
import { SimulatedNode } from "./simulated-node.ts";
import { SimulatedWallet } from "./simulated-wallet.ts";
import { VirtualWorld } from "./virtual-world.ts";

const calmLongestMs = 1_800_000;
const pageItems = 10_000;
const calmStepMs = 5_000;
const walletTickMs = 5_000;
const lookAroundMs = 60_000;
/** Acknowledged writes that the disk spoils in a run: more while the ring is full is more than the journal has room to void. */
const spoiltMax = 2;

export interface SimulationOptions {
  readonly seed: number;
  readonly bug?: PlantedBug | undefined;
  /** Instead of what the seed says. */
  readonly plan?: FaultPlan;
}

export interface SimulationResult {
  readonly seed: number;
  /** Of all that happened: the same for the same seed. */
  readonly digest: string;
  /** Empty: everything that was promised was kept. */
  readonly violations: readonly string[];
  readonly trace: readonly string[];
  readonly figures: SimulationFigures;
}

export interface SimulationFigures {
  readonly virtualSeconds: number;
  readonly events: number;
  readonly records: number;
  readonly rows: number;
  readonly published: number;
  readonly receipts: number;
  readonly faults: number;
  /** Writes that the disk took, acknowledged and then spoilt. */
  readonly spoilt: number;
  readonly nodeCrashes: number;
  /** Of those, the ones within a transaction, or right behind its commit. */
  readonly inTransaction: number;
  readonly walletStarts: number;
  readonly voids: number;
  readonly dropped: number;
  /** Requests that the wallet refused because its ring was full. */
  readonly ringFull: number;
  readonly receiptsRefused: number;
  /** From the end of the faults until nothing waited, in virtual milliseconds. */
  readonly recoveryMs: number;
}

/** Folder of stores that no power cut concerns: in memory where the system has such a place. */
export class SimulationGround {
  readonly folder: string;
  readonly emptyStore: string;

  constructor() {
    const parent = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();
    this.folder = mkdtempSync(path.join(parent, "ecp-simulation-"));
    createSqliteStore(this.folder, "simulation").close();
    this.emptyStore = path.join(this.folder, "node.db");
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export class Simulation {
  readonly world: VirtualWorld;
  readonly truth = new SealedTruth();
  readonly plan: FaultPlan;
  readonly wallet: SimulatedWallet;
  readonly agent: SimulatedAgent;
  readonly node: SimulatedNode;
  readonly network: SimulatedNetwork;
  #isCalm = false;
  #faults = 0;

  constructor(ground: SimulationGround, { seed, bug, plan }: SimulationOptions) {
    this.world = new VirtualWorld(seed);
    const { world, truth } = this;
    this.plan = plan ?? faultPlanOf(world.random);
    const send = (receipt: Uint8Array): void => this.network.receipt(receipt);
    const believesTail = bug === "sequence-reused";
    const policy = policyOf(this.plan);
    this.wallet = new SimulatedWallet(world, truth, policy, { segments: this.plan.segments, believesTail });
    const { emptyStore, folder } = ground;
    const device = this.wallet.name;
    this.node = new SimulatedNode({ world, truth, device, bug, emptyStore, parent: folder, send });
    this.wallet.pin({ name: "node", publicKey: this.node.keys.publicKey, share: this.node.keys.share });
    const network = (): SimulatedNetwork => this.network;
    this.agent = new SimulatedAgent({ world, truth, plan: this.plan, wallet: this.wallet, network, bug });
    this.network = new SimulatedNetwork(world, this.plan.network, {
      toNode: (payload) => this.node.take(payload),
      toHub: (receipt) => this.agent.receipt(receipt),
      hubConnected: () => this.agent.connected(),
    });
  }

  /** Everything is switched on for the first time. */
  async begin(): Promise<void> {
    const { world, wallet, node, agent, network } = this;
    wallet.start();
    await node.start();
    await node.enrol(wallet.ask({ type: "enrol" }, readEnrolAnswer));
    agent.start();
    network.setNode(true);
    network.connectHub();
    world.every(this.plan.tickMs, () => {
      if (!this.#isCalm) agent.readMeters();
      else agent.sealRows();
      agent.forward();
    });
    world.every(walletTickMs, () => wallet.tick());
    world.every(lookAroundMs, () => node.lookAround());
    this.#plantFaults();
  }

  #plantFaults(): void {
    const { everyMs } = this.plan;
    const { world, wallet, agent, node, network } = this;
    const { random } = world;
    const awayMs = (): number => random.integer(100, 20_000);
    this.#fault(everyMs.linkCut, () => network.cutHub(random.pick([200, 5_000, 60_000])));
    this.#fault(everyMs.brokerCrash, () => network.crashBroker(awayMs()));
    this.#fault(everyMs.nodeCrash, () => {
      if (random.chance(70)) node.crashInTransaction();
      else return this.#stopNode(awayMs());
    });
    this.#fault(everyMs.nodeOutage, () => this.#stopNode(random.integer(60_000, 600_000)));
    this.#fault(everyMs.walletCrash, () => wallet.crash(random.chance(80)));
    this.#fault(everyMs.agentCrash, () => agent.crash());
    this.#fault(everyMs.powerCut, () => {
      const isWriting = random.chance(50);
      wallet.cutPower(!isWriting && wallet.counts.spoilt < spoiltMax && random.chance(60));
      agent.crash();
      if (network.isHubConnected) network.cutHub(random.integer(5_000, 60_000));
    });
    // Whoever has ended is started again by its unit.
    world.every(2_000, async () => {
      if (!wallet.isRunning) wallet.start();
      if (!agent.isRunning) agent.start();
      if (!node.isRunning && world.nowMs >= this.#nodeBackMs) await node.start();
      if (node.isRunning && network.nodeMustConnect) network.setNode(true);
      else if (!node.isRunning) network.setNode(false);
    });
  }

  #nodeBackMs = 0;
  async #stopNode(forMs: number): Promise<void> {
    this.#nodeBackMs = Math.max(this.#nodeBackMs, this.world.nowMs + forMs);
    this.network.setNode(false);
    await this.node.crash();
  }

  #fault(meanMs: number, happen: () => void | Promise<void>): void {
    if (meanMs === 0) return;
    const { world } = this;
    const again = async (): Promise<void> => {
      if (this.#isCalm) return;
      this.#faults++;
      await happen();
      world.after(world.random.integer(0, 2 * meanMs), again);
    };
    world.after(world.random.integer(0, 2 * meanMs), again);
  }

  /** No more readings and no more faults; gives how long it takes until nothing waits any more. */
  async calm(): Promise<number> {
    const { world, wallet, network } = this;
    this.#isCalm = true;
    this.#nodeBackMs = 0;
    network.calm();
    const startMs = world.nowMs;
    let restarted = false;
    while (world.nowMs - startMs < calmLongestMs) {
      await world.runUntil(world.nowMs + calmStepMs);
      if (!wallet.isRunning || !this.agent.isRunning || this.agent.unsealed > 0) continue;
      const { pendingRows, through, nextSequence, earlierEpochs } = wallet.hello();
      if (pendingRows > 0 && !restarted) {
        // A start signs what is pending.
        wallet.crash(false);
        restarted = true;
        continue;
      }
      if (pendingRows === 0 && through === nextSequence - 1 && earlierEpochs.length === 0) return world.nowMs - startMs;
    }
    const hello = wallet.isRunning ? wallet.hello() : undefined;
    this.truth.violated(
      `after ${calmLongestMs / 60_000} minutes of calm something waits: released through ${hello?.through}, next is ${hello?.nextSequence}, ${hello?.pendingRows} rows pending, ${this.agent.unsealed} rows unsealed`,
    );
    return calmLongestMs;
  }

  /** Compares the store with what was sealed. */
  async check(): Promise<void> {
    const { truth, node, wallet } = this;
    await node.checkPromises();
    const { store } = node;
    const device = await store.device(wallet.name);
    const summary = (await store.devices()).find(({ id }) => id === device?.id);
    if (device === undefined || summary === undefined) {
      truth.violated("the store does not know the device");
      return;
    }
    const places = [...truth.records.keys()].map((place) => {
      const [epoch, sequence] = place.split("/").map(Number);
      return { device: device.id, epoch: epoch as number, sequence: sequence as number };
    });
    const digests = await store.digests(places);
    for (const [i, [place, { digest, mayBeMissing }]] of [...truth.records].entries()) {
      const found = digests[i];
      if (found === undefined ? !mayBeMissing : Buffer.from(found).toString("hex") !== digest)
        truth.violated(`record ${place} is ${found === undefined ? "not in the store" : "another in the store"}`);
    }
    if (summary.records > truth.records.size) truth.violated("the store has records that nobody sealed");
    if (summary.evidence > 0) truth.violated(`the store has ${summary.evidence} records as evidence of a fork`);
    for (const { epoch, spans, settledThrough, held } of summary.epochs) {
      const through = spans[0]?.last ?? 0;
      if (spans.length > 1 || held || settledThrough !== through)
        truth.violated(`epoch ${epoch} is not whole: ${spans.length} spans, settled through ${settledThrough}`);
    }
    await this.#checkRows(device.id);
    await this.#checkSlots(device.id);
  }

  async #checkRows(device: number): Promise<void> {
    const { truth, node } = this;
    const keys = new Set<string>();
    for (const { meter, timeS, booked, status, values, generation } of await allRows(node.store, device)) {
      const key = rowKey(meter, timeS);
      if (keys.has(key)) truth.violated(`row ${key} counts twice (generation ${generation})`);
      keys.add(key);
      const read = meterRow(meter, timeS);
      const whole = read.values.flatMap((value, i) => [fullCodes[i] as number, value]);
      const isSame =
        isDeepStrictEqual(values, whole) || (isDeepStrictEqual(values, whole.slice(0, 2)) && truth.mayBeThin(key));
      if (status !== read.status || booked !== (read.status === 0) || !isSame)
        truth.violated(`row ${key} is not as it was read: status ${status}, ${values}`);
    }
    for (const key of truth.rowsOwed()) if (!keys.has(key)) truth.violated(`row ${key} was sealed and does not count`);
  }

  /** The quarter hours say what their rows say. */
  async #checkSlots(device: number): Promise<void> {
    const { store } = this.node;
    const rows = (await allRows(store, device)).filter(({ booked }) => booked);
    for (const series of await store.series(device)) {
      const expected = new Map<number, GrowingSummary>();
      for (const { meter, generation, timeS, values } of rows) {
        if (meter !== series.meter || generation !== series.generation) continue;
        const endS = quarterEndS(timeS);
        const summary = expected.get(endS) ?? emptySummary();
        addRow(summary, timeS, values);
        expected.set(endS, summary);
      }
      const slots = await store.slots(device, series, -1, 2 ** 33, pageItems);
      const found = new Map(slots.map(({ endS, summary }) => [endS, summary]));
      if (!isDeepStrictEqual(plain(found), plain(expected)))
        this.truth.violated(`the quarter hours of meter ${series.meter} do not say what its rows say`);
    }
  }

  figures(recoveryMs: number): SimulationFigures {
    return {
      virtualSeconds: Math.round(this.world.nowMs / 1_000),
      events: this.world.happened,
      records: this.truth.records.size,
      rows: this.truth.rows.size,
      published: this.network.counts.published,
      receipts: this.truth.receipts,
      faults: this.#faults,
      spoilt: this.wallet.counts.spoilt,
      nodeCrashes: this.node.counts.crashes,
      inTransaction: this.node.counts.inTransaction,
      walletStarts: this.wallet.counts.starts,
      voids: this.truth.voids,
      dropped: this.truth.dropped,
      ringFull: this.agent.counts.ringFull,
      receiptsRefused: this.agent.counts.refusals,
      recoveryMs,
    };
  }
}

/** One run of one seed. */
export async function simulate(ground: SimulationGround, options: SimulationOptions): Promise<SimulationResult> {
  const simulation = new Simulation(ground, options);
  const { world, truth, node } = simulation;
  // What still draws its own jitter draws it from the seed, or two runs would differ.
  const { random } = Math;
  Math.random = () => world.random.uint32() / 2 ** 32;
  let recoveryMs = 0;
  try {
    await simulation.begin();
    await world.runUntil(simulation.plan.lengthMs);
    recoveryMs = await simulation.calm();
    if (!node.isRunning) truth.violated("the full node does not run");
    else await simulation.check();
  } catch (error) {
    truth.violated(`it broke: ${(error as Error).stack}`);
  } finally {
    Math.random = random;
    await node.remove();
  }
  world.note("ended", truth.violations.join("; "));
  const { violations } = truth;
  return {
    seed: options.seed,
    digest: world.digest(),
    violations,
    trace: world.trace,
    figures: simulation.figures(recoveryMs),
  };
}

function plain(slots: ReadonlyMap<number, SlotSummary>): unknown {
  return JSON.parse(JSON.stringify([...slots].sort(([a], [b]) => a - b)));
}

async function allRows(store: Store, device: number): Promise<StoredRow[]> {
  const rows: StoredRow[] = [];
  for (;;) {
    const page = await store.rowsAfter(device, rows.at(-1), pageItems);
    rows.push(...page);
    if (page.length < pageItems) return rows;
  }
}

function policyOf({ meters, slotS, sealEveryS, whenFull, encrypted }: FaultPlan): WalletPolicy {
  const meter = (index: number): PolicyMeter => ({
    index,
    name: `meter ${index}`,
    profile: "sdm630",
    slotS,
    powerMaxW: 0,
    rowsPerMinute: 6_000,
    resolutionWh: 1,
    installation: 0,
    installationReason: "",
  });
  const all = Array.from({ length: meters }, (_, index) => meter(index));
  return {
    ...emptyPolicy,
    meters: all,
    sealEveryS,
    whenFull,
    encryptTo: encrypted ? "first" : "nobody",
    plans: [{ plan: 1, slotS, sealEveryS }],
  };
}

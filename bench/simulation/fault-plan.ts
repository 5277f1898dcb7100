/** What a seed makes of a run: how the hub is set up, what the network is like, and how often which part fails. */
import type { SeededRandom } from "../../test/protocol/seeded-random.ts";

/** Faults that somebody might build into the real parts; each must be found. */
export const plantedBugs = [
  "trim-on-puback",
  "receipt-before-commit",
  "window-never-restarted",
  "sequence-reused",
  "row-counted-twice",
] as const;
export type PlantedBug = (typeof plantedBugs)[number];

export interface FaultPlan {
  /** Virtual time with faults. */
  readonly lengthMs: number;
  readonly meters: number;
  readonly slotS: number;
  readonly sealEveryS: number;
  readonly segments: number;
  readonly whenFull: "refuse" | "drop_oldest";
  /** Rows of a second plan, thinner, tell of every fourth slot once more. */
  readonly twoPlans: boolean;
  /** Records travel encrypted to the node. */
  readonly encrypted: boolean;
  /** How often the agent looks what there is to do. */
  readonly tickMs: number;
  readonly network: NetworkPlan;
  /** Mean times between faults in milliseconds; 0: there are none. */
  readonly everyMs: {
    readonly linkCut: number;
    readonly brokerCrash: number;
    readonly nodeCrash: number;
    readonly nodeOutage: number;
    readonly walletCrash: number;
    readonly agentCrash: number;
    readonly powerCut: number;
  };
}

export interface NetworkPlan {
  readonly delayMinMs: number;
  readonly delayMaxMs: number;
  /** Of a hundred messages. */
  readonly lostPercent: number;
  readonly doubledPercent: number;
  readonly lateByMs: number;
  readonly latePercent: number;
  /** The broker keeps what comes while the node is away. */
  readonly queues: boolean;
}

export function faultPlanOf(random: SeededRandom): FaultPlan {
  const slotS = random.pick([5, 10, 10, 60]);
  const lengthMs = slotS === 60 ? 2_400_000 : 480_000;
  const sealEveryS = random.pick(slotS === 60 ? [0, 300, 300] : [0, 0, 30]);
  const sometimes = (minS: number, maxS: number): number =>
    random.chance(60) ? (random.integer(minS, maxS) * lengthMs) / 480 : 0;
  return {
    lengthMs,
    meters: random.integer(1, 2),
    slotS,
    sealEveryS,
    segments: random.integer(3, 6),
    whenFull: random.chance(20) ? "drop_oldest" : "refuse",
    twoPlans: random.chance(50),
    encrypted: random.chance(50),
    tickMs: 1_000,
    network: networkPlanOf(random),
    everyMs: {
      linkCut: sometimes(40, 240),
      brokerCrash: sometimes(80, 400),
      nodeCrash: sometimes(40, 240),
      nodeOutage: sometimes(240, 720),
      walletCrash: sometimes(40, 240),
      agentCrash: sometimes(60, 240),
      powerCut: sometimes(60, 300),
    },
  };
}

function networkPlanOf(random: SeededRandom): NetworkPlan {
  const delayMinMs = random.integer(1, 100);
  const isBad = random.chance(60);
  return {
    delayMinMs,
    delayMaxMs: delayMinMs + random.pick([10, 200, 3_000]),
    lostPercent: isBad ? random.integer(0, 15) : 0,
    doubledPercent: isBad ? random.integer(0, 20) : 0,
    lateByMs: random.pick([1_000, 20_000, 90_000]),
    latePercent: isBad ? random.integer(0, 10) : 0,
    queues: random.chance(50),
  };
}

/** A hub to which nothing happens but what a fair line brings, day after day: for measuring what grows. */
export const quietPlan: FaultPlan = {
  lengthMs: 0,
  meters: 3,
  slotS: 60,
  sealEveryS: 60,
  segments: 8,
  whenFull: "refuse",
  twoPlans: false,
  encrypted: true,
  tickMs: 5_000,
  network: {
    delayMinMs: 20,
    delayMaxMs: 200,
    lostPercent: 1,
    doubledPercent: 1,
    lateByMs: 5_000,
    latePercent: 1,
    queues: true,
  },
  everyMs: {
    linkCut: 6 * 3_600_000,
    brokerCrash: 0,
    nodeCrash: 0,
    nodeOutage: 0,
    walletCrash: 0,
    agentCrash: 0,
    powerCut: 0,
  },
};

/**
 * A hub and its full node for 30 virtual days: three meters read once a minute, every reading sealed, sent encrypted, stored and acknowledged.
 * The real wallet, journal, forwarder, publish queue, path of records and SQLite store run in this one process, over a simulated
 * disk, network and clock (bench/simulation); sockets, mqtt.js, drivers and the processes' own timers are not in it. What JavaScript
 * holds after a full collection may grow by 1 MiB a virtual week at most, and no descriptor may stay open. SQLite's own memory is bounded by
 * its cache and shows in the resident size, which is given beside it. Control: the same with every receipt kept.
 */
import { readdirSync } from "node:fs";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { type Campaign, runCampaign } from "./campaign.ts";
import { quietPlan } from "./simulation/fault-plan.ts";
import { Simulation, SimulationGround } from "./simulation/simulation.ts";

const hourMs = 3_600_000;
const weekHours = 168;
const growthMaxMiB = 1;
/** In a short run what grows is told from what is still being loaded and compiled by its size only. */
const growthShortMaxMiB = 3;
const leakedBytes = 8_192;
/** Memory outside of the heap comes and goes by 4 MiB: of so many samples the lowest counts. */
const samplesAtOnce = 4;
const mebibyte = 2 ** 20;

interface Sample {
  readonly hours: number;
  readonly heldMiB: number;
  readonly descriptors: number;
}

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

function sampleAt(hours: number): Sample {
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return { hours, heldMiB: (heapUsed + external) / mebibyte, descriptors: readdirSync("/proc/self/fd").length };
}

/** MiB an hour, by least squares; what is loaded, compiled and cached in the first part is no growth. */
function slopeOf(all: readonly Sample[]): number {
  const later = settledOf(all);
  const samples: Sample[] = [];
  for (let i = 0; i < later.length; i += samplesAtOnce)
    samples.push(later.slice(i, i + samplesAtOnce).reduce((low, one) => (one.heldMiB < low.heldMiB ? one : low)));
  const meanHours = samples.reduce((sum, { hours }) => sum + hours, 0) / samples.length;
  const meanMiB = samples.reduce((sum, { heldMiB }) => sum + heldMiB, 0) / samples.length;
  let above = 0;
  let below = 0;
  for (const { hours, heldMiB } of samples) {
    above += (hours - meanHours) * (heldMiB - meanMiB);
    below += (hours - meanHours) ** 2;
  }
  return above / below;
}

function settledOf(samples: readonly Sample[]): readonly Sample[] {
  return samples.slice(Math.ceil(samples.length / 3));
}

interface Soak {
  readonly samples: readonly Sample[];
  readonly records: number;
  readonly receipts: number;
  readonly violations: readonly string[];
  readonly residentMiB: number;
}

async function soak(
  campaign: Campaign,
  seed: number,
  hours: number,
  everyHours: number,
  leaks: boolean,
): Promise<Soak> {
  const ground = new SimulationGround();
  campaign.after(() => ground.remove());
  const simulation = new Simulation(ground, { seed, plan: quietPlan });
  const { world, truth, node, network, wallet, agent } = simulation;
  const { random } = Math;
  Math.random = () => world.random.uint32() / 2 ** 32;
  campaign.after(() => {
    Math.random = random;
  });
  const kept: Uint8Array[] = [];
  if (leaks) truth.onReceipt = (bytes) => kept.push(Uint8Array.from({ length: leakedBytes }, (_, i) => bytes[i] ?? 0));
  await simulation.begin();
  const samples: Sample[] = [];
  for (let hour = 0; hour < hours; ) {
    hour += everyHours;
    await world.runUntil(hour * hourMs);
    await node.checkPromises();
    if (agent.waiting > 100) truth.violated(`${agent.waiting} records wait after ${hour} hours`);
    truth.forget();
    samples.push(sampleAt(hour));
    campaign.progress(hour, hours, `${samples.at(-1)?.heldMiB.toFixed(1)} MiB`);
  }
  await simulation.calm();
  const { nextSequence } = wallet.hello();
  const residentMiB = process.memoryUsage().rss / mebibyte;
  const summary = (await node.store.devices())[0];
  if (summary?.records !== nextSequence - 1)
    truth.violated(`${summary?.records} records are stored, ${nextSequence - 1} were sealed`);
  await node.remove();
  const { violations, receipts } = truth;
  campaign.say(`${network.counts.published} published, ${kept.length} receipts kept`);
  return { samples, records: nextSequence - 1, receipts, violations, residentMiB };
}

await runCampaign("soak", async (campaign) => {
  const hours = campaign.count(30 * 24, 12);
  const everyHours = campaign.count(6, 0.5);
  const { seed } = campaign.random;
  const startedMs = performance.now();
  const { samples, records, receipts, violations, residentMiB } = await soak(campaign, seed, hours, everyHours, false);
  const seconds = (performance.now() - startedMs) / 1_000;
  const settled = settledOf(samples);
  const perHour = slopeOf(samples);
  const leaking = await soak(campaign, seed, campaign.count(48, 12), campaign.count(1, 0.5), true);
  const leakPerHour = slopeOf(leaking.samples);
  const descriptors = settled.map((sample) => sample.descriptors);
  for (const violation of violations) campaign.say(violation);
  // In a short run the week is far: there, what grew in the run itself counts.
  const hoursJudged = campaign.count(weekHours, (settled.at(-1)?.hours ?? 0) - (settled[0]?.hours ?? 0));
  const growthMiB = perHour * hoursJudged;
  const leakMiB = leakPerHour * hoursJudged;
  const allowedMiB = campaign.count(growthMaxMiB, growthShortMaxMiB);
  const constant = Math.max(...descriptors) === Math.min(...descriptors);
  const figures = {
    virtualDays: hours / 24,
    seconds: Math.round(seconds),
    records,
    receipts,
    violations: violations.length,
    heldFirstMiB: round(settled[0]?.heldMiB),
    heldLastMiB: round(settled.at(-1)?.heldMiB),
    slopeMiBPerWeek: round(perHour * weekHours),
    growthJudgedMiB: round(growthMiB),
    residentMiB: round(residentMiB),
    descriptorsLeast: Math.min(...descriptors),
    descriptorsMost: Math.max(...descriptors),
  };
  const control = { leakJudgedMiB: round(leakMiB) };
  const isSteady = growthMiB <= allowedMiB && constant;
  return { figures, control, holds: violations.length === 0 && isSteady && leakMiB > allowedMiB };
});

function round(value = 0): number {
  return Math.round(value * 100) / 100;
}

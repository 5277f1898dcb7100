/**
 * Simulations of a hub, its wallet, the network and the full node, each from a seed: faults of disk, network and processes in virtual time.
 * Nothing that was sealed may be lost, doubled or changed, and no receipt may be broken. Control: five bugs, planted one at a time, are each
 * found, and a seed that is run twice gives the same run.
 */
import { runCampaign } from "./campaign.ts";
import { plantedBugs } from "./simulation/fault-plan.ts";
import { type SimulationFigures, SimulationGround, simulate } from "./simulation/simulation.ts";

const bugSeedsMax = 200;
const rerunEvery = 50;

await runCampaign("seeds", async (campaign) => {
  const ground = new SimulationGround();
  campaign.after(() => ground.remove());
  const first = campaign.random.seed;
  const seeds = campaign.count(10_000, 200);
  const sums = new Map<string, number>();
  let failed = 0;
  let firstFailed = "";
  let rerunsDiffer = 0;
  let longestRecoveryMs = 0;
  const startedMs = performance.now();
  for (let i = 0; i < seeds; i++) {
    const seed = (first + i) >>> 0;
    const { violations, figures, digest, trace } = await simulate(ground, { seed });
    add(sums, figures);
    longestRecoveryMs = Math.max(longestRecoveryMs, figures.recoveryMs);
    if (violations.length > 0) {
      failed++;
      campaign.say(`seed ${seed}:\n  ${violations.join("\n  ")}`);
      if (firstFailed === "") campaign.say(`the end of its run:\n  ${trace.slice(-60).join("\n  ")}`);
      firstFailed ||= `seed ${seed}: ${violations[0]}`;
    }
    if (i % rerunEvery === 0 && (await simulate(ground, { seed })).digest !== digest) rerunsDiffer++;
    campaign.progress(i + 1, seeds, `${failed} failed`);
  }
  const seconds = (performance.now() - startedMs) / 1_000;
  const control: Record<string, number> = {};
  for (const bug of plantedBugs) {
    control[bug] = 0;
    for (let i = 0; i < bugSeedsMax && control[bug] === 0; i++) {
      const { violations } = await simulate(ground, { seed: (first + i) >>> 0, bug });
      if (violations.length === 0) continue;
      control[bug] = i + 1;
      campaign.say(`${bug} was found by seed ${i + 1}: ${violations[0]}`);
    }
  }
  const { recoveryMs: _, virtualSeconds = 0, ...figures } = Object.fromEntries(sums);
  return {
    figures: {
      seeds,
      failed,
      rerunsDiffer,
      virtualHours: Math.round(virtualSeconds / 3_600),
      ...figures,
      longestRecoveryS: Math.round(longestRecoveryMs / 1_000),
      seedsPerSecond: Math.round((10 * seeds) / seconds) / 10,
      ...(firstFailed && { firstFailed }),
    },
    control,
    holds: failed === 0 && rerunsDiffer === 0 && Object.values(control).every((found) => found > 0),
  };
});

function add(sums: Map<string, number>, figures: SimulationFigures): void {
  for (const [name, value] of Object.entries(figures)) sums.set(name, (sums.get(name) ?? 0) + value);
}

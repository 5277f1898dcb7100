/**
 * A day at the slowest data rate, one at the quickest, one with data rates that change in mid-packet, and one with the shortest frames of all
 * regions: a tenth of all frames is lost both ways, the gateway is away for hours, agent and full node are killed three times and more.
 * Every row of the day is in the store as it was read and released by the wallet, and no sub-band is used beyond its share in any rolling
 * hour, by the radio's own meter. Control: an uplink that keeps no state over its end spends each hour's airtime anew with each start.
 */
import { runCampaign } from "./campaign.ts";
import { type LoraDayOptions, simulateLoraDay } from "./simulation/lora-day.ts";
import { SimulationGround } from "./simulation/simulation.ts";

/** In US915's slowest frames one tile of a packet has room. */
const courses: readonly (readonly [
  name: string,
  course: Pick<LoraDayOptions, "dataRate" | "region" | "changesDataRate">,
])[] = [
  ["dr0", { dataRate: 0 }],
  ["dr5", { dataRate: 5 }],
  ["adr", { dataRate: 0, changesDataRate: true }],
  ["us915", { dataRate: 0, region: "US915" }],
];

await runCampaign("lora-day", async (campaign) => {
  const { random } = campaign;
  const ground = new SimulationGround();
  campaign.after(() => ground.remove());
  const families = ["rui3", "lora-e5", "rn2483", "at-slave"] as const;
  const days = campaign.count(4, 1);
  const first = random.integer(0, families.length - 1);
  const figures: Record<string, number | string | boolean> = {};
  let violations = 0;
  for (let i = 0; i < days; i++)
    for (const [turn, [name, course]] of courses.entries()) {
      if (campaign.short && name === "us915") continue;
      const family = families[(first + i + turn) % families.length] as (typeof families)[number];
      const server = (first + i + turn) % 2 === 0 ? "chirpstack" : "tts";
      const seed = random.uint32();
      const startedMs = performance.now();
      const day = await simulateLoraDay(ground, { seed, family, server, keepsState: true, ...course });
      const tookMs = Math.round(performance.now() - startedMs);
      campaign.say(`${name}, ${family}, ${server}, seed ${seed}: ${JSON.stringify(day.figures)} in ${tookMs} ms`);
      for (const violation of day.violations) campaign.say(violation);
      if (day.violations.length > 0) for (const line of day.trace.slice(-40)) campaign.say(line);
      violations += day.violations.length;
      for (const [what, value] of Object.entries(day.figures)) {
        const key = `${name}${what[0]?.toUpperCase()}${what.slice(1)}`;
        const before = Number(figures[key] ?? 0);
        figures[key] = what.startsWith("worst") ? Math.max(before, value) : before + value;
      }
    }
  const control = await simulateLoraDay(ground, {
    ...{ seed: random.uint32(), dataRate: 0, family: "lora-e5", server: "chirpstack", keepsState: false },
  });
  campaign.say(`control: ${JSON.stringify(control.figures)}`);
  return {
    figures: { days, ...figures, violations },
    control: { excesses: control.figures.excesses, worstHourS: control.figures.worstHourS },
    holds: violations === 0 && control.figures.excesses > 0,
  };
});

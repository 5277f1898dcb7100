/**
 * A day at the slowest data rate and a day at the quickest: a tenth of all frames is lost both ways, the gateway is away for hours, agent and
 * full node are killed three times each. Every row of the day is in the store as it was read and released by the wallet, and no
 * sub-band is used beyond its share in any rolling hour, by the radio's own meter. Control: an uplink that keeps no state over its end
 * spends each hour's airtime anew with each start.
 */
import { runCampaign } from "./campaign.ts";
import { simulateLoraDay } from "./simulation/lora-day.ts";
import { SimulationGround } from "./simulation/simulation.ts";

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
    for (const dataRate of [0, 5]) {
      const family = families[(first + i + dataRate) % families.length] as (typeof families)[number];
      const server = (first + i + dataRate) % 2 === 0 ? "chirpstack" : "tts";
      const seed = random.uint32();
      const startedMs = performance.now();
      const day = await simulateLoraDay(ground, { seed, dataRate, family, server, keepsState: true });
      campaign.say(
        `DR${dataRate}, ${family}, ${server}, seed ${seed}: ${JSON.stringify(day.figures)} in ${Math.round(performance.now() - startedMs)} ms`,
      );
      for (const violation of day.violations) campaign.say(violation);
      if (day.violations.length > 0) for (const line of day.trace.slice(-40)) campaign.say(line);
      violations += day.violations.length;
      for (const [name, value] of Object.entries(day.figures)) {
        const key = `dr${dataRate}${name[0]?.toUpperCase()}${name.slice(1)}`;
        const before = figures[key];
        figures[key] = name.startsWith("worst") ? Math.max(Number(before ?? 0), value) : Number(before ?? 0) + value;
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

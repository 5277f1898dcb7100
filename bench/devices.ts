/**
 * Many devices at a full node behind mosquitto, all on the same cores: each sends a record an interval, a few of them drain a backlog
 * meanwhile; then the same beside a flood of junk. How long a record waits for its receipt, what was lost, and what memory it took.
 */
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { type BrokerRun, runThroughBroker } from "./broker-intake.ts";
import { runCampaign } from "./campaign.ts";
import { fleetDevices } from "./device-fleet.ts";
import { nodeWith } from "./record-supply.ts";

/** As the issue of this benchmark states them. */
const limits = { p99Ms: 2_000, p99InFloodMs: 5_000 } as const;

await runCampaign("devices", async (campaign) => {
  const folder = mkdtempSync(path.join(tmpdir(), "ecp-devices-"));
  campaign.after(() => rmSync(folder, { recursive: true, force: true }));
  const seed = campaign.random.uint32();
  const devices = campaign.count(10_000, 1_000);
  const backlogDevices = 20;
  const plan = {
    ...{ seed, devices, backlogDevices, backlog: campaign.count(5_000, 300), window: 500 },
    ...{ live: 2, intervalMs: campaign.count(60_000, 4_000) },
  };
  const floodPerSecond = campaign.count(20_000, 4_000);
  const { data } = await nodeWith(folder, fleetDevices(seed, devices));
  const again = mkdtempSync(path.join(folder, "again-"));
  cpSync(data, again, { recursive: true });
  const calm = await runThroughBroker(campaign, data, plan);
  campaign.say(`calm: ${JSON.stringify(calm)}`);
  let flooded = 0;
  const storm = await runThroughBroker(campaign, again, plan, (port, scene) => {
    const file = path.join(import.meta.dirname, "junk-flood.ts");
    const flood = scene.startCommand(process.execPath, [file, ...[port, seed, devices, floodPerSecond].map(String)]);
    return () => {
      const said = /(\d+) in (\d+)/.exec(flood.stdout.at(-1) ?? "");
      flooded = Math.round((Number(said?.[1]) / Number(said?.[2])) * 1_000);
    };
  });
  campaign.say(`flood: ${JSON.stringify(storm)}`);
  const figures: Record<string, number> = {
    devices,
    floodPerSecond: flooded,
    ...named("calm", calm),
    ...named("flood", storm),
  };
  const lost = calm.records - calm.acknowledged + storm.records - storm.acknowledged;
  const holds = lost === 0 && calm.liveP99Ms < limits.p99Ms && storm.liveP99Ms < limits.p99InFloodMs;
  return { figures: { ...figures, lost }, control: { refusedInFlood: figures.floodRefused ?? 0 }, holds };
});

function named(key: string, run: BrokerRun): Record<string, number> {
  const { records, tookMs, sentAgain, liveP50Ms, liveP99Ms, liveMaxMs, receipts, nodeRssMiB, backlogMs } = run;
  const refused = Object.values(run.refused).reduce((sum: number, count) => sum + (count ?? 0), 0);
  const all = { records, tookMs, backlogMs, sentAgain, liveP50Ms, liveP99Ms, liveMaxMs, receipts, nodeRssMiB, refused };
  return Object.fromEntries(
    Object.entries(all).map(([name, value]) => [key + name[0]?.toUpperCase() + name.slice(1), value]),
  );
}

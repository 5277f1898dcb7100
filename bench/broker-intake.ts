/** A full node behind a private mosquitto, with a fleet of devices in a process of its own. */
import { writeFileSync } from "node:fs";
import path from "node:path";
import { startFullNode } from "../fullnode/full-node.ts";
import { createLog } from "../platform/log.ts";
import { mosquittoMissing } from "../test/system/mosquitto-fixture.ts";
import { freePort, Scene } from "../test/system/scene-fixture.ts";
import { type Campaign, Missing } from "./campaign.ts";
import type { FleetPlan, FleetReport } from "./device-fleet.ts";

const fleetFile = path.join(import.meta.dirname, "device-fleet.ts");

export interface BrokerRun extends FleetReport {
  readonly stored: number;
  readonly receipts: number;
  readonly refused: Readonly<Partial<Record<string, number>>>;
  /** Of this process, with the node, at its largest. */
  readonly nodeRssMiB: number;
}

/**
 * Runs the fleet to its end. `meanwhile` is called as soon as it sends; what it returns is called when it has ended. The limits of the broker are
 * those of docs/operating.md: by default mosquitto drops what a subscriber has not taken beyond 1,000 messages.
 */
export async function runThroughBroker(
  campaign: Campaign,
  data: string,
  plan: Omit<FleetPlan, "port">,
  meanwhile: (port: number, scene: Scene) => () => void = () => () => {},
): Promise<BrokerRun> {
  if (mosquittoMissing) throw new Missing(mosquittoMissing);
  const endings: (() => unknown)[] = [];
  const scene = new Scene({ after: (ending) => endings.push(ending as () => unknown) });
  const endAll = async () => {
    for (const ending of endings.splice(0).reverse()) await ending();
  };
  campaign.after(endAll);
  const port = await freePort();
  const config = scene.path("mosquitto.conf");
  writeFileSync(
    config,
    `user root\nlistener ${port} 127.0.0.1\nallow_anonymous true\npersistence false\nset_tcp_nodelay true
max_inflight_messages 1000\nmax_queued_messages 10000\nlog_dest stderr\nlog_type error\nlog_type information\n`,
  );
  const broker = scene.startCommand("/usr/sbin/mosquitto", ["-c", config]);
  await broker.line(/mosquitto version .* running/);
  const connected = Promise.withResolvers<void>();
  const failed = Promise.withResolvers<never>();
  const node = await startFullNode({
    ...{ data, broker: { use: { host: "127.0.0.1", port } }, log: createLog("bench", () => {}), report: () => {} },
    onConnected: (version) => version && connected.resolve(),
    fail: failed.reject,
  });
  endings.push(() => node.stop());
  await connected.promise;
  const fleet = scene.startCommand(process.execPath, [fleetFile, JSON.stringify({ ...plan, port })]);
  await fleet.line(/^ready/, 0, 300_000);
  const end = meanwhile(port, scene);
  let nodeRss = 0;
  const watch = setInterval(() => {
    nodeRss = Math.max(nodeRss, process.memoryUsage.rss());
  }, 100);
  fleet.write("\n");
  const line = await Promise.race([fleet.line(/^\{/, 0, 300_000), failed.promise]);
  clearInterval(watch);
  end();
  const { stored, receipts, refused } = node.counts;
  await endAll();
  return { ...(JSON.parse(line) as FleetReport), stored, receipts, refused, nodeRssMiB: Math.round(nodeRss / 2 ** 20) };
}

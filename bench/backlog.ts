/**
 * How fast a hub gets rid of what it has sealed: from the journal, through the real wallet, agent and a mosquitto, to the full node's last
 * receipt in the wallet's hands, all processes on this machine's cores. Beside the machine's bare verifications, and beside a mosquitto
 * that bridges as many plain messages, unsigned, out of its memory.
 */

import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { projectRoot } from "../test/system/running-program-fixture.ts";
import { freePort, Scene } from "../test/system/scene-fixture.ts";
import { anonymousMiB, type Backlog, BacklogHub, processorUs } from "./backlog-hub.ts";
import { bridgedPerSecond } from "./bridged-messages.ts";
import { type Campaign, runCampaign } from "./campaign.ts";
import { signedOf, verificationLimit } from "./verification-limit.ts";
import { quickKey } from "./wallet-peer.ts";

/** As the issue of this benchmark states them. */
const limits = { ofVerifications: 0.35 } as const;
const sampleEveryMs = 50;
const drainTimeoutMs = 300_000;

await runCampaign("backlog", async (campaign) => {
  const scene = new Scene({ after: (ending) => campaign.after(ending as () => unknown) });
  // The programs as they are installed: a start from TypeScript would be measured with them.
  const built = spawnSync(process.execPath, ["esbuild.config.mjs", "--quiet"], { cwd: projectRoot, encoding: "utf8" });
  if (built.status !== 0) throw new Error(`the bundles cannot be made: ${built.stderr}`);
  const minutesOfAWeek = 7 * 24 * 60;
  const meters = 3;
  const single = await drained(campaign, scene, "single", {
    meters,
    records: campaign.count(minutesOfAWeek, 3_000) * meters,
    rows: 1,
  });
  const sixty = await drained(campaign, scene, "sixty", { meters, records: campaign.count(1_668, 501), rows: 60 });
  const thousands = campaign.short
    ? undefined
    : await drained(campaign, scene, "hundred", { meters, records: 99_999, rows: 1 });
  const plain = await drained(
    campaign,
    scene,
    "plain",
    { meters, records: campaign.count(15_000, 3_000), rows: 1 },
    false,
  );
  const bridged = await bridgedPerSecond(scene, campaign.count(100_000, 30_000), 146);
  campaign.say(`mosquitto bridges ${Math.round(bridged)} plain messages a second`);
  const figures = {
    ...named("single", single),
    ...named("sixty", sixty),
    ...(thousands && named("hundredThousand", thousands)),
    ...named("singleReadable", plain),
    sixtyReadingsOfBridged: rounded(sixty.readingsPerSecond / bridged),
  };
  const holds = single.ofVerifications >= limits.ofVerifications && sixty.readingsPerSecond >= bridged;
  return { figures, control: { bridgedMessagesPerSecond: Math.round(bridged) }, holds };
});

interface Drained {
  readonly records: number;
  readonly readingsPerSecond: number;
  readonly recordsPerSecond: number;
  readonly verificationsPerSecond: number;
  readonly ofVerifications: number;
  readonly agentMiB: number;
  readonly walletMiB: number;
  /** Processor time a record, of each process. */
  readonly agentUs: number;
  readonly walletUs: number;
  readonly brokerUs: number;
  readonly nodeUs: number;
}

async function drained(
  campaign: Campaign,
  scene: Scene,
  name: string,
  backlog: Backlog,
  encrypted = true,
): Promise<Drained> {
  const brokerPort = await freePort();
  const broker = scene.path(`${name}.conf`);
  writeFileSync(
    broker,
    `user root\nlistener ${brokerPort} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest stderr\nlog_type error\nlog_type information\n`,
  );
  const hub = new BacklogHub(scene, name);
  const { sample } = hub.make(backlog, brokerPort);
  const { publicKey } = quickKey();
  const limit = await verificationLimit(
    sample.map((record) => signedOf(record, publicKey)),
    campaign.count(2_000, 1_000),
  );
  const mosquitto = scene.startCommand("/usr/sbin/mosquitto", ["-c", broker]);
  await mosquitto.line(/mosquitto version .* running/);
  const nodeFolder = scene.path(`${name}-node`);
  await scene.succeed("ecp-node", "init", "--data", nodeFolder, "--name", "bench");
  const last = await hub.startWallet(nodeFolder, encrypted);
  const node = scene.startCommand(path.join(projectRoot, "dist/ecp-node"), [
    "run",
    "--data",
    nodeFolder,
    "--broker",
    `mqtt://127.0.0.1:${brokerPort}`,
    "--exit-with-parent",
  ]);
  await node.line(/listening for records/);
  let agentMiB = 0;
  let walletMiB = 0;
  const sampling = setInterval(() => {
    if (hub.agentPid !== undefined) agentMiB = Math.max(agentMiB, anonymousMiB(hub.agentPid));
    if (hub.walletPid !== undefined) walletMiB = Math.max(walletMiB, anonymousMiB(hub.walletPid));
  }, sampleEveryMs);
  try {
    const before = {
      wallet: processorUs(hub.walletPid as number),
      broker: processorUs(mosquitto.pid),
      node: processorUs(node.pid),
    };
    const { drainMs, agentUs } = await hub.drain(last, drainTimeoutMs);
    const each = (us: number): number => Math.round(us / last);
    const recordsPerSecond = (last / drainMs) * 1_000;
    const figures = {
      records: last,
      readingsPerSecond: Math.round((backlog.records * backlog.rows * 1_000) / drainMs),
      recordsPerSecond: Math.round(recordsPerSecond),
      verificationsPerSecond: Math.round(limit.perSecond),
      ofVerifications: rounded(recordsPerSecond / limit.perSecond),
      agentMiB: rounded(agentMiB),
      walletMiB: rounded(walletMiB),
      agentUs: each(agentUs),
      walletUs: each(processorUs(hub.walletPid as number) - before.wallet),
      brokerUs: each(processorUs(mosquitto.pid) - before.broker),
      nodeUs: each(processorUs(node.pid) - before.node),
    };
    campaign.say(`${name}: ${JSON.stringify(figures)}`);
    return figures;
  } finally {
    clearInterval(sampling);
    await hub.stop();
    await node.stop();
    await mosquitto.stop();
  }
}

function named(name: string, drainedFigures: Drained): Record<string, number> {
  return Object.fromEntries(
    Object.entries(drainedFigures).map(([key, value]) => [
      `${name}${key[0]?.toUpperCase()}${key.slice(1)}`,
      value as number,
    ]),
  );
}

function rounded(value: number): number {
  return Number(value.toPrecision(3));
}

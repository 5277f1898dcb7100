/**
 * The key in memory: while a hub works, the memory of its agent is searched for the seed and the scalar again and again. Then the
 * wallet is crashed, where a core file would be allowed, and nothing of it may lie on the disk. Controls: the same search finds the
 * seed in the wallet, and the same crash of another program leaves a core with its secret.
 */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { WalletClient } from "../agent/wallet-client.ts";
import { Community } from "../test/system/community-fixture.ts";
import { programFile, type RunningProgram } from "../test/system/running-program-fixture.ts";
import { Scene } from "../test/system/scene-fixture.ts";
import { unlockSeed } from "../wallet/keystore.ts";
import { type Campaign, Missing, runCampaign } from "./campaign.ts";
import { type Needle, needlesOf, scanMemory } from "./memory-scan.ts";

const withCores = ["-c", 'ulimit -c unlimited && exec "$@"', "--"];

await runCampaign("memory", async (campaign) => {
  const scene = new Scene({ after: (ending) => campaign.after(ending as () => unknown) });
  const community = await Community.setUp(scene);
  const keyFile = scene.path("wallet", "device.key");
  const passphrase = readFileSync(scene.path("passphrase")).subarray(0, -1);
  const needles = needlesOf(unlockSeed(readFileSync(keyFile), Buffer.from(passphrase), keyFile));
  // The passphrase is no business of the agent's either.
  needles.push({ name: "passphrase", bytes: Buffer.from(passphrase) });
  const node = await community.startNode();
  await community.startMeter();
  const hub = await community.startHub();
  await node.event(({ event }) => event === "stored");
  const figures = { scans: 0, megabytesOfAgent: 0, hitsInAgent: 0, crashes: 0, cores: 0, reports: 0, secretsOnDisk: 0 };
  const control = { scansOfWallet: 0, scansThatFoundTheSeed: 0, coresOfAnotherProgram: 0, coresWithItsSecret: 0 };
  const scans = campaign.count(100, 5);
  const agent = pidOf(hub, "agent");
  const wallet = pidOf(hub, "wallet");
  while (figures.scans < scans) {
    const position = node.position;
    const found = scanMemory(agent, needles);
    figures.scans++;
    figures.megabytesOfAgent = Math.round(found.bytes / 1e6);
    figures.hitsInAgent += found.hits.length;
    for (const hit of found.hits) campaign.say(`in the agent's memory: ${hit}`);
    if (figures.scans % 10 === 1) {
      control.scansOfWallet++;
      if (scanMemory(wallet, needles).hits.includes("seed")) control.scansThatFoundTheSeed++;
    }
    await node.event(({ event }) => event === "stored", position); // readings are sealed and sent between two scans
    await pause(campaign.random.integer(0, 50));
    campaign.progress(figures.scans, scans);
  }
  await hub.stop();
  await crash(campaign, scene, needles, figures);
  await crashOther(scene, control);
  const isSafe = figures.hitsInAgent + figures.cores + figures.reports + figures.secretsOnDisk === 0;
  const canFail = control.scansThatFoundTheSeed === control.scansOfWallet && control.coresWithItsSecret > 0;
  return { figures, control, holds: isSafe && canFail };
});

function pidOf(hub: RunningProgram, part: string): number {
  return hub.events().findLast(({ message, name }) => message === "started" && name === part)?.pid as number;
}

/** Crashes the wallet with the signals that make core files, where the limits allow one. */
async function crash(
  campaign: Campaign,
  scene: Scene,
  needles: readonly Needle[],
  figures: { crashes: number; cores: number; reports: number; secretsOnDisk: number },
): Promise<void> {
  if (readFileSync("/proc/sys/kernel/core_pattern", "latin1").startsWith("|"))
    throw new Missing(
      "/proc/sys/kernel/core_pattern hands cores to a program, so whether there is one cannot be seen here",
    );
  const data = scene.path("wallet");
  const socket = scene.path("crash.sock");
  const run = ["run", "--data", data, "--socket", socket, "--passphrase-file", scene.path("passphrase")];
  const env = { ...scene.env, NODE_OPTIONS: "--report-on-fatalerror --report-on-signal" };
  for (let i = 0; i < campaign.count(20, 4); i++) {
    const command = [...withCores, process.execPath, programFile("ecp-wallet"), ...run];
    const wallet = scene.startCommand("bash", command, { env, cwd: scene.temporary });
    await wallet.event(({ message }) => message === "ready");
    const client = new WalletClient(socket);
    await client.enrol(); // the key was used
    client.close();
    wallet.signal(["SIGSEGV", "SIGABRT", "SIGBUS", "SIGQUIT"][i % 4] as NodeJS.Signals);
    await wallet.ending();
    figures.crashes++;
  }
  for (const file of [...filesBelow(scene.folder), ...filesBelow(process.cwd(), 0)]) {
    const name = path.basename(file);
    if (/^core(\.|$)/.test(name)) figures.cores++;
    if (/^report\..*json$/.test(name)) figures.reports++;
    if (!isOf(scene.folder, file) || /passphrase$/.test(name) || statSync(file).size > 512 * 1024 * 1024) continue;
    const bytes = readFileSync(file);
    for (const needle of needles)
      if (bytes.includes(needle.bytes)) {
        figures.secretsOnDisk++;
        campaign.say(`${needle.name} in ${file}`);
      }
  }
}

/** The control: a Node with a secret in its memory, crashed in the same way. */
async function crashOther(
  scene: Scene,
  control: { coresOfAnotherProgram: number; coresWithItsSecret: number },
): Promise<void> {
  const folder = scene.path("other");
  mkdirSync(folder);
  const secret = randomBytes(32);
  // The text of the program holds the secret's complement only, so that the core has it from the heap.
  const complement = Buffer.from(secret.map((byte) => byte ^ 0xff)).toString("hex");
  const program = `globalThis.kept = Buffer.from("${complement}", "hex").map((b) => b ^ 255); process.kill(process.pid, "SIGSEGV"); setTimeout(() => {}, 1e6);`;
  const other = scene.startCommand("bash", [...withCores, process.execPath, "-e", program], { cwd: folder });
  await other.ending();
  for (const file of filesBelow(folder)) {
    control.coresOfAnotherProgram++;
    if (readFileSync(file).includes(secret)) control.coresWithItsSecret++;
  }
}

function isOf(folder: string, file: string): boolean {
  return file.startsWith(folder + path.sep);
}

function filesBelow(folder: string, depth = 8): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) return depth > 0 ? filesBelow(file, depth - 1) : [];
    return entry.isFile() ? [file] : [];
  });
}

/**
 * Kills full nodes at random instants while devices deliver: first one node with the embedded store and broker, then two nodes that share
 * one PostgreSQL and divide mosquitto's records. Every receipt that was ever sent must be honoured by the store, everything sealed be
 * there in the end, and nothing twice. The control is a node that gives its receipts before the commit.
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { PostgresServer, postgresMissing } from "../test/fullnode/postgres-fixture.ts";
import { Mosquitto, mosquittoMissing } from "../test/system/mosquitto-fixture.ts";
import type { RunningProgram } from "../test/system/running-program-fixture.ts";
import { freePort, Scene } from "../test/system/scene-fixture.ts";
import { type Campaign, Missing, runCampaign } from "./campaign.ts";
import { CrashLoad, type Judgement } from "./crash-load.ts";

const devices = 8;
const calmMs = 120_000;
/** A node that starts reads TypeScript; within this much more it has met all of its work. */
const lifeMs = 700;

interface Killed {
  readonly kills: number;
  readonly judgement: Judgement;
}

function started({ event }: Record<string, unknown>): boolean {
  return event === "started";
}

async function kill(node: RunningProgram): Promise<void> {
  node.signal("SIGKILL");
  await node.ending();
}

async function oneNode(campaign: Campaign, scene: Scene): Promise<Killed> {
  const data = scene.path("one");
  await scene.succeed("ecp-node", "init", "--data", data, "--name", "one");
  const port = await freePort();
  const load = await CrashLoad.enrol(data, devices);
  load.start({ port });
  campaign.after(() => load.stop());
  const start = () =>
    scene.start("ecp-node", "run", "--data", data, "--listen", `127.0.0.1:${port}`, "--json", "--exit-with-parent");
  const kills = campaign.count(500, 4);
  for (let i = 0; i < kills; i++) {
    const node = start();
    await node.event(started);
    if (!campaign.random.chance(10)) await load.nextReceipt(); // else it dies before it has done anything
    await pause(campaign.random.integer(0, lifeMs));
    await kill(node);
    campaign.progress(i, kills, `one node, ${load.receipts} receipts`);
  }
  const last = start();
  await load.calm(calmMs);
  await last.stop();
  await load.stop();
  return { kills, judgement: await load.judge(data) };
}

async function twoNodes(campaign: Campaign, scene: Scene): Promise<Killed> {
  const server = await PostgresServer.start();
  campaign.after(() => server.stop());
  const store = server.createDatabase("community");
  const broker = await Mosquitto.prepare(scene);
  await broker.start();
  const folders = [scene.path("first"), scene.path("second")];
  const [first = "", second = ""] = folders;
  await scene.succeed("ecp-node", "init", "--data", first, "--name", "two", "--store", store);
  await scene.succeed("ecp-node", "init", "--data", second, "--store", store, "--keys-from", first);
  const load = await CrashLoad.enrol(first, devices);
  const { port, username, passwordFile } = broker;
  load.start({ port, username, password: readFileSync(passwordFile, "utf8").trim() });
  campaign.after(() => load.stop());
  const start = async (data: string) => {
    const at = ["--broker", `mqtt://127.0.0.1:${port}`, "--username", username, "--password-file", passwordFile];
    const node = scene.start(
      "ecp-node",
      "run",
      "--data",
      data,
      ...at,
      "--share",
      "nodes",
      "--json",
      "--exit-with-parent",
    );
    await node.event(started);
    return node;
  };
  const nodes = await Promise.all(folders.map(start));
  const kills = campaign.count(500, 4);
  for (let i = 0; i < kills; i++) {
    await load.nextReceipt();
    await pause(campaign.random.integer(0, lifeMs));
    const which = campaign.random.chance(50) ? 0 : 1;
    const both = campaign.random.chance(15);
    for (const [k, node] of nodes.entries())
      if (both || k === which) {
        await kill(node);
        nodes[k] = await start(folders[k] as string);
      }
    campaign.progress(i, kills, `two nodes, ${load.receipts} receipts`);
  }
  await load.calm(calmMs);
  for (const node of nodes) await node.stop();
  await load.stop();
  return { kills, judgement: await load.judge(first) };
}

/** Receipts before the commit: killed as soon as one has come. */
async function control(campaign: Campaign, scene: Scene): Promise<Killed> {
  const data = scene.path("control");
  await scene.succeed("ecp-node", "init", "--data", data, "--name", "control");
  const port = await freePort();
  const load = await CrashLoad.enrol(data, devices);
  load.start({ port });
  campaign.after(() => load.stop());
  const kills = campaign.count(20, 2);
  for (let i = 0; i < kills; i++) {
    const entry = path.join(import.meta.dirname, "early-receipt-node.ts");
    const node = scene.startCommand(process.execPath, [entry, data, `${port}`]);
    await node.event(started);
    await load.nextReceipt();
    await kill(node);
  }
  await load.stop();
  return { kills, judgement: await load.judge(data) };
}

await runCampaign("node-crash", async (campaign) => {
  for (const missing of [postgresMissing, mosquittoMissing]) if (missing) throw new Missing(`${missing}`);
  const scene = new Scene({ after: (ending) => campaign.after(ending as () => unknown) });
  const one = await oneNode(campaign, scene);
  const two = await twoNodes(campaign, scene);
  const early = await control(campaign, scene);
  const figures: Record<string, number> = { kills: one.kills, killsOfTwo: two.kills };
  for (const [name, value] of Object.entries(one.judgement)) figures[name] = value;
  for (const [name, value] of Object.entries(two.judgement)) figures[`${name}OfTwo`] = value;
  const isClean = ({ judgement: { lost, missing, doubles, evidence } }: Killed) =>
    lost + missing + doubles + evidence === 0;
  const isLoaded = ({ judgement: { receipts, promised }, kills }: Killed) => receipts > kills && promised > kills;
  const { promised, lost } = early.judgement;
  return {
    figures,
    control: { kills: early.kills, promised, lost },
    holds: isClean(one) && isClean(two) && isLoaded(one) && isLoaded(two) && lost > 0,
  };
});

/**
 * kill -9 of wallet and agent at random instants, under load: a hub and a full node as their operators set them up, with a second
 * client that seals as fast as the policy allows and remembers what was answered. At the end the full node must have every row that
 * was acknowledged, in the record that the answer named, with no hole, and no sequence with two digests. Control: a log that answers
 * before it writes.
 */
import { setTimeout as pause } from "node:timers/promises";
import { publicKeyOfDid } from "../protocol/public-key.ts";
import { Community } from "../test/system/community-fixture.ts";
import type { RunningProgram } from "../test/system/running-program-fixture.ts";
import { Scene } from "../test/system/scene-fixture.ts";
import { assertWholeChain, storedConflicts, storedRecords } from "../test/system/stored-chain-fixture.ts";
import { runCampaign } from "./campaign.ts";
import { killEarlyAnswerer } from "./kill-control.ts";
import { addLoadMeters, Load } from "./sealing-load.ts";

/** The newest process of a part of the hub. */
function pidOf(hub: RunningProgram, part: string): number {
  const started = hub.events().filter(({ message, name }) => message === "started" && name === part);
  return started.at(-1)?.pid as number;
}

await runCampaign("kill", async (campaign) => {
  const { random } = campaign;
  const kills = campaign.count(1_000, 30);
  const scene = new Scene({ after: (ending) => campaign.after(ending as () => unknown) });
  const community = await Community.setUp(scene);
  addLoadMeters(scene.path("wallet", "policy.cbor"));
  const node = await community.startNode();
  await community.startMeter();
  const hub = scene.start("ecp", "run", "--config", community.config, "--restart-after", "0.05");
  await hub.event(({ part, message }) => part === "wallet" && message === "ready");
  const load = new Load(campaign, scene.path("wallet", "wallet.sock"));
  load.start();
  const figures = {
    kills: 0,
    walletKills: 0,
    agentKills: 0,
    acknowledgedSeals: 0,
    lostSeals: 0,
    otherBytes: 0,
    conflicts: 0,
    holes: 0,
  };
  while (figures.kills < kills) {
    await pause(random.integer(0, 400));
    const part = random.chance(60) ? "wallet" : "agent";
    const pid = pidOf(hub, part);
    const position = hub.position;
    process.kill(pid, "SIGKILL");
    figures.kills++;
    if (part === "wallet") figures.walletKills++;
    else figures.agentKills++;
    await hub.event(({ message, name }) => message === "started" && name === part, position);
    // Every few times the wallet is let come up whole, and the load goes on; else the next kill may meet it at its start.
    if (part === "wallet" && random.chance(70))
      await hub.event(({ part: of, message }) => of === "wallet" && message === "ready", position);
    campaign.progress(figures.kills, kills, `${load.acknowledged.length} seals`);
    // Now and then the hub is let breathe, so that the ring does not fill: the full node stores something anew.
    if (figures.kills % 8 === 0) await node.event(({ event }) => event === "stored", node.position, 120_000);
  }
  await hub.event(({ part, message }) => part === "agent" || message !== undefined, hub.position);
  await load.stop();
  await community.allAcknowledged(300_000);
  await hub.stop();
  const stored = storedRecords(community.nodeFolder);
  figures.acknowledgedSeals = load.acknowledged.length;
  figures.lostSeals = load.lostFrom(stored).length;
  figures.otherBytes = load.differences.length;
  for (const text of load.differences) campaign.say(text);
  figures.conflicts = storedConflicts(community.nodeFolder);
  try {
    assertWholeChain(stored, publicKeyOfDid(community.device));
  } catch (error) {
    figures.holes++;
    campaign.say((error as Error).message);
  }
  const control = await killEarlyAnswerer(campaign, scene.path("early"), campaign.count(50, 20));
  const isSafe = figures.lostSeals + figures.otherBytes + figures.conflicts + figures.holes === 0;
  const isLoaded = figures.acknowledgedSeals > kills && figures.walletKills > 0 && figures.agentKills > 0;
  return { figures, control, holds: isSafe && isLoaded && control.lostAnswers > 0 };
});

/**
 * kill -9 of a real mosquitto without persistence at random instants, while records flow from a hub (wallet and agent) to a full
 * node, both as their operators set them up. Whatever the broker held dies with it. At the end the full node must have every record
 * once, in one whole chain, and every row that the wallet acknowledged. Control: a publisher that trims on the PUBACK.
 */
import { readFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { publicKeyOfDid } from "../protocol/public-key.ts";
import { Community } from "../test/system/community-fixture.ts";
import { Mosquitto, mosquittoMissing } from "../test/system/mosquitto-fixture.ts";
import { Scene } from "../test/system/scene-fixture.ts";
import { assertWholeChain, storedConflicts, storedRecords } from "../test/system/stored-chain-fixture.ts";
import { Missing, runCampaign } from "./campaign.ts";
import { addLoadMeters, Load } from "./sealing-load.ts";
import { TrimmingPublisher } from "./trimming-publisher.ts";

await runCampaign("broker", async (campaign) => {
  if (mosquittoMissing) throw new Missing(mosquittoMissing);
  const { random } = campaign;
  const kills = campaign.count(200, 4);
  const scene = new Scene({ after: (ending) => campaign.after(ending as () => unknown) });
  const broker = await Mosquitto.prepare(scene);
  const community = await Community.setUp(scene, { broker });
  addLoadMeters(scene.path("wallet", "policy.cbor"));
  let mosquitto = await broker.start();
  const credentials = ["--username", broker.username, "--password-file", broker.passwordFile];
  const node = await community.startNode("--broker", `mqtt://127.0.0.1:${broker.port}`, ...credentials);
  const hub = scene.start("ecp", "run", "--config", community.config, "--restart-after", "0.05");
  await hub.event(({ part, message }) => part === "wallet" && message === "ready");
  const load = new Load(campaign, scene.path("wallet", "wallet.sock"));
  load.start();
  const ports = { publisher: broker.port, subscriber: broker.port };
  const password = readFileSync(broker.passwordFile, "utf8").trim();
  const control = new TrimmingPublisher(ports, 1, broker.username, password);
  control.start();
  await node.event(({ event }) => event === "stored");
  const figures = { kills: 0, sealed: 0, records: 0, lostRows: 0, otherBytes: 0, conflicts: 0, holes: 0 };
  const recoveriesMs: number[] = [];
  while (figures.kills < kills) {
    await pause(random.integer(0, 2_500));
    mosquitto.signal("SIGKILL");
    await mosquitto.ending();
    figures.kills++;
    await pause(random.integer(0, 200));
    const position = node.position;
    mosquitto = await broker.start();
    const startedMs = performance.now();
    await node.event(({ event }) => event === "stored", position, 240_000);
    recoveriesMs.push(performance.now() - startedMs);
    campaign.progress(figures.kills, kills, `${load.acknowledged.length} rows sealed`);
  }
  await load.stop();
  await community.allAcknowledged(300_000);
  const controlFigures = await control.stop();
  await hub.stop();
  const stored = storedRecords(community.nodeFolder);
  figures.sealed = load.acknowledged.length;
  figures.records = stored.length;
  figures.lostRows = load.lostFrom(stored).length;
  figures.otherBytes = load.differences.length;
  figures.conflicts = storedConflicts(community.nodeFolder);
  try {
    assertWholeChain(stored, publicKeyOfDid(community.device));
  } catch (error) {
    figures.holes++;
    campaign.say((error as Error).message);
  }
  const sorted = recoveriesMs.toSorted((a, b) => a - b);
  const recovery = {
    recoveryMsMedian: Math.round(sorted[sorted.length >> 1] ?? 0),
    recoveryMsMax: Math.round(sorted.at(-1) ?? 0),
  };
  const isWhole = figures.lostRows + figures.otherBytes + figures.conflicts + figures.holes === 0;
  const isLoaded = figures.sealed > kills * 10 && figures.records >= figures.sealed;
  return {
    figures: { ...figures, ...recovery },
    control: controlFigures,
    holds: isWhole && isLoaded && controlFigures.lost > 0,
  };
});

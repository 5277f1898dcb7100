/**
 * The line between hub and broker is cut, falls silent with its connections half-open, is slow (2 s each way) and loses packets (5 %),
 * while records flow from a hub to a full node, both as their operators set them up, through a real mosquitto. The line is a TCP proxy,
 * so it needs neither root nor tc; a lost packet is what TCP makes of it, a late one. Nothing may be lost; after a fault, from the first
 * connection on that the hub's back-off lets it make, new records are to be stored within 5 s. Control: a publisher of QoS 0.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { publicKeyOfDid } from "../protocol/public-key.ts";
import { Community, exchanged } from "../test/system/community-fixture.ts";
import { Mosquitto, mosquittoMissing } from "../test/system/mosquitto-fixture.ts";
import { Scene } from "../test/system/scene-fixture.ts";
import { assertWholeChain, storedConflicts, storedRecords } from "../test/system/stored-chain-fixture.ts";
import { Missing, runCampaign } from "./campaign.ts";
import { FaultyLine, type LineFault, lineFaults } from "./faulty-line.ts";
import { addLoadMeters, Load } from "./sealing-load.ts";
import { TrimmingPublisher } from "./trimming-publisher.ts";

const recoveryMostMs = 5_000;
/** At least so long each fault lasts: a half-open line must be noticed meanwhile. */
const leastMs: Record<LineFault, number> = { cut: 1_000, "half-open": 7_000, slow: 4_500, lossy: 2_000 };

await runCampaign("network", async (campaign) => {
  if (mosquittoMissing) throw new Missing(mosquittoMissing);
  const { random } = campaign;
  const rounds = campaign.count(25, 1);
  const scene = new Scene({ after: (ending) => campaign.after(ending as () => unknown) });
  const broker = await Mosquitto.prepare(scene);
  let arrivedMs: number | undefined;
  const line = new FaultyLine(broker.port, random, () => {
    arrivedMs ??= performance.now();
  });
  const controlLine = new FaultyLine(broker.port, random, () => undefined);
  await line.open();
  await controlLine.open();
  campaign.after(() => line.close());
  campaign.after(() => controlLine.close());
  const community = await Community.setUp(scene, { broker });
  const address = `127.0.0.1:${broker.port}`;
  writeFileSync(community.config, exchanged(community.config, address, `127.0.0.1:${line.port}`));
  addLoadMeters(scene.path("wallet", "policy.cbor"));
  await broker.start();
  const credentials = ["--username", broker.username, "--password-file", broker.passwordFile];
  const node = await community.startNode("--broker", `mqtt://${address}`, ...credentials);
  const hub = scene.start("ecp", "run", "--config", community.config, "--restart-after", "0.05");
  await hub.event(({ part, message }) => part === "wallet" && message === "ready");
  const load = new Load(campaign, scene.path("wallet", "wallet.sock"));
  load.start();
  const ports = { publisher: controlLine.port, subscriber: broker.port };
  const password = readFileSync(broker.passwordFile, "utf8").trim();
  const control = new TrimmingPublisher(ports, 0, broker.username, password);
  control.start();
  const stored = (): Promise<unknown> => node.event(({ event }) => event === "stored", node.position, 300_000);
  await stored();

  const recoveriesMs = new Map<LineFault, number[]>(lineFaults.map((fault) => [fault, []]));
  const backOffsMs: number[] = [];
  const figures = { faults: 0, sealed: 0, records: 0, lostRows: 0, otherBytes: 0, conflicts: 0, holes: 0 };
  for (let round = 0; round < rounds; round++)
    for (const fault of lineFaults) {
      await line.set(fault);
      await controlLine.set(fault);
      await pause(leastMs[fault] + (campaign.short ? 0 : random.integer(0, 10_000)));
      arrivedMs = undefined;
      await line.set(undefined);
      await controlLine.set(undefined);
      const endedMs = performance.now();
      await stored();
      const backMs = arrivedMs ?? endedMs; // a slow or lossy line never lost its connection
      backOffsMs.push(backMs - endedMs);
      recoveriesMs.get(fault)?.push(performance.now() - backMs);
      await pause(2_100); // a connection that lasted: the next back-off begins short
      campaign.progress(++figures.faults, rounds * lineFaults.length, `${load.acknowledged.length} rows sealed`);
    }
  await load.stop();
  await community.allAcknowledged(300_000);
  const controlFigures = await control.stop();
  await hub.stop();
  const records = storedRecords(community.nodeFolder);
  figures.sealed = load.acknowledged.length;
  figures.records = records.length;
  figures.lostRows = load.lostFrom(records).length;
  figures.otherBytes = load.differences.length;
  figures.conflicts = storedConflicts(community.nodeFolder);
  try {
    assertWholeChain(records, publicKeyOfDid(community.device));
  } catch (error) {
    figures.holes++;
    campaign.say((error as Error).message);
  }
  const recovery = Object.fromEntries(
    lineFaults.map((fault) => [`${fault} recoveryMsMax`, Math.round(Math.max(...(recoveriesMs.get(fault) ?? [])))]),
  );
  const isWhole = figures.lostRows + figures.otherBytes + figures.conflicts + figures.holes === 0;
  const isQuick = Object.values(recovery).every((ms) => ms <= recoveryMostMs);
  const isLoaded = figures.sealed > 100 && figures.records >= figures.sealed;
  return {
    figures: { ...figures, ...recovery, backOffMsMax: Math.round(Math.max(...backOffsMs)) },
    control: controlFigures,
    holds: isWhole && isQuick && isLoaded && controlFigures.lost > 0,
  };
});

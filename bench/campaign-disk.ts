/**
 * A disk that fails: writes that end with EIO, a full file system, one that became read-only, a ring full of records that nobody has
 * acknowledged. No seal may be acknowledged that the disk does not have, the hub must say what is wrong, and work must go on within 5 s of
 * the cure without anybody's help. Control: a log on the same disk that does not wait for its writes.
 */
import { closeSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import path from "node:path";
import { publicKeyOfDid } from "../protocol/public-key.ts";
import { Community } from "../test/system/community-fixture.ts";
import { eventually, type RunningProgram } from "../test/system/running-program-fixture.ts";
import { Scene } from "../test/system/scene-fixture.ts";
import { assertWholeChain, storedConflicts, storedRecords } from "../test/system/stored-chain-fixture.ts";
import { type Campaign, runCampaign } from "./campaign.ts";
import { FaultyDisk } from "./faulty-disk.ts";
import { demandRootAnd } from "./recorded-disk.ts";
import { addLoadMeters, Load } from "./sealing-load.ts";

const resumedMsMax = 5_000;
const diskMebibytes = 24;

interface Faults {
  readonly campaign: Campaign;
  readonly scene: Scene;
  readonly community: Community;
  readonly disk: FaultyDisk;
  readonly load: Load;
  hub: RunningProgram;
  node: RunningProgram;
  readonly figures: {
    rounds: number;
    eioFaults: number;
    acknowledgedOnFullDisk: number;
    readOnlyStarts: number;
    fullRings: number;
    alarms: number;
    alarmsMissing: number;
    longestAfterEioMs: number;
    longestAfterReadOnlyMs: number;
    longestAfterFullRingMs: number;
  };
}

await runCampaign("disk", async (campaign) => {
  demandRootAnd("nbdkit", "nbdfuse", "losetup", "mkfs.ext4");
  const scene = new Scene({ after: (ending) => campaign.after(ending as () => unknown) });
  const disk = await FaultyDisk.make(campaign, scene.path("disk"), diskMebibytes);
  const walletFolder = path.join(disk.mount, "wallet");
  const community = await Community.setUp(scene, { walletFolder });
  addLoadMeters(path.join(walletFolder, "policy.cbor"));
  const socket = path.join(walletFolder, "wallet.sock");
  const figures = {
    ...{
      rounds: 0,
      eioFaults: 0,
      acknowledgedOnFullDisk: 0,
      readOnlyStarts: 0,
      fullRings: 0,
      alarms: 0,
      alarmsMissing: 0,
    },
    ...{ longestAfterEioMs: 0, longestAfterReadOnlyMs: 0, longestAfterFullRingMs: 0 },
  };
  const node = await community.startNode();
  const hub = startHub(scene, community);
  const load = new Load(campaign, socket);
  load.start();
  const faults: Faults = { campaign, scene, community, disk, load, hub, node, figures };
  await nextSeal(load);
  const rounds = campaign.count(20, 2);
  while (figures.rounds < rounds) {
    await failWrites(faults);
    await fillDisk(faults);
    await makeReadOnly(faults);
    await fillRing(faults);
    figures.rounds++;
    campaign.progress(figures.rounds, rounds, `${load.acknowledged.length} seals`);
  }
  await load.stop();
  await community.allAcknowledged(120_000);
  await faults.hub.stop();
  const stored = storedRecords(community.nodeFolder);
  let holes = 0;
  try {
    assertWholeChain(stored, publicKeyOfDid(community.device));
  } catch (error) {
    holes++;
    campaign.say((error as Error).message);
  }
  const falseAcknowledgements = load.lostFrom(stored).length + load.differences.length;
  for (const text of load.differences) campaign.say(text);
  const conflicts = storedConflicts(community.nodeFolder);
  const seals = load.acknowledged.length;
  const control = controlOn(disk);
  const isSafe = falseAcknowledgements + conflicts + holes + figures.alarmsMissing === 0;
  const isWhole = figures.eioFaults === rounds && figures.readOnlyStarts === rounds && figures.fullRings === rounds;
  const resumes =
    Math.max(figures.longestAfterEioMs, figures.longestAfterReadOnlyMs, figures.longestAfterFullRingMs) <=
      resumedMsMax && figures.acknowledgedOnFullDisk > 0;
  return {
    figures: { ...figures, acknowledgedSeals: seals, falseAcknowledgements, conflicts, holes },
    control,
    holds: isSafe && isWhole && resumes && control.falseAcknowledgements > 0,
  };
});

/** With the restart that `ecp run` has by itself. */
function startHub(scene: Scene, community: Community): RunningProgram {
  return scene.start("ecp", "run", "--config", community.config);
}

/** Resolves with the time that it took until the load was answered again. */
async function nextSeal(load: Load, timeoutMs = 60_000): Promise<number> {
  const fromMs = performance.now();
  const before = load.acknowledged.length;
  await eventually("a row is sealed", () => load.acknowledged.length > before, timeoutMs);
  return performance.now() - fromMs;
}

type Resumed = "longestAfterEioMs" | "longestAfterReadOnlyMs" | "longestAfterFullRingMs";

async function resumed({ load, figures }: Faults, name: Resumed): Promise<void> {
  figures[name] = Math.max(figures[name], Math.round(await nextSeal(load)));
}

/** Whether `ecp status` says that something is wrong, and the hub's log what. */
async function demandAlarm(
  { scene, community, figures, campaign }: Faults,
  said: boolean,
  what: string,
): Promise<void> {
  const { code } = await scene.run("ecp", "status", "--config", community.config);
  if (code !== 0 && said) figures.alarms++;
  else {
    figures.alarmsMissing++;
    campaign.say(`no alarm: ${what} (status ended with ${code})`);
  }
}

/** Writes fail; after the cure the wallet goes on, and then the power goes: only what the disk really has is left. */
async function failWrites(faults: Faults): Promise<void> {
  const { disk, figures, campaign, scene, community } = faults;
  const { hub } = faults;
  const position = hub.position;
  disk.fail();
  await hub.event(({ message, name }) => message === "ended" && name === "wallet", position);
  figures.eioFaults++;
  // Whether it has tried to start again meanwhile is up to the seed.
  if (campaign.random.chance(50))
    await hub.event(({ message, name }) => message === "started" && name === "wallet", position);
  const said = hub
    .events()
    .some(({ part, level, reason }) => part === "wallet" && level === "error" && /EIO/.test(`${reason}`));
  await demandAlarm(faults, said, "writes end with EIO");
  disk.cure();
  await resumed(faults, "longestAfterEioMs");
  await cutPower(hub);
  disk.remount();
  faults.hub = startHub(scene, community);
  await nextSeal(faults.load);
}

/** Ends the hub and its parts at once. */
async function cutPower(hub: RunningProgram): Promise<void> {
  const parts = ["wallet", "agent"].map(
    (part) => hub.events().findLast(({ message, name }) => message === "started" && name === part)?.pid as number,
  );
  hub.signal("SIGKILL"); // first, so that it starts none of them again
  await hub.ending();
  for (const pid of parts) {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It ended with its parent.
    }
  }
  await eventually("the parts have ended", () => parts.every((pid) => !isThere(pid)));
}

function isThere(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "latin1"));
  } catch {
    return false;
  }
}

/** The file system is full: the journal has its room, so nothing changes. */
async function fillDisk({ disk, load, figures }: Faults): Promise<void> {
  const filler = path.join(disk.mount, "filler");
  const descriptor = openSync(filler, "a");
  try {
    for (;;) writeSync(descriptor, Buffer.alloc(4_096, 1));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
  } finally {
    closeSync(descriptor);
  }
  const before = load.acknowledged.length;
  await nextSeal(load);
  await nextSeal(load);
  figures.acknowledgedOnFullDisk += load.acknowledged.length - before;
  rmSync(filler);
}

/** The wallet finds its disk read-only when it starts. */
async function makeReadOnly(faults: Faults): Promise<void> {
  const { disk, scene, community, figures } = faults;
  await cutPower(faults.hub);
  disk.readOnly(true);
  const hub = startHub(scene, community);
  faults.hub = hub;
  await hub.event(({ message, name }) => message === "ended" && name === "wallet");
  figures.readOnlyStarts++;
  await demandAlarm(faults, /read-only|EROFS/i.test(hub.stderr.join("\n")), "the file system is read-only");
  disk.readOnly(false);
  await resumed(faults, "longestAfterReadOnlyMs");
}

/** The full node goes, and the ring fills; it returns, and work goes on. */
async function fillRing(faults: Faults): Promise<void> {
  const { load, community, figures } = faults;
  await faults.node.stop();
  const refusedBefore = load.ringFull;
  await eventually("the ring is full", () => load.ringFull > refusedBefore, 300_000);
  figures.fullRings++;
  await demandAlarm(faults, true, "the ring is full");
  faults.node = await community.startNode();
  await resumed(faults, "longestAfterFullRingMs");
}

/** A log that does not wait for its writes, in a file that was made before, on the disk while it fails. */
function controlOn(disk: FaultyDisk): { answers: number; falseAcknowledgements: number } {
  const file = path.join(disk.mount, "control.log");
  const answers = 50;
  writeFileSync(file, Buffer.alloc(answers * 4_096), { flush: true });
  disk.sync();
  const descriptor = openSync(file, "r+");
  disk.fail();
  const block = Buffer.alloc(4_096, 1);
  for (let i = 0; i < answers; i++) writeSync(descriptor, block, 0, block.length, i * 4_096); // answered: the call has returned
  closeSync(descriptor);
  disk.sync(); // as the kernel does by itself after a while
  disk.cure();
  disk.remount();
  const bytes = readFileSync(file);
  const kept = Array.from({ length: answers }, (_, i) => bytes[i * 4_096]).filter((byte) => byte === 1).length;
  return { answers, falseAcknowledgements: answers - kept };
}

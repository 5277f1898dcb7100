/**
 * kill -9 of wallet and agent at random instants, under load: a hub and a full node as their operators set them up, with a second
 * client that seals as fast as the policy allows and remembers what was answered. At the end the full node must have every row that
 * was acknowledged, in the record that the answer named, with no hole, and no sequence with two digests. Control: a log that answers
 * before it writes.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { WalletClient, WalletUnavailable } from "../agent/wallet-client.ts";
import { writeFileDurably } from "../platform/durable-file.ts";
import { publicKeyOfDid } from "../protocol/public-key.ts";
import type { Row } from "../protocol/record.ts";
import { WalletRefusal } from "../protocol/wallet-message.ts";
import { Community } from "../test/system/community-fixture.ts";
import { eventually, type RunningProgram } from "../test/system/running-program-fixture.ts";
import { Scene } from "../test/system/scene-fixture.ts";
import { assertWholeChain, storedConflicts, storedRecords } from "../test/system/stored-chain-fixture.ts";
import { decodePolicy, encodePolicy, type PolicyMeter } from "../wallet/policy.ts";
import { type Campaign, runCampaign } from "./campaign.ts";
import { killEarlyAnswerer } from "./kill-control.ts";

const loadMeters = [100, 101, 102, 103];
const rowsPerMinute = 6_000;
const recheckedMax = 5;

interface Acknowledged {
  readonly meter: number;
  readonly row: Row;
  readonly sequence: number;
  /** Of the record, as it was read back. */
  readonly digest: string;
}

/** Seals row after row and remembers every answer; across restarts it asks for the same again. */
class Load {
  readonly acknowledged: Acknowledged[] = [];
  /** Answers to a repeated request, or bytes read back, that were not the same as before. */
  readonly differences: string[] = [];
  readonly #client: WalletClient;
  readonly #campaign: Campaign;
  #timeS: number;
  #stopped = false;
  done: Promise<void> = Promise.resolve();

  constructor(campaign: Campaign, socket: string) {
    this.#campaign = campaign;
    this.#client = new WalletClient(socket);
    this.#timeS = Math.floor(Date.now() / 1_000) - 2_000_000; // in the past, and rising: many rows a second, none of the future
  }

  start(): void {
    this.done = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.done;
    this.#client.close();
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      const meter = this.#campaign.random.pick(loadMeters);
      const timeS = ++this.#timeS;
      const row = { timeS, status: 0, values: [timeS, 2 * timeS] };
      const sequence = await this.#sealed(meter, row);
      const digest = await this.#digest(sequence);
      if (sequence > 0) this.acknowledged.push({ meter, row, sequence, digest });
    }
  }

  /** The same request until it is answered: a wallet that died may have sealed it. */
  async #sealed(meter: number, row: Row): Promise<number> {
    for (;;) {
      try {
        return await this.#seal(meter, row);
      } catch (error) {
        if (error instanceof WalletRefusal && (error.reason === "rate-exceeded" || error.reason === "ring-full")) {
          await pause(20);
          continue;
        }
        if (!(error instanceof WalletUnavailable)) throw error;
        await this.#client.connected(AbortSignal.timeout(60_000));
        await this.#checkLatest();
      }
    }
  }

  async #seal(meter: number, row: Row): Promise<number> {
    const { sequences } = await this.#client.seal({ meter, plan: 0, slotS: 1, codes: [2, 4], rows: [row] });
    return sequences[0] as number;
  }

  /** What was answered last is asked for again: the same sequence, the same bytes. */
  async #checkLatest(): Promise<void> {
    for (const { meter, row, sequence, digest } of this.acknowledged.slice(-recheckedMax)) {
      try {
        const again = await this.#seal(meter, row);
        if (again !== sequence) this.differences.push(`row ${row.timeS}: record ${sequence}, later ${again}`);
        const now = await this.#digest(sequence);
        if (now !== "" && digest !== "" && now !== digest) this.differences.push(`record ${sequence} has other bytes`);
      } catch (error) {
        if (!(error instanceof WalletUnavailable)) throw error;
        await this.#client.connected(AbortSignal.timeout(60_000));
      }
    }
  }

  /** Empty where the record went on the way: it was released, and its segment used again, or the wallet died. */
  async #digest(sequence: number): Promise<string> {
    try {
      const { records } = await this.#client.read(sequence, sequence);
      const bytes = records[0]?.[1];
      return bytes === undefined ? "" : createHash("sha256").update(bytes).digest("hex");
    } catch (error) {
      if (error instanceof WalletUnavailable) return "";
      throw error;
    }
  }
}

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
  await community.startNode();
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
  }
  await hub.event(({ part, message }) => part === "agent" || message !== undefined, hub.position);
  await load.stop();
  await eventually(
    "everything sealed is acknowledged by the full node",
    async () => {
      const { wallet } = await community.status();
      return wallet !== null && wallet.nextSequence - 1 === wallet.through;
    },
    300_000,
  );
  await hub.stop();
  const stored = storedRecords(community.nodeFolder);
  const rows = new Map<string, number>();
  for (const { sequence, record } of stored)
    if (record.content.kind === "reading")
      for (const row of record.content.rows) rows.set(`${record.content.meter}/${row.timeS}/${row.values}`, sequence);
  figures.acknowledgedSeals = load.acknowledged.length;
  figures.lostSeals = load.acknowledged.filter(
    ({ meter, row, sequence }) => rows.get(`${meter}/${row.timeS}/${row.values}`) !== sequence,
  ).length;
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

/** Meters that only the load feeds. */
function addLoadMeters(file: string): void {
  const policy = decodePolicy(readFileSync(file));
  const model = policy.meters[0] as PolicyMeter;
  const added = loadMeters.map((index) => ({ ...model, index, name: `load ${index}`, slotS: 1, rowsPerMinute }));
  writeFileDurably(path.resolve(file), encodePolicy({ ...policy, meters: [...policy.meters, ...added] }), 0o600);
}

/**
 * The clock is set forth and back, by seconds and by years, with and without a time daemon that says so: a real wallet under libfaketime.
 * No record may say S while nobody had synchronised the clock, two readings of one clock generation must lie as far apart as they did
 * in truth, and readings after a jump must count (status G). Control: what the same jumps do where a mark that exists is believed, and
 * where generations are not told apart.
 */
import { mkdirSync, utimesSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { WalletClient } from "../agent/wallet-client.ts";
import { clockStates, statuses } from "../protocol/reading-status.ts";
import { decodeRecord, type ReadingContent } from "../protocol/record.ts";
import type { SeededRandom } from "../test/protocol/seeded-random.ts";
import { Scene } from "../test/system/scene-fixture.ts";
import { sha256 } from "../test/wallet/wallet-fixture.ts";
import { timeMarkPaths } from "../wallet/clock-state.ts";
import { type Campaign, runCampaign } from "./campaign.ts";
import { fakedTime, hardenedArguments, makeWallet } from "./wallet-peer.ts";

/** Deviation of an interval beyond which it counts as wrong: one part in a hundred, and what whole seconds round away at its two ends. */
const shareMax = 0.01;
const roundingS = 1.1;
/** 2025-01-01: before it a clock was never set. */
const plausibleFromS = 1_735_689_600;

/** A row as it was given to the wallet, with what was true then. */
interface Given {
  readonly sequence: number;
  readonly timeS: number;
  readonly trueMs: number;
  readonly isSynchronised: boolean;
  readonly isMarkThere: boolean;
}

/** The time that the machine's owner, or its time daemon, has set. */
class Time {
  readonly #file: string;
  readonly #mark: string;
  #offsetS = 0;
  isSynchronised = false;
  isMarkThere = false;

  constructor(folder: string) {
    this.#file = path.join(folder, "time");
    this.#mark = timeMarkPaths(folder)[0] as string;
    mkdirSync(path.dirname(this.#mark), { recursive: true });
    this.set(0);
  }

  get env(): NodeJS.ProcessEnv {
    return { ...fakedTime(this.#file), NO_FAKE_STAT: "1" };
  }
  get wallMs(): number {
    return Date.now() + this.#offsetS * 1_000;
  }
  get isPlausible(): boolean {
    return this.wallMs / 1_000 >= plausibleFromS;
  }

  set(offsetS: number): void {
    this.#offsetS = offsetS;
    this.isSynchronised = false;
    writeFileSync(this.#file, `${offsetS >= 0 ? "+" : ""}${offsetS}`);
  }

  /** As systemd-timesyncd does it. */
  synchronise(): void {
    writeFileSync(this.#mark, "");
    utimesSync(this.#mark, this.wallMs / 1_000, this.wallMs / 1_000);
    this.isSynchronised = true;
    this.isMarkThere = true;
  }
}

/** Seconds of a jump: from those that a person makes to those of a battery that is empty. */
function jumpOf(random: SeededRandom): number {
  const size = random.pick([3, 60, 3_600, 86_400, 31_536_000]);
  const seconds = random.integer(2, size);
  return random.chance(50) ? seconds : -seconds;
}

await runCampaign("clock", async (campaign) => {
  const { random } = campaign;
  const scene = new Scene({ after: (ending) => campaign.after(ending as () => unknown) });
  const folder = scene.path("wallet");
  makeWallet(folder, 16, 0);
  const time = new Time(scene.folder);
  const passphrase = path.join(folder, "passphrase");
  const wallet = scene.startCommand(process.execPath, hardenedArguments(folder, passphrase, scene.folder), {
    env: time.env,
    cwd: folder,
  });
  await wallet.event(({ message }) => message === "ready");
  const client = new WalletClient(path.join(folder, "wallet.sock"));
  const given: Given[] = [];
  const jumps = campaign.count(200, 16);
  let offsetS = 0;
  for (let jump = 0; jump < jumps; jump++) {
    // Five in a hundred find a clock that was never set; it is put right by the next one.
    const toUnset = random.chance(5);
    offsetS = toUnset ? -1_700_000_000 : offsetS < -1e9 ? 0 : offsetS + jumpOf(random);
    time.set(offsetS);
    if (random.chance(50)) {
      if (random.chance(50)) await sealRows(client, time, given, random.integer(1, 2));
      time.synchronise();
    }
    // The wallet looks at the marks once a second, and need not be quicker than that to believe them.
    await pause(1_100);
    await sealRows(client, time, given, random.integer(2, 3));
    campaign.progress(jump + 1, jumps, `${given.length} rows`);
  }
  const outcome = await judge(campaign, client, given);
  client.close();
  await wallet.stop();
  const isSafe = outcome.figures.wrongS + outcome.figures.intervalsOff + outcome.figures.notCounted === 0;
  const isMet = outcome.figures.saidS > 0 && outcome.figures.relativeRows > 0;
  const canFail = outcome.control.wrongSByMarkAlone > 0 && outcome.control.intervalsOffWithoutGenerations > 0;
  return {
    figures: { jumps, rows: given.length, ...outcome.figures },
    control: outcome.control,
    holds: isSafe && (isMet || campaign.short) && canFail,
  };
});

/** Readings of an honest agent: one a second, at the time that its clock shows, or by the boot where that is not set. */
async function sealRows(client: WalletClient, time: Time, given: Given[], rows: number): Promise<void> {
  for (let i = 0; i < rows; i++) {
    await pause(1_050);
    const relative = !time.isPlausible;
    const timeS = relative ? Math.floor(bootSeconds()) : Math.floor(time.wallMs / 1_000);
    const trueMs = performance.now();
    const row = { timeS, status: 0, values: [Math.floor(trueMs), 1] };
    const { sequences } = await client.seal({
      meter: 0,
      plan: 0,
      slotS: 1,
      codes: [1, 3],
      rows: [row],
      ...(relative && { relative }),
    });
    const { isSynchronised, isMarkThere } = time;
    given.push({ sequence: sequences[0] as number, timeS, trueMs, isSynchronised, isMarkThere });
  }
}

/** CLOCK_MONOTONIC, which every process of a boot reads alike. */
function bootSeconds(): number {
  return Number(process.hrtime.bigint()) / 1e9;
}

async function judge(campaign: Campaign, client: WalletClient, given: readonly Given[]) {
  const figures = {
    saidS: 0,
    wrongS: 0,
    generations: 0,
    intervals: 0,
    intervalsOff: 0,
    notCounted: 0,
    relativeRows: 0,
  };
  const control = { wrongSByMarkAlone: 0, intervalsOffWithoutGenerations: 0 };
  const seen = new Set<number>();
  let before: { given: Given; content: ReadingContent } | undefined;
  for (const item of given) {
    const { records } = await client.read(item.sequence, item.sequence);
    const { content } = decodeRecord((records[0] as readonly [number, Uint8Array])[1], sha256);
    if (content.kind !== "reading") throw new Error("not a reading");
    seen.add(content.generation);
    if (content.clockState === clockStates.relative) figures.relativeRows++;
    if (content.clockState === clockStates.synchronised) {
      figures.saidS++;
      if (!item.isSynchronised) {
        figures.wrongS++;
        campaign.say(`record ${item.sequence} says S, and nobody had synchronised the clock`);
      }
    }
    if (item.isMarkThere && !item.isSynchronised) control.wrongSByMarkAlone++;
    if (content.rows[0]?.status !== statuses.good) {
      figures.notCounted++;
      campaign.say(`record ${item.sequence}: status ${content.rows[0]?.status} after a jump`);
    }
    if (before) {
      const sealedS = item.timeS - before.given.timeS;
      const trueS = (item.trueMs - before.given.trueMs) / 1_000;
      const isOff = Math.abs(sealedS - trueS) > trueS * shareMax + roundingS;
      if (before.content.generation === content.generation) {
        figures.intervals++;
        if (isOff) {
          figures.intervalsOff++;
          campaign.say(
            `records ${before.given.sequence} and ${item.sequence}: ${sealedS} s sealed, ${trueS.toFixed(1)} s in truth`,
          );
        }
      }
      if (isOff) control.intervalsOffWithoutGenerations++;
    }
    before = { given: item, content };
  }
  figures.generations = seen.size;
  return { figures, control };
}

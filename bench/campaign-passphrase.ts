/**
 * Wrong passphrases: thousands of tries at a real key file, with the wait's clock faked and the process killed at any point of a try; then
 * a real wallet with a real clock, killed with -9 in its wait, and started under a clock that was set back. None may open the key, and the wait
 * may never shrink. Control: the same count kept in memory only.
 */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { RunningProgram } from "../test/system/running-program-fixture.ts";
import { Scene } from "../test/system/scene-fixture.ts";
import { lockSeed, WrongPassphrase } from "../wallet/keystore.ts";
import { PassphraseTries, unlockWithDelay, waitBeforeTryS } from "../wallet/passphrase-tries.ts";
import { type Campaign, runCampaign } from "./campaign.ts";
import { fakedTime, hardenedArguments, makeWallet } from "./wallet-peer.ts";

const cheap = { memoryKiB: 8, passes: 1, parallelism: 1 };
const longestWaitS = 60;

/** kill -9, for the code that is being tried. */
class Killed extends Error {}

interface Figures {
  tries: number;
  unlocks: number;
  kills: number;
  shortWaits: number;
  longestWaitS: number;
}

/** What keeps the count: on the disk, or, as the control, in the process. */
type Counter = Parameters<typeof unlockWithDelay>[3];

class CounterInMemory implements Counter {
  count = 0;
  set(count: number): void {
    this.count = count;
  }
}

await runCampaign("passphrase", async (campaign) => {
  const folder = mkdtempSync(path.join(tmpdir(), "ecp-passphrase-"));
  campaign.after(() => rmSync(folder, { recursive: true }));
  const seed = createHash("sha256").update("seed").digest();
  const right = Buffer.from("the right one");
  const key = lockSeed(seed, right, cheap);
  const file = path.join(folder, "tries");
  PassphraseTries.prepare(file);
  const tries = campaign.count(10_000, 1_000);
  const figures = await tryWrongOnes(campaign, key, tries, () => new PassphraseTries(file));
  // The right one still opens it, after its wait, and the next start waits for nothing.
  let lastWaitS = 0;
  const opened = await unlockWithDelay(key, right, "key", new PassphraseTries(file), async (seconds) => {
    lastWaitS = seconds;
  });
  const opensAfterwards = opened.equals(seed) && lastWaitS === longestWaitS && new PassphraseTries(file).count === 0;
  const control = await tryWrongOnes(campaign, key, campaign.count(1_000, 200), () => new CounterInMemory());
  const real = await realProcess(campaign);
  const isSafe = figures.unlocks === 0 && figures.shortWaits === 0 && figures.kills > 0 && opensAfterwards;
  return {
    figures: { ...figures, opensAfterwards, ...real },
    control: { tries: control.tries, shortWaits: control.shortWaits },
    holds: isSafe && real.realShortWaits === 0 && control.shortWaits > 0,
  };
});

/** Wrong passphrases, each by a process of its own; some are killed in the wait, or just before the key is tried. */
async function tryWrongOnes(
  campaign: Campaign,
  key: Uint8Array,
  tries: number,
  start: () => Counter,
): Promise<Figures> {
  const { random } = campaign;
  const figures: Figures = { tries: 0, unlocks: 0, kills: 0, shortWaits: 0, longestWaitS: 0 };
  let failed = 0; // as the attacker counts them
  while (figures.tries < tries) {
    const counter = start();
    let waitedS = 0;
    let isKilled = false;
    const pause = async (seconds: number): Promise<void> => {
      if (random.chance(10)) {
        isKilled = true;
        throw new Killed();
      }
      waitedS += seconds;
    };
    try {
      await unlockWithDelay(key, Buffer.from(random.bytes(8)), "key", counter, pause);
      figures.unlocks++;
    } catch (error) {
      if (!(error instanceof WrongPassphrase) && !(error instanceof Killed)) throw error;
    }
    figures.longestWaitS = Math.max(figures.longestWaitS, waitedS);
    if (isKilled) {
      figures.kills++;
      continue; // nothing was tried
    }
    if (waitedS < waitBeforeTryS(failed)) figures.shortWaits++;
    figures.tries++;
    failed++;
  }
  return figures;
}

/** The program itself: how long it waits by the clock on the wall of this machine. */
async function realProcess(
  campaign: Campaign,
): Promise<{ realStarts: number; realShortWaits: number; realWaitMs: number }> {
  const scene = new Scene({ after: (ending) => campaign.after(ending as () => unknown) });
  const folder = scene.path("wallet");
  makeWallet(folder, 4, 0);
  const wrong = path.join(folder, "wrong");
  writeFileSync(wrong, "a wrong one\n", { mode: 0o600 });
  const time = scene.path("time");
  const start = (isSetBack: boolean): RunningProgram => {
    writeFileSync(time, isSetBack ? "-30d" : "+0");
    return scene.startCommand(process.execPath, hardenedArguments(folder, wrong, scene.folder), {
      env: fakedTime(time),
      cwd: folder,
    });
  };
  const figures = { realStarts: 0, realShortWaits: 0, realWaitMs: 0 };
  const starts = campaign.count(6, 4); // waits of 0, 1, 2, 4 … s
  for (let failed = 0; failed < starts; failed++) {
    if (failed > 1) {
      // kill -9 in the wait gains nothing.
      const killed = start(true);
      await killed.line(/next try is in/);
      killed.signal("SIGKILL");
      await killed.ending();
    }
    const fromMs = performance.now();
    const wallet = start(failed % 2 === 1);
    const { code } = await wallet.ending(90_000);
    const tookMs = performance.now() - fromMs;
    if (code !== 77) throw new Error(`a wrong passphrase ended with ${code}: ${wallet.stderr.join("\n")}`);
    figures.realStarts++;
    figures.realWaitMs = Math.round(tookMs);
    if (tookMs < waitBeforeTryS(failed) * 1_000) figures.realShortWaits++;
  }
  return figures;
}

import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { randomOfRun, SeededRandom } from "../protocol/seeded-random.ts";
import { LoraWorld } from "./lora-world.ts";

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;
const lawMs = 36_000;

function seedOf(t: TestContext): SeededRandom {
  const random = randomOfRun();
  t.diagnostic(`ECP_TEST_SEED=${random.seed}`);
  return random;
}

interface Day {
  readonly hourMs: number;
  readonly dayMs: number;
  readonly frames: number;
  readonly stored: number;
}

/** A day with more to send than airtime: crashes, reboots with and without a clock, data rates and losses at random. */
async function day(random: SeededRandom, forgets: boolean, fairUseSPerDay?: number): Promise<Day> {
  const here = new LoraWorld(random);
  Object.assign(here, { forgets, lossUp: 0.1, lossDown: 0.1, fOptsMax: 15, dataRate: random.integer(0, 5) });
  for (let i = 0; i < 200; i++) here.seal(random.integer(60, 600));
  while (here.machine.nowMs < dayMs) {
    const isReboot = random.chance(30);
    if (isReboot) {
      here.machine.reboot();
      here.machine.isClockSet = random.chance(70);
    }
    here.start(fairUseSPerDay === undefined ? {} : { fairUseSPerDay });
    const lifeMs = random.chance(30) ? random.integer(1, 5_000) : random.integer(1, 90 * minuteMs);
    await here.machine.run(here.machine.nowMs + lifeMs);
    here.process.kill();
    if (random.chance(30)) here.dataRate = random.integer(0, 5);
    // A frame on its way goes on without the process.
    await here.machine.run(here.machine.nowMs + random.integer(1, 5_000));
  }
  const { size: stored } = here.stored;
  return { hourMs: here.fullestMs(hourMs), dayMs: here.fullestMs(dayMs), frames: here.frames.length, stored };
}

test("no hour has more than 36 s of airtime, whatever crashes and reboots", async (t) => {
  const random = seedOf(t);
  let fullest = 0;
  for (let run = 0; run < 12; run++) {
    const result = await day(random, false);
    assert.ok(result.hourMs <= lawMs, `run ${run}: ${result.hourMs} ms`);
    fullest = Math.max(fullest, result.hourMs);
    assert.ok(result.frames > 0);
  }
  t.diagnostic(`fullest hour ${Math.round(fullest)} ms`);
  assert.ok(fullest > 25_000, "the budget was never near its end: nothing was tested");
});

test("no 24 hours have more than their fair use", async (t) => {
  const random = seedOf(t);
  for (let run = 0; run < 5; run++) {
    const result = await day(random, false, 60);
    // MAC commands ride along on the network's account.
    assert.ok(result.dayMs <= 60_000 * 1.5, `run ${run}: ${result.dayMs} ms`);
    assert.ok(result.hourMs <= lawMs);
  }
});

test("control: where the state is not kept, hours are over the law's limit", async (t) => {
  const random = seedOf(t);
  let over = 0;
  for (let run = 0; run < 6; run++) if ((await day(random, true)).hourMs > lawMs) over++;
  assert.ok(over >= 3, `${over} of 6`);
});

/** Two records, one in fragments and one whole; the process dies after so many steps of the world and starts again. */
async function restartedAfter(steps: number, seed: number, reboots: boolean): Promise<LoraWorld> {
  const here = new LoraWorld(new SeededRandom(seed));
  here.joined = false;
  here.seal(139);
  here.start();
  let left = steps;
  let isSecond = false;
  const isOver = (): boolean => {
    if (here.stored.has(1) && !isSecond) {
      isSecond = true;
      here.dataRate = 5;
      here.seal(100);
    }
    return left-- <= 0;
  };
  await here.machine.run(hourMs, isOver);
  here.process.kill();
  if (reboots) here.machine.reboot();
  if (!isSecond) {
    here.dataRate = 5;
    here.seal(100);
  }
  here.start();
  await here.machine.run(here.machine.nowMs + 30 * hourMs);
  return here;
}

test("a process that dies at any step goes on where it was: nothing is lost, and no frame goes unaccounted", async (t) => {
  const { seed } = seedOf(t);
  for (let steps = 0; steps < 90; steps++) {
    const here = await restartedAfter(steps, seed, steps % 2 === 1);
    assert.deepEqual([...here.released].sort(), [1, 2], `after ${steps} steps`);
    assert.ok(here.fullestMs(hourMs) <= lawMs);
    // At most the frame, or the join, that was on its way is sent twice, and one repeat for a receipt that died with the process.
    assert.ok(here.frames.length <= 8, `after ${steps} steps: ${here.frames.length} frames`);
  }
});

test("a session goes on after a restart: what was sent of it is not sent again", async (t) => {
  const here = new LoraWorld(seedOf(t));
  here.seal(600);
  here.start();
  await here.machine.run(hourMs, () => here.frames.length === 6);
  await here.machine.run(here.machine.nowMs + 2_500);
  here.start();
  await here.machine.run(3 * hourMs);
  assert.deepEqual([...here.stored], [1]);
  assert.ok(here.frames.length <= 14, `${here.frames.length} frames`);
});

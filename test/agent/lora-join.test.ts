import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import type { JoinOutcome } from "../../drivers/lora/modem.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";
import { LoraWorld } from "./lora-world.ts";

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
/** A join request at SF12. */
const joinMs = 1_483;

function unjoined(t: TestContext): LoraWorld {
  const random = randomOfRun();
  t.diagnostic(`ECP_TEST_SEED=${random.seed}`);
  const here = new LoraWorld(random);
  Object.assign(here, { joined: false, dataRate: 5 });
  t.after(() => here.process.kill());
  return here;
}

function always(kind: JoinOutcome["kind"], times = 1_000): JoinOutcome[] {
  return Array.from({ length: times }, () => ({ kind }));
}

test("a modem that has not joined joins, and then what waits is sent", async (t) => {
  const here = unjoined(t);
  here.seal(100);
  const uplink = here.start();
  await here.machine.run(minuteMs);
  assert.deepEqual([...here.released], [1]);
  assert.equal(uplink.status().joinRequests, 1);
  assert.equal(uplink.status().isJoined, true);
});

for (const [kind, words] of [
  ["no-answer", /AppKey/], // the server is silent to a wrong one
  ["refused", /refused/],
] as const)
  test(`join requests that end with "${kind}" follow at growing distances, with the reason in the state`, async (t) => {
    const here = unjoined(t);
    here.joinOutcomes.push(...always(kind));
    here.seal(100);
    const uplink = here.start();
    await here.machine.run(72 * hourMs);
    const status = uplink.status();
    assert.equal(status.condition, "not-joined");
    assert.match(status.detail ?? "", words);
    assert.ok((status.resumesInMs ?? 0) <= 12 * hourMs);
    const gapsMs = here.joins.slice(1).map((atMs, i) => atMs - (here.joins[i] ?? 0));
    assert.ok(gapsMs[0] !== undefined && gapsMs[0] >= 15_000 && gapsMs[0] <= 40_000);
    assert.ok(gapsMs.slice(-3).every((gapMs) => gapMs >= 6 * hourMs && gapMs <= 12.1 * hourMs));
    assert.equal(here.frames.length, 0);
    here.joinOutcomes.length = 0;
    await here.machine.run(96 * hourMs);
    assert.deepEqual([...here.released], [1]);
  });

test("join requests keep within what LoRaWAN allows, also over crashes in any moment", async (t) => {
  for (let run = 0; run < 20; run++) {
    const here = unjoined(t);
    here.joinOutcomes.push(...always("no-answer"));
    here.seal(100);
    while (here.machine.nowMs < 60 * hourMs) {
      here.start();
      const lifeMs = here.random() < 0.5 ? here.random() * 20_000 : here.random() * 8 * hourMs;
      await here.machine.run(here.machine.nowMs + lifeMs);
    }
    const within = (fromMs: number, toMs: number): number =>
      joinMs * here.joins.filter((atMs) => atMs >= fromMs && atMs < toMs).length;
    assert.ok(within(0, hourMs) <= 36_000);
    assert.ok(within(hourMs, 11 * hourMs) <= 36_000);
    for (const atMs of here.joins.filter((one) => one >= 11 * hourMs))
      assert.ok(within(atMs, atMs + 24 * hourMs) <= 8_700);
  }
});

test("control: a back-off that does not outlive the process asks too often", async (t) => {
  const here = unjoined(t);
  here.forgets = true;
  here.joinOutcomes.push(...always("no-answer"));
  for (let life = 0; life < 60; life++) {
    here.start();
    await here.machine.run(here.machine.nowMs + 40_000);
  }
  assert.ok(here.joins.length * joinMs > 36_000);
});

test("a modem that joins and forgets it at once does not join in a loop", async (t) => {
  const here = unjoined(t);
  here.outcomes.push(...Array.from({ length: 500 }, () => ({ kind: "not-joined" as const })));
  here.seal(100);
  here.start();
  await here.machine.run(6 * hourMs);
  assert.ok(here.joins.length <= 12, `${here.joins.length} join requests`);
});

test("a modem that is busy, kept back or without keys costs no airtime, and is asked again soon", async (t) => {
  const here = unjoined(t);
  here.joinOutcomes.push({ kind: "busy" }, { kind: "duty-cycle", retryInMs: 30_000 }, { kind: "no-keys" });
  const uplink = here.start();
  await here.machine.run(2 * minuteMs);
  assert.match(uplink.status().detail ?? "", /ecp lora provision/);
  assert.equal(uplink.status().airtimeDayMs, 0);
  await here.machine.run(10 * minuteMs);
  assert.equal(uplink.status().isJoined, true);
});

test("nothing comes down for a day though answers are due: the modem joins again, once, and goes on sending if that fails", async (t) => {
  const here = unjoined(t);
  Object.assign(here, { joined: true, isDeaf: true });
  here.joinOutcomes.push(...always("no-answer", 1));
  here.start();
  for (let hour = 0; hour < 30; hour++) {
    here.seal(100);
    await here.machine.run(here.machine.nowMs + hourMs);
  }
  assert.ok(here.joins.length >= 1);
  assert.ok((here.joins[0] ?? 0) >= 24 * hourMs);
  assert.ok(here.events.some(({ event }) => event === "link-dead"));
  const after = here.frames.filter(({ startMs }) => startMs > 26 * hourMs);
  assert.ok(after.length > 0);
});

test("a quiet link with nothing due is not dead", async (t) => {
  const here = unjoined(t);
  here.joined = true;
  here.seal(100);
  here.start();
  await here.machine.run(96 * hourMs);
  assert.equal(here.joins.length, 0);
});

// The demo over LoRaWAN as its user starts it: modem on a pty, radio, gateways over UDP, network server, broker, full node, and back.
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import { isRunning } from "./running-program-fixture.ts";
import { Scene } from "./scene-fixture.ts";

interface Frame {
  readonly event: string;
  readonly part: string;
  readonly airtimeMs: number;
  readonly phyBytes: number;
}

const joinRequestBytes = 23;

test("the demo over LoRaWAN: all acknowledged by receipts that came down by radio, airtime measured on the air and as reckoned", async (t) => {
  const scene = new Scene(t);
  // Rows are 10 s apart: so long that there is one for certain.
  const demo = scene.start("ecp-demo", "--uplink", "lora", "--for", "14", "--json");
  assert.deepEqual(await demo.ending(), { code: 0, signal: null }, demo.stdout.slice(-30).join("\n"));
  const { summary } = JSON.parse(demo.stdout.at(-1) ?? "{}") as { summary: Record<string, number> };
  const { readings = 0, sealed = 0, acknowledged, missing, refused, frames = 0, worstHourShare } = summary;
  assert.ok(readings >= 3, `${readings} readings`);
  assert.ok(sealed >= 2, "the wallet's start, and at least one batch of rows");
  assert.deepEqual({ acknowledged, missing, refused }, { acknowledged: sealed, missing: 0, refused: 0 });
  const events = demo.events() as unknown as Frame[];
  const onAir = events.filter(({ event, part }) => part === "radio" && event === "frame");
  assert.equal(onAir.length, frames);
  assert.ok(worstHourShare !== undefined && worstHourShare > 0 && worstHourShare < 1);
  // What the agent reckons for each frame is what the radio measured of it; of the last one it may not have told any more, since the
  // receipt that ended the demo came in that frame's own window.
  const reckonedMs = demo
    .events()
    .flatMap((event) => (event.event === "lora" ? [event.lora as Record<string, unknown>] : []))
    .flatMap(({ event, airtimeMs }) => (event === "frame" ? [airtimeMs as number] : []));
  const measuredMs = onAir.filter(({ phyBytes }) => phyBytes !== joinRequestBytes).map(({ airtimeMs }) => airtimeMs);
  assert.ok(
    measuredMs.length > 0 && measuredMs.length - reckonedMs.length <= 1,
    `${measuredMs} on the air, ${reckonedMs}`,
  );
  for (const [place, ms] of reckonedMs.entries())
    assert.ok(Math.abs(ms - (measuredMs[place] ?? 0)) < 0.1, `${measuredMs} on the air, ${reckonedMs} reckoned`);
  const pids = demo.events().flatMap(({ event, pid }) => (event === "started" ? [pid as number] : []));
  assert.equal(pids.length, 5);
  assert.deepEqual(pids.filter(isRunning), [], "no part outlives the demo");
  assert.deepEqual(readdirSync(scene.temporary), [], "nothing is left in the folder for temporary files");
});

// The whole demo as its user starts it: everything sealed is acknowledged, and nothing is left behind.
import assert from "node:assert/strict";
import { mkdirSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { publicKeyOfDid } from "../../protocol/public-key.ts";
import { eventually, isRunning, type RunningProgram } from "./running-program-fixture.ts";
import { Scene } from "./scene-fixture.ts";
import { assertWholeChain, storedConflicts, storedRecords } from "./stored-chain-fixture.ts";

interface Summary {
  readonly readings: number;
  readonly sealed: number;
  readonly acknowledged: number;
  readonly missing: number;
  readonly refused: number;
  readonly receiptP50Ms: number | null;
  readonly receiptP99Ms: number | null;
}

function summaryOf(demo: RunningProgram): Summary {
  return (JSON.parse(demo.stdout.at(-1) ?? "{}") as { summary: Summary }).summary;
}

function assertAllAcknowledged(summary: Summary, readingsMin: number): void {
  const { readings, sealed, acknowledged, missing, refused } = summary;
  assert.ok(readings >= readingsMin, `${readings} readings, at least ${readingsMin} were expected`);
  assert.ok(sealed > readings, "the readings are sealed, and the wallet's own event with them");
  assert.deepEqual({ acknowledged, missing, refused }, { acknowledged: sealed, missing: 0, refused: 0 });
}

/** Pids of the parts, each as its latest start gave it. */
function partPids(demo: RunningProgram): Map<string, number> {
  const pids = new Map<string, number>();
  for (const { event, part, pid } of demo.events()) if (event === "started") pids.set(part as string, pid as number);
  return pids;
}

const partNames = ["agent", "node", "simulator", "wallet"];

test("the demo for ten seconds: all acknowledged, JSON only, no process and no file left", async (t) => {
  const scene = new Scene(t);
  const demo = scene.start("ecp-demo", "run", "--for", "10", "--interval", "1", "--json");
  assert.deepEqual(await demo.ending(), { code: 0, signal: null }, demo.stderr.join("\n"));
  for (const line of demo.stdout) assert.doesNotThrow(() => JSON.parse(line), `a JSON object: ${line}`);
  assert.deepEqual(demo.stderr, [], "with --json what is logged is an event on stdout");
  const summary = summaryOf(demo);
  assertAllAcknowledged(summary, 7);
  const { receiptP50Ms, receiptP99Ms } = summary;
  assert.ok(receiptP50Ms !== null && receiptP99Ms !== null && receiptP50Ms <= receiptP99Ms);
  const pids = partPids(demo);
  assert.deepEqual([...pids.keys()].sort(), partNames);
  assert.deepEqual([...pids.values()].filter(isRunning), [], "no part outlives the demo");
  assert.deepEqual(readdirSync(scene.temporary), [], "nothing is left in the folder for temporary files");
});

test("started again on the same data, the demo goes on: one chain, nothing doubled", async (t) => {
  const scene = new Scene(t);
  const data = scene.path("data");
  const args = ["--for", "3", "--interval", "1", "--json", "--data", data];
  const lasts: number[] = [];
  for (const round of [1, 2]) {
    const demo = scene.start("ecp-demo", ...args);
    assert.equal((await demo.ending()).code, 0, demo.stdout.slice(-20).join("\n"));
    assertAllAcknowledged(summaryOf(demo), 1);
    const ready = demo.events().find(({ event, device }) => event === "stored" && device !== undefined);
    const records = storedRecords(`${data}/node`);
    lasts.push(assertWholeChain(records, publicKeyOfDid(ready?.device as string)));
    const before = lasts.at(-2) ?? 0;
    const { sealed } = summaryOf(demo);
    // Before a first run the wallet was started once to make its enrolment request: started, key used, stopped. Before a second
    // one it has sealed that it was stopped, after the summary of the first.
    assert.equal(lasts.at(-1), before + sealed + (round === 1 ? 3 : 1), "each sequence of a run is counted in it");
    assert.equal(storedConflicts(`${data}/node`), 0);
  }
  assert.deepEqual(readdirSync(scene.temporary), [], "the folder of the sockets is gone");
  assert.ok(!readdirSync(data).includes("meter.tty"), "the link to the meter is gone");
});

test("Ctrl-C ends the demo with a summary and exit status 0", async (t) => {
  const scene = new Scene(t);
  const demo = scene.start("ecp-demo", "--interval", "1", "--json");
  await demo.event(({ event }) => event === "acknowledged");
  await demo.event(({ event }) => event === "reading");
  demo.signal("SIGINT");
  assert.deepEqual(await demo.ending(), { code: 0, signal: null });
  assertAllAcknowledged(summaryOf(demo), 1);
  assert.deepEqual([...partPids(demo).values()].filter(isRunning), []);
  assert.deepEqual(readdirSync(scene.temporary), []);
});

test("Ctrl-C while the demo is still being set up ends it too, and leaves nothing", async (t) => {
  const scene = new Scene(t);
  const demo = scene.start("ecp-demo", "--interval", "1", "--json");
  await eventually("the demo has begun", () => readdirSync(scene.temporary).length > 0);
  demo.signal("SIGINT");
  await demo.ending();
  assert.deepEqual([...partPids(demo).values()].filter(isRunning), []);
  await eventually("nothing is left", () => readdirSync(scene.temporary).length === 0, 5_000);
});

test("killed with SIGKILL, the demo takes its parts with it", async (t) => {
  const scene = new Scene(t);
  const demo = scene.start("ecp-demo", "--interval", "1", "--json");
  await demo.event(({ event }) => event === "acknowledged");
  const pids = [...partPids(demo).values()];
  assert.equal(pids.length, partNames.length);
  assert.ok(pids.every(isRunning), "control: they run");
  demo.signal("SIGKILL");
  await demo.ending();
  await eventually("all parts are gone", () => !pids.some(isRunning));
});

test("without --json a person gets lines that say how it went", async (t) => {
  const scene = new Scene(t);
  mkdirSync(scene.path("data"));
  const demo = scene.start("ecp-demo", "--for", "7", "--interval", "1", "--data", scene.path("data"));
  assert.equal((await demo.ending()).code, 0);
  assert.match(demo.stdout.join("\n"), /house G -?\d+ W {2}sealed \d+ {2}acknowledged \d+ {2}waiting \d+/);
  assert.equal(demo.stdout.at(-1), "Everything that was sealed was acknowledged.");
});

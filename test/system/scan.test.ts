// Three makes on one line at a speed that nobody has written down: found, put into hub.yaml, read; one of them switched off.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { eventually } from "./running-program-fixture.ts";
import { Scene } from "./scene-fixture.ts";

const intervalS = 5;

interface Meter {
  readonly name: string;
  readonly lastStatus: string;
  readonly lastTimeS: number;
  readonly missedSlots: number;
  readonly lateReadings: number;
}

test("three makes at an unknown speed: scan --write, config apply, run; one switched off, the others on time", async (t) => {
  const scene = new Scene(t);
  const [hub, link] = [scene.path("hub"), scene.path("bus.tty")];
  const config = ["--config", `${hub}/hub.yaml`];
  const meters = ["eastron-sdm72v2@1", "cg-em340@3", "schneider-iem3155@5"].flatMap((meter) => ["--meter", meter]);
  const line = ["--port", link, "--baud", "19200", "--parity", "even", "--control", "--json"];
  const bus = scene.start("ecp-demo", "simulate", "modbus", ...meters, ...line);
  await bus.event(({ event }) => event === "started");

  // As somebody does who knows one meter's make and address, and takes the speed for the usual one.
  const known = ["--profile", "cg-em340", "--unit", "3", "--interval", `${intervalS}`];
  await scene.succeed("ecp", "init", "--folder", hub, "--serial", link, "--segments", "4", ...known);
  const startedMs = performance.now();
  const said = await scene.succeed("ecp", "scan", "--serial", link, "--units", "1-10", "--write", ...config);
  t.diagnostic(`found and written after ${((performance.now() - startedMs) / 1000).toFixed(1)} s`);
  assert.match(said, /3 devices found at 19200 8E1/);
  assert.match(said, /line main: now 19200 8E1/);
  const text = readFileSync(`${hub}/hub.yaml`, "utf8");
  assert.match(text, /# The path under|# A path under/, "its comments are there");
  const faster = text.replace(
    /( +)(profile: (?:eastron-sdm72v2|schneider-iem3155))/g,
    `$1$2\n$1interval_s: ${intervalS}`,
  );
  writeFileSync(`${hub}/hub.yaml`, faster);
  await scene.succeed("ecp", "config", "apply", ...config);
  const running = scene.start("ecp", "run", ...config);

  const metersNow = async (): Promise<Meter[]> => {
    const { stdout } = await scene.run("ecp", "status", ...config, "--json");
    const { agent } = JSON.parse(stdout) as { agent: { meters: Meter[] } | null };
    return agent?.meters ?? [];
  };
  const letters = (all: readonly Meter[]): string => all.map(({ lastStatus }) => lastStatus).join("");
  await eventually("all three are read", async () => letters(await metersNow()) === "GGG");

  bus.write("fault 5 dead\n");
  await bus.event(({ event }) => event === "fault");
  await eventually("the dead one's readings say so", async () => /^GG[^G]$/.test(letters(await metersNow())));
  const before = await metersNow();
  const since = before[0]?.lastTimeS ?? 0;
  await eventually(
    "six slots have passed",
    async () => ((await metersNow())[0]?.lastTimeS ?? 0) >= since + 6 * intervalS,
    90_000,
  );
  const after = await metersNow();
  for (const place of [0, 1]) {
    const [was, is] = [before[place], after[place]];
    assert.equal(is?.lastStatus, "G");
    assert.equal(is?.missedSlots, was?.missedSlots, `${is?.name} missed a slot`);
    t.diagnostic(
      `${is?.name}: missed ${(is?.missedSlots ?? 0) - (was?.missedSlots ?? 0)}, late ${(is?.lateReadings ?? 0) - (was?.lateReadings ?? 0)} of 6 slots beside a dead unit`,
    );
  }
  bus.write("fault 5 none\n");
  await eventually("it is read again once it has power", async () => letters(await metersNow()) === "GGG");
  assert.deepEqual(await running.stop(), { code: 0, signal: null });
});

// Faults of the meter, its line and its port: `ecp read` says what, where and what to do; `ecp run` seals a row that says so.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { test } from "node:test";
import { statusLetters } from "../../protocol/reading-status.ts";
import { Community, startSimulator } from "./community-fixture.ts";
import { eventually, type Result } from "./running-program-fixture.ts";
import { Scene } from "./scene-fixture.ts";
import { storedRows } from "./stored-chain-fixture.ts";

const profile = ["--profile", "eastron-sdm630"];

interface Reading {
  readonly status: string;
  readonly detail?: string;
  readonly values: object;
}

async function readFrom(scene: Scene, ...where: string[]): Promise<Result & Reading> {
  const result = await scene.run("ecp", "read", ...where, ...profile, "--json");
  return { ...result, ...(JSON.parse(result.stdout) as Reading) };
}

/** Fault of the simulator, status of the reading, what its message must say. */
const slaveFaults: readonly (readonly [fault: string, status: string, says: RegExp])[] = [
  ["silent", "T", /expected an answer within 500 ms, got nothing\. Check power, A\/B wiring/],
  ["wrong-unit", "F", /got an answer of unit 2\. Check that no two devices/],
  ["exception:2", "I", /exception 2 \(illegal data address\)\. Check /],
  ["exception:4", "F", /exception 4 \(device failure\)\. /],
  ["garbage", "F", /got 10 bytes without a valid CRC\. Check the line/],
  ["bad-crc", "F", /without a valid CRC\. Check the line/],
  ["not-a-number:52", "F", /expected a number for .*, got NaN, which says "not available" .*0x0034/],
];

test("ecp read names each fault of a slave, where it is and what to do, and ends with 1", async (t) => {
  const scene = new Scene(t);
  for (const [fault, status, says] of slaveFaults) {
    const link = scene.path(`${fault.replace(":", "-")}.tty`);
    const meter = await startSimulator(scene, "--link", link, "--fault", fault);
    const reading = await readFrom(scene, "--serial", link);
    assert.equal(reading.code, 1, fault);
    assert.equal(reading.status, status, `${fault}: ${reading.detail}`);
    assert.match(reading.detail ?? "", says, fault);
    assert.ok(reading.detail?.includes(link), `${fault}: the message says where: ${reading.detail}`);
    assert.deepEqual(reading.values, {}, fault);
    await meter.stop();
  }
  const meter = await startSimulator(scene, "--link", scene.path("good.tty"), "--fault", "noise-before");
  const control = await readFrom(scene, "--serial", scene.path("good.tty"));
  assert.deepEqual([control.code, control.status], [0, "G"], "control: noise before a whole answer is no fault");
  const other = await readFrom(scene, "--serial", scene.path("good.tty"), "--unit", "9");
  assert.deepEqual([other.code, other.status], [1, "T"], "another unit is silent");
  await meter.stop();
});

test("ecp read names what is wrong with a port", async (t) => {
  const scene = new Scene(t);
  const file = scene.path("file");
  writeFileSync(file, "no port\n");
  const ports: readonly (readonly [path: string, says: RegExp])[] = [
    [scene.path("nothing-here"), /expected a device, found none.*Plug the adapter in or correct the path/],
    [scene.folder, /could not be opened as a serial port.*Check that the path is one/],
    [file, /could not be opened as a serial port.*Check that the path is one/],
  ];
  for (const [path, says] of ports) {
    const reading = await readFrom(scene, "--serial", path);
    assert.deepEqual([reading.code, reading.status], [1, "D"], path);
    assert.match(reading.detail ?? "", says);
    assert.ok(reading.detail?.includes(path));
  }
  const refused = await readFrom(scene, "--tcp", "127.0.0.1:1");
  assert.deepEqual([refused.code, refused.status], [1, "D"]);
  assert.match(refused.detail ?? "", /127\.0\.0\.1:1: .*refused.*Check the port/);
  const table = await scene.run("ecp", "read", "--serial", file, ...profile);
  assert.equal(table.code, 1);
  assert.match(
    table.stdout,
    /no reading \(D: the meter or its line was disconnected\)\n {2}Serial port .*file: could not/,
  );
});

test("a port that another program has is busy, and that program is named", async (t) => {
  const scene = new Scene(t);
  const community = await Community.setUp(scene);
  await community.startMeter();
  const hub = await community.startHub();
  await hub.line(/meter answers/);
  const started = hub
    .events()
    .filter(({ part, message, name }) => part === "run" && message === "started" && name === "agent");
  const reading = await readFrom(scene, "--serial", community.meterLink);
  assert.deepEqual([reading.code, reading.status], [1, "D"]);
  assert.match(reading.detail ?? "", new RegExp(`held by .*\\(pid ${String(started[0]?.pid)}\\).*Stop that program`));
  await hub.stop();
  assert.equal((await readFrom(scene, "--serial", community.meterLink)).status, "G", "control: it is free again");
});

test("under ecp run every fault becomes a sealed row with its status, and what mends is read again", async (t) => {
  const scene = new Scene(t);
  const faults = ["silent", "wrong-unit", "exception:2", "garbage", "bad-crc"] as const;
  const links = faults.map((_, i) => scene.path(`meter-${i}.tty`));
  const cable = scene.path("cable.tty");
  const all = [...links, cable];
  const linesAndMeters =
    `lines:\n${all.map((link, i) => `  - name: line-${i}\n    serial: { path: ${link}, baud: 9600 }\n`).join("")}` +
    `meters:\n${all.map((_, i) => `  - { name: m${i}, index: ${i}, line: line-${i}, unit: 1, profile: eastron-sdm630, interval_s: 2 }\n`).join("")}`;
  const [community] = await Promise.all([
    Community.setUp(scene, { linesAndMeters }),
    ...faults.map((fault, i) => startSimulator(scene, "--link", links[i] as string, "--fault", fault)),
  ]);
  const plugged = await startSimulator(scene, "--link", cable);
  await community.startNode();
  const hub = await community.startHub();
  const cableMeter = faults.length;
  const letters = (meter: number): string[] =>
    storedRows(community.nodeFolder)
      .filter((row) => row.meter === meter)
      .map(({ status }) => statusLetters[status] ?? "?");
  for (const [meter, wanted] of [/T/, /F/, /I/, /F/, /F/, /G/].entries())
    await eventually(`meter ${meter} has ${wanted} at the full node`, () => wanted.test(letters(meter).join("")));

  const position = hub.position;
  plugged.signal("SIGKILL"); // its end of the pty is gone: no event comes from a cable that was pulled
  await plugged.ending();
  await eventually("the pulled cable shows as D", () => letters(cableMeter).includes("D"));
  const said = await hub.line(
    (line) => line.includes("meter cannot be read") && line.includes(`"m${cableMeter}"`),
    position,
  );
  assert.match(said, /"status":"D"/);
  assert.ok(said.includes(cable), "the log says which port");
  await startSimulator(scene, "--link", cable);
  await eventually("it is plugged in and read again", () => /D.*G$/.test(letters(cableMeter).join("")));
  for (const [meter, fault] of faults.entries())
    assert.ok(!letters(meter).includes("G"), `control: ${fault} never gave a good reading`);
  // In the log once, when it changes, with the reason; not each two seconds.
  const lines = hub.stderr.filter((line) => line.includes("meter cannot be read") && line.includes('"m0"'));
  assert.equal(lines.length, 1, lines.join("\n"));
  assert.deepEqual(await hub.stop(), { code: 0, signal: null });
});

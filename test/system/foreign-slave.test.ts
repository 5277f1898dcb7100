// A slave that we did not write: Debian's python3-pymodbus with the registers of an SDM630, over Modbus TCP and over a pty.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { eventually } from "./running-program-fixture.ts";
import { freePort, Scene } from "./scene-fixture.ts";

const python = "/usr/bin/python3"; // Debian's own, which sees Debian's packages
const slaveProgram = path.join(import.meta.dirname, "pymodbus-slave.py");

const pymodbusMissing =
  spawnSync(python, ["-c", "import pymodbus"]).status === 0
    ? false
    : `${python} has no pymodbus: apt-get install python3-pymodbus`;
const socatMissing = existsSync("/usr/bin/socat") ? false : "no /usr/bin/socat: apt-get install socat";
const missing = pymodbusMissing || socatMissing;
if (missing) console.log(`skipped: ${missing}`);

/** Input registers as the maker lists them (V2.0), each value one that a float32 holds exactly. */
const registers: Readonly<Record<number, number>> = {
  0: 230.125, // V, L1
  2: 229.5,
  4: 231.0625,
  6: 4.125, // A, L1
  8: 0,
  10: 16.03125,
  52: -1234, // W in all: it feeds in
  62: -0.984375, // power factor
  70: 50.015625, // Hz
  72: 12345.625, // kWh taken
  74: 16777.25, // kWh fed in
};
const expected = {
  "active-power-import": 0,
  "active-energy-import": 12_345_625,
  "active-power-export": 1_234,
  "active-energy-export": 16_777_250,
  "power-factor": -984,
  frequency: 50_016,
  "voltage-l1": 230_125,
  "voltage-l2": 229_500,
  "voltage-l3": 231_063,
  "current-l1": 4_125,
  "current-l2": 0,
  "current-l3": 16_031,
};
const unit = 7;

async function startSlave(scene: Scene, framer: "socket" | "rtu"): Promise<number> {
  const port = await freePort();
  const args = [slaveProgram, framer, `${port}`, `${unit}`, JSON.stringify(registers)];
  const slave = scene.startCommand(python, args);
  await slave.line(/^listening$/);
  return port;
}

/** What `ecp read` prints, as numbers by name. */
async function read(scene: Scene, ...where: string[]): Promise<Record<string, number>> {
  const args = ["read", ...where, "--profile", "eastron-sdm630", "--unit", `${unit}`, "--json"];
  const reading = JSON.parse(await scene.succeed("ecp", ...args)) as {
    status: string;
    values: Record<string, { value: number }>;
  };
  assert.equal(reading.status, "G");
  return Object.fromEntries(Object.entries(reading.values).map(([name, { value }]) => [name, value]));
}

test("over Modbus TCP the exact integers are read from pymodbus", { skip: missing }, async (t) => {
  const scene = new Scene(t);
  const port = await startSlave(scene, "socket");
  assert.deepEqual(await read(scene, "--tcp", `127.0.0.1:${port}`), expected);
});

test("over a pty, by serialport and RTU frames, the same integers are read", { skip: missing }, async (t) => {
  const scene = new Scene(t);
  const port = await startSlave(scene, "rtu");
  const link = scene.path("meter.tty");
  // The pty is socat's, and so is every byte's way to the slave: none of our simulator takes part.
  scene.startCommand("/usr/bin/socat", [`pty,raw,echo=0,link=${link}`, `tcp:127.0.0.1:${port}`]);
  await eventually("socat has made the pty", () => existsSync(link));
  assert.deepEqual(await read(scene, "--serial", link), expected);
  assert.deepEqual(await read(scene, "--serial", link), expected, "the port was let go of, and is opened again");
});

test("control: another unit of the same slave is no meter", { skip: missing }, async (t) => {
  const scene = new Scene(t);
  const port = await startSlave(scene, "socket");
  const where = ["--tcp", `127.0.0.1:${port}`, "--profile", "eastron-sdm630", "--unit", "8", "--json"];
  const { code, stdout } = await scene.run("ecp", "read", ...where);
  assert.equal(code, 1);
  const { status, values } = JSON.parse(stdout) as { status: string; values: object };
  assert.notEqual(status, "G");
  assert.deepEqual(values, {});
});

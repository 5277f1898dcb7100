// Each fault of a bus on a real pty, and what ecp doctor says of it.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { encodeReadRequest } from "../../drivers/modbus/rtu-frame.ts";
import { openSerialPort } from "../../drivers/serial/serial-port.ts";
import type { SimulatedBusOptions } from "../../simulator/simulated-bus.ts";
import type { SlaveFault } from "../../simulator/slave-fault.ts";
import { type BenchBus, ecp, startBus, temporaryFolder } from "./simulated-bus-fixture.ts";

/** EM340: 40 ms of gap, so that there is much to count in a short time. */
const meters = ["cg-em340@1", "cg-em340@3"];
const asked = meters.flatMap((meter) => ["--meter", meter]);

async function examined(
  t: TestContext,
  prepare: (bus: BenchBus) => void,
  options: Partial<SimulatedBusOptions> & { slaves?: never; on?: readonly string[]; forS?: number } = {},
) {
  const { on = meters, forS = 8, ...busOptions } = options;
  const bus = await startBus(t, on, { baud: 38_400, ...busOptions });
  prepare(bus);
  const { status, out, error } = await ecp(
    "doctor",
    "--serial",
    bus.link,
    "--baud",
    "38400",
    ...asked,
    "--for",
    "8",
    "--json",
  );
  assert.equal(error, "");
  const report = JSON.parse(out);
  const [line] = report.lines;
  const said = line.diagnoses.map(({ kind, unit }: { kind: string; unit?: number }) =>
    unit ? `${kind} ${unit}` : kind,
  );
  return { status, said, line, healthy: report.healthy };
}

const third = (bus: BenchBus, fault: SlaveFault, share?: number): void =>
  bus.slaves[1]?.setFault(fault, Number.POSITIVE_INFINITY, share);

test("a healthy bus says so, status 0, with figures of each unit", async (t) => {
  const { status, said, line, healthy } = await examined(t, () => undefined);
  assert.deepEqual([status, said, healthy], [0, ["healthy"], true]);
  for (const unit of line.units) {
    assert.ok(unit.requests > 10 && unit.answers === unit.requests, JSON.stringify(unit));
    assert.ok(unit.medianMs > 0 && unit.longestMs >= unit.medianMs);
  }
});

test("one unit without power: its address or its power, and the other is well", async (t) => {
  const { status, said, line } = await examined(t, (bus) => third(bus, { kind: "silent" }));
  assert.deepEqual([status, said], [1, ["unit-silent 3"]]);
  assert.equal(line.units[0].answers, line.units[0].requests);
});

test("spoilt answers of all meters: termination or noise; of one alone: its own wires", async (t) => {
  const all = await examined(t, (bus) => {
    for (const slave of bus.slaves) slave.setFault({ kind: "bad crc" }, Number.POSITIVE_INFINITY, 0.2);
  });
  assert.deepEqual(all.said, ["disturbed"]);
  assert.match(all.line.diagnoses[0].todo, /120 ohm at both ends/);
  const one = await examined(t, (bus) => third(bus, { kind: "bad crc" }, 0.3));
  assert.deepEqual(one.said, ["unit-disturbed 3"]);
});

test("two devices with one address: that is what it says", async (t) => {
  const { said, line } = await examined(t, () => undefined, { on: [...meters, "eastron-sdm630@3"] });
  assert.deepEqual(said, ["unit-disturbed 3"]);
  assert.match(line.diagnoses[0].sentence, /two devices have this address/);
});

test("a meter that wants a longer pause than it gets: gap, and not a word of wires", async (t) => {
  const { said, line } = await examined(t, (bus) => third(bus, { kind: "needs gap", gapMs: 120 }), { forS: 14 });
  assert.deepEqual(said, ["needs-gap 3"], JSON.stringify(line.units));
});

test("answers that come too late, and answers of somebody else", async (t) => {
  const late = await examined(t, (bus) => third(bus, { kind: "late", byMs: 900 }, 0.3));
  assert.deepEqual(late.said, ["slow 3"], JSON.stringify(late.line.units));
  const foreign = await examined(t, (bus) => third(bus, { kind: "wrong unit" }, 0.3));
  assert.deepEqual(foreign.said, ["second-master 3"], JSON.stringify(foreign.line.units));
});

test("another speed: no answers here, and at which speed there are", async (t) => {
  const strict = { parity: "even", stopBits: 1 } as const;
  const { status, said, line } = await examined(t, () => undefined, { baud: 9600, strict });
  assert.deepEqual([status, said], [1, ["wrong-setting"]]);
  assert.match(line.diagnoses[0].sentence, /at 9600 8E1 there are/);
});

test("nobody at all, at any speed: the wires, the power or the addresses", async (t) => {
  const { said, line } = await examined(t, () => undefined, { on: [] });
  assert.deepEqual(said, ["no-answers"]);
  assert.match(line.diagnoses[0].sentence, /nor at 23 other settings: the wires A and B are swapped/);
});

test("a second master is heard before anything is asked", async (t) => {
  const request = encodeReadRequest({ unit: 9, functionCode: 3, address: 0, count: 2 });
  const { said } = await examined(t, (bus) => {
    const timer = setInterval(() => bus.disturb(request), 200);
    t.after(() => clearInterval(timer));
  });
  assert.ok(said.includes("second-master"), `${said}`);
});

test("the lines of hub.yaml are examined side by side; a held port is said with its holder", async (t) => {
  const [well, held] = [await startBus(t, ["cg-em340@1"]), await startBus(t, ["cg-em340@1"])];
  const holder = await openSerialPort({ path: held.link, baud: 9600 });
  t.after(() => holder.close());
  const file = join(temporaryFolder(t), "hub.yaml");
  writeFileSync(
    file,
    `wallet: { folder: w }
lines:
  - { name: well, serial: { path: ${well.link}, baud: 9600 } }
  - { name: held, serial: { path: ${held.link}, baud: 9600 } }
meters:
  - { name: a, line: well, unit: 1, profile: cg-em340 }
  - { name: b, line: held, unit: 1, profile: cg-em340 }
`,
  );
  const both = await ecp("doctor", "--config", file, "--for", "3");
  assert.equal(both.status, 1);
  assert.match(both.out, /^Watching 2 lines side by side for 3 s/);
  assert.match(both.out, /the bus is well: the meter answers/);
  assert.match(both.out, /held by .*\(pid \d+\)/);
  const one = await ecp("doctor", "--config", file, "--line", "held", "--for", "3");
  assert.equal(one.status, 69);
});

test("wrong usage", async () => {
  for (const [args, problem] of [
    [["--serial", "/dev/x"], /no --meter PROFILE@UNIT/],
    [["--serial", "/dev/x", "--meter", "cg-em340"], /PROFILE@UNIT was expected/],
    [["--serial", "/dev/x", "--meter", "nobody@1"], /nobody/],
    [["--serial", "/dev/x", "--meter", "cg-em340@300"], /from 1 to 247/],
    [["--for", "1"], /from 2 to 3600/],
    [["--meter", "cg-em340@1"], /--meter without --serial or --tcp/],
  ] as const) {
    const { status, error } = await ecp("doctor", ...args);
    assert.equal(status, 64, `${args}: ${error}`);
    assert.match(error, problem);
  }
});

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { encodeReadRequest, encodeRtuFrame, hasValidCrc } from "../../drivers/modbus/rtu-frame.ts";
import { createRtuLine } from "../../drivers/modbus/rtu-line.ts";
import { openSerialPort } from "../../drivers/serial/serial-port.ts";
import { bitsPerCharacter } from "../../drivers/serial/serial-settings.ts";
import { openPacedLine } from "../../simulator/paced-line.ts";
import { isFramingShared, type LineFraming, parseFraming, readFraming } from "../../simulator/paced-line-framing.ts";
import { PacedWire, type WireReply } from "../../simulator/paced-line-wire.ts";

const request = encodeReadRequest({ unit: 1, functionCode: 4, address: 0, count: 2 });
const reply = encodeRtuFrame(1, Uint8Array.of(4, 4, 0, 1, 0, 2));
const answer = (bytes: Uint8Array): readonly WireReply[] => (hasValidCrc(bytes) ? [{ bytes: reply }] : []);
const at9600: LineFraming = { baud: 9600, parity: "none", stopBits: 1 };
const characterMs = 10 / 9.6;
const gapMs = 3.5 * characterMs;

/** Runs the wire to `untilMs`; what came out of it, each with its time. */
function run(wire: PacedWire, untilMs: number): { atMs: number; length: number }[] {
  const taken: { atMs: number; length: number }[] = [];
  for (let nowMs = wire.nextAtMs; nowMs <= untilMs; nowMs = wire.nextAtMs) {
    const due = wire.takeDue(nowMs);
    if (due !== undefined) taken.push({ atMs: nowMs, length: due.length });
  }
  return taken;
}

test("on the wire: request, t3.5, turnaround, answer, each character in its time", () => {
  const wire = new PacedWire({ ...at9600, turnaroundMs: 5, answer });
  wire.receive(request, 100);
  const [taken, ...more] = run(wire, 1000);
  const expectedMs = 100 + 8 * characterMs + gapMs + 5 + reply.length * characterMs;
  assert.ok(taken !== undefined && Math.abs(taken.atMs - expectedMs) < 1e-9, `${taken?.atMs}, not ${expectedMs}`);
  assert.equal(taken.length, reply.length);
  assert.deepEqual(more, []);
});

test("in pieces of 4 characters an answer of 9 comes in three, each when its last character has passed", () => {
  const wire = new PacedWire({ ...at9600, turnaroundMs: 0, pieceCharacters: 4, answer });
  wire.receive(request, 0);
  const startMs = 8 * characterMs + gapMs;
  const taken = run(wire, 1000);
  assert.deepEqual(
    taken.map(({ length }) => length),
    [4, 4, 1],
  );
  for (const [index, end] of [4, 8, 9].entries())
    assert.ok(Math.abs((taken[index]?.atMs ?? 0) - startMs - end * characterMs) < 1e-9);
});

test("a silence shorter than t3.5 is counted, one of t3.5 is not; the share of the limit is what the master made of it", () => {
  const wire = new PacedWire({ ...at9600, turnaroundMs: 2, answer });
  let nowMs = 0;
  for (const silenceMs of [gapMs + 1e-6, gapMs + 1e-6, gapMs - 0.01, gapMs + 3]) {
    wire.receive(request, nowMs);
    const [taken] = run(wire, nowMs + 1000);
    assert.ok(taken !== undefined);
    nowMs = taken.atMs + silenceMs;
  }
  wire.receive(request, nowMs);
  const { violations, silences, exchanges, collisions, wireLimitMs, elapsedMs, shortestSilenceMs } = wire.statistics;
  assert.deepEqual(
    { violations, silences, exchanges, collisions },
    { violations: 1, silences: 4, exchanges: 4, collisions: 0 },
  );
  assert.ok(Math.abs(shortestSilenceMs - gapMs + 0.01) < 1e-9);
  assert.ok(Math.abs(elapsedMs - wireLimitMs - 3 + 0.01) < 1e-5, `${elapsedMs} of ${wireLimitMs}`);
});

test("a request that comes while the answer is on the wire is a collision, and one in two halves is still one", () => {
  const wire = new PacedWire({ ...at9600, turnaroundMs: 0, answer });
  wire.receive(request.subarray(0, 3), 0);
  wire.receive(request.subarray(3), 1);
  wire.takeDue(8 * characterMs + gapMs);
  wire.receive(request, 8 * characterMs + gapMs + 2);
  assert.equal(wire.statistics.collisions, 1);
});

test("what stty says of a pty is read as the settings that a program gave it", async () => {
  const line = "speed 19200 baud; rows 24; columns 80; line = 0;\nintr = ^C; min = 1; time = 0;\n-parenb ";
  const cases = [
    ["-parodd cs8 -cstopb -inpck", { baud: 19_200, parity: "none", stopBits: 1 }],
    ["-parodd cs8 cstopb inpck", { baud: 19_200, parity: "even", stopBits: 2 }],
    ["parodd cs8 -cstopb inpck", { baud: 19_200, parity: "odd", stopBits: 1 }],
    ["parodd cs8 -cstopb -inpck", { baud: 19_200, parity: "odd", stopBits: 1 }],
  ] as const;
  for (const [flags, expected] of cases) assert.deepEqual(parseFraming(line + flags), expected);
  assert.throws(() => parseFraming("stty: command not found"), /expected the settings of a terminal/);
  const even: LineFraming = { baud: 19_200, parity: "even", stopBits: 1 };
  assert.equal(isFramingShared(even, { ...even, stopBits: 2 }), true);
  assert.equal(isFramingShared(even, { ...even, parity: "none" }), false);
  assert.equal(isFramingShared({ ...even, parity: "any" }, { ...even, parity: "none" }), true);
  assert.equal(isFramingShared(even, { ...even, baud: 9600 }), false);
  await assert.rejects(readFraming("/dev/ttyNOWHERE"));
});

for (const pace of ["timers", "spin"] as const) {
  test(`read through a real port, paced by ${pace}: the answer comes, and not before its characters have passed`, async (t) => {
    const paced = openPacedLine({ ...at9600, pace, answer });
    t.after(() => paced.close());
    const line = createRtuLine({
      description: paced.path,
      openTransport: () => openSerialPort({ path: paced.path, baud: 9600 }),
      baud: 9600,
      bitsPerCharacter: 10,
    });
    t.after(() => line.close());
    await line.open();
    const read = { unit: 1, functionCode: 4, address: 0, count: 2, timeoutMs: 2000 } as const;
    for (let i = 0; i < 3; i++) {
      const startMs = performance.now();
      assert.deepEqual([...(await line.readRegisters(read))], [1, 2]);
      assert.ok(performance.now() - startMs >= 17 * characterMs + gapMs + 2);
    }
    assert.equal(paced.statistics.silences, 2);
    assert.equal(paced.statistics.violations, 0);
  });
}

const settings: readonly [LineFraming["parity"], number, LineFraming["parity"], number][] = [
  ["none", 9600, "even", 9600],
  ["even", 9600, "none", 9600],
  ["even", 9600, "odd", 9600],
  ["odd", 9600, "even", 9600],
  ["even", 19_200, "even", 9600],
];
for (const [parity, baud, otherParity, otherBaud] of settings) {
  test(`a line at ${baud} ${parity} answers garbage to a master at ${otherBaud} ${otherParity}, and to its own settings the truth`, async (t) => {
    const paced = openPacedLine({ baud, parity, stopBits: 1, answer });
    t.after(() => paced.close());
    for (const [asBaud, asParity] of [
      [otherBaud, otherParity],
      [baud, parity],
    ] as const) {
      if (asParity === "any") throw new Error("a master has a parity");
      const settings = { path: paced.path, baud: asBaud, parity: asParity };
      const line = createRtuLine({
        description: paced.path,
        openTransport: () => openSerialPort(settings),
        baud: asBaud,
        bitsPerCharacter: bitsPerCharacter(settings),
      });
      const read = line.readRegisters({ unit: 1, functionCode: 4, address: 0, count: 2, timeoutMs: 500 });
      if (asBaud === baud && asParity === parity) assert.deepEqual([...(await read)], [1, 2]);
      else await assert.rejects(read, { code: "crc-error" });
      await line.close();
    }
  });
}

test("stty sees what serialport has set: the ground on which the line judges its master", async (t) => {
  const paced = openPacedLine({ ...at9600, answer });
  t.after(() => paced.close());
  const port = await openSerialPort({ path: paced.path, baud: 4800, parity: "odd", stopBits: 2 });
  t.after(() => port.close());
  assert.deepEqual(await readFraming(paced.path), { baud: 4800, parity: "odd", stopBits: 2 });
  assert.match(execFileSync("stty", ["-F", paced.path, "-a"], { encoding: "utf8" }), / inpck/);
});

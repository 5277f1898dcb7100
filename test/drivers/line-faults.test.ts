// What can go wrong on a real serial line, each on a real pty through serialport and modbus-serial.
import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { readMeter, readSerialNumber } from "../../drivers/modbus/meter-reader.ts";
import { createRtuLine, frameGapMs } from "../../drivers/modbus/rtu-line.ts";
import { openSerialPort } from "../../drivers/serial/serial-port.ts";
import { openPty, replaceSymlink } from "../../simulator/pty.ts";
import { runSimulatedMeter } from "../../simulator/simulated-meter.ts";
import type { SlaveFault } from "../../simulator/slave-fault.ts";
import { baud, quickProfile, startBench, temporaryFolder, testNowMs } from "./sdm630-line.ts";

const meterOne = { profile: quickProfile, unit: 1 };
const zeros = Array(12).fill(0);

test("a reading has the default codes as integers, and the meter's serial number is known", async (t) => {
  const { line } = await startBench(t);
  const reading = await readMeter(line, meterOne);
  assert.equal(reading.status, 0, reading.detail);
  assert.deepEqual(reading.codes, [1, 2, 3, 4, 13, 14, 20, 21, 22, 23, 24, 25]);
  assert.ok(reading.values.every((value) => Number.isSafeInteger(value) && !Object.is(value, -0)));
  const value = (code: number): number => reading.values[reading.codes.indexOf(code)] ?? Number.NaN;
  assert.ok(value(1) === 0 || value(3) === 0, "import and export power are two halves of one signed power");
  for (const code of [20, 21, 22])
    assert.ok(value(code) > 220_000 && value(code) < 240_000, `voltage ${value(code)} mV`);
  assert.ok(Math.abs(value(14) - 50_000) < 200, `frequency ${value(14)} mHz`);
  assert.equal(await readSerialNumber(line, meterOne), "21000001");
  const { ok = 0, timeouts = 0, requests = 0 } = line.counters.get(1) ?? {};
  assert.equal(
    ok + timeouts,
    requests,
    "on a busy machine an answer may come too late; nothing else may have gone wrong",
  );
});

const faults: readonly [SlaveFault, status: number, detail: RegExp][] = [
  [{ kind: "silent" }, 2, /unit 1, .*expected an answer within 200 ms, got nothing\. Check power/],
  [{ kind: "bad crc" }, 11, /without a valid CRC\. Check the line/],
  [{ kind: "garbage" }, 11, /10 bytes without a valid CRC/],
  [{ kind: "wrong unit" }, 11, /got an answer of unit 2\. Check that no two devices/],
  [{ kind: "exception", code: 2 }, 7, /exception 2 \(illegal data address\).*profile/],
  [{ kind: "exception", code: 1 }, 7, /exception 1 \(illegal function\)/],
  [{ kind: "exception", code: 4 }, 11, /exception 4 \(device failure\)/],
  [{ kind: "not a number", address: 0x48 }, 11, /expected a number for active-energy-import, got NaN/],
];
for (const [fault, status, detail] of faults) {
  test(`${JSON.stringify(fault)}: a reading of zeros with status ${status}, and the next one is right`, async (t) => {
    const { meter, line } = await startBench(t);
    const expected = await readMeter(line, meterOne);
    meter.setFault(fault);
    const failed = await readMeter(line, meterOne);
    assert.equal(failed.status, status, failed.detail);
    assert.match(failed.detail ?? "", detail);
    assert.deepEqual(failed.values, zeros);
    meter.setFault(undefined);
    assert.deepEqual(await readMeter(line, meterOne), expected);
  });
}

test("a fault that passes is mended by the one retry; noise before an answer needs none", async (t) => {
  const { meter, line } = await startBench(t);
  const expected = await readMeter(line, meterOne);
  for (const fault of [{ kind: "silent" }, { kind: "bad crc" }, { kind: "exception", code: 6 }] as const) {
    meter.setFault(fault, 1);
    assert.deepEqual(await readMeter(line, meterOne), expected, fault.kind);
  }
  const before = line.counters.get(1)?.requests ?? 0;
  meter.setFault({ kind: "noise before" });
  assert.deepEqual(await readMeter(line, meterOne), expected);
  assert.equal((line.counters.get(1)?.requests ?? 0) - before, 2, "two blocks, no retry");
});

test("a serial number that did not come is asked for again, though nothing longer can be read where it stands", async (t) => {
  const { meter, line } = await startBench(t);
  meter.setFault({ kind: "silent" }, 1);
  assert.equal(await readSerialNumber(line, meterOne), "21000001");
  // Control: with no other place to prove the line clean at, the second try cannot be made.
  meter.setFault({ kind: "silent" }, 1);
  const read = { unit: 1, functionCode: 3, address: 0xfc00, count: 2, countStep: 2, timeoutMs: 100 } as const;
  await assert.rejects(line.readRegisters(read), { code: "timeout" });
  await assert.rejects(line.readRegisters(read), { code: "timeout", message: /may still be on its way/ });
});

test("the counters tell the faults of each unit apart", async (t) => {
  const { meter, line } = await startBench(t);
  const read = { unit: 1, functionCode: 4, address: 0, count: 2, timeoutMs: 60, slowestAnswerMs: 60 } as const;
  await line.readRegisters(read);
  for (const [fault, count] of [
    [{ kind: "silent" }, 2],
    [{ kind: "bad crc" }, 4],
    [{ kind: "wrong unit" }, 6],
    [{ kind: "exception", code: 2 }, 8],
  ] as const) {
    meter.setFault(fault, 1);
    await assert.rejects(line.readRegisters({ ...read, count }));
    await line.readRegisters({ ...read, count: count + 10 }); // nothing is owed any more
  }
  await assert.rejects(line.readRegisters({ ...read, unit: 9 }), { code: "timeout" });
  const counters = line.counters.get(1);
  assert.ok(counters !== undefined);
  const { timeouts, crcErrors, wrongReplies, exceptions } = counters;
  assert.deepEqual(
    { timeouts, crcErrors, wrongReplies, exceptions },
    { timeouts: 1, crcErrors: 1, wrongReplies: 1, exceptions: 1 },
  );
  assert.equal(line.counters.get(9)?.timeouts, 1);
});

test("a pulled cable gives status D; plugged in again elsewhere, the symlink is followed and readings go on", async (t) => {
  const { meter, line } = await startBench(t);
  const expected = await readMeter(line, meterOne);
  const oldPath = meter.path;
  await meter.cut();
  const lost = await readMeter(line, meterOne);
  assert.equal(lost.status, 3, lost.detail);
  assert.deepEqual(lost.values, zeros);
  const still = await readMeter(line, meterOne);
  assert.equal(still.status, 3);
  assert.match(still.detail ?? "", /expected a device, found none/);
  await meter.reconnect();
  assert.deepEqual(await readMeter(line, meterOne), expected);
  assert.equal(line.reopenings, 1);
  t.diagnostic(`pty before ${oldPath}, after ${meter.path}`);
});

test("a cable pulled in the middle of a request ends it at once, not at its time-out", async (t) => {
  const { meter, line } = await startBench(t);
  await line.open();
  meter.setFault({ kind: "silent" });
  const read = line.readRegisters({ unit: 1, functionCode: 4, address: 0, count: 2, timeoutMs: 60_000 });
  const refused = assert.rejects(read, { code: "port-lost" });
  while (meter.slave.requests === 0) await new Promise((resolve) => setImmediate(resolve));
  await meter.cut();
  await refused;
});

test("a line that only falls silent, without any event, is opened again after three time-outs", async (t) => {
  const { meter, line, link } = await startBench(t);
  const expected = await readMeter(line, meterOne);
  // Another meter takes the link over while the old pty stays open: the old port is silent and gives no event.
  meter.setFault({ kind: "silent" });
  const other = await runSimulatedMeter({ link, baud, now: () => testNowMs });
  t.after(() => other.close());
  const statuses: number[] = [];
  let reading = await readMeter(line, meterOne);
  for (let i = 0; i < 5 && reading.status !== 0; i++) {
    statuses.push(reading.status);
    reading = await readMeter(line, meterOne);
  }
  assert.deepEqual(reading, expected);
  assert.ok(statuses.length <= 3 && statuses.every((status) => status === 2), `statuses ${statuses}`);
  assert.equal(line.reopenings, 1);
});

test("a line that never falls silent fails the reading instead of holding it for ever", async (t) => {
  const link = path.join(await temporaryFolder(t), "babble.tty");
  const pty = openPty();
  await replaceSymlink(link, pty.path);
  const line = createRtuLine({
    description: link,
    openTransport: () => openSerialPort({ path: link, baud }),
    baud,
    bitsPerCharacter: 10,
  });
  const babble = setInterval(() => pty.write(Uint8Array.of(0x55)), 2);
  t.after(async () => {
    clearInterval(babble);
    await line.close();
    await pty.close();
  });
  const reading = await readMeter(line, { profile: { ...quickProfile, gapMs: 100 }, unit: 1, deadlineMs: 1000 });
  assert.equal(reading.status, 11);
  assert.match(reading.detail ?? "", /bytes without|without end/);
});

test("reads wait for one another: twenty at once are answered in order, one request in flight", async (t) => {
  const { line } = await startBench(t);
  const read = { unit: 1, functionCode: 4, address: 0, timeoutMs: 500 } as const;
  const lengths = await Promise.all(
    Array.from({ length: 20 }, async (_, i) => (await line.readRegisters({ ...read, count: 2 + 2 * (i % 5) })).length),
  );
  assert.deepEqual(
    lengths,
    Array.from({ length: 20 }, (_, i) => 2 + 2 * (i % 5)),
  );
});

test("close settles the read in flight and those that wait", async (t) => {
  const { meter, line } = await startBench(t);
  await line.open();
  meter.setFault({ kind: "silent" });
  const reads = [1, 2, 3].map(() =>
    assert.rejects(line.readRegisters({ unit: 1, functionCode: 4, address: 0, count: 2, timeoutMs: 60_000 }), {
      code: "port-closed",
    }),
  );
  while (meter.slave.requests === 0) await new Promise((resolve) => setImmediate(resolve));
  await line.close();
  await Promise.all(reads);
});

test("requests keep the gap: never less than asked for by the monotonic clock", async (t) => {
  const { line, meter } = await startBench(t);
  const read = { unit: 1, functionCode: 4, address: 0, count: 2, timeoutMs: 500, gapMs: 20 } as const;
  await line.readRegisters(read);
  const startedMs = performance.now();
  for (let i = 0; i < 5; i++) await line.readRegisters(read);
  // Five gaps of 20 ms and five answers of at least 8 ms.
  assert.ok(performance.now() - startedMs >= 5 * 28, `${performance.now() - startedMs} ms`);
  assert.equal(meter.slave.requests, 6);
});

test("t3.5 as the specification has it", () => {
  assert.equal(frameGapMs(9600, 10).toFixed(2), "3.65");
  assert.equal(frameGapMs(9600, 11).toFixed(2), "4.01");
  assert.equal(frameGapMs(38_400, 10), 1.75);
});

test("a request that no line can do is an error of the program, not a reading", async (t) => {
  const { line } = await startBench(t);
  const read = { unit: 1, functionCode: 4, address: 0, count: 2, timeoutMs: 100 } as const;
  for (const wrong of [{ count: 0 }, { count: 126 }, { unit: 256 }, { address: 65_535 }, { timeoutMs: 0 }]) {
    await assert.rejects(line.readRegisters({ ...read, ...wrong }), { code: "invalid-argument" });
  }
  await assert.rejects(
    readMeter(line, { ...meterOne, codes: [99] }),
    /profile eastron-sdm630 has no register for code 99/,
  );
});

test("more waiting reads than a line may hold are refused at once", async (t) => {
  const { link } = await startBench(t);
  const never = createRtuLine({
    description: link,
    openTransport: () => Promise.reject(new Error("never opened")),
    baud: 9600,
    bitsPerCharacter: 10,
  });
  const read = { unit: 1, functionCode: 4, address: 0, count: 2, timeoutMs: 100 } as const;
  const waiting = Array.from({ length: 256 }, () => never.readRegisters(read).catch(() => {}));
  await assert.rejects(never.readRegisters(read), { code: "line-overloaded" });
  await Promise.all(waiting);
});

// The fault that made us put our own port under modbus-serial: an answer that comes after its time-out.
import assert from "node:assert/strict";
import { test } from "node:test";
import modbusSerial from "modbus-serial";
import { DriverError } from "../../drivers/failure.ts";
import { readMeter } from "../../drivers/modbus/meter-reader.ts";
import { createHousehold } from "../../simulator/household.ts";
import { sdm630InputValues } from "../../simulator/sdm630-registers.ts";
import { baud, float32Of, quickProfile, startBench, testNowMs } from "./sdm630-line.ts";

const truth = sdm630InputValues(createHousehold(1).at(testNowMs));
const voltageAt = 0x00;
const energyAt = 0x48;
const truthOf = (address: number): number => Math.fround(truth.get(address) ?? Number.NaN);

test("control: through modbus-serial's own port the next request is given the late answer, with a valid CRC", async (t) => {
  const { meter } = await startBench(t);
  const client = new modbusSerial.default();
  await client.connectRTUBuffered(meter.path ?? "", { baudRate: baud });
  t.after(() => new Promise((resolve) => client.close(resolve)));
  client.setID(1);
  client.setTimeout(100);
  meter.setFault({ kind: "late", byMs: 250 }, 1);
  await assert.rejects(client.readInputRegisters(voltageAt, 2), { errno: "ETIMEDOUT" });
  client.setTimeout(5000);
  const { data } = await client.readInputRegisters(energyAt, 2);
  assert.equal(float32Of(Uint16Array.from(data)), truthOf(voltageAt), "the energy register resolved with the voltage");
});

test("through our port it never is, wherever the late answer falls", async (t) => {
  const read = { unit: 1, functionCode: 4, count: 2, timeoutMs: 60, slowestAnswerMs: 120, countStep: 2 } as const;
  let late = 0;
  // Within the rest of the line (80), at its end (110–130), and long after it (160–400): the last is caught by length.
  for (const byMs of [80, 110, 130, 160, 250, 400]) {
    const { meter, line } = await startBench(t); // a new line: one that has seen a late answer waits longer for the next
    meter.setFault({ kind: "late", byMs }, 1);
    await assert.rejects(line.readRegisters({ ...read, address: voltageAt }), { code: "timeout" });
    // While the meter is still busy with the first request a read may fail; what it may never do is to give the voltage.
    let good = 0;
    for (let i = 0; i < 12 && good < 2; i++) {
      const words = await line.readRegisters({ ...read, address: energyAt }).catch((error) => {
        assert.equal(error.code, "timeout");
      });
      if (words === undefined) continue;
      assert.equal(float32Of(words), truthOf(energyAt), `late by ${byMs} ms, read ${i}`);
      good++;
    }
    assert.equal(good, 2, `late by ${byMs} ms: the line never came back`);
    late += line.counters.get(1)?.late ?? 0;
  }
  assert.ok(late >= 3, "late answers were seen and rejected");
});

test("a meter that answers every other request late is read right or not at all", async (t) => {
  const { meter, line } = await startBench(t);
  const expected = await readMeter(line, { profile: quickProfile, unit: 1 });
  assert.equal(expected.status, 0, expected.detail);
  let good = 0;
  for (let i = 0; i < 6; i++) {
    meter.setFault({ kind: "late", byMs: 160 + 60 * i }, 1);
    const reading = await readMeter(line, { profile: quickProfile, unit: 1, deadlineMs: 3000 });
    if (reading.status === 0) {
      assert.deepEqual(reading.values, expected.values);
      good++;
    } else {
      assert.deepEqual(reading.values, Array(12).fill(0));
    }
  }
  assert.ok(good >= 4, `the one retry rescued only ${good} of 6 readings`);
});

test("a read whose turn comes after the deadline is not sent", async (t) => {
  const { meter, line } = await startBench(t);
  await line.open();
  const before = meter.slave.requests;
  const read = { unit: 1, functionCode: 4, address: 0, count: 2, timeoutMs: 60 } as const;
  await assert.rejects(
    line.readRegisters({ ...read, startBeforeMs: line.nowMs() - 1 }),
    (error) => error instanceof DriverError && error.code === "timeout" && /poll less often/.test(error.message),
  );
  assert.equal(meter.slave.requests, before);
});

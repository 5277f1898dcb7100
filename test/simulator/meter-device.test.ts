import assert from "node:assert/strict";
import { test } from "node:test";
import { findMeterProfile } from "../../drivers/modbus/profile-catalogue.ts";
import { encodeReadRequest, encodeRtuFrame } from "../../drivers/modbus/rtu-frame.ts";
import { createHousehold } from "../../simulator/household.ts";
import { meterDevice } from "../../simulator/meter-device.ts";
import { RtuSlaveLine } from "../../simulator/rtu-slave-line.ts";
import { SimulatedSlave } from "../../simulator/simulated-slave.ts";

const nowMs = Date.UTC(2026, 5, 10, 11);
const household = createHousehold(1);
const sdm630 = findMeterProfile("eastron-sdm630")!;
const newSlave = (unit = 5): SimulatedSlave =>
  new SimulatedSlave(meterDevice(sdm630, { unit, household, now: () => nowMs, serialNumber: 0x01020304 }));
const pdu = (functionCode: number, address: number, count: number): Uint8Array =>
  Uint8Array.of(functionCode, address >>> 8, address & 0xff, count >>> 8, count & 0xff);

test("input registers are float32, high word first; what the wiring does not have is 0", () => {
  const answer = newSlave().answer(pdu(4, 0x46, 4));
  assert.deepEqual([...answer.subarray(0, 2)], [4, 8]);
  const view = new DataView(answer.buffer);
  const state = household.at(nowMs);
  assert.equal(view.getFloat32(2), Math.fround(state.frequencyHz));
  assert.equal(view.getFloat32(6), Math.fround(state.importWh / 1000));
  assert.deepEqual([...newSlave().answer(pdu(4, 0x2c, 2))], [4, 4, 0, 0, 0, 0]);
});

test("the serial number stands in holding register 0xFC00", () => {
  assert.deepEqual([...newSlave().answer(pdu(3, 0xfc00, 2))], [3, 4, 1, 2, 3, 4]);
});

test("what the meter does not have is refused as the meter does it", () => {
  const slave = newSlave();
  for (const [request, code] of [
    [pdu(6, 0, 1), 1],
    [pdu(1, 0, 2), 1],
    [pdu(4, 0x17e, 2), 2],
    [pdu(4, 0x17c, 4), 2],
    [pdu(4, 1, 2), 2],
    [pdu(3, 0, 2), 2],
    [pdu(4, 0, 82), 3],
    [pdu(4, 0, 3), 3],
    [pdu(4, 0, 0), 3],
  ] as const) {
    assert.deepEqual([...slave.answer(request)], [request[0]! | 0x80, code], Buffer.from(request).toString("hex"));
  }
  assert.equal(slave.answer(pdu(4, 0, 80)).length, 162);
});

test("on the line: a wrong CRC, another unit and a broadcast get no answer, the meter's own request does", async () => {
  const slave = newSlave();
  const sent: Uint8Array[] = [];
  let answered = (): void => {};
  const line = new RtuSlaveLine({
    slaves: [slave],
    baud: 115_200,
    write: (bytes) => {
      sent.push(bytes);
      answered();
    },
  });
  const request = encodeReadRequest({ unit: 5, functionCode: 4, address: 0, count: 2 });
  const spoilt = request.slice();
  spoilt[7]! ^= 1;
  const done = new Promise<void>((resolve) => (answered = resolve));
  line.receive(spoilt);
  line.receive(encodeReadRequest({ unit: 6, functionCode: 4, address: 0, count: 2 }));
  line.receive(encodeReadRequest({ unit: 0, functionCode: 4, address: 0, count: 2 }));
  for (const byte of request) line.receive(Uint8Array.of(byte));
  await done;
  assert.equal(slave.requests, 1);
  assert.deepEqual(sent, [encodeRtuFrame(5, newSlave().answer(pdu(4, 0, 2)))]);
});

test("answers take the time that their bytes need at the line's speed", async () => {
  const startedMs = performance.now();
  await new Promise<void>((resolve) => {
    const line = new RtuSlaveLine({ slaves: [newSlave()], baud: 2400, write: () => resolve() });
    line.receive(encodeReadRequest({ unit: 5, functionCode: 4, address: 0, count: 4 }));
  });
  // 8 bytes there and 13 back at 240 characters a second; a timer may fire a millisecond early.
  assert.ok(performance.now() - startedMs >= (21 * 1000) / 240 - 1);
});

test("requests that come while it is busy are answered later and in order", async () => {
  const slave = newSlave();
  const sent: Uint8Array[] = [];
  slave.setFault({ kind: "late", byMs: 40 }, 1);
  await new Promise<void>((resolve) => {
    const line = new RtuSlaveLine({
      slaves: [slave],
      baud: 115_200,
      write: (bytes) => sent.push(bytes) === 2 && resolve(),
    });
    line.receive(encodeReadRequest({ unit: 5, functionCode: 4, address: 0, count: 2 }));
    line.receive(encodeReadRequest({ unit: 5, functionCode: 4, address: 0, count: 6 }));
  });
  assert.deepEqual(
    sent.map(({ length }) => length),
    [9, 17],
  );
});

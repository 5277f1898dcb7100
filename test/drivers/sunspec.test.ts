import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import type { ModbusLine } from "../../drivers/modbus/line.ts";
import { ModbusMeter } from "../../drivers/modbus/modbus-meter.ts";
import { findMeterProfile } from "../../drivers/modbus/profile-catalogue.ts";
import { createTcpLine } from "../../drivers/modbus/tcp-line.ts";
import { quantityOfCode } from "../../protocol/quantity.ts";
import { createHousehold } from "../../simulator/household.ts";
import { SimulatedSlave } from "../../simulator/simulated-slave.ts";
import { exceptionPdu, type SlaveDevice, wordsPdu } from "../../simulator/slave-device.ts";
import {
  commonModel,
  type SunspecDeviceOptions,
  type SunspecModelImage,
  type SunspecValue,
  sunspecDevice,
} from "../../simulator/sunspec-device.ts";
import { sunspecHousehold } from "../../simulator/sunspec-household.ts";
import { serveModbusTcp } from "../../simulator/tcp-slave.ts";

const common = commonModel("Sonne", "S 5000", "SN-42");

/** Three phases, feeding 2340 W, and what the house took before: 12340 Wh. */
const inverterValues: readonly SunspecValue[] = [
  { offset: 3, type: "uint16", value: 10, scaleOffset: 6 },
  { offset: 10, type: "uint16", value: 230, scaleOffset: 13 },
  { offset: 14, type: "int16", value: 2340, scaleOffset: 15 },
  { offset: 16, type: "uint16", value: 50, scaleOffset: 17 },
  { offset: 18, type: "int16", value: -32_768 },
  { offset: 24, type: "uint32", value: 4_123_400, scaleOffset: 26 },
];
const inverter: SunspecModelImage = { id: 103, length: 50, values: inverterValues };
const storage: SunspecModelImage = {
  id: 713,
  length: 7,
  values: [
    { offset: 2, type: "uint16", value: 10_000, scaleOffset: 7 },
    { offset: 3, type: "uint16", value: 5500, scaleOffset: 7 },
    { offset: 4, type: "uint16", value: 55, scaleOffset: 8 },
  ],
};
const port = (n: number, type: number, watt: number, injected: number, absorbed: number): SunspecValue[] => [
  { offset: 20 + 25 * n, type: "uint16", value: type },
  { offset: 32 + 25 * n, type: "int16", value: watt, scaleOffset: 17 },
  { offset: 33 + 25 * n, type: "uint64", value: injected, scaleOffset: 18 },
  { offset: 37 + 25 * n, type: "uint64", value: absorbed, scaleOffset: 18 },
];
const ports: SunspecModelImage = {
  id: 714,
  length: 18 + 3 * 25,
  values: [
    { offset: 4, type: "uint16", value: 3 },
    ...port(0, 0, 2000, 9_000_000, 0),
    ...port(1, 1, -700, 1_000_000, 2_000_000),
    ...port(2, 1, -300, 500_000, 600_000),
  ],
};

interface Bench {
  readonly line: ModbusLine;
  readonly slave: SimulatedSlave;
  readonly meter: (profile: string) => ModbusMeter;
}

async function serve(t: TestContext, device: SlaveDevice): Promise<Bench> {
  const slave = new SimulatedSlave(device);
  const server = await serveModbusTcp([slave], { host: "127.0.0.1", port: 0 });
  const line = createTcpLine({ host: "127.0.0.1", port: server.port });
  t.after(async () => {
    await line.close();
    await server.close();
  });
  const meter = (id: string): ModbusMeter => new ModbusMeter(line, { ...findMeterProfile(id)!, gapMs: 0 }, 1);
  return { line, slave, meter };
}

const start = (
  t: TestContext,
  models: readonly SunspecModelImage[],
  options: Partial<SunspecDeviceOptions> = {},
): Promise<Bench> => serve(t, sunspecDevice({ unit: 1, models: () => models, ...options }));

async function valuesOf(meter: ModbusMeter, codes?: readonly number[]): Promise<Record<string, number>> {
  const reading = await meter.read(codes && { codes });
  assert.equal(reading.status, 0, reading.detail);
  const name = (code: number): string => quantityOfCode(code)?.name ?? `${code}`;
  return Object.fromEntries(reading.codes.map((code, i) => [name(code), reading.values[i] ?? 0]));
}

const expected = {
  "active-power-import": 0,
  "active-power-export": 2340,
  "active-energy-export": 4_123_400,
  frequency: 50_000,
  "storage-charge-energy": 2_600_000,
  "storage-discharge-energy": 1_500_000,
  "storage-power": 1000,
  "storage-state-of-charge": 550,
  "storage-energy-available": 5500,
  "voltage-l1": 230_000,
  "current-l1": 10_000,
};
const factors = [0, -1, 1, 0, 1, -1, -2];
const changing: NonNullable<SunspecDeviceOptions["scaleOf"]> = (model, scaleOffset, answer) => {
  // Values that a factor of 10 would cut stay at 0 or below.
  const factor = factors[answer % factors.length] ?? 0;
  const fits = model === 713 ? (scaleOffset === 7 ? Math.max(0, factor) : Math.min(0, factor)) : factor;
  return scaleOffset === 15 || scaleOffset === 17 ? Math.max(-1, fits) : fits; // powers have 16 bits
};

test("an inverter with storage whose scale factors change between polls: the values stay right", async (t) => {
  const { meter } = await start(t, [common, inverter, storage, ports], { scaleOf: changing });
  const device = meter("sunspec-inverter");
  for (let poll = 0; poll < 2 * factors.length; poll++)
    assert.deepEqual(await valuesOf(device), expected, `poll ${poll}`);
});

test("factors that are read once make wrong values of the same device (control)", async (t) => {
  const { line } = await start(t, [common, inverter, storage, ports], { scaleOf: changing });
  const at = 40_000 + 2 + 68;
  const word = async (offset: number): Promise<number> => {
    const words = await line.readRegisters({
      unit: 1,
      functionCode: 3,
      address: at + offset,
      count: 1,
      timeoutMs: 500,
    });
    return ((words[0] ?? 0) << 16) >> 16;
  };
  const factor = await word(15);
  let wrong = 0;
  for (let poll = 0; poll < factors.length; poll++) if ((await word(14)) * 10 ** factor !== 2340) wrong++;
  assert.ok(wrong > 0, "the device does change its factors");
});

test("the models stand at 40000, 0 or 50000; elsewhere the device is not one", async (t) => {
  for (const base of [40_000, 0, 50_000]) {
    const { meter } = await start(t, [common, inverter], { base });
    assert.equal((await valuesOf(meter("sunspec-inverter")))["active-power-export"], 2340, `${base}`);
    assert.equal(await meter("sunspec-inverter").serialNumber(), "SN-42");
  }
  const { meter } = await start(t, [common, inverter], { base: 30_000 });
  const reading = await meter("sunspec-inverter").read();
  assert.equal(reading.status, 7);
  assert.match(reading.detail ?? "", /expected "SunS" at register 40000, 0, 50000/);
});

test("a meter: import and export, negative power, what is not implemented left out, or status R when named", async (t) => {
  const model: SunspecModelImage = {
    id: 203,
    length: 105,
    values: [
      { offset: 18, type: "int16", value: -1500, scaleOffset: 22 },
      { offset: 38, type: "uint32", value: 4_294_967_295, scaleOffset: 54 },
      { offset: 46, type: "uint32", value: 0, scaleOffset: 54 },
      { offset: 16, type: "int16", value: -32_768, scaleOffset: 17 },
      ...[3, 4, 5, 8, 9, 10].map((offset) => ({ offset, type: "int16", value: -32_768 }) as const),
      { offset: 72, type: "uint32", value: 7, scaleOffset: 104 },
      { offset: 80, type: "uint32", value: 8, scaleOffset: 104 },
    ],
  };
  const { meter } = await start(t, [common, model]);
  const device = meter("sunspec-meter");
  assert.deepEqual(await valuesOf(device), {
    "active-power-import": 0,
    "active-energy-import": 0,
    "active-power-export": 1500,
    "active-energy-export": 4_294_967_295, // the largest before it begins anew
  });
  assert.deepEqual(await valuesOf(device, [6]), { "reactive-energy-import": 15 });
  const named = await device.read({ codes: [1, 14] });
  assert.equal(named.status, 4);
  assert.match(named.detail ?? "", /gives frequency/);
  await assert.rejects(device.read({ codes: [18] }), RangeError);
});

test("models of floats, and the newer model is preferred where a device has both", async (t) => {
  const floats: SunspecModelImage = {
    id: 113,
    length: 60,
    values: [
      { offset: 22, type: "float32", value: 1234.5 },
      { offset: 32, type: "float32", value: 1_000_000 },
      { offset: 24, type: "float32", value: 49.98 },
    ],
  };
  const { meter } = await start(t, [common, inverter, floats]);
  const values = await valuesOf(meter("sunspec-inverter"));
  assert.deepEqual(
    [values["active-power-export"], values["active-energy-export"], values.frequency],
    [1235, 1_000_000, 49_980],
  );
});

test("model 701: energies of 64 bits, both directions", async (t) => {
  const der: SunspecModelImage = {
    id: 701,
    length: 153,
    values: [
      { offset: 10, type: "int16", value: -450, scaleOffset: 116 },
      { offset: 19, type: "uint64", value: 9_007_199_254_740_990, scaleOffset: 120 },
      { offset: 23, type: "uint64", value: 5_000_000_000, scaleOffset: 120 },
    ],
  };
  const { meter } = await start(t, [common, der], { scaleOf: (_, offset) => (offset === 120 ? 1 : 0) });
  const values = await valuesOf(meter("sunspec-inverter"), [1, 2, 3, 4, 29]);
  assert.deepEqual(Object.values(values), [450, 5_000_000_000, 0, 9_007_199_254_740_990, 450]);
});

test("storage by itself: rated capacity, state, and nothing of an inverter", async (t) => {
  const battery: SunspecModelImage = {
    id: 802,
    length: 62,
    values: [
      { offset: 3, type: "uint16", value: 12_000, scaleOffset: 53 },
      { offset: 11, type: "uint16", value: 42.5, scaleOffset: 56 },
      { offset: 14, type: "uint32", value: 321 },
      { offset: 16, type: "uint16", value: 4 },
    ],
  };
  const { meter } = await start(t, [common, battery], { scaleOf: (_, offset) => (offset === 56 ? -1 : 0) });
  assert.deepEqual(await valuesOf(meter("sunspec-storage")), {
    "storage-state-of-charge": 425,
    "storage-capacity": 12_000,
  });
  assert.deepEqual(Object.values(await valuesOf(meter("sunspec-storage"), [32, 35])), [321, 4]);
  assert.equal((await meter("sunspec-inverter").read({ codes: [3] })).status, 4);
});

test("a factor that no specification allows, a model that grew, a chain without end: a status, no value", async (t) => {
  const wild = await start(t, [common, inverter], { scaleOf: (_, offset) => (offset === 15 ? 50 : 0) });
  const reading = await wild.meter("sunspec-inverter").read();
  assert.equal(reading.status, 11);
  assert.match(reading.detail ?? "", /scale factor of W is 50/);

  let models = [common, inverter];
  const moved = await serve(t, sunspecDevice({ unit: 1, models: () => models }));
  const device = moved.meter("sunspec-inverter");
  assert.equal((await device.read()).status, 0);
  models = [common, storage, inverter];
  const lost = await device.read();
  assert.equal(lost.status, 7);
  assert.match(lost.detail ?? "", /expected model 103 at register \d+, got 713/);
  assert.equal((await device.read()).status, 0, "found again");

  // Every register says "SunS": each model has the length 0x5375, which no model has.
  const endless = await serve(t, {
    unit: 1,
    answer: (pdu) =>
      wordsPdu(
        3,
        Uint16Array.from({ length: pdu[4] ?? 0 }, (_, i) => (i % 2 ? 0x6e53 : 0x5375)),
      ),
  });
  assert.equal((await endless.meter("sunspec-inverter").read()).status, 11);
  const zeros = await serve(t, {
    unit: 1,
    answer: (pdu) => {
      const isMark = ((pdu[1] ?? 0) << 8) + (pdu[2] ?? 0) === 40_000;
      return wordsPdu(3, isMark ? Uint16Array.of(0x5375, 0x6e53) : new Uint16Array(pdu[4] ?? 0));
    },
  });
  const before = zeros.slave.requests;
  assert.equal((await zeros.meter("sunspec-inverter").read({ deadlineMs: 20_000 })).status, 7);
  assert.ok(zeros.slave.requests - before <= 70, "the chain is bounded");
});

test("a simulated house gives every SunSpec profile what it reads, the same at every poll", async (t) => {
  const household = createHousehold(3);
  const now = (): number => Date.UTC(2026, 5, 10, 11);
  for (const id of ["sunspec-inverter", "sunspec-meter", "sunspec-storage"]) {
    const profile = findMeterProfile(id)!;
    const { meter } = await serve(t, sunspecHousehold(profile, { unit: 1, household, now, serialNumber: 77 }));
    const device = meter(id);
    const first = await valuesOf(device);
    assert.ok(Object.keys(first).length >= 3, id);
    assert.deepEqual(await valuesOf(device), first);
    assert.equal(await device.serialNumber(), "77");
  }
});

test("a gateway that was busy for a moment costs no models: the chain is not taken for ended", async (t) => {
  const device = sunspecDevice({ unit: 1, models: () => [common, inverter, storage, ports] });
  for (const code of [4, 10, 11]) {
    let heads = 0;
    const failing: SlaveDevice = {
      unit: 1,
      // The head of the third model: 2 registers. It fails for as long as it is tried again.
      answer: (pdu) => {
        const isHead = pdu[4] === 2 && (pdu[1]! << 8) + pdu[2]! >= 40_002;
        return isHead && ++heads >= 3 && heads < 10 ? exceptionPdu(pdu[0]!, code) : device.answer(pdu);
      },
    };
    const { meter } = await serve(t, failing);
    const reader = meter("sunspec-inverter");
    const first = await reader.read();
    assert.ok(first.status !== 0 || code === 4, `exception ${code}: not all models are known`);
    heads = 10;
    assert.ok((await reader.read()).codes.includes(18), `exception ${code}: the storage is there`);
  }
});

test("a chain that was cut short by a refusal is followed again after a quarter of an hour", async (t) => {
  const device = sunspecDevice({ unit: 1, models: () => [common, inverter, storage, ports] });
  let refuses = true;
  let passedMs = 0;
  const server = await serveModbusTcp(
    [
      new SimulatedSlave({
        unit: 1,
        answer: (pdu) =>
          refuses && pdu[4] === 2 && (pdu[1]! << 8) + pdu[2]! > 40_100 ? exceptionPdu(pdu[0]!, 2) : device.answer(pdu),
      }),
    ],
    { host: "127.0.0.1", port: 0 },
  );
  const nowMs = (): number => performance.now() + passedMs;
  const line = createTcpLine({ host: "127.0.0.1", port: server.port, nowMs });
  t.after(async () => {
    await line.close();
    await server.close();
  });
  const meter = new ModbusMeter(line, { ...findMeterProfile("sunspec-inverter")!, gapMs: 0 }, 1);
  assert.ok(!(await meter.read()).codes.includes(18));
  refuses = false;
  assert.ok(!(await meter.read()).codes.includes(18));
  passedMs = 15 * 60_000;
  assert.ok((await meter.read()).codes.includes(18));
});

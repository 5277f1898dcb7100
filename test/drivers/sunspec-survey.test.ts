// Everything in a SunSpec device's models, read by its own table of points (drivers/modbus/sunspec-points.json).
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { text } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import { ModbusMeter } from "../../drivers/modbus/modbus-meter.ts";
import { findMeterProfile } from "../../drivers/modbus/profile-catalogue.ts";
import { derPortPoints, derPorts, sunspecModels } from "../../drivers/modbus/sunspec-models.ts";
import { fixedPoints, groupPoints, isDecoded, modelTitle, scaledText } from "../../drivers/modbus/sunspec-points.ts";
import { type SunspecSurvey, surveySunspec } from "../../drivers/modbus/sunspec-survey.ts";
import { createTcpLine } from "../../drivers/modbus/tcp-line.ts";
import { createHousehold } from "../../simulator/household.ts";
import { SimulatedSlave } from "../../simulator/simulated-slave.ts";
import { exceptionPdu, type SlaveDevice } from "../../simulator/slave-device.ts";
import {
  commonModel,
  type SunspecDeviceOptions,
  type SunspecModelImage,
  type SunspecValue,
  sunspecDevice,
} from "../../simulator/sunspec-device.ts";
import { sunspecHousehold } from "../../simulator/sunspec-household.ts";
import { serveModbusTcp } from "../../simulator/tcp-slave.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";

const common = commonModel("Sonne", "S 5000", "SN-42");
const profile = { ...findMeterProfile("sunspec-inverter")!, gapMs: 0 };
const wholeRegisters = 2050;

async function serve(t: TestContext, device: SlaveDevice) {
  const slave = new SimulatedSlave(device);
  const server = await serveModbusTcp([slave], { host: "127.0.0.1", port: 0 });
  const line = createTcpLine({ host: "127.0.0.1", port: server.port });
  t.after(async () => {
    await line.close();
    await server.close();
  });
  return { line, slave, port: server.port };
}

async function surveyed(
  t: TestContext,
  models: readonly SunspecModelImage[],
  options: Partial<SunspecDeviceOptions> = {},
): Promise<SunspecSurvey> {
  const { line } = await serve(t, sunspecDevice({ unit: 1, models: () => models, ...options }));
  const survey = await surveySunspec(line, { unit: 1, profile });
  assert.ok(survey);
  return survey;
}

/** What a model says, by point; a point of a group is `2.DCW`. */
function valuesOf(survey: SunspecSurvey, id: number): Record<string, string> {
  const model = survey.models.find((item) => item.id === id);
  assert.ok(model, `model ${id}`);
  assert.equal(model.problem, undefined);
  return Object.fromEntries(
    model.values.map(({ point: { name, group }, value, absence }) => [
      group === undefined ? name : `${group}.${name}`,
      value ?? `(${absence})`,
    ]),
  );
}

test("the table: points do not overlap, factors are there, and every quantity stands where the table has it", () => {
  const models = [
    1, 101, 102, 103, 111, 112, 113, 120, 121, 122, 123, 124, 160, 201, 202, 203, 204, 211, 212, 213, 214,
  ];
  for (const id of [...models, 701, 702, 713, 714, 802]) {
    const points = [...fixedPoints(id, wholeRegisters), ...groupPoints(id, wholeRegisters, 3)];
    assert.ok(points.length >= 6 && modelTitle(id), `${id}`);
    let next = 2;
    for (const { name, offset, registers, scale } of points) {
      assert.ok(offset >= next, `${id} ${name}: overlaps`);
      next = offset + registers;
      if (scale)
        assert.ok(
          points.some((point) => point.name === scale.name && point.type === "sunssf"),
          `${id} ${name}`,
        );
    }
  }
  const typeOf = (type: string): string =>
    type.startsWith("acc") ? `uint${type.slice(3)}` : type.replace("enum", "uint");
  let compared = 0;
  for (const { ids, points } of Object.values(sunspecModels).flat())
    for (const id of ids.filter((item) => item !== derPorts.model))
      for (const { name, offsets, type, scaleOffset } of points)
        for (const [i, part] of name.split(" + ").entries()) {
          const found = fixedPoints(id, wholeRegisters).find((point) => point.offset === offsets[i]);
          // Model 202 names two points of 201 otherwise; offsets, types and factors are what counts.
          assert.ok(found, `${id} ${part}`);
          assert.deepEqual(
            [found.name, typeOf(found.type), found.scale?.offset],
            [part, type, scaleOffset],
            `${id} ${part}`,
          );
          compared++;
        }
  assert.ok(compared > 200);
  const ports = groupPoints(714, wholeRegisters, 2);
  for (const { name, offsets, type, scaleOffset } of derPortPoints([derPorts.firstOffset + derPorts.registers])) {
    const found = ports.find((point) => point.group === 2 && point.offset === offsets[0]);
    assert.deepEqual([`${found?.name} of storage ports`, found?.type, found?.scale?.offset], [name, type, scaleOffset]);
  }
});

test("a value times its power of ten is an exact decimal", () => {
  assert.equal(scaledText(2300n, -2), "23.00");
  assert.equal(scaledText(-5n, -3), "-0.005");
  assert.equal(scaledText(0n, -1), "0.0");
  assert.equal(scaledText(-7n, 0), "-7");
  assert.equal(scaledText(18_446_744_073_709_551_614n, 10), "184467440737095516140000000000");
  assert.equal(scaledText(18_446_744_073_709_551_614n, -10), "1844674407.3709551614");
});

test("each point with its factor, and what is not implemented by the mark of its type", async (t) => {
  const inverter: SunspecModelImage = {
    id: 103,
    length: 50,
    values: [
      { offset: 14, type: "int16", value: -2340, scaleOffset: 15 },
      { offset: 24, type: "uint32", value: 429_496_729.5, scaleOffset: 26 },
      { offset: 20, type: "int16", value: 5 }, // its factor is not implemented
      { offset: 22, type: "int16", value: 95 },
      { offset: 23, type: "int16", value: 50 }, // a factor that no specification allows
      { offset: 38, type: "uint16", value: 4 },
      { offset: 40, type: "uint32", value: 6 },
    ],
  };
  const ac: SunspecModelImage = {
    id: 701,
    length: 153,
    values: [
      { offset: 19, type: "uint64", value: 9_007_199_254_740_990, scaleOffset: 120 },
      { offset: 17, type: "uint32", value: 50.01, scaleOffset: 115 },
    ],
    texts: [{ offset: 123, count: 32, text: "all \u0007 well" }],
  };
  const floats: SunspecModelImage = {
    id: 213,
    length: 124,
    values: [
      { offset: 26, type: "float32", value: 49.98 },
      { offset: 28, type: "float32", value: -0.5 },
      { offset: 124, type: "uint32", value: 0x81 }, // beyond the first 125 registers
    ],
  };
  const enterService: SunspecModelImage = { id: 703, length: 17, values: [] };
  const foreign: SunspecModelImage = { id: 64_110, length: 5, values: [] };
  const survey = await surveyed(t, [common, inverter, ac, floats, enterService, foreign], {
    scaleOf: (_, offset) => (offset === 120 ? 3 : offset === 115 ? -2 : -1),
  });
  assert.equal(survey.base, 40_000);
  assert.deepEqual(
    survey.models.map(({ id, address, registers, isDecoded: decoded }) => [id, address, registers, decoded]),
    [
      [1, 40_002, 68, true],
      [103, 40_070, 52, true],
      [701, 40_122, 155, true],
      [213, 40_277, 126, true],
      [703, 40_403, 19, false],
      [64_110, 40_422, 7, false],
    ],
  );
  assert.deepEqual([modelTitle(703), modelTitle(64_110), isDecoded(804)], ["Enter Service", undefined, false]);
  const ofCommon = valuesOf(survey, 1);
  assert.deepEqual(
    [ofCommon.Mn, ofCommon.SN, ofCommon.Opt, ofCommon.DA],
    [...["Sonne", "SN-42", "(not implemented)", "(not implemented)"]],
  );
  const of103 = valuesOf(survey, 103);
  const expected = {
    W: "-2340.0",
    WH: "429496729.5", // all ones: an accumulator's largest
    VAr: "(scale factor not implemented)",
    PF: "(scale factor out of range)",
    Hz: "(not implemented)",
    TmpCab: "(not implemented)",
    W_SF: "-1",
    St: "4",
    StVnd: "(not implemented)",
    Evt1: "0x00000006",
    Evt2: "(not implemented)",
  };
  for (const [name, value] of Object.entries(expected)) assert.equal(of103[name], value, name);
  const of701 = valuesOf(survey, 701);
  assert.equal(of701.TotWhInj, "9007199254741000", "the device holds thousands");
  assert.equal(of701.Hz, "50.01");
  assert.equal(of701.TotWhAbs, "(not implemented)");
  assert.equal(of701.MnAlrmInfo, "all ? well");
  const of213 = valuesOf(survey, 213);
  assert.deepEqual([of213.Hz, of213.W, of213.VAR, of213.Evt], ["49.98", "-0.5", "(not implemented)", "0x00000081"]);
});

/** Modules of model 160: each gives its number times 100 W. */
const modules = (said: number, room: number): SunspecModelImage => ({
  id: 160,
  length: 8 + 20 * room,
  values: [
    { offset: 8, type: "uint16", value: said },
    ...Array.from({ length: room }, (_, n): SunspecValue[] => [
      { offset: 10 + 20 * n, type: "uint16", value: n + 1 },
      { offset: 21 + 20 * n, type: "uint16", value: 100 * (n + 1), scaleOffset: 4 },
    ]).flat(),
  ],
});

test("a device that holds random words is shown without failure, bounded, in characters that a terminal may have", async (t) => {
  const random = randomOfRun();
  t.diagnostic(`ECP_TEST_SEED=${random.seed}`);
  for (const id of [1, 103, 113, 160, 203, 701, 702, 714, 802]) {
    const length = 2 + random.integer(0, 400);
    const device = sunspecDevice({ unit: 1, models: () => [common, { id, length, values: [] }] });
    const { line } = await serve(t, {
      unit: 1,
      answer: (pdu) => {
        const reply = device.answer(pdu);
        const address = ((pdu[1] ?? 0) << 8) + (pdu[2] ?? 0);
        if (!reply || (pdu[4] ?? 0) < 3) return reply;
        // Id and length stay, so that it is still that model.
        for (let i = address === 40_070 || address === 40_002 ? 6 : 2; i < reply.length; i++)
          reply[i] = random.integer(0, 255);
        return reply;
      },
    });
    const survey = await surveySunspec(line, { unit: 1, profile });
    const model = survey?.models[1];
    assert.deepEqual([model?.id, model?.problem], [id, undefined]);
    for (const { value, point } of model?.values ?? []) {
      if (value !== undefined) assert.match(value, /^[\x20-\x7e]{1,80}$/, point.name);
      assert.ok(point.offset + point.registers <= length + 2, point.name);
    }
  }
});

test("repeated groups end where the model does, whatever their number is said to be", async (t) => {
  const survey = await surveyed(t, [common, modules(9, 2)]);
  const values = valuesOf(survey, 160);
  assert.deepEqual([values["1.DCW"], values["2.DCW"], values["2.ID"], values["3.DCW"]], ["100", "200", "2", undefined]);
  assert.equal(survey.models.find(({ id }) => id === 160)?.groupsSaid, 9);
  assert.equal(valuesOf(await surveyed(t, [common, modules(1, 2)]), 160)["2.DCW"], undefined, "said to be one");
  assert.equal(valuesOf(await surveyed(t, [common, modules(0xffff, 2)]), 160)["2.DCW"], "200", "not said");
  // A model too short for its own head.
  const short = await surveyed(t, [common, { id: 160, length: 3, values: [] }]);
  assert.deepEqual(Object.keys(valuesOf(short, 160)), ["DCA_SF", "DCV_SF", "DCW_SF"]);
});

test("groups beyond one request: factors are read before and after, and no value goes with another's factor", async (t) => {
  const room = 15;
  const steady = await surveyed(t, [common, modules(room, room)], { scaleOf: () => -1 });
  const values = valuesOf(steady, 160);
  for (let n = 1; n <= room; n++) assert.equal(values[`${n}.DCW`], `${n * 100}.0`);
  // Factors that change from answer to answer, in several rhythms: what cannot be told is not shown, and nothing wrong is.
  for (const rhythm of [
    [0, 1],
    [0, 1, -1],
    [0, 0, 1, 1],
    [1, 0, -1, 0, 2, 2],
  ]) {
    const scaleOf = (_model: number, _offset: number, answer: number): number => rhythm[answer % rhythm.length] ?? 0;
    const wild = await surveyed(t, [common, modules(room, room)], { scaleOf });
    const model = wild.models.find(({ id }) => id === 160);
    assert.ok(model);
    const watts = model.values.filter(({ point }) => point.name === "DCW");
    for (const { point, value } of watts) assert.equal(Number(value), (point.group ?? 0) * 100, `${rhythm}`);
    assert.equal(watts.length + model.unsteady.filter(({ name }) => name === "DCW").length, room);
    assert.ok(model.unsteady.length > 0, `${rhythm}`);
  }
  // A factor that changes once is read again and found steady.
  let answers = 0;
  const once = await surveyed(t, [common, modules(room, room)], {
    scaleOf: (_model, _offset, answer) => {
      answers = answer;
      return answer < 8 ? 0 : 1;
    },
  });
  assert.ok(answers > 13, "one more round of requests");
  assert.equal(valuesOf(once, 160)["15.DCW"], "1500");
});

test("factors that are read once, with the first request only, make wrong values of the same device (control)", async (t) => {
  const room = 15;
  const device = sunspecDevice({
    unit: 1,
    models: () => [common, modules(room, room)],
    scaleOf: (_model, _offset, answer) => answer % 2,
  });
  const { line } = await serve(t, device);
  const read = (offset: number): Promise<Uint16Array> =>
    line.readRegisters({ unit: 1, functionCode: 3, address: 40_070 + offset, count: 1, timeoutMs: 500 });
  const factor = (await read(4))[0] ?? 0;
  const watts = [];
  for (let n = 0; n < room; n++) watts.push(((await read(21 + 20 * n))[0] ?? 0) * 10 ** factor);
  assert.ok(watts.some((value, n) => value !== 100 * (n + 1)));
});

test("a model that another takes the place of, or that is refused, is said; the others are shown", async (t) => {
  let reads = 0;
  const device = sunspecDevice({ unit: 1, models: () => [common, modules(2, 2)] });
  const { line } = await serve(t, {
    unit: 1,
    answer: (pdu) => {
      const isModel = ((pdu[1] ?? 0) << 8) + (pdu[2] ?? 0) === 40_070 && (pdu[4] ?? 0) > 2;
      if (isModel && ++reads > 0) return exceptionPdu(3, 2);
      return device.answer(pdu);
    },
  });
  const survey = await surveySunspec(line, { unit: 1, profile });
  assert.match(survey?.models[1]?.problem ?? "", /exception 2/);
  assert.equal(survey?.models[0]?.problem, undefined);
  let models = [common, modules(2, 2)];
  const moving = sunspecDevice({ unit: 1, models: () => models });
  const other = await serve(t, {
    unit: 1,
    answer: (pdu) => {
      if ((pdu[4] ?? 0) > 2) models = [common, { id: 713, length: 48, values: [] }];
      return moving.answer(pdu);
    },
  });
  const moved = await surveySunspec(other.line, { unit: 1, profile });
  assert.match(moved?.models[1]?.problem ?? "", /expected model 160 at register 40070, got 713/);
  const nowhere = await serve(t, sunspecDevice({ unit: 1, base: 30_000, models: () => [common] }));
  assert.equal(await surveySunspec(nowhere.line, { unit: 1, profile }), undefined);
});

test("rated power of model 702, and the power factor of 701 with the sign of the power", async (t) => {
  const models: SunspecModelImage[] = [
    common,
    {
      id: 701,
      length: 153,
      values: [
        { offset: 10, type: "int16", value: 2000, scaleOffset: 116 },
        { offset: 13, type: "int16", value: 0.95, scaleOffset: 117 },
      ],
    },
    {
      id: 702,
      length: 50,
      values: [
        { offset: 2, type: "uint16", value: 5000, scaleOffset: 45 },
        { offset: 10, type: "uint16", value: 4600, scaleOffset: 45 },
      ],
    },
    { id: 120, length: 26, values: [{ offset: 3, type: "uint16", value: 9999, scaleOffset: 4 }] },
  ];
  const device = sunspecDevice({ unit: 1, models: () => models, scaleOf: (_, offset) => (offset === 117 ? -3 : 1) });
  const { line } = await serve(t, device);
  const reading = await new ModbusMeter(line, profile, 1).read({ codes: [13, 29, 33, 36] });
  assert.equal(reading.status, 0, reading.detail);
  assert.deepEqual(reading.values, [-950, -2000, 4600, 5000]);
});

const program = path.join(import.meta.dirname, "../../cli/ecp.ts");

async function run(...args: readonly string[]): Promise<{ status: number; out: string; error: string }> {
  const child = spawn(process.execPath, [program, "sunspec", ...args], { stdio: ["ignore", "pipe", "pipe"] });
  const [[status], out, error] = await Promise.all([once(child, "close"), text(child.stdout), text(child.stderr)]);
  return { status, out, error };
}

test("ecp sunspec shows a simulated inverter with storage, as a table and as JSON", async (t) => {
  const inverter = findMeterProfile("sunspec-inverter")!;
  const now = (): number => Date.UTC(2026, 5, 10, 11);
  const options = { unit: 1, household: createHousehold(3), now, serialNumber: 77 };
  const { port } = await serve(t, sunspecHousehold(inverter, options));
  const at = ["--tcp", `127.0.0.1:${port}`];
  const shown = await run(...at);
  assert.equal(shown.status, 0, shown.error);
  assert.match(shown.out, /"SunS" at register 40000/);
  assert.match(shown.out, /Model 103, Inverter \(Three Phase\): register 40070, length 50/);
  assert.match(shown.out, /PhVphA +2\d\d\.\d+ +V +10\^-\d/);
  assert.match(shown.out, /VAr +\(not implemented\)/);
  const { status, out } = await run(...at, "--json", "--model", "713");
  assert.equal(status, 0);
  const { base, models } = JSON.parse(out) as {
    base: number;
    models: { id: number; length: number; points: { name: string; value?: string; absent?: string }[] }[];
  };
  assert.deepEqual([base, models.map(({ id, length }) => [id, length])], [40_000, [[713, 7]]]);
  assert.match(models[0]?.points.find(({ name }) => name === "SoC")?.value ?? "", /^\d+(\.\d+)?$/);
  assert.equal(models[0]?.points.find(({ name }) => name === "Sta")?.absent, "not implemented");
});

test("ecp sunspec without models, without a line, with a wrong flag", async (t) => {
  const { port } = await serve(t, sunspecDevice({ unit: 1, base: 30_000, models: () => [common] }));
  const none = await run("--tcp", `127.0.0.1:${port}`);
  assert.equal(none.status, 1);
  assert.match(none.error, /expected: "SunS" at register 40000, 0, 50000/);
  for (const [args, says] of [
    [[], /--serial PATH or --tcp HOST:PORT is missing/],
    [["--tcp", "h", "--serial", "/dev/x"], /together/],
    [["--tcp", "h", "--model", "x"], /the number of a model/],
    [["--tcp", "h", "--unit", "0"], /from 1 to 247/],
  ] as const) {
    const { status, error } = await run(...args);
    assert.equal(status, 64, error);
    assert.match(error, says);
  }
});

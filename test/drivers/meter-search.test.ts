import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import type { ModbusLine } from "../../drivers/modbus/line.ts";
import { type SearchOptions, searchLine } from "../../drivers/modbus/meter-search.ts";
import { type LineSettings, planSearch, stepMs } from "../../drivers/modbus/meter-search-plan.ts";
import { recognise, UnitReader } from "../../drivers/modbus/meter-search-recognition.ts";
import { findMeterProfile, meterProfiles } from "../../drivers/modbus/profile-catalogue.ts";
import { createRtuLine } from "../../drivers/modbus/rtu-line.ts";
import { createTcpLine } from "../../drivers/modbus/tcp-line.ts";
import { openSerialPort } from "../../drivers/serial/serial-port.ts";
import { bitsPerCharacter } from "../../drivers/serial/serial-settings.ts";
import { createHousehold } from "../../simulator/household.ts";
import { imageDevice, meterDevice } from "../../simulator/meter-device.ts";
import { RegisterImage } from "../../simulator/register-image.ts";
import { runSimulatedBus, type SimulatedBusOptions } from "../../simulator/simulated-bus.ts";
import { SimulatedSlave } from "../../simulator/simulated-slave.ts";
import { exceptionPdu } from "../../simulator/slave-device.ts";

const household = createHousehold(1);
const nowMs = Date.UTC(2026, 5, 10, 11);
const host = "127.0.0.1";
const timeoutMs = 120;
const strictly = { parity: "even", stopBits: 1 } as const;

function meterAt(id: string, unit: number, modes: Readonly<Record<string, number>> = {}): SimulatedSlave {
  const profile = findMeterProfile(id);
  assert.ok(profile, id);
  return new SimulatedSlave(
    meterDevice(profile, { unit, household, now: () => nowMs, serialNumber: 21_000_000 + unit, modes }),
  );
}

/** A device of a make that nobody knows: a few registers, and a name. */
function strangerAt(unit: number): SimulatedSlave {
  const image = new RegisterImage();
  image.cover(3, 100, 4);
  return new SimulatedSlave(imageDevice({ maxRegistersPerRequest: 10, countStep: 1 }, unit, image));
}

async function searched(
  t: TestContext,
  bus: SimulatedBusOptions,
  options: Partial<SearchOptions> & { settings?: readonly LineSettings[] } = {},
) {
  const running = await runSimulatedBus(bus);
  t.after(() => running.close());
  const { units = [1, 2, 3, 4, 5], settings } = options;
  const kind = running.address === undefined ? "rtu" : "tcp";
  const some: LineSettings[] = [9600, 38_400].flatMap((baud) =>
    (["none", "even"] as const).map((parity) => ({ baud, parity, stopBits: 1 as const })),
  );
  const openLine = (at: LineSettings | undefined): ModbusLine => {
    if (at === undefined) return createTcpLine({ host, port: Number(running.address?.split(":")[1]) });
    const serial = { path: running.path ?? "", ...at };
    return createRtuLine({
      description: serial.path,
      openTransport: () => openSerialPort(serial),
      baud: at.baud,
      bitsPerCharacter: bitsPerCharacter(serial),
      timeoutsUntilReopen: Number.POSITIVE_INFINITY,
    });
  };
  const profiles = options.profiles ?? meterProfiles;
  const steps = planSearch({ units, settings: kind === "rtu" ? (settings ?? some) : undefined, profiles, timeoutMs });
  return searchLine({
    ...{ kind, openLine, steps, units, timeoutMs, profiles },
    signal: options.signal ?? new AbortController().signal,
    ...(options.onProgress && { onProgress: options.onProgress }),
  });
}

test("the plan: factory settings first, then units 1 to 10 at every setting, then the others; nothing twice", () => {
  const settings = [9600, 19_200, 2400].flatMap((baud) =>
    (["none", "even"] as const).map((parity) => ({ baud, parity, stopBits: 1 as const })),
  );
  const units = [1, 2, 10, 11, 247];
  const steps = planSearch({ units, settings, profiles: meterProfiles, timeoutMs: 250 });
  const [first] = steps;
  assert.deepEqual(first?.units, [1]);
  assert.equal(first?.settings?.baud, 9600);
  const pairs = steps.flatMap((step) =>
    step.units.map((unit) => `${step.settings?.baud} ${step.settings?.parity} ${unit}`),
  );
  assert.equal(new Set(pairs).size, settings.length * units.length);
  assert.equal(pairs.length, settings.length * units.length);
  const firstFar = steps.findIndex((step) => step.units.some((unit) => unit > 10));
  assert.ok(steps.slice(firstFar).every((step) => step.units.every((unit) => unit > 10)));
  assert.ok(stepMs(first!) > 0);
});

test("three makes on one line at an unknown speed and parity are found, with their serial numbers", async (t) => {
  const slaves = [meterAt("eastron-sdm72v2", 2), meterAt("cg-em340", 3), meterAt("schneider-iem3155", 5)];
  const shares: number[] = [];
  const { found, settings, end, remarks } = await searched(
    t,
    { slaves, baud: 38_400, strict: strictly },
    { onProgress: ({ share }) => shares.push(share) },
  );
  assert.equal(end, "ended");
  assert.deepEqual(settings, { baud: 38_400, parity: "even", stopBits: 1 });
  assert.deepEqual(
    found.map(({ unit, profile, certainty }) => [unit, profile?.id, certainty]),
    [
      [2, "eastron-sdm72v2", "code"],
      [3, "cg-em340", "code"],
      [5, "schneider-iem3155", "code"],
    ],
  );
  assert.equal(found[0]?.serialNumber, "21000002");
  assert.deepEqual(remarks, []);
  assert.ok(shares.every((share) => share >= 0 && share <= 1));
});

test("an EM340 that hides export is proposed with the profile for it, one that tells both directions with the other", async (t) => {
  const slaves = [
    meterAt("cg-em340", 1),
    meterAt("cg-em340", 2, { "measurement mode": 0 }),
    meterAt("cg-em340-easy", 3),
  ];
  const { found } = await searched(t, { slaves });
  assert.deepEqual(
    found.map(({ unit, profile, model, certainty }) => [unit, profile?.id, model, certainty]),
    [
      [1, "cg-em340", "EM340", "code"],
      [2, "cg-em340-easy", "EM340", "code"],
      [3, "cg-em340-easy", "EM340", "code"],
    ],
  );
});

test("a make that no profile fits is unknown and answers, if only with an exception", async (t) => {
  const { found } = await searched(t, { slaves: [strangerAt(4)] });
  assert.equal(found.length, 1);
  const [{ unit, certainty, profile, answer } = assert.fail()] = found;
  assert.deepEqual([unit, certainty, profile, answer], [4, "unknown", undefined, "exception 2"]);
});

test("nobody there, and nobody who can be understood: nothing is found, and garbage is said", async (t) => {
  const nobody = await searched(t, { slaves: [] }, { units: [1, 2] });
  assert.deepEqual([nobody.found.length, nobody.end, nobody.remarks.length], [0, "ended", 0]);
  const other = await searched(
    t,
    { slaves: [meterAt("cg-em340", 1)], baud: 4800, strict: strictly },
    { units: [1, 2] },
  );
  assert.deepEqual([other.found.length, other.settings], [0, undefined]);
  assert.match(other.remarks[0] ?? "", /bytes came that nobody can read/);
});

test("a unit that answers only after the time-out is asked again with more patience", async (t) => {
  const slow = meterAt("cg-em340", 2);
  slow.setFault({ kind: "late", byMs: timeoutMs + 60 });
  const { found } = await searched(t, { slaves: [meterAt("cg-em340", 1), slow] });
  assert.deepEqual(
    found.map(({ unit }) => unit),
    [1, 2],
  );
});

test("a lost answer makes no other make of a meter: what was not heard is asked again", async (t) => {
  const slave = meterAt("eastron-sdm120", 1);
  const device = slave.device;
  let lost = 0;
  // The code by which it is told from its sisters stands at 0xFC02: that answer is lost once.
  const forgetful = new SimulatedSlave(device);
  const reply = forgetful.reply.bind(forgetful);
  forgetful.reply = (pdu, ...rest) => (pdu[1] === 0xfc && pdu[2] === 2 && lost++ === 0 ? [] : reply(pdu, ...rest));
  const { found } = await searched(t, { slaves: [forgetful] }, { units: [1] });
  assert.deepEqual(
    found.map(({ profile, certainty }) => [profile?.id, certainty]),
    [["eastron-sdm120", "code"]],
  );
  assert.ok(lost >= 2, "it was asked again");
});

test("two devices of one address are told from an empty one", async (t) => {
  const { found, remarks } = await searched(t, {
    slaves: [meterAt("cg-em340", 1), meterAt("cg-em340", 3), strangerAt(3)],
  });
  assert.deepEqual(
    found.map(({ unit }) => unit),
    [1],
  );
  assert.match(remarks.join(), /unit 3: .*two devices have this address/);
});

test("over TCP: a gateway's word for an empty unit is no meter", async (t) => {
  const empty = new SimulatedSlave({ unit: 1, answer: (pdu) => exceptionPdu(pdu[0]!, 11) });
  const { found } = await searched(t, { slaves: [empty, meterAt("cg-em340", 2)], tcp: { host, port: 0 } });
  assert.deepEqual(
    found.map(({ unit, profile }) => [unit, profile?.id]),
    [[2, "cg-em340"]],
  );
});

test("over TCP: a device that looks at no unit number is one device", async (t) => {
  const device = meterAt("siemens-pac2200", 1).device;
  const everywhere = [1, 2, 3, 173, 241].map(
    (unit) => new SimulatedSlave({ unit, answer: (pdu, fault) => device.answer(pdu, fault) }),
  );
  const { found, remarks } = await searched(t, { slaves: everywhere, tcp: { host, port: 0 } });
  assert.deepEqual(
    found.map(({ unit, profile }) => [unit, profile?.id]),
    [[1, "siemens-pac2200"]],
  );
  assert.match(remarks[0] ?? "", /answers to every unit number/);
});

test("stopped in the middle it gives what it has; a port that is not there is an error with its reason", async (t) => {
  const stop = new AbortController();
  const result = await searched(
    t,
    { slaves: [meterAt("cg-em340", 1), meterAt("cg-em340", 5)] },
    { signal: stop.signal, onProgress: ({ found }) => found === 1 && stop.abort() },
  );
  assert.equal(result.end, "stopped");
  assert.deepEqual(
    result.found.map(({ unit, profile }) => [unit, profile?.id]),
    [[1, "cg-em340"]],
  );
  const missing = await searchLine({
    kind: "rtu",
    openLine: () =>
      createRtuLine({
        description: "nowhere",
        openTransport: () => openSerialPort({ path: "/dev/ecp-nowhere", baud: 9600 }),
        baud: 9600,
        bitsPerCharacter: 10,
      }),
    steps: [{ settings: { baud: 9600, parity: "none", stopBits: 1 }, units: [1], timeoutMs }],
    units: [1],
    timeoutMs,
    profiles: [],
    signal: new AbortController().signal,
  });
  assert.deepEqual([missing.end, missing.error?.code, missing.found.length], ["failed", "port-not-found", 0]);
});

test("every meter that we know is taken for itself and for no other", async (t) => {
  const profiles = meterProfiles.filter(({ kind }) => kind === "registers");
  const slaves = profiles.map(({ id }, place) => meterAt(id, place + 1));
  const bus = await runSimulatedBus({ slaves, tcp: { host, port: 0 } });
  t.after(() => bus.close());
  const line = createTcpLine({ host, port: Number(bus.address?.split(":")[1]) });
  t.after(() => line.close());
  for (const [place, { id }] of profiles.entries()) {
    const { profile, alternatives } = await recognise(
      new UnitReader({ unit: place + 1, timeoutMs: 1000, kind: "tcp", line: async () => line }),
      meterProfiles,
      "rtu",
    );
    assert.equal(profile?.id, id, `${id}; alternatives ${alternatives.map((other) => other.id)}`);
    if (alternatives.length > 0)
      t.diagnostic(`${id} could also be ${alternatives.map((other) => other.id).join(", ")}`);
  }
});

import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { ModbusMeter } from "../../drivers/modbus/modbus-meter.ts";
import type { MeterProfile } from "../../drivers/modbus/profile.ts";
import { findMeterProfile } from "../../drivers/modbus/profile-catalogue.ts";
import { createTcpLine } from "../../drivers/modbus/tcp-line.ts";
import { RegisterDevice } from "../../simulator/meter-device.ts";
import type { RegisterImage } from "../../simulator/register-image.ts";
import { SimulatedSlave } from "../../simulator/simulated-slave.ts";
import { exceptionPdu, readRequestOf, type SlaveDevice } from "../../simulator/slave-device.ts";
import { serveModbusTcp } from "../../simulator/tcp-slave.ts";
import { imageCases, imageOf } from "./register-images.ts";

interface Bench {
  readonly meter: ModbusMeter;
  readonly image: RegisterImage;
  readonly slave: SimulatedSlave;
  /** Moves the clock of the line. */
  readonly pass: (ms: number) => void;
  /** Requests since the last call. */
  readonly asked: () => number;
}

/** An ordinary moment of a profile's meter. `refuse`: what this device refuses over and above. */
async function startMeter(
  t: TestContext,
  profile: MeterProfile,
  refuse: (request: { address: number; count: number }) => number | undefined = () => undefined,
): Promise<Bench> {
  const image = imageOf(profile, imageCases(profile.id)[0]!);
  image.cover(profile.probe.functionCode, profile.probe.address, 120);
  const device = new RegisterDevice({ unit: 1, image: () => image, ...profile });
  const refusing: SlaveDevice = {
    unit: 1,
    answer: (pdu, fault) => {
      const request = readRequestOf(pdu);
      const code = request && refuse(request);
      return code === undefined ? device.answer(pdu, fault) : exceptionPdu(pdu[0]!, code);
    },
  };
  const slave = new SimulatedSlave(refusing);
  const server = await serveModbusTcp([slave], { host: "127.0.0.1", port: 0 });
  let passedMs = 0;
  const nowMs = (): number => performance.now() + passedMs;
  const line = createTcpLine({ host: "127.0.0.1", port: server.port, nowMs });
  t.after(async () => {
    await line.close();
    await server.close();
  });
  let before = 0;
  return {
    meter: new ModbusMeter(line, { ...profile, gapMs: 0 }, 1),
    image,
    slave,
    pass: (ms) => {
      passedMs += ms;
    },
    asked: () => {
      const count = slave.requests - before;
      before = slave.requests;
      return count;
    },
  };
}

const sdm630 = findMeterProfile("eastron-sdm630")!;
const em340 = findMeterProfile("cg-em340")!;
const quarterHourMs = 15 * 60_000;
const covers = (at: number) => (request: { address: number; count: number }) =>
  request.address <= at && at < request.address + request.count;

test("a gap that cannot be read: the block is split, every value comes, and the next reading does not ask again", async (t) => {
  const holes = [0x000e, 0x003a];
  const { meter, asked } = await startMeter(t, sdm630, (request) =>
    holes.some((hole) => covers(hole)(request)) ? 2 : undefined,
  );
  const first = await meter.read();
  assert.equal(first.status, 0, first.detail);
  assert.deepEqual(first.codes, sdm630.defaultCodes);
  const learning = asked();
  const second = await meter.read();
  assert.deepEqual(second, first);
  const learned = asked();
  assert.ok(learned < learning, `${learned} requests after ${learning}`);
  await meter.read();
  assert.equal(asked(), learned);
});

test("the same without a memory is refused at every reading (control)", async (t) => {
  const bench = await startMeter(t, sdm630, (request) => (covers(0x003a)(request) ? 2 : undefined));
  const newMeter = (): ModbusMeter => new ModbusMeter(bench.meter.line, bench.meter.profile, 1);
  await newMeter().read();
  const first = bench.asked();
  await newMeter().read();
  assert.equal(bench.asked(), first);
  const keeps = newMeter();
  await keeps.read();
  bench.asked();
  await keeps.read();
  assert.ok(bench.asked() < first);
});

test("a meter that answers 20 registers where 50 were allowed is asked for 20 from then on", async (t) => {
  const { meter, asked } = await startMeter(t, em340, ({ count }) => (count > 20 ? 3 : undefined));
  const first = await meter.read();
  assert.equal(first.status, 0, first.detail);
  asked();
  assert.deepEqual(await meter.read(), first);
  const registers = 0x36; // 0x0000 to 0x0035 hold the defaults, 0x004E export
  assert.ok(asked() <= Math.ceil(registers / 20) + 1);
});

test("a number at an odd address, where counts must be even, may be refused for its count and is a status all the same", async (t) => {
  const odd = { ...sdm630.registers[0]!, address: 0x0d };
  const profile = { ...sdm630, registers: [odd], codes: [odd.code], defaultCodes: [odd.code] };
  const { meter } = await startMeter(t, profile, () => 3);
  assert.equal((await meter.read()).status, 7);
});

test("an optional register that is refused is left out, and asked for again after a quarter of an hour", async (t) => {
  const profile = findMeterProfile("cg-em24-rs485")!;
  let refuses = true;
  const { meter, asked, pass } = await startMeter(t, profile, (request) =>
    refuses && covers(0x5c)(request) ? 2 : undefined,
  );
  const without = profile.defaultCodes.filter((code) => code !== 4);
  assert.deepEqual((await meter.read()).codes, without);
  asked();
  assert.deepEqual((await meter.read()).codes, without);
  const remembered = asked();
  refuses = false;
  assert.deepEqual((await meter.read()).codes, without, "not asked for yet");
  assert.equal(asked(), remembered);
  pass(quarterHourMs);
  assert.deepEqual((await meter.read()).codes, profile.defaultCodes);
});

test("a refused register that the configuration names makes status R, with what was refused", async (t) => {
  const profile = findMeterProfile("cg-em24-rs485")!;
  const { meter } = await startMeter(t, profile, (request) => (covers(0x5c)(request) ? 2 : undefined));
  for (let i = 0; i < 2; i++) {
    const { status, detail = "" } = await meter.read({ codes: [2, 4] });
    assert.equal(status, 4);
    assert.match(detail, /registers 4:0x005C \+ 2.*exception 2/);
  }
});

test("two numbers at odd addresses, where counts must be even, and a meter that refuses long requests", async (t) => {
  const [first, second] = [1, 2].map((code, i) => ({
    ...sdm630.registers.find((register) => register.code === code)!,
    address: 0x0d + 2 * i,
  }));
  const profile = { ...sdm630, registers: [first!, second!], codes: [1, 2], defaultCodes: [1, 2] };
  const { meter } = await startMeter(t, profile, ({ count }) => (count > 4 ? 3 : undefined));
  assert.equal((await meter.read()).status, 0);
});

test("some of the default codes: what the meter lacks is left out of them as well", async (t) => {
  const profile = findMeterProfile("cg-em24-rs485")!;
  const { meter } = await startMeter(t, profile, (request) => (covers(0x5c)(request) ? 2 : undefined));
  const reading = await meter.read({ only: [1, 4, 14] });
  assert.deepEqual([reading.status, reading.codes], [0, [1, 14]], reading.detail);
});

test("a register that every such meter has, refused: the meter is not of this profile (status I)", async (t) => {
  const { meter } = await startMeter(t, sdm630, (request) => (covers(0x48)(request) ? 2 : undefined));
  const { status, detail = "" } = await meter.read();
  assert.equal(status, 7);
  assert.match(detail, /0x0048/);
});

test("device failure passes by itself: the block is split for this reading, and asked for whole again", async (t) => {
  let failures = 1;
  const { meter, asked } = await startMeter(t, sdm630, () => (failures-- > 0 ? 4 : undefined));
  const { status, detail } = await meter.read();
  assert.equal(status, 0, detail);
  asked();
});

test("device failure at every reading of an optional register: that one is left out, and a passing one is back at once", async (t) => {
  const profile = findMeterProfile("cg-em24-rs485")!;
  let fails = true;
  const { meter } = await startMeter(t, profile, (request) => (fails && covers(0x5c)(request) ? 4 : undefined));
  const reading = await meter.read();
  assert.equal(reading.status, 0, reading.detail);
  assert.deepEqual(
    reading.codes,
    profile.defaultCodes.filter((code) => code !== 4),
  );
  assert.equal((await meter.read({ codes: [2, 4] })).status, 11, "what is asked for by name has to come");
  fails = false;
  assert.deepEqual((await meter.read()).codes, profile.defaultCodes);
});

test("device failure of a setting is no proof that the meter has none", async (t) => {
  const { meter } = await startMeter(t, em340, (request) => (covers(em340.modes[0]!.address)(request) ? 4 : undefined));
  assert.equal((await meter.read()).status, 11);
});

test("one passing refusal costs no register: it is asked for again before it is believed", async (t) => {
  const profile = findMeterProfile("cg-em24-rs485")!;
  let refusals = 1;
  const { meter } = await startMeter(t, profile, (request) =>
    covers(0x5c)(request) && refusals-- > 0 ? 2 : undefined,
  );
  const reading = await meter.read({ codes: [4] });
  assert.equal(reading.status, 0, reading.detail);
  refusals = 1;
  assert.deepEqual((await meter.read()).codes, profile.defaultCodes);
  assert.deepEqual((await meter.read()).codes, profile.defaultCodes);
});

test("one passing refusal of a setting does not hide what it spoils", async (t) => {
  let refusals = 1;
  const { meter, image } = await startMeter(t, em340, (request) =>
    covers(em340.modes[0]!.address)(request) && refusals-- > 0 ? 2 : undefined,
  );
  image.setValue(em340.modes[0]!, 0);
  assert.ok(!(await meter.read()).codes.includes(2), "import counts export as well in this mode");
});

test("a block that was refused once is asked for whole again after a quarter of an hour", async (t) => {
  let refusals = 1;
  const { meter, asked, pass } = await startMeter(t, sdm630, () => (refusals-- > 0 ? 2 : undefined));
  assert.equal((await meter.read()).status, 0);
  asked();
  await meter.read();
  const split = asked();
  pass(quarterHourMs);
  await meter.read();
  assert.ok(asked() < split);
});

test("easy connection hides export: those codes are left out, with what to do, until the meter is set otherwise", async (t) => {
  const { meter, image, pass } = await startMeter(t, em340);
  const mode = em340.modes[0]!;
  const whole = await meter.read();
  assert.deepEqual(whole.codes, em340.defaultCodes);
  assert.equal(whole.detail, undefined);
  image.setValue(mode, 0);
  assert.deepEqual((await meter.read()).codes, whole.codes, "settings are read again after 15 minutes");
  pass(quarterHourMs);
  const reading = await meter.read();
  assert.equal(reading.status, 0);
  assert.deepEqual(
    reading.codes,
    em340.defaultCodes.filter((code) => !mode.affects.includes(code)),
  );
  assert.match(reading.detail ?? "", /measurement mode is 0 \(A, easy connection.*set the measurement mode/);
  const named = await meter.read({ codes: [2, 14] });
  assert.equal(named.status, 7);
  assert.match(named.detail ?? "", /set the measurement mode/);
  assert.equal((await meter.read({ codes: [14] })).status, 0, "what the setting does not touch is read");
  image.setValue(mode, 1);
  pass(quarterHourMs);
  assert.deepEqual(await meter.read(), whole);
});

test("the profile for easy connection reads import there, and nothing that another mode would make wrong", async (t) => {
  const easy = findMeterProfile("cg-em340-easy")!;
  const { meter, image, pass } = await startMeter(t, easy);
  const mode = easy.modes[0]!;
  const whole = await meter.read();
  assert.deepEqual([whole.codes, whole.detail], [easy.defaultCodes, undefined]);
  assert.deepEqual((await meter.read({ codes: [1, 2] })).status, 0);
  assert.ok(
    [3, 4, 12, 29].every((code) => !easy.codes.includes(code)),
    "nothing is said of export",
  );
  image.setValue(mode, 1);
  pass(quarterHourMs);
  const reading = await meter.read();
  assert.deepEqual(
    reading.codes,
    easy.defaultCodes.filter((code) => code !== 1 && code !== 2),
  );
  assert.match(reading.detail ?? "", /measurement mode is 1 \(B, bidirectional.*profile cg-em340,/);
  assert.equal((await meter.read({ codes: [2] })).status, 7);
});

test("settings are read again when the line was opened anew: another meter may hang there", async (t) => {
  const { meter, image } = await startMeter(t, em340);
  await meter.read();
  image.setValue(em340.modes[0]!, 0);
  const openings = meter.line.reopenings;
  Object.defineProperty(meter.line, "reopenings", { get: () => openings + 1 });
  assert.notEqual((await meter.read()).detail, undefined);
});

test("a meter without that setting is read all the same", async (t) => {
  const { meter } = await startMeter(t, em340, (request) => (covers(0x1103)(request) ? 2 : undefined));
  assert.deepEqual((await meter.read()).codes, em340.defaultCodes);
});

test("serial numbers: as a number of 32 bits, as a text, from the second place, and none", async (t) => {
  const { meter, image } = await startMeter(t, em340);
  assert.equal(await meter.serialNumber(), undefined, "refused");
  image.setText({ functionCode: 3, address: 0x5000, type: "ascii-low", count: 7 }, "BX1234Z");
  assert.equal(await meter.serialNumber(), "BX1234Z");
  const second = { functionCode: 3, address: 0x6000, type: "uint32", wordOrder: "high-first" } as const;
  image.setRaw(second, 0xfedc_ba98n);
  const places = [{ ...second, address: 0x7000 }, second];
  const other = new ModbusMeter(meter.line, { ...meter.profile, serialNumbers: places }, 1);
  assert.equal(await other.serialNumber(), "4275878552");
});

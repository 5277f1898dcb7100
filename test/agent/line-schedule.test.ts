import assert from "node:assert/strict";
import { test } from "node:test";
import type { AgentEvent } from "../../agent/event.ts";
import type { PolledMeter } from "../../agent/reading-path.ts";
import { statuses } from "../../protocol/reading-status.ts";
import { scene, seconds, startMs, timeoutMs, upTo } from "./reading-path-fixture.ts";

test("a dead meter is asked less and less, each of its slots still gets a row, and the others on its line keep theirs", async (t) => {
  const { line, wallet, events, start, meter, pass } = scene(t);
  line.dead.add(2);
  const meters = [meter(1), meter(2), meter(3)];
  start(...meters);
  await pass(120_050);
  const goodRows = (index: number): number =>
    events.filter((event) => event.event === "reading" && event.meter === index && event.status === "G").length;
  assert.ok(goodRows(0) >= 100 && goodRows(2) >= 100, `${goodRows(0)} and ${goodRows(2)} of 121 good readings`);
  const requests = line.counters.get(2)?.requests ?? 0;
  assert.ok(requests <= 50, `${requests} requests to the dead unit in 120 s`);
  const dead = wallet.requests.flat().filter((row) => row.values.length === 0);
  const times = [...wallet.rows].filter(([name]) => name.startsWith("1 ")).map(([, { row }]) => row);
  assert.deepEqual(seconds(times), upTo(times.length - 1, 0));
  assert.ok(times.length >= 119 && times.every(({ status }) => status !== statuses.good));
  assert.ok(dead.length > 0);

  line.dead.delete(2);
  const before = goodRows(1);
  await pass(12_000);
  assert.ok(goodRows(1) > before, "back within the longest rest");
  const after = goodRows(1);
  await pass(5_000);
  assert.equal(goodRows(1), after + 5, "and then read in every slot");
});

test("control: without the rest, a dead meter costs the others on its line half their readings", async (t) => {
  const { line, events, start, meter, pass } = scene(t);
  line.dead.add(2);
  const meters = [meter(1), meter(2), meter(3)];
  for (const { rest } of meters) rest.vain = () => undefined;
  start(...meters);
  await pass(120_050);
  const good = events.filter((event) => event.event === "reading" && event.meter === 2 && event.status === "G").length;
  assert.ok(good < 80, `${good} of 121`);
});

/** Longest time after a slot's end at which a meter's good reading was there. */
function slowestMs(events: readonly AgentEvent[], index: number, fromS: number): number {
  const offsets = events.map((event) =>
    event.event === "reading" && event.meter === index && event.status === "G" && event.timeS > fromS
      ? event.offsetMs
      : 0,
  );
  return Math.max(...offsets);
}

test("a meter that goes dead delays the others once, and then never: their readings are there as quickly as without it", async (t) => {
  const { line, events, start, meter, pass } = scene(t);
  const meters = [meter(1, 5), meter(2, 5), meter(3, 5), meter(4, 5)];
  start(...meters);
  await pass(60_050);
  const before = Math.max(...[0, 2, 3].map((index) => slowestMs(events, index, 0)));
  line.dead.add(2);
  await pass(10_000); // the try that finds out
  await pass(300_000);
  const after = Math.max(...[0, 2, 3].map((index) => slowestMs(events, index, startMs / 1_000 + 75)));
  assert.ok(after <= before, `${after} ms after the slot's end with a dead meter on the line, ${before} ms without`);
  const requests = line.counters.get(2)?.requests ?? 0;
  assert.ok(requests > 12 + 15, `it goes on being asked: ${requests} times`);
  assert.deepEqual(
    meters.map(({ late }) => late),
    [0, 0, 0, 0],
  );
  line.dead.delete(2);
  await pass(25_000);
  const last = events.filter((event) => event.event === "reading" && event.meter === 1).at(-1);
  assert.equal(last?.event === "reading" && last.status, "G", "and is found when it is back");
});

test("nor does one whose answers nobody can read: two devices with one address, say", async (t) => {
  const { line, events, start, meter, pass } = scene(t);
  const meters = [meter(1, 5), meter(2, 5), meter(3, 5)];
  start(...meters);
  await pass(30_050);
  const before = Math.max(slowestMs(events, 0, 0), slowestMs(events, 2, 0));
  line.garbled.add(2);
  await pass(10_000); // the try that finds out
  await pass(120_000);
  const after = Math.max(...[0, 2].map((index) => slowestMs(events, index, startMs / 1_000 + 45)));
  assert.ok(after <= before, `${after} ms after the slot's end, ${before} ms without`);
  const last = events.filter((event) => event.event === "reading" && event.meter === 1).at(-1);
  assert.equal(last?.event === "reading" && last.status, "F");
  line.garbled.delete(2);
  await pass(25_000);
  const back = events.filter((event) => event.event === "reading" && event.meter === 1).at(-1);
  assert.equal(back?.event === "reading" && back.status, "G");
});

test("control: asked in its turn, a dead meter delays those behind it in every slot that it is asked in", async (t) => {
  const { line, events, start, meter, pass } = scene(t);
  const meters = [meter(1, 5), meter(2, 5), meter(3, 5)];
  for (const { turns } of meters) turns.suspectsTurn = async () => true;
  line.dead.add(2);
  start(...meters);
  await pass(120_050);
  assert.ok(slowestMs(events, 2, startMs / 1_000 + 60) >= timeoutMs);
});

test("energies at their own interval: power in each slot, registers in those that end on theirs", async (t) => {
  const { wallet, events, start, meter, pass } = scene(t);
  start(meter(1, 5, { energyIntervalS: 60 }));
  await pass(120_050);
  const full = wallet.sealed.filter(({ values }) => values.length === 2);
  const fast = wallet.sealed.filter(({ values }) => values.length === 1);
  assert.deepEqual(seconds(full), [0, 60, 120]);
  assert.equal(fast.length, 22);
  assert.deepEqual(
    seconds(wallet.sealed),
    upTo(24, 0).map((slot) => slot * 5),
  );
  const names = events.flatMap((event) => (event.event === "reading" ? [Object.keys(event.values)] : []));
  assert.deepEqual(names[0], ["active-power-import", "active-energy-import"]);
  assert.deepEqual(names[1], ["active-power-import"]);
});

test("energies whose slot brought no answer are read with the next answer, and once only", async (t) => {
  const { line, wallet, start, meter, pass } = scene(t);
  const slow = meter(1, 5, { energyIntervalS: 60 });
  start(slow);
  await pass(57_000);
  line.dead.add(1);
  await pass(4_000);
  line.dead.delete(1);
  await pass(60_000);
  const full = wallet.sealed.filter(({ values }) => values.length === 2);
  assert.deepEqual(seconds(full), [0, 65, 120]);
  // The slots around a full one were missed: a line that was blocked for longer than they last.
  line.answerMs = 13_000;
  await pass(58_500);
  line.answerMs = 20;
  await pass(30_000);
  const after = seconds(wallet.sealed.filter(({ values }) => values.length === 2)).filter((at) => at > 120);
  assert.equal(after.length, 1, `full readings at ${after}`);
});

test("between the slots of the energies nothing is asked for by name that the configuration does not name", async (t) => {
  const { start, meter, pass } = scene(t);
  const { codes: _, ...unnamed } = meter(1, 5, { energyIntervalS: 60 }).configuration;
  const askedOf = async (configuration: PolledMeter["configuration"]): Promise<unknown[]> => {
    const asked: unknown[] = [];
    const polled = { ...meter(1, 5), configuration };
    const read = polled.modbus.read.bind(polled.modbus);
    polled.modbus.read = (options) => {
      asked.push([options?.codes, options?.only?.includes(1)]);
      return read(options);
    };
    start(polled);
    await pass(12_000);
    return asked.slice(0, 2);
  };
  assert.deepEqual(await askedOf(unnamed), [
    [undefined, undefined],
    [undefined, true],
  ]);
  assert.deepEqual(await askedOf({ ...unnamed, codes: [1, 2] }), [
    [[1, 2], undefined],
    [[1], undefined],
  ]);
});

test("a reading that ends late after its slot is counted", async (t) => {
  const { line, events, start, meter, pass } = scene(t);
  line.answerMs = 1_200; // twice, for two blocks of registers
  const [slow, slower] = [meter(1, 10), meter(2, 60)];
  start(slow, slower);
  await pass(30_050);
  await pass(9_000);
  assert.ok(slow.late >= 3, `${slow.late} of 4 readings later than 2 s`);
  assert.equal(slower.late, 0, "4.8 s are in time for a slot of 60 s");
  const offsets = events.map((event) => (event.event === "reading" ? event.offsetMs : 0));
  assert.ok(Math.max(...offsets) >= 4_800);
});

test("a unit whose turn on the line does not come does not rest for it", async (t) => {
  const { line, start, meter, pass } = scene(t);
  line.dead.add(1).add(2);
  const meters = [meter(1), meter(2), meter(3)];
  for (const { rest } of meters.slice(0, 2)) rest.vain = () => undefined; // these hold the line for ever
  const starved = meters[2] as PolledMeter;
  start(...meters);
  await pass(20_000);
  assert.equal(starved.rest.isResting(Date.now()), false);
});

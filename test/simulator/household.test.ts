import assert from "node:assert/strict";
import { test } from "node:test";
import { createHousehold, householdStartMs } from "../../simulator/household.ts";

const dayMs = 86_400_000;
const juneMs = Date.UTC(2026, 5, 10);

test("the same seed and time give the same state, whoever asks and whatever was asked before", () => {
  const one = createHousehold(7);
  one.at(juneMs + 400 * dayMs);
  one.at(juneMs - 30 * dayMs);
  assert.deepEqual(one.at(juneMs + 1234), createHousehold(7).at(juneMs + 1234));
  assert.notDeepEqual(one.at(juneMs), createHousehold(8).at(juneMs));
});

test("energies never fall, over midnight and over a restart at any moment", () => {
  let house = createHousehold(3);
  let before = house.at(juneMs - 3_600_000);
  let steps = 0;
  for (let atMs = juneMs - 3_600_000; atMs < juneMs + 3_600_000; atMs += 777) {
    // Another process goes on from here, with nothing but seed and time.
    if (steps++ % 2500 === 0) house = createHousehold(3);
    const state = house.at(atMs);
    for (const key of ["importWh", "exportWh", "importVarh", "exportVarh"] as const) {
      assert.ok(state[key] >= before[key], `${key} fell at ${new Date(atMs).toISOString()}`);
      assert.ok(Math.fround(state[key] / 1000) >= Math.fround(before[key] / 1000), `${key} fell in its register`);
    }
    before = state;
  }
});

test("energy is the sum of the powers reported", () => {
  const house = createHousehold(1);
  const startMs = juneMs + 6 * 3_600_000;
  let [importWh, exportWh] = [0, 0];
  for (let second = 0; second < 3 * 3600; second++) {
    const total = house.at(startMs + 1000 * second).powerW.reduce((sum, watt) => sum + watt, 0);
    importWh += Math.max(0, total) / 3600;
    exportWh += Math.max(0, -total) / 3600;
  }
  const [from, to] = [house.at(startMs), house.at(startMs + 3 * 3_600_000)];
  assert.ok(importWh > 0 && exportWh > 0, "the morning both imports and exports");
  assert.ok(Math.abs(to.importWh - from.importWh - importWh) < 0.01);
  assert.ok(Math.abs(to.exportWh - from.exportWh - exportWh) < 0.01);
});

test("a day is believable: imports at night, exports at noon, volts and hertz where a grid has them", () => {
  for (const seed of [1, 2, 3, 4]) {
    const house = createHousehold(seed);
    const importOfDay = house.at(juneMs + dayMs).importWh - house.at(juneMs).importWh;
    assert.ok(importOfDay > 5_000 && importOfDay < 40_000, `seed ${seed}: ${importOfDay} Wh`);
    let exporting = 0;
    for (let minute = 0; minute < 1440; minute++) {
      const { powerW, voltageV, currentA, frequencyHz } = house.at(juneMs + minute * 60_000);
      const total = powerW.reduce((sum, watt) => sum + watt, 0);
      if (total < 0) exporting++;
      if (minute < 300) assert.ok(total > 0, "no sun, no export");
      assert.ok(voltageV.every((volt) => volt > 220 && volt < 242));
      assert.ok(currentA.every((ampere) => ampere >= 0 && ampere < 40));
      assert.ok(Math.abs(frequencyHz - 50) < 0.05);
      powerW.forEach((watt, phase) => {
        assert.ok(Math.abs(watt) <= voltageV[phase]! * currentA[phase]! + 1e-9, "active power within apparent");
      });
    }
    assert.ok(exporting > 240, `seed ${seed}: exports in ${exporting} minutes`);
  }
});

test("a clock before the meter was fitted is refused", () => {
  assert.throws(() => createHousehold(1).at(householdStartMs - 1), /no state before 2025-01-01/);
  assert.throws(() => createHousehold(1).at(Number.NaN), RangeError);
});

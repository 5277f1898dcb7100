/** The radio's own measure of airtime, against the data sheet, against the agent's sums, and against plain counting. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { airtimeMs } from "../../drivers/lora/airtime.ts";
import { dataRates, regionNames } from "../../drivers/lora/region.ts";
import { AirtimeMeter, onAirMs } from "../../simulator/lora-airtime-meter.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";

const random = randomOfRun();
console.log(`seed ${random.seed} (ECP_TEST_SEED=${random.seed} repeats this run)`);

test("airtime: the radio's own sum is the data sheet's check value, and that of the agent's table for every length and data rate", () => {
  assert.equal(Math.round(onAirMs({ spreadingFactor: 12, bandwidthKhz: 125 }, 64, true) * 10) / 10, 2_793.5);
  for (const region of regionNames)
    for (const { dataRate, ...settings } of dataRates(region))
      for (let bytes = 0; bytes <= 242; bytes++) {
        const difference = onAirMs(settings, bytes + 13, true) - airtimeMs(region, dataRate, bytes);
        assert.ok(Math.abs(difference) < 1e-6, `${region} DR${dataRate}, ${bytes} bytes: ${difference} ms`);
      }
});

test("the rolling hour is the worst there is: as found by trying every window at a step of a second", () => {
  const meter = new AirtimeMeter([{ fromMhz: 868, toMhz: 868.6, dutyCycle: 0.01 }]);
  const spans: [number, number][] = [];
  let atMs = 0;
  for (let i = 0; i < 60; i++) {
    atMs += random.integer(1, 400) * 1_000;
    const endMs = atMs + random.integer(1, 5) * 1_000;
    spans.push([atMs, endMs]);
    meter.add(868_100_000, atMs, endMs);
    atMs = endMs;
  }
  let worst = 0;
  for (let endMs = 0; endMs <= atMs; endMs += 1_000) {
    const sum = spans.reduce(
      (total, [from, to]) => total + Math.max(0, Math.min(to, endMs) - Math.max(from, endMs - 3_600_000)),
      0,
    );
    worst = Math.max(worst, sum);
  }
  const [band] = meter.subBands();
  assert.equal(band?.worstHourMs, worst);
  assert.equal(band?.excesses === 0, worst <= 36_000);
  meter.add(869_000_000, atMs + 1, atMs + 2);
  assert.equal(meter.outside, 1);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { airtimeMs } from "../../../drivers/lora/airtime.ts";
import { dataRates, payloadBytesMax, radioPlan, regionNames, subBands } from "../../../drivers/lora/region.ts";

test("largest payloads are those of the regional parameters, dwell taken for on where a server has not said otherwise", () => {
  const of = (region: (typeof regionNames)[number], options = {}) =>
    dataRates(region).map(({ dataRate }) => payloadBytesMax(region, dataRate, options));
  assert.deepEqual(of("EU868"), [51, 51, 51, 115, 222, 222, 222]);
  assert.deepEqual(of("EU868", { repeaterSafe: false }), [51, 51, 51, 115, 222, 242, 242]);
  assert.deepEqual(of("US915"), [11, 53, 125, 222, 222]);
  assert.deepEqual(of("AU915"), [undefined, undefined, 11, 53, 125, 222, 222]);
  assert.deepEqual(of("AU915", { dwell: false }), [51, 51, 51, 115, 222, 222, 222]);
  assert.deepEqual(of("AS923"), [undefined, undefined, 11, 53, 125, 222, 222]);
  assert.deepEqual(of("AS923", { dwell: false, repeaterSafe: false }), [51, 51, 115, 115, 242, 242, 242]);
  assert.equal(payloadBytesMax("US915", 5), undefined);
  assert.equal(payloadBytesMax("EU868", -1), undefined);
});

test("where dwell time holds, what is allowed stays below 400 ms", () => {
  for (const region of ["US915", "AU915", "AS923"] as const)
    for (const { dataRate } of dataRates(region)) {
      const bytes = payloadBytesMax(region, dataRate, { repeaterSafe: false });
      if (bytes !== undefined) assert.ok(airtimeMs(region, dataRate, bytes) <= 400, `${region} DR${dataRate}`);
    }
});

test("each channel lies in a sub-band of its region, and its windows have a data rate of downlinks", () => {
  for (const region of regionNames) {
    const { channels, downlinkDataRates, window1DataRate, window1FrequencyHz, window2 } = radioPlan(region);
    const known = new Set(downlinkDataRates.map(({ dataRate }) => dataRate));
    assert.ok(known.has(window2.dataRate));
    for (const [place, { frequencyHz, dataRateMin, dataRateMax }] of channels.entries()) {
      const mhz = frequencyHz / 1e6;
      const bands = subBands(region);
      assert.ok(bands.length === 0 || bands.some(({ fromMhz, toMhz }) => mhz >= fromMhz && mhz < toMhz), `${mhz} MHz`);
      assert.ok(window1FrequencyHz(place) > 0);
      for (let dataRate = dataRateMin; dataRate <= dataRateMax; dataRate++)
        assert.ok(known.has(window1DataRate(dataRate)), `${region} DR${dataRate}`);
    }
  }
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { airtimeMs, frameAirtimeMs } from "../../../drivers/lora/airtime.ts";

/** Semtech's formula worked by hand for EU868: bytes of FRMPayload, and milliseconds at DR0 to DR5. */
const table: readonly (readonly [number, ...(number | undefined)[]])[] = [
  [1, 1155, 659, 289, 165, 82, 46],
  [5, 1319, 659, 330, 185, 93, 51],
  [11, 1483, 823, 371, 206, 113, 62],
  [20, 1810, 987, 453, 247, 134, 72],
];

test("airtime of EU868 is that of the table, to the millisecond", () => {
  for (const [bytes, ...rates] of table)
    for (const [dataRate, ms] of rates.entries())
      assert.equal(Math.round(airtimeMs("EU868", dataRate, bytes)), ms, `${bytes} bytes at DR${dataRate}`);
});

test("airtime of the largest frames, to a tenth of a millisecond", () => {
  const largest: [number, number, number][] = [
    [0, 51, 2793.5],
    [1, 51, 1560.6],
    [2, 51, 698.4],
    [3, 115, 676.9],
    [4, 222, 655.9],
    [5, 222, 368.9],
  ];
  for (const [dataRate, bytes, ms] of largest)
    assert.equal(airtimeMs("EU868", dataRate, bytes).toFixed(1), ms.toFixed(1), `DR${dataRate}`);
  const perHour = largest.map(([dataRate, bytes]) => Math.floor(36_000 / airtimeMs("EU868", dataRate, bytes)));
  assert.deepEqual(perHour, [12, 23, 51, 53, 54, 97]);
  const perFairDay = largest.map(([dataRate, bytes]) => Math.floor(30_000 / airtimeMs("EU868", dataRate, bytes)));
  assert.deepEqual(perFairDay, [10, 19, 42, 44, 45, 81]);
});

test("64 bytes at SF12 are 73 symbols and the preamble; FOpts count; a downlink has no CRC", () => {
  const frame = { spreadingFactor: 12, bandwidthKhz: 125, phyBytes: 64, isUplink: true };
  assert.equal(frameAirtimeMs(frame), (73 + 12.25) * 32.768);
  assert.equal(airtimeMs("EU868", 0, 45, 6), frameAirtimeMs(frame));
  assert.equal(frameAirtimeMs({ ...frame, phyBytes: 1, isUplink: false }), (8 + 0 + 12.25) * 32.768);
  assert.throws(() => airtimeMs("US915", 5, 11), RangeError);
});

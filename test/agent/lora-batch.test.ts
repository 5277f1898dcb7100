import assert from "node:assert/strict";
import { test } from "node:test";
import { automaticLengthS, type BatchSurroundings, LoraBatch } from "../../agent/lora-batch.ts";
import { frameBytes, packetAirtimeMs, typicalPacketBytes } from "../../agent/lora-load.ts";
import type { Sample } from "../../agent/sample-buffer.ts";
import { SchcSender } from "../../agent/schc-sender.ts";
import { dataRates, payloadBytesMax, regionNames } from "../../drivers/lora/region.ts";
import { packetBytesMax, packetOf } from "../../protocol/lorawan.ts";
import { statuses } from "../../protocol/reading-status.ts";
import { previousBytes, signRecord } from "../../protocol/record.ts";

const twoEnergies = [2, 4];
const withPower = [1, 2, 4];

/** Frames that the uplink's own sender makes of a packet, without loss. */
function sentFrames(packetBytes: number, payloadMax: number): number[] {
  const sender = SchcSender.begin(20, new Uint8Array(packetBytes));
  const frames: number[] = [];
  for (;;) {
    const frame = sender.next(payloadMax, 0);
    if (frame === undefined || frame === "no-room") return frames;
    frames.push(frame.bytes.length);
    sender.sent(frame, 0);
  }
}

test("four quarter hours of two energies: at most 152 bytes, 9.8 s at DR0 and 0.28 s at DR5", () => {
  const bytes = typicalPacketBytes({ codes: twoEnergies, rows: 4, slotS: 900 });
  assert.ok(bytes <= 152, `${bytes} bytes`);
  assert.ok((packetAirtimeMs("EU868", 0, bytes) as number) <= 9_800);
  assert.ok((packetAirtimeMs("EU868", 5, bytes) as number) <= 280);
});

test("the planned packet is as long as one that is signed", () => {
  const rows = Array.from({ length: 4 }, (_, place) => ({
    timeS: 1_800_000_000 + place * 900,
    status: statuses.good,
    values: [24_000_000 + place * 300, 11_000_000 + place * 250],
  }));
  const link = { epoch: 4_000_000_000, sequence: 70_000, previous: new Uint8Array(previousBytes) };
  const record = signRecord(
    { kind: "reading", ...link, clockState: 1, generation: 0, meter: 0, plan: 1, slotS: 900, codes: twoEnergies, rows },
    () => new Uint8Array(64).fill(7),
  );
  const planned = typicalPacketBytes({ codes: twoEnergies, rows: 4, slotS: 900 });
  assert.ok(Math.abs(planned - packetOf(record).length) <= 4, `${planned} planned, ${packetOf(record).length} signed`);
});

test("planned frames are those that the sender makes, for every size of packet and frame", () => {
  for (let packetBytes = 1; packetBytes <= packetBytesMax; packetBytes += 37)
    for (const payloadMax of [11, 16, 51, 53, 115, 125, 222, 242]) {
      if (packetBytes <= payloadMax) continue;
      const planned = frameBytes(packetBytes, payloadMax);
      const sent = sentFrames(packetBytes, payloadMax);
      // At the end of a window a frame may be shorter than it could be, so that the next window begins with a frame.
      assert.ok(Math.abs(planned.length - sent.length) <= 4, `${packetBytes} in ${payloadMax}: ${planned} for ${sent}`);
      assert.ok(Math.max(...sent) <= payloadMax);
      if (packetBytes <= 630) assert.deepEqual(planned, sent, `${packetBytes} in ${payloadMax}`);
    }
});

test("a packet that fits a frame goes as it is; where not even a tile fits nothing is planned", () => {
  assert.deepEqual(frameBytes(51, 51), [51]);
  assert.throws(() => frameBytes(52, 10), RangeError);
  assert.equal(packetAirtimeMs("AU915", 0, 150), undefined, "dwell time forbids it");
});

const around = (more: Partial<BatchSurroundings> = {}): BatchSurroundings => ({
  ...{ region: "EU868", dataRate: 5, fairUseSPerDay: undefined, slotS: 900, meters: [withPower], ...more },
});
const hours = (more: Partial<BatchSurroundings>): number => automaticLengthS(around(more)) / 3_600;

test("batches follow the data rate: an hour where frames are quick, six where they are slow, a day where the budget wants it", () => {
  assert.deepEqual(
    [5, 4, 3, 2, 1, 0].map((dataRate) => hours({ dataRate })),
    [1, 1, 1, 6, 6, 6],
  );
  assert.equal(hours({ dataRate: undefined }), 6, "before the modem has said anything the slowest counts");
  assert.equal(hours({ dataRate: 0, fairUseSPerDay: 30 }), 24);
  assert.equal(hours({ dataRate: 5, fairUseSPerDay: 30 }), 1);
  assert.equal(hours({ dataRate: 5, fairUseSPerDay: 30, meters: Array(5).fill(withPower) }), 6);
  assert.equal(hours({ slotS: 7_200 }), 6, "no shorter than what its rows divide");
  assert.equal(hours({ slotS: 86_400 }), 24);
});

test("no length that is chosen costs more than is allowed, where any length costs less", () => {
  for (const region of regionNames)
    for (const { dataRate } of dataRates(region))
      for (const fairUseSPerDay of [undefined, 30])
        for (const count of [1, 2, 4]) {
          if (payloadBytesMax(region, dataRate) === undefined) continue;
          const meters = Array<number[]>(count).fill(withPower);
          const lengthS = automaticLengthS(around({ region, dataRate, fairUseSPerDay, meters }));
          const dayMs = (length: number): number => {
            const bytes = typicalPacketBytes({ codes: withPower, rows: length / 900, slotS: 900 });
            return (packetAirtimeMs(region, dataRate, bytes) ?? 0) * count * (86_400 / length);
          };
          const limitMs = Math.min(864_000, (fairUseSPerDay ?? 864) * 1_000);
          if (dayMs(86_400) < limitMs * 0.75) assert.ok(dayMs(lengthS) < limitMs, `${region} DR${dataRate}`);
        }
});

const sample = (timeS: number, values: readonly number[], codes = withPower): Sample => ({
  codes,
  row: { timeS, status: values.length > 0 ? statuses.good : statuses.timeout, values },
});

test("a batch ends at the clock's own multiples, also where the length changes meanwhile", () => {
  let lengthS = 3_600;
  const batch = new LoraBatch(() => lengthS);
  const closing: number[] = [];
  for (let timeS = 900; timeS <= 43_200; timeS += 900) {
    if (timeS === 9_000) lengthS = 21_600;
    const samples = [sample(timeS, [timeS % 7, timeS, 1])];
    const closes = batch.closes(samples);
    batch.sealed(samples, closes);
    if (closes) closing.push(timeS);
  }
  assert.deepEqual(closing, [3_600, 7_200, 21_600, 43_200]);
});

test("rows that come together, late, close the batch whose end lies among them", () => {
  const batch = new LoraBatch(() => 3_600);
  assert.equal(batch.closes([sample(2_700, []), sample(3_600, []), sample(4_500, [])]), true);
  assert.equal(batch.closes([sample(4_500, []), sample(5_400, [])]), false);
});

test("a day of wild values is closed before its record outgrows a packet", () => {
  const codes = [1, 2, 3, 4, 20, 21, 22];
  const batch = new LoraBatch(() => 86_400);
  let rows: Sample[] = [];
  let longest = 0;
  for (let timeS = 60; timeS <= 86_400; timeS += 60) {
    const wild = codes.map(
      (_, place) => (((timeS / 60) * 2_654_435_761 * (place + 1)) % 4_000_000_000) - 2_000_000_000,
    );
    const one = sample(timeS, wild, codes);
    const closes = batch.closes([one]);
    assert.equal(batch.sealed([one], closes), rows.length + 1);
    rows.push(one);
    if (!closes) continue;
    const link = { epoch: 4_000_000_000, sequence: 4_000_000_000, previous: new Uint8Array(previousBytes) };
    const record = signRecord(
      {
        ...{ kind: "reading", ...link, clockState: 1, generation: 9, meter: 255, plan: 1, slotS: 60, codes },
        rows: rows.map(({ row }) => row),
      },
      () => new Uint8Array(64),
    );
    longest = Math.max(longest, packetOf(record).length);
    rows = [];
  }
  assert.ok(longest > packetBytesMax * 0.8 && longest <= packetBytesMax, `${longest} bytes`);
});

test("a batch that was open before this process is closed while it still fits a packet", () => {
  const codes = [1, 2, 3, 4, 5, 6, 7, 8];
  const sample = (hour: number): Sample => ({
    codes,
    row: { timeS: 1_799_971_200 + hour * 3_600 + 900, status: statuses.good, values: codes.map(() => 24_000_000) },
  });
  const unknown = { slotS: 900, longestS: 86_400 };
  const late = new LoraBatch(() => 86_400, unknown);
  assert.equal(late.closes([sample(20)]), true, "the rows since midnight may be in the wallet");
  late.sealed([sample(20)], true);
  assert.equal(late.closes([sample(21)]), false, "from here on it is known");
  assert.equal(new LoraBatch(() => 86_400, unknown).closes([sample(1)]), false, "few rows, far from full");
  assert.equal(new LoraBatch(() => 86_400).closes([sample(20)]), false, "control: nothing was there before");
});

// Full rows (plan 0) and the thinner rows of a LoRaWAN batch (plan 1) are of the same meter: each moment counts once, whatever came first.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { Calendar } from "../../fullnode/calendar.ts";
import { energySlots } from "../../fullnode/energy.ts";
import { noPrevious, previousBytes, type Row } from "../../protocol/record.ts";
import { checkSlots } from "./aggregate-fixture.ts";
import type { DeviceFixture, SealedRecord } from "./device-fixture.ts";
import { NodeFixture } from "./node-fixture.ts";

const startS = 1_800_000_000; // a full hour
const hourS = 3_600;
const power = 1;
const energy = 2;

function seal(device: DeviceFixture, plan: number, slotS: number, codes: readonly number[], rows: readonly Row[]) {
  const previous = device.digest?.slice(0, previousBytes) ?? noPrevious;
  const at = { epoch: device.epoch, sequence: device.sequence + 1, previous, clockState: 0, generation: 0 };
  return device.seal({ kind: "reading", ...at, meter: 0, plan, slotS, codes, rows });
}

const standAt = (timeS: number) => 50_000_000 + (timeS - startS);
const timesOf = (slotS: number) => Array.from({ length: hourS / slotS }, (_, i) => startS + (i + 1) * slotS);

function full(device: DeviceFixture): SealedRecord[] {
  return timesOf(60).map((timeS) => {
    const rows = [{ timeS, status: 0, values: [1_000, standAt(timeS)] }];
    return seal(device, 0, 60, [power, energy], rows);
  });
}

function thinned(device: DeviceFixture): SealedRecord[] {
  const rows = timesOf(900).map((timeS) => ({ timeS, status: 0, values: [standAt(timeS)] }));
  return [seal(device, 1, 900, [energy], rows)];
}

async function hourOf(t: TestContext, ...parts: ((device: DeviceFixture) => SealedRecord[])[]) {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const records = parts.flatMap((part) => part(device));
  // By LoRaWAN and by MQTT records come in any order.
  await node.deliver(device, ...records.toReversed());
  const { rows, booked } = node.counted();
  assert.equal(rows, booked);
  assert.equal(await checkSlots(node.store, 1), rows);
  const question = { device: 1, meter: 0, resolution: "hour", fromS: 0, toS: 2 ** 32 } as const;
  const slots = await energySlots(node.store, new Calendar("UTC"), question);
  const advances = slots.map(({ startS: fromS, advances: of }) => ({
    ...{ fromS, of: of.find(({ code }) => code === energy) },
  }));
  return { rows, advances };
}

test("each moment counts once: the same energy from full rows, thinned rows, and both, whichever stands first in the chain", async (t) => {
  const alone = await hourOf(t, full);
  assert.equal(alone.rows, 60);
  const thinFirst = await hourOf(t, thinned, full);
  const fullFirst = await hourOf(t, full, thinned);
  assert.deepEqual(thinFirst, alone);
  assert.deepEqual(fullFirst, alone);
  const thin = await hourOf(t, thinned);
  assert.equal(thin.rows, 4);
  const last = (hour: typeof alone) => hour.advances.at(-1)?.of;
  assert.ok(last(thin));
});

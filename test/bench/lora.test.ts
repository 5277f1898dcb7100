// What benchmark lora says that depends on no machine: airtime, and delivery over a radio that loses frames. Few batches, on a virtual clock.
import assert from "node:assert/strict";
import { test } from "node:test";
import { losslessMs } from "../../bench/lora-airtime.ts";
import { deliver } from "../../bench/lora-delivery.ts";
import { batchS, House, startS } from "../../bench/lora-house.ts";
import { independentLoss } from "../../bench/lora-radio.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";

test("an hour of a house is at most 9.8 s on the air at DR0 and 0.28 s at DR5; each reading signed alone three times that", () => {
  const house = new House(randomOfRun(), []);
  for (let i = 1; i <= 20; i++) {
    const batch = house.seal(startS + i * batchS);
    for (const [dataRate, mostMs] of [
      [0, 9_800],
      [5, 280],
    ] as const) {
      const batchMs = losslessMs([house.asLate(batch)], dataRate);
      assert.ok(batchMs <= mostMs, `DR${dataRate}: ${batchMs} ms`);
      assert.ok(losslessMs(house.alone(batch), dataRate) > 3 * batchMs);
    }
  }
});

for (const dataRate of [0, 5])
  test(`DR${dataRate}: of frames lost one in ten both ways nothing stays missing and no hour is too full; sent once, much is missing`, async (t) => {
    const random = randomOfRun();
    const course = {
      dataRate,
      batches: 100,
      loss: () => ({ up: independentLoss(random, 10), down: independentLoss(random, 10) }),
    };
    const lossy = await deliver(random.uint32(), course);
    t.diagnostic(`${lossy.inTwoPeriods} of ${lossy.batches} within two batch periods, ${lossy.frames} frames`);
    assert.equal(lossy.missing, 0);
    assert.ok(lossy.inTwoPeriods >= 97);
    assert.ok(lossy.hourMs <= 36_000, `${lossy.hourMs} ms in an hour`);
    assert.equal(lossy.released, lossy.batches + 1, "the wallet has released them and the event of its start");
    const once = await deliver(random.uint32(), { ...course, once: true });
    assert.ok(once.inTwoPeriods < 99, `control: ${once.inTwoPeriods}`);
  });

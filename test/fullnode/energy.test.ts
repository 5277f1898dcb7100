// Energy by slots adds up to what the register counted, over gaps, steps of the clock, exchanges and falls.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { Calendar, resolutions } from "../../fullnode/calendar.ts";
import { energySlots, lastEndS } from "../../fullnode/energy.ts";
import type { CountedRow } from "../../fullnode/store.ts";
import { deviceScope, NodeFixture } from "./node-fixture.ts";
import { shuffled } from "./shuffle.ts";

const noon = Date.parse("2026-03-28T12:00:00Z") / 1_000;
const hourS = 3_600;
const utc = new Calendar("UTC");

interface Given {
  readonly timeS: number;
  readonly stand: number;
  readonly generation?: number;
  readonly booked?: boolean;
}

const row = ({ timeS, stand, generation = 0, booked = true }: Given): CountedRow => ({
  ...{ meter: 0, generation, timeS, slotS: 0, status: booked ? 0 : 5, booked },
  values: [1, stand % 700, 2, stand],
});

async function nodeWith(t: TestContext, given: readonly Given[]) {
  const node = new NodeFixture(t);
  await node.enrolled();
  for (const [i, one] of shuffled(given, 5).entries())
    await node.store.transaction(deviceScope, async (tx) => tx.countRows(1, 1, i + 1, [row(one)]));
  return node;
}

async function counted(node: NodeFixture, resolution: "quarter" | "hour" | "day" | "month", calendar = utc) {
  const question = { device: 1, meter: 0, resolution, fromS: 0, toS: 2 ** 32 };
  const slots = await energySlots(node.store, calendar, question);
  return slots.map(({ startS, advances }) => {
    const advance = advances.find(({ code }) => code === 2);
    assert.ok(advance);
    return { at: (startS - noon) / 60, ...advance };
  });
}

const figures = (slots: Awaited<ReturnType<typeof counted>>) => slots.map((slot) => [slot.at, slot.counted]);

test("a slot has what the register counted from the last value before it on; a gap falls to the slot that ends it", async (t) => {
  const node = await nodeWith(t, [
    { timeS: noon, stand: 1_000 },
    { timeS: noon + 300, stand: 1_010 },
    { timeS: noon + 900, stand: 1_030 }, // of the quarter hour that it ends
    { timeS: noon + 901, stand: 1_031 },
    { timeS: noon + 1_800, stand: 1_090 },
    { timeS: noon + 5 * hourS, stand: 2_000 },
    { timeS: noon + 400, stand: 9_999, booked: false },
  ]);
  const quarters = await counted(node, "quarter");
  assert.deepEqual(figures(quarters), [
    [-15, 0],
    [0, 30],
    [15, 60],
    [285, 910],
  ]);
  assert.equal(quarters[1]?.sinceS, noon);
  assert.equal(quarters[3]?.sinceS, noon + 1_800, "the gap shows");
  assert.deepEqual(figures(await counted(node, "hour")), [
    [-60, 0],
    [0, 90],
    [240, 910],
  ]);
  assert.deepEqual(figures(await counted(node, "day")), [[-720, 1_000]]);
  assert.equal(await lastEndS(node.store, 1, 0), noon + 5 * hourS);
  assert.equal(await lastEndS(node.store, 1, 1), undefined);
});

test("days and months are those of the zone, with 23 hours where its clock changes", async (t) => {
  // One Wh a minute over three days around the change of 2026-03-29.
  const minutes = Array.from({ length: 4 * 24 * 4 }, (_, i) => ({ timeS: noon + i * 900, stand: i * 15 }));
  const node = await nodeWith(t, minutes);
  const berlin = new Calendar("Europe/Berlin");
  const days = await counted(node, "day", berlin);
  assert.deepEqual(
    days.map(({ counted }) => counted / 60),
    [11, 23, 24, 24, 13.75],
  );
  assert.deepEqual(
    (await counted(node, "month", berlin)).map(({ counted }) => counted / 60),
    [11 + 23 + 24 + 24 - 0, 13.75],
  );
});

test("a clock that was set back begins a generation: energy is counted on, and nothing twice", async (t) => {
  const node = await nodeWith(t, [
    ...[0, 1, 2, 3, 4].map((i) => ({ timeS: noon + i * 900, stand: 100 + i * 10 })),
    // Set back by an hour: the same times come again.
    ...[1, 2, 3, 4, 5].map((i) => ({ timeS: noon + i * 900, stand: 140 + i * 10, generation: 1 })),
  ]);
  const quarters = await counted(node, "quarter");
  assert.equal(
    quarters.reduce((sum, one) => sum + one.counted, 0),
    90,
  );
  assert.deepEqual(figures(quarters)[1], [0, 20], "ten of each generation");
  assert.deepEqual(figures(await counted(node, "day")), [[-720, 90]]);
});

const exchange = (timeS: number) => ({ meter: 0, generation: 0, timeS, epoch: 1, sequence: 900, installation: 1 });

test("what a declared exchange changes in the register is not energy, whether it rose or fell by it", async (t) => {
  for (const newStand of [5, 1_015, 900_000]) {
    const rows = [
      { timeS: noon, stand: 1_000 },
      { timeS: noon + 300, stand: 1_010 },
      { timeS: noon + 600, stand: newStand },
      { timeS: noon + 900, stand: newStand + 7 },
      { timeS: noon + 1_800, stand: newStand + 20 },
    ];
    const inside = await nodeWith(t, rows);
    await inside.store.transaction(deviceScope, async (tx) => tx.addExchange(1, exchange(noon + 450)));
    const quarters = await counted(inside, "quarter");
    assert.deepEqual(figures(quarters), [
      [-15, 0],
      [0, 17],
      [15, 13],
    ]);
    assert.deepEqual(
      quarters.map(({ exchanged, fell }) => [exchanged, fell]),
      [
        [false, false],
        [true, false],
        [false, false],
      ],
    );
    // Between two slots.
    const between = await nodeWith(t, [
      { timeS: noon, stand: 1_000 },
      { timeS: noon + 300, stand: 1_010 },
      { timeS: noon + 1_200, stand: newStand },
      { timeS: noon + 1_500, stand: newStand + 7 },
    ]);
    await between.store.transaction(deviceScope, async (tx) => tx.addExchange(1, exchange(noon + 900)));
    assert.deepEqual(figures(await counted(between, "hour")), [
      [-60, 0],
      [0, 17],
    ]);
  }
  // Control: the same rows without the declaration.
  const undeclared = await nodeWith(t, [
    { timeS: noon, stand: 1_000 },
    { timeS: noon + 300, stand: 900_000 },
  ]);
  assert.deepEqual(figures(await counted(undeclared, "quarter")), [
    [-15, 0],
    [0, 899_000],
  ]);
});

test("over a fall that nobody declared nothing is counted, and the slot says so", async (t) => {
  const node = await nodeWith(t, [
    { timeS: noon, stand: 1_000 },
    { timeS: noon + 300, stand: 1_010 },
    { timeS: noon + 600, stand: 3 },
    { timeS: noon + 900, stand: 5 },
    { timeS: noon + 1_200, stand: 1 },
    { timeS: noon + 1_800, stand: 9 },
  ]);
  const quarters = await counted(node, "quarter");
  assert.deepEqual(
    quarters.map(({ at, counted, fell }) => [at, counted, fell]),
    [
      [-15, 0, false],
      [0, 12, true],
      [15, 8, true],
    ],
  );
});

test("an exchange reaches the store from the chain, by its event", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  await node.deliver(device, device.reading(), device.events([5, 0, "broken display", 2]), device.events([5, 1, "x"]));
  const found = (await node.store.exchanges(1)).map(({ meter, sequence, installation }) => [
    meter,
    sequence,
    installation,
  ]);
  assert.deepEqual(found, [
    [0, 2, 2],
    [1, 3, 0],
  ]);
});

test("at every resolution the slots add up to the same, also where a question begins in the middle", async (t) => {
  const given = Array.from({ length: 300 }, (_, i) => ({ timeS: noon + i * i * 7, stand: 1_000 + i * 11 }));
  const node = await nodeWith(t, given);
  for (const resolution of resolutions) {
    const all = await counted(node, resolution);
    assert.equal(
      all.reduce((sum, one) => sum + one.counted, 0),
      299 * 11,
    );
    const { startS: fromS } = utc.slotAt(resolution, noon + 100_000);
    const question = { device: 1, meter: 0, resolution, fromS, toS: 2 ** 32 };
    const later = await energySlots(node.store, utc, question);
    const expected = all.filter(({ at }) => noon + at * 60 >= fromS);
    assert.deepEqual(
      later.map(({ advances }) => advances[0]?.counted),
      expected.map((one) => one.counted),
    );
  }
});

test("a register that is read once a month is counted on from its last reading, wherever a question begins", async (t) => {
  const node = new NodeFixture(t);
  await node.enrolled();
  const quarters = 96 * 70;
  await node.store.transaction(deviceScope, async (tx) => {
    for (let i = 0; i <= quarters; i++) {
      const tariff = i % (96 * 30) === 0 ? [38, 5_000 + i] : [];
      const values = [2, 1_000 + i, ...tariff];
      await tx.countRows(1, 1, i + 1, [{ ...row({ timeS: noon + i * 900, stand: 0 }), values }]);
    }
  });
  for (const [fromDay, found] of [
    [0, [0, 2_880, 2_880]],
    [20, [2_880, 2_880]],
    [59, [2_880]],
  ] as const) {
    const question = {
      device: 1,
      meter: 0,
      resolution: "day",
      fromS: noon + fromDay * 86_400 - 43_200,
      toS: 2 ** 32,
    } as const;
    const slots = await energySlots(node.store, utc, question);
    const counts = slots.flatMap(({ advances }) =>
      advances.filter(({ code }) => code === 38).map((one) => one.counted),
    );
    assert.deepEqual(counts, found, `from day ${fromDay}`);
  }
});

// Records that a wallet overwrote unacknowledged: `through` passes them once the record that says so is in its place.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { eventCodes } from "../../protocol/record.ts";
import type { SealedRecord } from "./device-fixture.ts";
import { NodeFixture } from "./node-fixture.ts";
import { shuffled } from "./shuffle.ts";

/** Ten records; 4 to 6 were dropped, which 9 says; 10 is behind it. */
async function dropped(t: TestContext) {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const start = device.readings(3);
  const lost = device.readings(3);
  const kept = device.readings(2);
  const declaring = device.events([eventCodes.dropped, device.epoch, 4, 6]);
  const after = device.reading();
  return { node, device, start, lost, kept, declaring, after, come: [...start, ...kept, declaring, after] };
}

function dump(node: NodeFixture) {
  return [
    node.query("SELECT sequence, digest, settled FROM records ORDER BY sequence"),
    node.query("SELECT time_s, sequence, booked, content FROM rows ORDER BY time_s"),
    node.query("SELECT first, last, digest FROM spans ORDER BY first"),
    node.query("SELECT through, through_digest, settled_through FROM epochs"),
  ];
}

test("through passes what was dropped as soon as the record that says so hangs on it, and all is booked", async (t) => {
  const { node, device, start, kept, declaring, after } = await dropped(t);
  await node.deliver(device, ...start, ...kept);
  assert.equal(node.lastReceipt().through, 3);
  await node.deliver(device, declaring);
  assert.equal(node.lastReceipt().through, 9);
  assert.deepEqual(node.lastReceipt().digest, declaring.digest);
  await node.deliver(device, after);
  assert.equal(node.lastReceipt().through, 10);
  assert.deepEqual(node.counted(), { rows: 6, booked: 6 });
});

test("in every order of arrival, the dropped ones coming after all or not, the store is the same", async (t) => {
  const plain = await dropped(t);
  await plain.node.deliver(plain.device, ...plain.come);
  const whole = await dropped(t);
  await whole.node.deliver(whole.device, ...whole.come, ...whole.lost);
  assert.deepEqual(whole.node.counted(), { rows: 9, booked: 9 });
  assert.equal(whole.node.query("SELECT count(*) AS n FROM records WHERE settled = 1")[0]?.n, 10);
  // Each is a store of its own, and those of a server are slower made.
  const seeds = whole.node.contract.kind === "sqlite" ? 30 : 3;
  for (let seed = 1; seed <= seeds; seed++) {
    for (const [expected, withLost] of [
      [plain, false],
      [whole, true],
    ] as const) {
      const other = new NodeFixture(t);
      await other.enrolledAs(expected.device, plain.device.epoch);
      const all = withLost ? [...expected.come, ...expected.lost] : expected.come;
      for (const record of shuffled(all, seed)) {
        await other.deliver(expected.device, record);
        if (seed % 5 === 0) await other.restart();
      }
      assert.deepEqual(dump(other), dump(expected.node), `seed ${seed}, ${withLost ? "with" : "without"} the dropped`);
      assert.equal(other.count("evidence"), 0);
    }
  }
});

test("a dropped record that comes after all and contradicts what stands behind it is evidence", async (t) => {
  const { node, device, start, come } = await dropped(t);
  await node.deliver(device, ...come);
  device.rewind(start[2]);
  const [, , sixth] = [0, 1, 2].map((i) => device.reading({ timeS: 1_900_000_000 + i * 60 }));
  assert.equal(sixth?.sequence, 6);
  await node.deliver(device, sixth as SealedRecord);
  assert.deepEqual(node.lastReceipt().refused, [[6, "fork"]]);
  assert.equal(node.lastReceipt().through, 10);
  assert.deepEqual(node.counted(), { rows: 6, booked: 6 });
});

test("a drop is not believed before all from it to its record is there: a receipt releases nothing too early", async (t) => {
  const { node, device, start, kept, declaring, after } = await dropped(t);
  await node.deliver(device, ...start, kept[0] as SealedRecord, declaring, after);
  assert.equal(node.lastReceipt().through, 3, "8 may still be on its way");
  await node.deliver(device, kept[1] as SealedRecord);
  assert.equal(node.lastReceipt().through, 10);
});

test("what one epoch says of another counts once it is settled, whichever came first", async (t) => {
  for (const order of ["old first", "new first"] as const) {
    const node = new NodeFixture(t);
    const device = await node.enrolled();
    const first = device.epoch;
    const start = device.readings(2);
    device.readings(2); // 3 and 4 are dropped
    const end = device.readings(2);
    device.begin(88);
    const [one, declaring] = [
      device.reading({ timeS: 1_800_000_000 }),
      device.events([eventCodes.dropped, first, 3, 4]),
    ];
    const [old, fresh] = [
      [...start, ...end],
      [one, declaring],
    ];
    await node.deliver(device, ...(order === "old first" ? [...old, ...fresh] : [...fresh, ...old]));
    assert.equal(
      node.query("SELECT through FROM epochs WHERE epoch = ?", first)[0]?.through,
      2,
      `${order}: 88 is held`,
    );
    await node.path.stop();
    await node.decide(88);
    await node.restart();
    node.path.lookAround();
    await node.path.idle();
    assert.equal(node.query("SELECT through FROM epochs WHERE epoch = ?", first)[0]?.through, 6, order);
    assert.equal(node.receiptsOf(first).at(-1)?.through, 6, `${order}: the wallet hears of it`);
    assert.deepEqual(node.counted(), { rows: 5, booked: 5 }, order);
  }
});

test("a drop that makes no sense is refused with its record", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const [first] = device.readings(1);
  assert.ok(first);
  await node.deliver(device, first);
  const { epoch } = device;
  const wrong: readonly (readonly (number | string)[])[] = [
    [epoch, 1, 2],
    [epoch, 1, 5_000],
    [epoch, 0, 1],
    [epoch, 1],
    [epoch, 1, 1, 1],
    [epoch, "1", 1],
    [7, 5, 4],
  ];
  for (const parameters of wrong) {
    device.rewind(first);
    await node.deliver(device, device.events([eventCodes.dropped, ...parameters]));
  }
  assert.equal(node.path.counts.refused["bad-dropped"], wrong.length);
  assert.equal(node.count("records"), 1);
});

test("control: without the record that declares the drop, through stays before it", async (t) => {
  const { node, device, come, declaring } = await dropped(t);
  await node.deliver(device, ...come.filter((record) => record !== declaring));
  assert.equal(node.lastReceipt().through, 3);
  assert.deepEqual(node.counted(), { rows: 3, booked: 3 });
});

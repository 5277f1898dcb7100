// Two wallets of one key (a copied card): what came first stays, what contradicts it is evidence, each learns that its records are kept.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { type Receipt, receiptKeptMax } from "../../protocol/receipt.ts";
import { DeviceFixture, firstTimeS, type SealedRecord } from "./device-fixture.ts";
import { NodeFixture } from "./node-fixture.ts";

/** The device and its copy after five records. */
async function copied(t: TestContext) {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const common = device.readings(5);
  await node.deliver(device, ...common);
  const copy = new DeviceFixture(device.epoch, device.key);
  copy.rewind(common.at(-1));
  return { node, device, copy };
}

/** Whether a receipt names a record, by its digest, as its wallet would look for it. */
function keeps(receipts: readonly Receipt[], records: readonly SealedRecord[]): boolean {
  const byDigest = new Map(records.map((record) => [Buffer.from(record.digest).toString("hex"), record.sequence]));
  const kept = new Set<number>();
  for (const { kept: runs = [] } of receipts)
    for (const { first, last, digest } of runs)
      if (byDigest.get(Buffer.from(digest).toString("hex")) === last)
        for (let sequence = first; sequence <= last; sequence++) kept.add(sequence);
  return records.every(({ sequence }) => kept.has(sequence));
}

test("two wallets of one key that deliver alternately: one chain is booked, both are kept, nothing counts twice", async (t) => {
  const { node, device, copy } = await copied(t);
  const [mine, theirs]: [SealedRecord[], SealedRecord[]] = [[], []];
  for (let round = 0; round < 10; round++) {
    mine.push(device.reading());
    const timeS = firstTimeS + 60 * (6 + round); // the same times, read again
    theirs.push(copy.reading({ rows: [{ timeS, status: 0, values: [7, 60_000_000 + round] }] }));
    await node.deliver(device, mine[round] as SealedRecord);
    await node.deliver(device, theirs[round] as SealedRecord);
  }
  const receipts = node.receiptsOf(device.epoch);
  assert.ok(keeps(receipts, theirs), "the copy's records are all named");
  assert.equal(node.lastReceipt().through, 15);
  assert.deepEqual(node.counted(), { rows: 15, booked: 15 });
  assert.equal(node.count("records"), 15);
  assert.equal(node.count("evidence"), 10);
});

test("in one delivery, alternately: each wallet's records are one run", async (t) => {
  const { node, device, copy } = await copied(t);
  const mine = device.readings(8);
  const theirs = Array.from({ length: 8 }, (_, i) => copy.reading({ timeS: firstTimeS + 7_000 + 60 * i }));
  const both = mine.flatMap((record, i) => [record, theirs[i] as SealedRecord]);
  await node.deliver(device, ...both);
  await node.deliver(device, ...both); // again, as after lost receipts
  assert.equal(node.lastReceipt().kept?.length, 2);
  const receipts = node.receiptsOf(device.epoch).slice(-2); // the first record is a batch by itself
  assert.ok(keeps(receipts, theirs) && keeps(receipts, mine));
  assert.equal(node.count("evidence"), 8);
  assert.deepEqual(node.counted(), { rows: 13, booked: 13 });
});

test("records that came before as evidence are named again when they come again, without a write", async (t) => {
  const { node, device, copy } = await copied(t);
  await node.deliver(device, device.reading());
  const theirs = [copy.reading({ timeS: firstTimeS + 7_000 }), copy.reading({ timeS: firstTimeS + 7_060 })];
  await node.deliver(device, ...theirs);
  const before = node.query("SELECT receipt, last_ms FROM epochs");
  await node.restart();
  await node.deliver(device, theirs[1] as SealedRecord, theirs[0] as SealedRecord);
  assert.deepEqual(node.query("SELECT receipt, last_ms FROM epochs"), before);
  assert.ok(keeps(node.receiptsOf(device.epoch).slice(-2), theirs));
});

test("more runs than a receipt may name come in several receipts", async (t) => {
  const { node, device, copy } = await copied(t);
  await node.deliver(device, ...device.readings(60));
  const scattered = Array.from({ length: 3 * (2 * receiptKeptMax + 3) }, (_, i) =>
    copy.reading({ timeS: firstTimeS + 7_000 + 60 * i }),
  ).filter((_, i) => i % 3 === 0);
  const given = node.receipts.length;
  await node.deliver(device, scattered[0] as SealedRecord);
  await node.deliver(device, ...scattered);
  const receipts = node.receipts.slice(given).map(({ bytes }) => node.opened(bytes));
  assert.ok(receipts.length >= 3, `${receipts.length}`);
  assert.ok(receipts.every(({ kept = [] }) => kept.length <= receiptKeptMax));
  assert.ok(keeps(receipts, scattered));
});

test("control: without evidence no receipt names what it keeps", async (t) => {
  const { node, device } = await copied(t);
  await node.deliver(device, ...device.readings(3));
  assert.ok(node.receiptsOf(device.epoch).every(({ kept }) => kept === undefined));
});

test("a held copy with an epoch of its own counts nothing twice when it is accepted", async (t) => {
  const { node, device, copy } = await copied(t);
  await node.deliver(device, ...device.readings(5));
  copy.begin(500);
  await node.deliver(device, ...[4, 5, 6, 7, 30].map((i) => copy.reading({ timeS: firstTimeS + 60 * i })));
  assert.deepEqual(node.counted(), { rows: 10, booked: 10 });
  await node.path.stop();
  await node.decide(500);
  await node.restart();
  node.path.lookAround();
  await node.path.idle();
  assert.deepEqual(node.counted(), { rows: 11, booked: 11 }, "four of the five were booked before");
});

test("times since a boot are kept and not booked", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  await node.deliver(device, device.reading({ timeS: 120, clockState: 3 }), device.reading());
  assert.deepEqual(node.counted(), { rows: 2, booked: 1 });
});

test("an older card whose records the node has, and more than them, is told of its own", async (t) => {
  const { node, device } = await copied(t);
  const known = device.readings(3);
  await node.deliver(device, ...known, ...device.readings(4)); // these four are lost with the newer card
  device.begin(500);
  await node.deliver(device, device.reading({ timeS: firstTimeS + 70_000 }));
  await node.deliver(device, ...known);
  assert.ok(
    keeps(
      node.receipts.slice(-2).map(({ bytes }) => node.opened(bytes)),
      known,
    ),
  );
});

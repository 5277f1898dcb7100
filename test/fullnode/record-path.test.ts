import assert from "node:assert/strict";
import { test } from "node:test";
import { settledPerBatchMax } from "../../fullnode/chain.ts";
import { spansOf } from "../../fullnode/chain-spans.ts";
import { quarantinePerNameMax } from "../../fullnode/record-examination.ts";
import { enrolDevice } from "../../fullnode/registry.ts";
import { unpackValues } from "../../fullnode/row-packing.ts";
import { digestOf } from "../../protocol/cose-sign1.ts";
import { receiptRangesMax } from "../../protocol/receipt.ts";
import { decodeRecord, recordBytesMax } from "../../protocol/record.ts";
import { acknowledges, DeviceFixture, firstTimeS, sha256 } from "./device-fixture.ts";
import { deviceScope, NodeFixture } from "./node-fixture.ts";
import { shuffled } from "./shuffle.ts";

test("a valid record is stored, settled, queued for the ledger, and acknowledged by a receipt that verifies", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const record = device.reading();
  await node.deliver(device, record);

  const receipt = node.lastReceipt();
  assert.equal(receipt.through, 1);
  assert.deepEqual(receipt.digest, record.digest);
  assert.deepEqual(receipt.device, device.kid);
  assert.equal(receipt.held, false);
  assert.deepEqual(node.events, [
    { event: "stored", device: device.did, epoch: device.epoch, sequence: 1, state: "settled", clock: "S" },
  ]);
  const [stored] = node.query("SELECT bytes, digest, settled FROM records");
  assert.equal(stored?.settled, 1);
  assert.deepEqual(digestOf(decodeRecord(stored?.bytes as Uint8Array, sha256).cose, sha256), record.digest);
  assert.deepEqual(node.query("SELECT digest FROM ledger_queue"), node.query("SELECT digest FROM records"));
  assert.equal(node.count("rows"), 1);
  // What was published is what was persisted.
  assert.deepEqual(
    node.query("SELECT receipt FROM epochs")[0]?.receipt,
    Uint8Array.from(node.receipts[0]?.bytes ?? []),
  );
});

test("a receipt with one bit changed does not verify", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  await node.deliver(device, device.reading());
  const receipt = node.receipts[0];
  assert.ok(receipt);
  const last = receipt.bytes.length - 1;
  receipt.bytes[last] = (receipt.bytes[last] as number) ^ 1;
  assert.throws(() => node.lastReceipt(), /does not hold/);
});

test("a duplicate is stored once and acknowledged again, in the same batch and in a later one", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const record = device.reading();
  await node.deliver(device, record, record, record);
  await node.deliver(device, record);
  assert.equal(node.count("records"), 1);
  assert.equal(node.count("rows"), 1);
  assert.equal(node.count("ledger_queue"), 1);
  assert.equal(node.receipts.length, 2);
  assert.deepEqual(Buffer.from(node.receipts[0]?.bytes ?? []), Buffer.from(node.receipts[1]?.bytes ?? []));
  assert.equal(node.path.counts.duplicates, 3);
  assert.ok(acknowledges(node.lastReceipt(), record));
});

test("a record whose tag and kid a broker took away is the same record", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const record = device.reading();
  const tagged = record.bytes;
  await node.deliver(device, record);
  const bare = node.query("SELECT bytes FROM records")[0]?.bytes as Uint8Array;
  assert.notDeepEqual(bare, tagged);
  await node.deliver(device, bare);
  assert.equal(node.count("records"), 1);
  assert.equal(node.path.counts.duplicates, 1);
});

test("every single bit changed is refused, and nothing of it is stored", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const { bytes } = device.reading();
  const kid = Buffer.from(bytes).indexOf(Buffer.from(device.kid));
  const changed: Uint8Array[] = [];
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const offset = bit >> 3;
    if (offset >= kid && offset < kid + 8) continue; // the kid is a hint, outside the signature
    const copy = Uint8Array.from(bytes);
    copy[offset] = (copy[offset] as number) ^ (1 << (bit & 7));
    changed.push(copy);
  }
  assert.ok(changed.length > 800);
  await node.deliver(device, ...changed);
  assert.equal(node.count("records"), 0);
  assert.equal(node.count("evidence"), 0);
  assert.equal(node.count("quarantine"), 0);
  assert.equal(node.receipts.length, 0);
  const refused = Object.values(node.path.counts.refused).reduce((sum, count) => sum + count, 0);
  assert.equal(refused, changed.length);
  assert.ok((node.path.counts.refused["signature-invalid"] ?? 0) > 0);
  // Control: unchanged it is taken.
  await node.deliver(device, bytes);
  assert.equal(node.count("records"), 1);
});

test("records in any order: ranges with gaps first, one whole chain at the end, the same store as in order", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const records = device.readings(6);
  const [r1, r2, r3, r4, r5, r6] = records as [(typeof records)[0], ...typeof records];
  assert.ok(r2 && r3 && r4 && r5 && r6);

  await node.deliver(device, r6);
  assert.equal(node.lastReceipt().through, 0);
  assert.deepEqual(node.lastReceipt().ranges, [{ first: 6, last: 6, digest: r6.digest }]);
  assert.deepEqual(node.events, [
    { event: "stored", device: device.did, epoch: device.epoch, sequence: 6, state: "provisional", clock: "S" },
  ]);
  assert.equal(node.count("rows"), 0, "nothing is counted before its chain is whole");

  await node.deliver(device, r3, r2);
  assert.deepEqual(
    node.lastReceipt().ranges.map(({ first, last }) => [first, last]),
    [
      [2, 3],
      [6, 6],
    ],
  );
  await node.deliver(device, r1);
  assert.equal(node.lastReceipt().through, 3);
  assert.deepEqual(node.lastReceipt().digest, r3.digest);
  await node.deliver(device, r4, r5);
  assert.equal(node.lastReceipt().through, 6);
  assert.deepEqual(node.lastReceipt().digest, r6.digest);
  assert.deepEqual(node.lastReceipt().ranges, []);
  assert.equal(node.count("rows"), 6);
  assert.equal(node.query("SELECT count(*) AS n FROM records WHERE settled = 1")[0]?.n, 6);
});

test("a shuffled delivery leaves the same records, rows and spans as an ordered one", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const records = [
    ...device.readings(40),
    device.void(3),
    ...device.readings(200),
    device.void(1),
    ...device.readings(60),
  ];
  const dump = (fixture: NodeFixture) => [
    fixture.query("SELECT epoch, sequence, digest, settled FROM records ORDER BY sequence"),
    fixture.query("SELECT meter, time_s, sequence, booked, content FROM rows ORDER BY time_s"),
    fixture.query("SELECT first, last, digest FROM spans ORDER BY first"),
    fixture.query("SELECT through, through_digest, settled_through FROM epochs"),
  ];
  await node.deliver(device, ...records);
  const ordered = dump(node);
  for (const seed of [1, 2, 3]) {
    const other = new NodeFixture(t);
    await enrolDevice(other.store, other.keys, device.request(), 1);
    const mixed = shuffled(records, seed);
    for (let i = 0; i < mixed.length; i += 17) await other.deliver(device, ...mixed.slice(i, i + 17));
    assert.deepEqual(dump(other), ordered);
    assert.equal(other.count("evidence"), 0);
  }
});

test("the spans kept along the way are those that all records make", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const records = [...device.readings(30), device.void(4), ...device.readings(30)].filter((_, i) => i % 7 !== 3);
  for (const record of shuffled(records, 9)) await node.deliver(device, record);
  const rebuilt = await node.store.transaction(deviceScope, async (tx) =>
    spansOf(await tx.seats(1, device.epoch), await tx.voids(1, device.epoch)),
  );
  assert.deepEqual(
    node
      .query(
        "SELECT 1 AS first, through AS last, through_digest AS digest FROM epochs UNION ALL SELECT first, last, digest FROM spans ORDER BY first",
      )
      .map((row) => ({ ...row })),
    rebuilt,
  );
  assert.ok(rebuilt.length > 5);
});

test("more gaps than a receipt has ranges: the records just sent are named, and no receipt is too long", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const odd = device.readings(80).filter(({ sequence }) => sequence % 2 === 0);
  for (const record of odd) {
    await node.deliver(device, record);
    assert.ok(acknowledges(node.lastReceipt(), record));
  }
  assert.equal(node.lastReceipt().ranges.length, receiptRangesMax);
  const first = odd[20];
  assert.ok(first);
  await node.deliver(device, first);
  assert.ok(acknowledges(node.lastReceipt(), first), "a duplicate that the last receipt does not name gets a new one");
});

test("a void lets through pass what will never come; a record that comes after all is kept", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const [r1, lost2, lost3] = device.readings(3);
  assert.ok(r1 && lost2 && lost3);
  device.rewind(r1);
  const declaring = device.void(2);
  const after = device.reading();
  await node.deliver(device, r1);
  await node.deliver(device, after);
  assert.equal(node.lastReceipt().through, 1);
  await node.deliver(device, declaring);
  assert.equal(declaring.sequence, 4);
  assert.equal(node.lastReceipt().through, 5);
  assert.deepEqual(node.lastReceipt().digest, after.digest);

  // They had been delivered before the journal lost them, and only came late: they win over the void.
  await node.deliver(device, lost3);
  await node.deliver(device, lost2);
  assert.equal(node.count("records"), 5);
  assert.equal(node.count("evidence"), 0);
  assert.equal(node.count("rows"), 4);
  assert.equal(node.query("SELECT count(*) AS n FROM records WHERE settled = 1")[0]?.n, 5);
  assert.equal(node.lastReceipt().through, 5);
});

test("a void that does not end just before its own record is refused", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  await node.deliver(device, device.reading(), device.events([9, 2, 5_000_000]));
  assert.deepEqual(node.refusals(), ["bad-void"]);
  assert.equal(node.count("records"), 1);
});

test("a fork at the same sequence is kept as evidence, named in the receipt, and not booked; the first one stays", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const [r1, r2] = device.readings(2);
  assert.ok(r1 && r2);
  device.rewind(r1);
  const fork = device.reading({ timeS: firstTimeS + 7_777 });
  await node.deliver(device, r1, r2, fork);
  assert.deepEqual(node.lastReceipt().refused, [[2, "fork"]]);
  assert.equal(node.lastReceipt().through, 2);
  assert.deepEqual(node.lastReceipt().digest, r2.digest);
  assert.deepEqual(node.refusals(), ["fork"]);
  assert.equal(node.count("evidence"), 1);
  assert.equal(node.count("rows"), 2);
  await node.deliver(device, fork);
  assert.equal(node.count("evidence"), 1, "the same fork again is one piece of evidence");
});

test("a fork behind the tail is evidence in either order, with all that hangs on it", async (t) => {
  for (const order of ["genuine first", "fork first", "fork's tail first"] as const) {
    const node = new NodeFixture(t);
    const device = await node.enrolled();
    const [r1] = device.readings(1);
    const genuine = device.readings(3); // 2, 3, 4
    device.rewind(r1);
    const foreign = device.reading({ timeS: firstTimeS + 7_777 }); // a 2 that is never delivered
    assert.equal(foreign.sequence, 2);
    const forked = device.readings(3); // 3, 4, 5 of the other branch
    const deliveries = {
      "genuine first": [...genuine, ...forked],
      "fork first": [...forked, ...genuine],
      "fork's tail first": [...forked].reverse().concat(genuine),
    }[order];
    assert.ok(r1);
    await node.deliver(device, r1);
    for (const record of deliveries) await node.deliver(device, record);
    assert.equal(node.lastReceipt().through, 4, order);
    assert.deepEqual(
      node.lastReceipt().refused,
      [
        [3, "fork"],
        [4, "fork"],
        [5, "fork"],
      ],
      order,
    );
    assert.equal(node.path.counts.refused.fork, 3, `${order}: each is told, also one that had taken a place`);
    assert.equal(node.count("records"), 4, order);
    assert.equal(node.count("evidence"), 3, order);
    for (const { sequence, digest } of forked) {
      const kept = node.query("SELECT digest FROM evidence WHERE sequence = ?", sequence);
      assert.deepEqual(
        kept.map((row) => row.digest),
        [digest],
      );
    }
    assert.equal(node.count("rows"), 4, order);
  }
});

test("an unknown device's record is quarantined if its own key signed it, within bounds, and joins when it is enrolled", async (t) => {
  const node = new NodeFixture(t);
  const stranger = new DeviceFixture();
  const records = stranger.readings(quarantinePerNameMax + 10);
  for (const record of records) await node.deliver(stranger, record);
  assert.equal(node.count("quarantine"), quarantinePerNameMax);
  assert.equal(node.count("records"), 0);
  assert.equal(node.receipts.length, 0, "a stranger gets no receipt");
  assert.equal(node.path.counts.refused["unknown-device"], quarantinePerNameMax);
  assert.equal(node.path.counts.refused["quarantine-full"], 10);

  // Control: a record that the named key did not sign is not kept at all.
  const other = new DeviceFixture();
  await node.deliver(other, stranger.reading());
  assert.equal(node.path.counts.refused["signature-invalid"], 1);
  assert.equal(node.count("quarantine"), quarantinePerNameMax);

  const enrolling = new NodeFixture(t); // another process, as far as the store can tell
  await enrolling.path.stop();
  await node.restart();
  await enrolDevice(node.store, node.keys, stranger.request(), 1);
  node.path.lookAround();
  await node.path.idle();
  assert.equal(node.count("quarantine"), 0);
  assert.equal(node.count("records"), quarantinePerNameMax);
  assert.equal(node.lastReceipt().through, quarantinePerNameMax);
});

test("a record under another device's topic is refused", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const other = await node.enrolled();
  await node.deliver(device, other.reading());
  assert.deepEqual(node.refusals(), ["wrong-device"]);
  assert.equal(node.count("records"), 0);
});

test("junk of every kind is counted, said at a bounded rate, and never stored", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const junk = Array.from({ length: 2_000 }, (_, i) => new Uint8Array(i % 60).fill(i));
  await node.deliver(device, ...junk, new Uint8Array(recordBytesMax + 1));
  node.path.push("ecp/1/nobody/record", new Uint8Array(3));
  node.path.push("something/else", new Uint8Array(3));
  await node.path.idle();
  const refused = node.path.counts.refused;
  assert.equal(
    Object.values(refused).reduce((sum, count) => sum + count, 0),
    2_003,
  );
  assert.equal(refused["unknown-topic"], 2);
  assert.equal(refused["too-large"], 1);
  for (const table of ["records", "evidence", "quarantine", "ledger_queue"]) assert.equal(node.count(table), 0);
  assert.ok(node.logLines.length < 60, `${node.logLines.length} lines`);
  await node.path.stop();
  const said = node.events.reduce((sum, event) => sum + (event.event === "refused" ? event.count : 0), 0);
  assert.equal(said, 2_003, "every refusal is in some count");
});

test("a value counts once: the first row of a meter's time stays, failed and implausible rows are kept and not booked", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const timeS = firstTimeS;
  await node.deliver(
    device,
    device.reading({ timeS, rows: [{ timeS, status: 0, values: [1, 100] }] }),
    device.reading({ timeS, rows: [{ timeS, status: 0, values: [1, 999] }] }),
    device.reading({
      slotS: 60,
      rows: [
        { timeS: timeS + 60, status: 2, values: [] },
        { timeS: timeS + 120, status: 5, values: [1, 5] },
        { timeS: timeS + 180, status: 8, values: [1, 7] },
        { timeS: timeS + 240, status: 0, values: [1, 101] },
        // The agent's word alone: nothing holds these against a register or a clock.
        { timeS: timeS + 300, status: 6, values: [1, 999] },
        { timeS: timeS + 360, status: 9, values: [1, 999] },
      ],
    }),
    device.reading({ rows: [{ timeS: timeS + 60, status: 0, values: [2, 100] }] }),
  );
  const rows = node.query("SELECT time_s - ? AS t, status, booked, sequence, content FROM rows ORDER BY time_s", timeS);
  assert.deepEqual(
    rows.map(({ content, ...row }) => [...Object.values(row), unpackValues(content as Uint8Array)]),
    [
      [0, 0, 1, 1, [1, 1, 2, 100]],
      [60, 0, 1, 4, [1, 2, 2, 100]],
      [120, 5, 0, 3, [1, 1, 2, 5]],
      [180, 8, 0, 3, [1, 1, 2, 7]],
      [240, 0, 1, 3, [1, 1, 2, 101]],
      [300, 6, 0, 3, [1, 1, 2, 999]],
      [360, 9, 0, 3, [1, 1, 2, 999]],
    ],
  );
});

test("an epoch that nobody agreed to is held: stored, acknowledged as held, counted when the owner enrols it", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  await node.deliver(device, device.reading());
  device.epoch = 99;
  device.rewind(undefined);
  await node.deliver(
    device,
    device.reading({ timeS: firstTimeS + 9_000 }),
    device.reading({ timeS: firstTimeS + 9_060 }),
  );
  assert.equal(node.lastReceipt().held, true);
  assert.equal(node.lastReceipt().through, 2);
  assert.equal(node.count("rows"), 1);
  assert.equal(node.events.filter((event) => event.event === "stored" && event.state === "held").length, 2);
  await enrolDevice(node.store, node.keys, device.request(), 2);
  await node.restart();
  await node.deliver(device, device.reading({ timeS: firstTimeS + 9_120 }));
  assert.equal(node.lastReceipt().held, false);
  assert.equal(node.lastReceipt().through, 3);
  assert.equal(node.count("rows"), 4);
});

test("a chain that closes after long is settled in parts, and to the end", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const count = settledPerBatchMax * 2 + 608;
  const [first, ...rest] = device.readings(count);
  assert.ok(first);
  await node.deliver(device, ...rest);
  assert.equal(node.count("rows"), 0);
  await node.deliver(device, first);
  assert.equal(node.lastReceipt().through, count);
  assert.equal(node.count("rows"), count);
  assert.equal(node.query("SELECT settled_through FROM epochs")[0]?.settled_through, count);
});

test("after a restart the chain goes on where it was", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  await node.deliver(device, ...device.readings(5));
  await node.restart();
  const next = device.reading();
  await node.deliver(device, next);
  assert.equal(node.lastReceipt().through, 6);
  assert.deepEqual(node.lastReceipt().digest, next.digest);
  assert.equal(node.count("rows"), 6);
});

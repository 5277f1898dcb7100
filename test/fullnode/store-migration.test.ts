// Stores of versions 1 and 2 (fixtures/fullnode) are brought up to date, keep all they had, and go on.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { enrolDevice } from "../../fullnode/registry.ts";
import { unpackValues } from "../../fullnode/row-packing.ts";
import { keyOfLabel } from "../vectors/signature-suite.ts";
import { checkSlots } from "./aggregate-fixture.ts";
import { DeviceFixture, firstTimeS } from "./device-fixture.ts";
import { NodeFixture, temporaryFolder } from "./node-fixture.ts";

/** A row with its values, which were JSON before version 3. */
function unpacked(row: Record<string, unknown>): Record<string, unknown> {
  const { content } = row;
  if (content === undefined) return { ...row };
  const values = content instanceof Uint8Array ? unpackValues(content) : JSON.parse(content as string);
  return { ...row, content: values };
}

const versionOne = gunzipSync(readFileSync(join(import.meta.dirname, "../fixtures/fullnode/store-version-1.db.gz")));

test("a store of version 1 keeps all it had, and goes on where it was", async (t) => {
  const old = join(temporaryFolder(t), "old.db");
  writeFileSync(old, versionOne);
  const before = new DatabaseSync(old, { readOnly: true });
  const columns = {
    records: "*",
    rows: "device, meter, generation, time_s, slot_s, status, booked, epoch, sequence, content",
    voids: "*",
    spans: "*",
    evidence: "*",
    quarantine: "*",
    ledger_queue: "*",
    devices: "id, name, public_key, kid, share, software, meters, request, request_digest, enrolled_ms",
    epochs: "device, epoch, held, through, through_digest, settled_through, first_ms, last_ms, receipt",
  };
  const contents = (query: (sql: string) => Record<string, unknown>[]) =>
    Object.fromEntries(
      Object.entries(columns).map(([table, list]) => [table, query(`SELECT ${list} FROM ${table}`).map(unpacked)]),
    );
  const expected = contents((sql) => before.prepare(sql).all());
  assert.equal((expected.records as unknown[]).length, 10);
  // Control: the fixture is of before the migration.
  assert.throws(() => before.prepare("SELECT current_key FROM devices").all(), /no such column/);
  before.close();

  const node = new NodeFixture(t, versionOne);
  assert.deepEqual(
    contents((sql) => node.query(sql)),
    expected,
  );
  assert.deepEqual(
    node.query("SELECT epoch, decision FROM epochs ORDER BY epoch").map((row) => Object.values(row)),
    [
      [99, "none"],
      [0x1234_5678, "accepted"],
    ],
  );

  // The ninth record, which had not come, and what follows: the same key, the same chain.
  const device = new DeviceFixture(0x1234_5678, keyOfLabel("store version 1"));
  device.readings(4);
  device.void(2);
  const [, ninth] = device.readings(3);
  assert.ok(ninth);
  await node.deliver(device, ninth, device.reading());
  assert.equal(node.lastReceipt().through, 11);
  assert.deepEqual(node.counted(), { rows: 8, booked: 8 });

  await node.path.stop();
  await node.decide(99);
  await node.restart();
  node.path.lookAround();
  await node.path.idle();
  assert.deepEqual(node.counted(), { rows: 11, booked: 11 });

  const stranger = new DeviceFixture(7, keyOfLabel("store version 1, stranger"));
  await enrolDevice(node.store, node.keys, stranger.request(), 5);
  await node.restart();
  node.path.lookAround();
  await node.path.idle();
  assert.equal(node.count("quarantine"), 0);

  const rotation = device.rotate({ key: keyOfLabel("the second key"), epoch: 1_000 });
  await node.deliver(device, rotation, device.reading({ timeS: firstTimeS + 90_000 }));
  assert.equal(node.query("SELECT held FROM epochs WHERE epoch = 1000")[0]?.held, 0);
});

test("a store of version 2 gets the quarter hours of the rows it has, and the exchanges of meters", async (t) => {
  const versionTwo = gunzipSync(readFileSync(join(import.meta.dirname, "../fixtures/fullnode/store-version-2.db.gz")));
  const old = join(temporaryFolder(t), "old.db");
  writeFileSync(old, versionTwo);
  const before = new DatabaseSync(old, { readOnly: true });
  const rows = "SELECT * FROM rows ORDER BY meter, generation, time_s";
  const expected = before.prepare(rows).all().map(unpacked);
  assert.equal(expected.length, 87);
  before.close();

  const node = new NodeFixture(t, versionTwo);
  assert.deepEqual(node.query(rows).map(unpacked), expected);
  assert.equal(await checkSlots(node.store, 1), 84);
  const [exchange] = await node.store.exchanges(1);
  assert.deepEqual(
    { meter: exchange?.meter, sequence: exchange?.sequence, installation: exchange?.installation },
    { meter: 0, sequence: 4, installation: 1 },
  );

  const device = new DeviceFixture(0x2345_6789, keyOfLabel("store version 2"));
  for (let sequence = 1; sequence <= 6; sequence++) device.reading();
  device.digest = (await node.store.newestRecords(1, 1))[0]?.digest;
  await node.deliver(device, device.reading({ timeS: firstTimeS + 300 * 60 }));
  assert.equal(await checkSlots(node.store, 1), 85);
});

// A store of version 1 (fixtures/fullnode) is brought up to date, keeps all it had, and goes on.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { enrolDevice } from "../../fullnode/registry.ts";
import { keyOfLabel } from "../vectors/signature-suite.ts";
import { DeviceFixture, firstTimeS } from "./device-fixture.ts";
import { NodeFixture, temporaryFolder } from "./node-fixture.ts";

const versionOne = gunzipSync(readFileSync(join(import.meta.dirname, "../fixtures/fullnode/store-version-1.db.gz")));

test("a store of version 1 keeps all it had, and goes on where it was", async (t) => {
  const old = join(temporaryFolder(t), "old.db");
  writeFileSync(old, versionOne);
  const before = new DatabaseSync(old, { readOnly: true });
  const columns = {
    records: "*",
    rows: "*",
    voids: "*",
    spans: "*",
    evidence: "*",
    quarantine: "*",
    ledger_queue: "*",
    devices: "id, name, public_key, kid, share, software, meters, request, request_digest, enrolled_ms",
    epochs: "device, epoch, held, through, through_digest, settled_through, first_ms, last_ms, receipt",
  };
  const contents = (query: (sql: string) => unknown) =>
    Object.fromEntries(Object.entries(columns).map(([table, list]) => [table, query(`SELECT ${list} FROM ${table}`)]));
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

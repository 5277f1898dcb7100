// What a store keeps for LoRaWAN: modems, sessions, leases. Run over PostgreSQL too (store-contract-postgres).
import assert from "node:assert/strict";
import { test } from "node:test";
import { NodeFixture } from "./node-fixture.ts";

const devEui = "70b3d57ed0061234";
const other = "70b3d57ed0069999";

test("a DevEUI is of one device until it is unbound, and its counters and sessions stay over a restart", async (t) => {
  const node = new NodeFixture(t);
  const [first, second] = [await node.enrolled(), await node.enrolled()];
  const { lorawan } = node.store;
  assert.equal(await lorawan.bind(devEui, first.name, 5), undefined);
  assert.equal(await lorawan.bind(devEui, first.name, 6), undefined, "the same again");
  assert.equal(await lorawan.bind(devEui, second.name, 7), first.name);
  assert.equal(await lorawan.bind(other, first.name, 8), undefined, "a device may have several");
  const counters = { devAddr: "01020304", fCnt: 2 ** 32 - 1, joins: 2, lastMs: 1_800_000_000_000, receiptMs: 4 };
  const state = Uint8Array.from({ length: 3_000 }, (_, i) => i);
  const sessions = [20, 26].map((port) => ({ devEui, port, state, updatedMs: 9 }));
  const foreign = { devEui: "00".repeat(8), port: 20, state, updatedMs: 9 };
  await lorawan.save({ counters: [{ devEui, ...counters }], sessions: [...sessions, foreign], ended: [] });
  await node.restart();
  const again = node.store.lorawan;
  const found = (await again.bindings()).map((one) => ({ ...one })); // SQLite's rows have no prototype
  assert.deepEqual(found, [
    { devEui, name: first.name, boundMs: 5, ...counters },
    { devEui: other, name: first.name, boundMs: 8, devAddr: "", fCnt: -1, joins: 0, lastMs: 0, receiptMs: 0 },
  ]);
  const kept = [...(await again.sessions())].sort((a, b) => a.port - b.port);
  assert.deepEqual(
    kept.map((one) => ({ ...one, state: new Uint8Array(one.state) })),
    sessions,
    "of a DevEUI that is not bound nothing is kept",
  );
  const changed = { devEui, port: 26, state: Uint8Array.of(1), updatedMs: 10 };
  await again.save({ counters: [], sessions: [changed], ended: [{ devEui, port: 20 }] });
  assert.deepEqual(
    (await again.sessions()).map((one) => [one.port, [...one.state], one.updatedMs]),
    [[26, [1], 10]],
  );
  assert.equal(await again.unbind(devEui), true);
  assert.equal(await again.unbind(devEui), false);
  assert.equal((await again.sessions()).length, 0);
  assert.equal(await again.bind(devEui, second.name, 11), undefined);
});

test("a lease has one holder until it is given back or runs out", async (t) => {
  const { store } = new NodeFixture(t);
  const take = (holder: string, ttlMs: number, nowMs: number) =>
    store.lorawan.takeLease("lorawan/x", holder, ttlMs, nowMs);
  const nowMs = Date.now();
  assert.equal(await take("a", 60_000, nowMs), true);
  assert.equal(await take("b", 60_000, nowMs), false);
  assert.equal(await take("a", 60_000, nowMs), true, "the holder renews it");
  assert.equal(await store.lorawan.takeLease("lorawan/y", "b", 60_000, nowMs), true, "another lease is another's");
  await store.lorawan.releaseLease("lorawan/x", "b");
  assert.equal(await take("b", 60_000, nowMs), false, "nobody gives back another's");
  await store.lorawan.releaseLease("lorawan/x", "a");
  assert.equal(await take("b", 1, nowMs), true);
  const takenMs = Date.now(); // a server has its own clock, of the same machine
  while (Date.now() <= takenMs + 2) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(await take("a", 60_000, Date.now()), true, "it has run out");
  // A clock that was far ahead does not keep everybody away for years.
  assert.equal(await take("a", 60_000, nowMs), true);
  assert.equal(await take("a", 10_000_000, nowMs), true);
  assert.equal(await take("b", 60_000, nowMs), true);
});

test("what is saved while the record path is in the middle of a transaction is neither lost nor part of it", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const { lorawan } = node.store;
  await lorawan.bind(devEui, device.name, 1);
  const saves: Promise<void>[] = [];
  const counters = { devEui, devAddr: "", fCnt: 1, joins: 0, lastMs: 2, receiptMs: 3 };
  await assert.rejects(
    node.store.transaction({ devices: [1], places: [] }, async () => {
      saves.push(Promise.resolve(lorawan.save({ counters: [counters], sessions: [], ended: [] })));
      await new Promise((resolve) => setImmediate(resolve));
      throw new Error("undone");
    }),
    /undone/,
  );
  await Promise.all(saves);
  assert.equal((await lorawan.bindings())[0]?.fCnt, 1);
});

test("a store of the version before gets the tables, and keeps what it had", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  await node.deliver(device, device.reading());
  const older = node.contract.kind === "sqlite" ? 3 : 1;
  node.contract.change(
    "DROP TABLE lorawan_sessions; DROP TABLE lorawan_devices; DROP TABLE leases; " +
      `UPDATE meta SET value = '${older}' WHERE key = 'schema'`,
  );
  assert.throws(() => node.count("leases"), /leases/); // control: they are gone
  await node.restart();
  assert.equal(await node.store.lorawan.bind(devEui, device.name, 1), undefined);
  await node.deliver(device, device.reading());
  assert.deepEqual([node.count("records"), node.count("lorawan_devices")], [2, 1]);
});

// What only the store on PostgreSQL has: its server's settings, conflicts, months, and a server that goes away.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { canonicalDump } from "../../fullnode/canonical-dump.ts";
import { NodeError } from "../../fullnode/node-error.ts";
import type { Store } from "../../fullnode/store.ts";
import { hasPassword, isPostgresUrl } from "../../fullnode/store-address.ts";
import { openPostgresStore } from "../../fullnode/store-postgres.ts";
import { isPassingPostgresError } from "../../fullnode/store-postgres-failure.ts";
import { topicOf } from "../../protocol/mqtt-topic.ts";
import { eventually } from "../system/running-program-fixture.ts";
import { usePostgres } from "./contract-store.ts";
import { DeviceFixture, firstTimeS } from "./device-fixture.ts";
import { deviceScope, NodeFixture, temporaryFolder } from "./node-fixture.ts";
import { PostgresServer, postgresMissing, postgresUrl } from "./postgres-fixture.ts";
import { shuffled } from "./shuffle.ts";

const skip = postgresMissing;
if (skip) console.log(`skipped: ${skip}`);
const server = skip ? undefined : await PostgresServer.start();
after(() => server?.stop());

const failsWith = (code: string) => (error: unknown) => error instanceof NodeError && error.code === code;
const create = { name: "two", timeZone: "UTC" };

function there(): PostgresServer {
  if (server === undefined) throw new Error("no server");
  return server;
}

/** Without the devices' own lines: they were enrolled by requests of their own. */
async function dumpOf(store: Store): Promise<string[]> {
  const lines: string[] = [];
  for await (const line of canonicalDump(store)) if (!line.startsWith('{"device"')) lines.push(line);
  assert.ok(lines.length > 100);
  return lines;
}

test("the same records in another order leave the same dump as in the embedded store", { skip }, async (t) => {
  const first = new NodeFixture(t); // before usePostgres: embedded
  assert.equal(first.contract.kind, "sqlite");
  const device = await first.enrolled();
  const records = device.readings(60);
  await first.deliver(device, ...records);
  usePostgres(there());
  const second = new NodeFixture(t);
  assert.equal(second.contract.kind, "postgres");
  await second.enrolledAs(device, device.epoch);
  for (const record of shuffled(records, 7)) await second.deliver(device, record);
  assert.deepEqual(await dumpOf(second.store), await dumpOf(first.store));
});

test("a server that may lose what it has committed is refused", { skip }, async () => {
  const careless = await PostgresServer.start();
  try {
    const url = careless.createDatabase("one");
    await careless.halt();
    await careless.resume("full_page_writes=off");
    await assert.rejects(openPostgresStore({ address: { url }, create }), failsWith("store-not-durable"));
    await careless.halt();
    await careless.resume("fsync=off");
    await assert.rejects(openPostgresStore({ address: { url }, create }), failsWith("store-not-durable"));
    await careless.halt();
    // This one each connection sets for itself.
    await careless.resume("synchronous_commit=off");
    await (await openPostgresStore({ address: { url }, create })).close();
  } finally {
    await careless.stop();
  }
});

test("a database without a store, of another program, of a newer version, or a server that is away is named", {
  skip,
}, async () => {
  const url = there().createDatabase("various");
  await assert.rejects(openPostgresStore({ address: { url } }), failsWith("data-missing"));
  const store = await openPostgresStore({ address: { url }, create });
  assert.equal(store.nodeName, "two");
  await store.close();
  const again = await openPostgresStore({ address: { url }, create: { name: "three", timeZone: "Europe/Berlin" } });
  assert.deepEqual([again.nodeName, again.timeZone], ["two", "UTC"], "the first node's stay");
  await again.close();
  there().run("various", "UPDATE meta SET value = '999' WHERE key = 'schema'");
  await assert.rejects(openPostgresStore({ address: { url } }), failsWith("store-newer"));
  there().createDatabase("foreign_one");
  there().run("foreign_one", "CREATE TABLE records (a int)");
  await assert.rejects(
    openPostgresStore({ address: { url: postgresUrl(there(), "foreign_one") }, create }),
    failsWith("store-damaged"),
  );
  await assert.rejects(
    openPostgresStore({ address: { url: postgresUrl(there(), "nowhere") } }),
    failsWith("store-away"),
  );
  await assert.rejects(
    openPostgresStore({ address: { url: "postgres://x@127.0.0.1:1/none" } }),
    failsWith("store-away"),
  );
});

test("a password comes from a file and never stands in an address", { skip }, async (t) => {
  const { port, password } = there();
  there().createDatabase("guarded");
  const passwordFile = join(temporaryFolder(t), "password");
  writeFileSync(passwordFile, `${password}\n`, { mode: 0o600 });
  const url = `postgres://ecp@127.0.0.1:${port}/guarded`;
  await (await openPostgresStore({ address: { url, passwordFile }, create })).close();
  writeFileSync(passwordFile, "another\n");
  await assert.rejects(openPostgresStore({ address: { url, passwordFile } }), (error: unknown) => {
    assert.ok(error instanceof NodeError);
    assert.equal(error.code, "store-refused");
    assert.ok(!JSON.stringify(error.text).includes("another"));
    return true;
  });
  for (const text of ["postgres://a:b@c/d", "postgresql://a@c/d?password=b"]) {
    assert.ok(hasPassword(text));
    assert.ok(!isPostgresUrl(text));
  }
  assert.ok(isPostgresUrl(url) && !isPostgresUrl("mysql://a@b/c"));
});

test("work that met a conflict is run again, and nothing of the first try is left", { skip }, async (t) => {
  usePostgres(there());
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  await node.deliver(device, device.reading());
  let conflicts = 2;
  await node.useStore((store) =>
    proxied(store, (scope, work) =>
      store.transaction(scope, async (tx) => {
        const result = await work(tx);
        // The server ends the transaction as where two stood in each other's way.
        if (conflicts-- > 0) throw Object.assign(new Error("could not serialize"), { code: "40001" });
        return result;
      }),
    ),
  );
  await node.deliver(device, ...device.readings(5));
  assert.equal(conflicts, -1);
  assert.equal(node.lastReceipt().through, 6);
  assert.deepEqual(node.counted(), { rows: 6, booked: 6 });
  assert.equal(node.count("ledger_queue"), 6);
});

function proxied(store: Store, transaction: Store["transaction"]): Store {
  return new Proxy(store, {
    get: (target, name) => {
      if (name === "transaction") return transaction;
      const value = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

test("a transaction in which something failed is not taken for committed", { skip }, async (t) => {
  usePostgres(there());
  const node = new NodeFixture(t);
  await node.enrolled();
  await assert.rejects(
    node.store.transaction(deviceScope, async (tx) => {
      await Promise.resolve(
        tx.addEpoch(1, 0x1234_5678, { publicKey: new Uint8Array(32), held: true, decision: "none" }, 1),
      ).catch(
        () => undefined, // it is there already; the server has ended the transaction
      );
    }),
    /rolled back|is aborted/,
  );
  assert.equal(node.count("epochs"), 1);
});

test("rows lie in the partition of their month; times that no clock should show lie in the one for all others", {
  skip,
}, async (t) => {
  usePostgres(there());
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const monthS = 31 * 86_400;
  for (const timeS of [firstTimeS, firstTimeS + monthS, 1_000, 4_000_000_000])
    await node.deliver(device, device.reading({ timeS, rows: [{ timeS, status: 0, values: [1, 2] }] }));
  const found = node.query("SELECT tableoid::regclass::text AS partition, time_s FROM rows ORDER BY time_s");
  assert.deepEqual(
    found.map(({ partition }) => partition),
    ["rows_other", "rows_2023_11", "rows_2023_12", "rows_other"],
  );
  assert.equal(node.count("rows_2023_11"), 1);
});

test("a server that goes away ends no node: what was in hand comes again", { skip }, async (t) => {
  const own = await PostgresServer.start();
  t.after(() => own.stop());
  usePostgres(own);
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  await node.deliver(device, device.reading());
  await own.halt("SIGQUIT"); // as it crashes
  const delivered = node.deliver(device, ...device.readings(3));
  await eventually("it is said", () => node.logLines.some((line) => /the store (gives no|could not)/.test(line)));
  assert.equal(node.receipts.length, 1);
  await own.resume();
  await delivered; // what waited in memory was kept meanwhile
  await node.deliver(device, device.reading());
  assert.equal(node.lastReceipt().through, 5);
  assert.equal(node.count("records"), 5);
  assert.deepEqual(node.failures, []);

  await own.halt("SIGQUIT");
  node.path.push(topicOf(device.name, "record"), device.reading().bytes);
  await node.path.stop(); // a node can be stopped while the server is away
  assert.equal(node.receipts.length > 1, true);
});

test("two nodes on one store deliver a device's records by turns, at the same time", { skip }, async (t) => {
  usePostgres(there());
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const others = await Promise.all(
    Array.from({ length: 3 }, () => new DeviceFixture()).map(async (one, i) => {
      await node.enrolledAs(one, 5_000 + i);
      one.epoch = 5_000 + i;
      return one;
    }),
  );
  const second = node.another(t);
  const all = [device, ...others];
  for (let round = 0; round < 10; round++) {
    const deliveries = all.flatMap((one) => {
      const [a, b] = one.readings(2);
      return a && b ? [node.deliver(one, a), second.deliver(one, b), second.deliver(one, a)] : [];
    });
    await Promise.all(deliveries);
  }
  assert.deepEqual([...node.failures, ...second.failures], []);
  assert.equal(node.count("records"), 80);
  assert.equal(node.count("ledger_queue"), 80);
  assert.deepEqual(node.counted(), { rows: 80, booked: 80 });
  assert.deepEqual(
    node.query("SELECT DISTINCT through, settled_through FROM epochs").map((row) => Object.values(row)),
    [[20, 20]],
  );
});

test("which failures pass", () => {
  for (const code of ["40001", "40P01", "53100", "57P01", "08006", "ECONNREFUSED"])
    assert.ok(isPassingPostgresError(Object.assign(new Error(code), { code })), code);
  assert.ok(isPassingPostgresError(new Error("Connection terminated unexpectedly")));
  for (const code of ["23505", "42P01", "XX001"])
    assert.ok(!isPassingPostgresError(Object.assign(new Error(code), { code })), code);
});

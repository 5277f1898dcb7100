// A PostgreSQL server in trouble: it may only be read, does not answer, or knows less than before. Nothing false is promised.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { type AddressInfo, createServer, connect as dial, type Socket } from "node:net";
import { join } from "node:path";
import { after, type TestContext, test } from "node:test";
import { canonicalDump } from "../../fullnode/canonical-dump.ts";
import { openPool } from "../../fullnode/postgres-connection.ts";
import type { Store } from "../../fullnode/store.ts";
import { openPostgresStore } from "../../fullnode/store-postgres.ts";
import { Partitions } from "../../fullnode/store-postgres-partitions.ts";
import { topicOf } from "../../protocol/mqtt-topic.ts";
import { eventCodes } from "../../protocol/record.ts";
import { eventually } from "../system/running-program-fixture.ts";
import { usePostgres } from "./contract-store.ts";
import { DeviceFixture, firstTimeS } from "./device-fixture.ts";
import { deviceScope, NodeFixture, temporaryFolder } from "./node-fixture.ts";
import { PostgresServer, postgresMissing } from "./postgres-fixture.ts";
import { shuffled } from "./shuffle.ts";

const skip = postgresMissing;
if (skip) console.log(`skipped: ${skip}`);
const server = skip ? undefined : await PostgresServer.start();
after(() => server?.stop());

function there(): PostgresServer {
  if (server === undefined) throw new Error("no server");
  return server;
}

function databaseOf(node: NodeFixture): string {
  return /\/(\w+)\?/.exec(node.contract.url ?? "")?.[1] ?? "";
}

test("records of more new months than a transaction is tried again, one after the other, are stored", {
  skip,
}, async (t) => {
  usePostgres(there());
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  await node.deliver(device, device.reading());
  const monthS = 31 * 86_400;
  // An exchange is written at once, and before it what waits: so each month's row comes in a statement of its own.
  const months = Array.from({ length: 14 }, (_, i) => {
    const timeS = firstTimeS + (i + 1) * monthS;
    const reading = device.reading({ timeS, rows: [{ timeS, status: 0, values: [1, 2] }] });
    return [reading, device.events([eventCodes.meterReplaced, 0, "x", i])];
  });
  await node.deliver(device, ...months.flat());
  assert.deepEqual(node.failures, []);
  assert.equal(node.lastReceipt().through, 29);
  assert.deepEqual(node.counted(), { rows: 15, booked: 15 });
});

test("a server that may only be read for a while, as after a switch to a standby, ends no node", {
  skip,
}, async (t) => {
  usePostgres(there());
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  await node.deliver(device, device.reading());
  const database = databaseOf(node);
  const reconnect = `SELECT json_agg(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '${database}'`;
  there().run("postgres", `ALTER DATABASE ${database} SET default_transaction_read_only = on`);
  there().run("postgres", reconnect);
  const record = device.reading();
  await node.deliver(device, record);
  await node.deliver(device, record);
  assert.deepEqual(node.failures, []);
  assert.ok(node.logLines.some((line) => line.includes("read-only")));
  assert.equal(node.lastReceipt().through, 1);
  there().run("postgres", `ALTER DATABASE ${database} RESET default_transaction_read_only`);
  there().run("postgres", reconnect);
  await eventually("it is stored", async () => {
    await node.deliver(device, record);
    return node.lastReceipt().through === 2;
  });
});

test("a server that comes back with less than it had, as a standby that lagged, is asked anew", { skip }, async (t) => {
  const own = await PostgresServer.start();
  t.after(() => own.stop());
  usePostgres(own);
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const [, , third] = device.readings(3).map((record) => {
    node.path.push(topicOf(device.name, "record"), record.bytes);
    return record;
  });
  await node.path.idle();
  assert.equal(node.lastReceipt().through, 3);
  await own.halt("SIGQUIT");
  await own.resume();
  // The last commit is not there; meanwhile another node has counted the device's changes up to the same number.
  own.run(
    databaseOf(node),
    `DELETE FROM records WHERE sequence = 3; DELETE FROM rows WHERE sequence = 3;
     UPDATE epochs SET through = 2, settled_through = 2, receipt = NULL,
       through_digest = (SELECT digest FROM records WHERE sequence = 2)`,
  );
  await node.deliver(device, device.reading());
  assert.equal(node.lastReceipt().through, 2, "a receipt for a record that the store does not have");
  assert.ok(third);
  await node.deliver(device, third);
  assert.equal(node.lastReceipt().through, 4);
  assert.deepEqual(node.counted(), { rows: 4, booked: 4 });
});

test("a row that came long before its month is in that month's partition once the month has one", {
  skip,
}, async (t) => {
  usePostgres(there());
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const dayS = 86_400;
  const timeS = (Math.floor(Date.now() / 1_000 / dayS) + 200.5) * dayS; // of a clock that is far ahead
  await node.deliver(device, device.reading({ timeS, rows: [{ timeS, status: 0, values: [1, 2] }] }));
  const lying = () =>
    ["rows", "slots"].map((table) => node.query(`SELECT tableoid::regclass::text AS name FROM ${table}`)[0]?.name);
  assert.deepEqual(lying(), ["rows_other", "slots_other"]);
  const { url } = node.contract;
  assert.ok(url);
  const pool = openPool({ url });
  try {
    await new Partitions(pool, ["rows", "slots"], () => timeS * 1_000).prepare([timeS], false);
  } finally {
    await pool.end();
  }
  const month = new Date(timeS * 1_000).toISOString().slice(0, 7).replace("-", "_");
  assert.deepEqual(lying(), [`rows_${month}`, `slots_${month}`]);
  // It counts there as it did.
  const next = { timeS, status: 0, values: [1, 2] };
  await node.deliver(device, device.reading({ timeS: timeS + 1, rows: [next] }));
  assert.deepEqual(node.counted(), { rows: 1, booked: 1 });
});

/** Between a node and its server; what it is told to keep back goes nowhere, and no connection ends by it. */
async function proxy(t: TestContext, port: number) {
  const sockets = new Set<Socket>();
  const state = {
    port: 0,
    silent: false,
    /** Answers go nowhere from the next COMMIT on that passes, and every connection ends. */
    cutAtCommit: false,
    cut: () => {
      for (const socket of sockets) socket.destroy();
      sockets.clear();
    },
  };
  const listening = createServer((from) => {
    const to = dial(port, "127.0.0.1");
    for (const [one, other] of [
      [from, to],
      [to, from],
    ] as const) {
      sockets.add(one);
      one.on("data", (bytes) => {
        if (state.silent) return;
        other.write(bytes);
        if (one !== from || !state.cutAtCommit || !bytes.includes("COMMIT")) return;
        state.cutAtCommit = false;
        // The server has it, and nobody hears what became of it.
        from.destroy();
        to.end();
      });
      one.on("error", () => undefined);
      one.on("close", () => other.destroy());
    }
  });
  await new Promise<void>((resolve) => listening.listen(0, "127.0.0.1", resolve));
  state.port = (listening.address() as AddressInfo).port;
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    listening.close();
  });
  return state;
}

test("a server that does not answer any more, while its connections stay, is given up on, and asked again later", {
  skip,
}, async (t) => {
  usePostgres(there());
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const between = await proxy(t, there().port);
  const passwordFile = join(temporaryFolder(t), "password");
  writeFileSync(passwordFile, there().password, { mode: 0o600 });
  const url = `postgres://ecp@127.0.0.1:${between.port}/${databaseOf(node)}`;
  const store = await openPostgresStore({ address: { url, passwordFile }, answerTimeoutMs: 200 });
  await node.useStore(() => store);
  await node.deliver(device, device.reading());
  assert.equal(node.lastReceipt().through, 1);
  for (const when of ["before the work", "at the commit"]) {
    const failed = store.transaction(deviceScope, async (tx) => {
      await tx.epoch(1, device.epoch);
      between.silent = when === "at the commit";
    });
    between.silent ||= when === "before the work";
    await assert.rejects(failed, (error: unknown) => store.isPassing(error));
    between.silent = false;
  }
  await node.deliver(device, device.reading());
  assert.equal(node.lastReceipt().through, 2);
  assert.deepEqual(node.failures, []);
});

async function dumpOf(store: Store): Promise<string[]> {
  const lines: string[] = [];
  for await (const line of canonicalDump(store)) if (!line.startsWith('{"device"')) lines.push(line);
  return lines;
}

test("two nodes, one with a bad way to the server and lost answers to its commits, leave what one ordered delivery leaves", {
  skip,
}, async (t) => {
  usePostgres(undefined);
  const ordered = new NodeFixture(t);
  const devices = [await ordered.enrolled(), new DeviceFixture(7_000), new DeviceFixture(7_001)];
  for (const one of devices.slice(1)) await ordered.enrolledAs(one, one.epoch);
  const records = devices.map((device, i) => [
    ...device.readings(40),
    device.void(2),
    device.events([eventCodes.meterReplaced, 0, "x", i]),
    ...device.readings(40),
    ...(i === 1 ? [device.rotate()] : []),
    ...device.readings(20),
  ]);
  for (const [i, device] of devices.entries()) await ordered.deliver(device, ...(records[i] ?? []));

  usePostgres(there());
  const calm = new NodeFixture(t);
  for (const [i, device] of devices.entries()) await calm.enrolledAs(device, records[i]?.[0]?.epoch ?? device.epoch);
  const between = await proxy(t, there().port);
  const passwordFile = join(temporaryFolder(t), "password");
  writeFileSync(passwordFile, there().password, { mode: 0o600 });
  const url = `postgres://ecp@127.0.0.1:${between.port}/${databaseOf(calm)}`;
  const troubled = calm.another(t);
  const own = troubled.store;
  const store = await openPostgresStore({ address: { url, passwordFile }, answerTimeoutMs: 1_000 });
  await troubled.useStore(() => store);
  t.after(() => own.close());
  for (let round = 0; round < 8; round++) {
    if (round % 2 === 0) between.cutAtCommit = true;
    else if (round !== 3) between.cut();
    else between.silent = true;
    const pushed = devices.map((device, i) => ({ device, part: shuffled(records[i] ?? [], round).slice(0, 40) }));
    for (const { device, part } of pushed)
      for (const [at, { bytes }] of part.entries()) {
        const topic = topicOf(device.name, "record");
        troubled.path.push(topic, bytes);
        if (at % 2 === 0) calm.path.push(topic, bytes);
      }
    await calm.path.idle();
    if (between.silent)
      await eventually("the silence is noticed", () => troubled.logLines.some((line) => line.includes("timeout")));
    between.silent = false;
    await troubled.path.idle();
  }
  assert.deepEqual([...troubled.failures, ...calm.failures], []);
  assert.ok(!between.cutAtCommit, "a commit was cut off");
  // What either has promised is there.
  const places = calm.query("SELECT d.name, r.epoch, r.sequence FROM records r JOIN devices d ON d.id = r.device");
  const voids = calm.query("SELECT d.name, v.epoch, v.first, v.last FROM voids v JOIN devices d ON d.id = v.device");
  const stands = new Set(places.map(({ name, epoch, sequence }) => `${name}/${epoch}/${sequence}`));
  for (const { name, epoch, first, last } of voids)
    for (let at = first as number; at <= (last as number); at++) stands.add(`${name}/${epoch}/${at}`);
  for (const { device, epoch, bytes } of [...troubled.receipts, ...calm.receipts]) {
    const { through, ranges } = calm.opened(bytes);
    for (const { first, last } of [{ first: 1, last: through }, ...ranges])
      for (let at = first; at <= last; at++) assert.ok(stands.has(`${device}/${epoch}/${at}`), `${epoch}/${at}`);
  }
  for (const [i, device] of devices.entries()) {
    await troubled.deliver(device, ...shuffled(records[i] ?? [], 99));
    await calm.deliver(device, ...(records[i] ?? []));
  }
  assert.deepEqual(await dumpOf(calm.store), await dumpOf(ordered.store));
});

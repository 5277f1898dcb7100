import assert from "node:assert/strict";
import { copyFileSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { lockData } from "../../fullnode/data-lock.ts";
import { NodeError } from "../../fullnode/node-error.ts";
import { createSqliteStore, openSqliteStore } from "../../fullnode/store-sqlite.ts";
import { deviceScope, NodeFixture, temporaryFolder } from "./node-fixture.ts";

const failsWith = (code: string) => (error: unknown) => error instanceof NodeError && error.code === code;

test("a store is made with mode 600, opened again, and never overwritten", (t) => {
  const data = temporaryFolder(t);
  createSqliteStore(data, "hill").close();
  assert.equal(statSync(join(data, "node.db")).mode & 0o777, 0o600);
  const store = openSqliteStore(data);
  assert.equal(store.nodeName, "hill");
  store.close();
  assert.throws(() => createSqliteStore(data, "valley"), failsWith("data-exists"));
});

/** Size of the write-ahead log after one small commit. */
function logBytes(folder: string, psow: string): number {
  const path = join(folder, `psow-${psow}.db`);
  const url = pathToFileURL(path);
  url.searchParams.set("psow", psow);
  const database = new DatabaseSync(url);
  database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (a); INSERT INTO t VALUES (1)");
  const size = statSync(`${path}-wal`).size;
  database.close();
  return size;
}

test("psow=0 takes effect by the file's address: commits are padded to whole sectors, so that none shares one", (t) => {
  const folder = temporaryFolder(t);
  assert.ok(logBytes(folder, "0") > logBytes(folder, "1"), "SQLite pads only where it may not trust the device");
  const store = createSqliteStore(folder, "x");
  const padded = statSync(join(folder, "node.db-wal")).size;
  store.close();
  // The same statements without psow=0 leave a shorter log.
  const frame = 4_096 + 24;
  assert.equal((padded - 32) % frame, 0);
});

test("a file that is no store, is spoilt, or is newer is refused by name", (t) => {
  const data = temporaryFolder(t);
  assert.throws(() => openSqliteStore(data), failsWith("data-missing"));
  writeFileSync(join(data, "node.db"), "this is a text file and not a database, nor was it ever one".repeat(100));
  assert.throws(() => openSqliteStore(data), failsWith("store-damaged"));

  const other = temporaryFolder(t);
  const foreign = new DatabaseSync(join(other, "node.db"));
  foreign.exec("CREATE TABLE bookmarks (url)");
  foreign.close();
  assert.throws(() => openSqliteStore(other), failsWith("store-damaged"));

  const newer = temporaryFolder(t);
  createSqliteStore(newer, "x").close();
  const database = new DatabaseSync(join(newer, "node.db"));
  database.exec("UPDATE meta SET value = '999' WHERE key = 'schema'");
  database.close();
  assert.throws(() => openSqliteStore(newer), failsWith("store-newer"));
});

test("a transaction that fails leaves nothing, one that was cut off leaves nothing", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  await node.deliver(device, device.reading());
  const seat = {
    sequence: 2,
    predecessor: 1,
    digest: new Uint8Array(32),
    previous: new Uint8Array(16),
    settled: false,
    bytes: new Uint8Array(1),
    receivedMs: 1,
  };
  await assert.rejects(
    node.store.transaction(deviceScope, async (tx) => {
      await tx.addSeat(1, device.epoch, seat, { voided: undefined, dropped: [] });
      throw new Error("on purpose");
    }),
    /on purpose/,
  );
  assert.equal(node.count("records"), 1);
  assert.equal(node.count("ledger_queue"), 1);

  // The files as a crash before COMMIT would leave them.
  const copy = temporaryFolder(t);
  await node.store.transaction(deviceScope, async (tx) => {
    await tx.addSeat(1, device.epoch, seat, { voided: undefined, dropped: [] });
    for (const file of ["node.db", "node.db-wal"]) copyFileSync(join(node.data, file), join(copy, file));
  });
  assert.equal(node.count("records"), 2);
  const crashed = openSqliteStore(copy);
  assert.equal(crashed.newestRecords(1, 10).length, 1);
  crashed.close();
});

test("one node at a time has a data folder, and says which", (t) => {
  const data = temporaryFolder(t);
  const lock = lockData(data);
  assert.throws(
    () => lockData(data),
    (error) => failsWith("data-in-use")(error) && (error as NodeError).message.includes(`${process.pid}`),
  );
  lock.release();
  lockData(data).release();
  assert.equal(readFileSync(join(data, "run.pid"), "utf8"), `${process.pid}\n`);
});

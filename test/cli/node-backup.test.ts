import assert from "node:assert/strict";
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, type TestContext, test } from "node:test";
import { writeStoreAddress } from "../../fullnode/store-address.ts";
import { usePostgres } from "../fullnode/contract-store.ts";
import { NodeFixture, temporaryFolder } from "../fullnode/node-fixture.ts";
import { PostgresServer, postgresMissing, postgresUrl } from "../fullnode/postgres-fixture.ts";
import { ecpNode } from "./node-process-fixture.ts";

if (postgresMissing) console.log(`skipped: ${postgresMissing}`);

/** A folder with the node's keys and nothing else. */
function folderWithKeys(t: TestContext, node: NodeFixture): string {
  const data = temporaryFolder(t);
  copyFileSync(join(node.data, "node.key"), join(data, "node.key"));
  return data;
}

const dump = (data: string): string => {
  const { status, stdout, stderr } = ecpNode("dump", "--canonical", "--data", data);
  assert.equal(status, 0, stderr);
  return stdout;
};

/** Saves, goes on, restores elsewhere, and brings back what came after the backup. */
async function backedUp(t: TestContext, emptyStore: (data: string) => void, isPostgres: boolean): Promise<void> {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  if (isPostgres) writeStoreAddress(node.data, { url: node.contract.url ?? "" });
  const records = device.readings(8);
  await node.deliver(device, ...records.slice(0, 5));
  const file = join(temporaryFolder(t), "store.backup");
  const saved = ecpNode("backup", "--data", node.data, "--output", file, "--json"); // the store is open meanwhile
  assert.equal(saved.status, 0, saved.stderr);
  assert.equal(JSON.parse(saved.stdout).records, 5);
  for (const path of [file, `${file}.json`]) assert.equal(statSync(path).mode & 0o777, 0o600);
  const then = dump(node.data);
  assert.equal(ecpNode("backup", "--data", node.data, "--output", file).status, 73, "a backup is not overwritten");
  await node.deliver(device, ...records.slice(5, 7));
  assert.notEqual(dump(node.data), then);

  const data = folderWithKeys(t, node);
  emptyStore(data);
  const restored = ecpNode("restore", file, "--data", data, "--json");
  assert.equal(restored.status, 0, restored.stderr);
  assert.equal(JSON.parse(restored.stdout).compared, true);
  assert.equal(dump(data), then);
  assert.equal(ecpNode("restore", file, "--data", data).status, 73, "a store is not overwritten");

  // The device has receipts for records 6 and 7, which the restored store has not. The next one shows the gap, and what the device
  // still has of them closes it.
  const second = new NodeFixture(t, undefined, data);
  await second.deliver(device, records[7] as (typeof records)[0]);
  assert.equal(second.lastReceipt().through, 5);
  await second.deliver(device, ...records.slice(5, 7));
  assert.equal(second.lastReceipt().through, 8);
  assert.deepEqual(second.counted(), { rows: 8, booked: 8 });
}

test("the embedded store is saved while it is in use, restored whole, and completed from the device", async (t) => {
  await backedUp(t, () => undefined, false);
});

test("a backup that was changed, cut short or is none is refused, and leaves nothing", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  await node.deliver(device, ...device.readings(3));
  const folder = temporaryFolder(t);
  const file = join(folder, "store.backup");
  assert.equal(ecpNode("backup", "--data", node.data, "--output", file).status, 0);
  const whole = readFileSync(file);
  const data = folderWithKeys(t, node);
  const changed = Buffer.from(whole);
  changed[whole.length - 100] = (changed[whole.length - 100] ?? 0) ^ 1;
  for (const bytes of [changed, whole.subarray(0, whole.length / 2), Buffer.from("a letter")]) {
    writeFileSync(file, bytes);
    const refused = ecpNode("restore", file, "--data", data);
    assert.equal(refused.status, 65, refused.stderr);
    assert.ok(!existsSync(join(data, "node.db")));
  }
  // Without its list it can still be restored, and that is said.
  writeFileSync(file, whole);
  rmSync(`${file}.json`);
  assert.match(ecpNode("restore", file, "--data", data).stdout, /not compared/);
  const elsewhere = join(folder, "nowhere");
  mkdirSync(elsewhere);
  assert.equal(ecpNode("restore", file, "--data", elsewhere).status, 66, "there are no keys");
  assert.equal(ecpNode("restore", join(folder, "none"), "--data", data).status, 66);
});

test("a store on PostgreSQL is saved while it is in use, restored whole, and completed from the device", {
  skip: postgresMissing,
}, async (t) => {
  const server = await PostgresServer.start();
  after(() => server.stop());
  usePostgres(server);
  await backedUp(
    t,
    (data) => {
      server.createDatabase("restored");
      writeStoreAddress(data, { url: postgresUrl(server, "restored") });
    },
    true,
  );
});

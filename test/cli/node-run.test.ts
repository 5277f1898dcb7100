import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import mqtt, { type MqttClient } from "mqtt";
import { ed25519PublicKey, loadNodeKeys } from "../../fullnode/node-keys.ts";
import { toBeSigned } from "../../protocol/cose-sign1.ts";
import { topicOf } from "../../protocol/mqtt-topic.ts";
import { decodeReceipt, type Receipt } from "../../protocol/receipt.ts";
import { promisedButMissing } from "../fullnode/acknowledged-check.ts";
import { acknowledges, DeviceFixture, openReceipt, type SealedRecord } from "../fullnode/device-fixture.ts";
import { temporaryFolder } from "../fullnode/node-fixture.ts";
import { ecpNode, startNode } from "./node-process-fixture.ts";

interface World {
  readonly data: string;
  readonly device: DeviceFixture;
  open(receipt: Uint8Array): Receipt;
}

/** A node's data folder with one device enrolled. */
function world(folder: string): World {
  const data = join(folder, "node");
  const device = new DeviceFixture();
  const request = join(folder, "hub.request");
  writeFileSync(request, device.request());
  assert.equal(ecpNode("init", "--data", data, "--name", "test").status, 0);
  assert.equal(ecpNode("enrol", request, "--data", data).status, 0);
  const key = ed25519PublicKey(loadNodeKeys(data).publicKey);
  const open = (bytes: Uint8Array) =>
    openReceipt(bytes, key, (receipt) => {
      const { cose } = decodeReceipt(receipt);
      return toBeSigned(cose.protectedHeader, cose.payload);
    });
  return { data, device, open };
}

async function hub(port: number, device: DeviceFixture): Promise<MqttClient> {
  const client = await mqtt.connectAsync({ host: "127.0.0.1", port, protocolVersion: 4, reconnectPeriod: 0 });
  client.on("error", () => {});
  await client.subscribeAsync(topicOf(device.name, "receipt"), { qos: 1 });
  return client;
}

/** Sends records in a window, the oldest that has no receipt first, until `enough` says so or the node is gone. */
async function stream(
  client: MqttClient,
  { device, open }: World,
  records: readonly SealedRecord[],
  receipts: Receipt[],
  enough: (waiting: number) => boolean,
): Promise<void> {
  const windowMax = 64;
  const waiting = new Map(records.map((record) => [record.sequence, record]));
  for (const receipt of receipts)
    for (const [sequence, record] of waiting) if (acknowledges(receipt, record)) waiting.delete(sequence);
  const sent = new Set<number>();
  const send = () => {
    for (const [sequence, record] of waiting) {
      if (sent.size >= windowMax) return;
      if (sent.has(sequence)) continue;
      sent.add(sequence);
      client.publish(topicOf(device.name, "record"), Buffer.from(record.bytes), { qos: 1 });
    }
  };
  if (enough(waiting.size)) return;
  await new Promise<void>((resolve) => {
    client.once("close", resolve);
    client.on("message", (_topic, payload) => {
      const receipt = open(payload);
      receipts.push(receipt);
      for (const sequence of sent) {
        const record = waiting.get(sequence);
        if (record === undefined || !acknowledges(receipt, record)) continue;
        waiting.delete(sequence);
        sent.delete(sequence);
      }
      if (enough(waiting.size)) resolve();
      else send();
    });
    send();
  });
}

test("records over TCP are stored and acknowledged; SIGTERM ends cleanly", async (t) => {
  const own = world(temporaryFolder(t));
  const node = await startNode(t, own.data, "--listen", "127.0.0.1:0");
  const client = await hub(node.port, own.device);
  t.after(() => client.end(true));
  const records = own.device.readings(20);
  const receipts: Receipt[] = [];
  await stream(client, own, records, receipts, (waiting) => waiting === 0);
  assert.equal(receipts.at(-1)?.through, 20);
  assert.deepEqual(receipts.at(-1)?.digest, records.at(-1)?.digest);
  client.publish(topicOf(own.device.name, "record"), "junk", { qos: 1 });
  const refused = await node.event("refused");
  assert.equal(refused.count, 1);
  node.child.kill("SIGTERM");
  assert.equal(await node.ended, 0);
  assert.deepEqual(
    node.events.filter(({ event }) => event === "stored").map(({ sequence, state }) => [sequence, state]),
    records.map(({ sequence }) => [sequence, "settled"]),
  );
  const { pid, part } = await node.event("started");
  assert.deepEqual({ pid, part }, { pid: node.child.pid, part: "node" });
  assert.equal(node.events.at(-1)?.event, "stopped");
});

test("kill -9 in the middle of a stream, five times: nothing acknowledged is lost, nothing is doubled", async (t) => {
  const own = world(temporaryFolder(t));
  const records = [...own.device.readings(400), own.device.void(5), ...own.device.readings(1_100)];
  const receipts: Receipt[] = [];
  const file = join(own.data, "node.db");
  for (const left of [1_450, 1_180, 777, 400, 123]) {
    const node = await startNode(t, own.data, "--listen", "127.0.0.1:0");
    const client = await hub(node.port, own.device);
    // Killed at whatever the node is doing when so many receipts are here: records of the window are on their way.
    await stream(client, own, records, receipts, (waiting) => waiting <= left);
    node.child.kill("SIGKILL");
    assert.equal(await node.ended, "SIGKILL");
    client.end(true);
    assert.deepEqual(promisedButMissing(receipts, file), [], `${left} left`);
  }
  const node = await startNode(t, own.data, "--listen", "127.0.0.1:0");
  const client = await hub(node.port, own.device);
  t.after(() => client.end(true));
  await stream(client, own, records, receipts, (waiting) => waiting === 0);
  node.child.kill("SIGTERM");
  assert.equal(await node.ended, 0);

  assert.deepEqual(promisedButMissing(receipts, file), []);
  const database = new DatabaseSync(file, { readOnly: true });
  t.after(() => database.close());
  const stored = database.prepare("SELECT sequence, digest, settled FROM records ORDER BY sequence").all();
  assert.deepEqual(
    stored.map(({ sequence, digest, settled }) => ({ sequence, digest, settled })),
    records.map(({ sequence, digest }) => ({ sequence, digest, settled: 1 })),
  );
  const count = (table: string) => database.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.n;
  assert.equal(count("rows"), 1_500);
  assert.equal(count("ledger_queue"), 1_501);
  assert.equal(count("evidence"), 0);
});

test("a device enrolled while the node runs is taken without a restart", async (t) => {
  const folder = temporaryFolder(t);
  const own = world(folder);
  const node = await startNode(t, own.data, "--listen", "127.0.0.1:0");
  const device = new DeviceFixture();
  const client = await hub(node.port, device);
  t.after(() => client.end(true));
  const [first, second] = device.readings(2);
  assert.ok(first && second);
  client.publish(topicOf(device.name, "record"), Buffer.from(first.bytes), { qos: 1 });
  assert.equal((await node.event("refused")).reason, "unknown-device");
  writeFileSync(join(folder, "late.request"), device.request());
  const receipt = new Promise<Receipt>((resolve) => {
    client.on("message", (_topic, payload) => {
      const opened = own.open(payload);
      if (opened.through === 2) resolve(opened);
    });
  });
  assert.equal(ecpNode("enrol", join(folder, "late.request"), "--data", own.data).status, 0);
  client.publish(topicOf(device.name, "record"), Buffer.from(second.bytes), { qos: 1 });
  assert.deepEqual((await receipt).digest, second.digest);
});

test("with --exit-with-parent the node ends when its parent is gone; without, it stays", async (t) => {
  const own = world(temporaryFolder(t));
  const node = await startNode(t, own.data, "--listen", "127.0.0.1:0", "--exit-with-parent");
  node.child.stdin?.end();
  assert.equal(await node.ended, 0);
  const staying = await startNode(t, own.data, "--listen", "127.0.0.1:0");
  staying.child.stdin?.end();
  const client = await hub(staying.port, own.device);
  await client.endAsync();
  assert.equal(staying.child.exitCode, null);
  staying.child.kill("SIGINT");
  assert.equal(await staying.ended, 0);
});

test("a second node on the same data, and a node on a busy port, say so and end with 69", async (t) => {
  const folder = temporaryFolder(t);
  const own = world(folder);
  const node = await startNode(t, own.data, "--listen", "127.0.0.1:0");
  const second = ecpNode("run", "--data", own.data, "--listen", "127.0.0.1:0");
  assert.equal(second.status, 69);
  assert.match(second.stderr, new RegExp(`in use by process ${node.child.pid}`));
  assert.equal(ecpNode("init", "--data", join(folder, "other")).status, 0);
  const busy = ecpNode("run", "--data", join(folder, "other"), "--listen", `127.0.0.1:${node.port}`);
  assert.equal(busy.status, 69);
  assert.match(busy.stderr, /another program listens/);
  assert.match(busy.stderr, /--listen 127\.0\.0\.1:PORT/);
});

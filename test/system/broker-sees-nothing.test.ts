// A hub, a full node and a mosquitto between them that is not the node's own: all that the broker gets is scanned for what it must
// not read. Without encryption the same scan finds it.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { encodeCbor } from "../../protocol/deterministic-cbor.ts";
import { previousBytes } from "../../protocol/record.ts";
import { Community, exchanged } from "./community-fixture.ts";
import { Mosquitto, mosquittoMissing } from "./mosquitto-fixture.ts";
import { eventually } from "./running-program-fixture.ts";
import { Scene } from "./scene-fixture.ts";
import { type StoredRecord, storedConflicts, storedRecords } from "./stored-chain-fixture.ts";

if (mosquittoMissing) console.log(`skipped: ${mosquittoMissing}`);

/** Long enough to be nobody's chance. */
const windowBytes = 8;
/** Values that take five bytes or more of CBOR, and their decimals. */
const valueMin = 65_536;

/** Stands before a broker and keeps all that comes and goes. */
async function tap(scene: Scene, brokerPort: number): Promise<{ port: number; seen: () => Buffer }> {
  const chunks: Buffer[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const broker = connect(brokerPort, "127.0.0.1");
    for (const [from, to] of [
      [client, broker],
      [broker, client],
    ] as const) {
      sockets.add(from);
      from.on("data", (bytes) => {
        chunks.push(bytes);
        to.write(bytes);
      });
      from.on("error", () => to.destroy());
      from.on("close", () => to.destroy());
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  scene.atEnd(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  const address = server.address();
  return { port: typeof address === "object" && address ? address.port : 0, seen: () => Buffer.concat(chunks) };
}

/** What of the records can be read in what the broker saw. */
function leaks(seen: Buffer, records: readonly StoredRecord[]): { windows: number; values: number } {
  const places = new Set<string>();
  for (let i = 0; i + windowBytes <= seen.length; i++) places.add(seen.toString("latin1", i, i + windowBytes));
  let windows = 0;
  let values = 0;
  for (const { bytes, record } of records) {
    const text = Buffer.from(bytes);
    // The link to the record before is a digest, which receipts name in plain.
    const linkAt = text.indexOf(record.content.previous);
    for (let i = 0; i + windowBytes <= text.length; i++) {
      const isLink = i + windowBytes > linkAt && i < linkAt + previousBytes;
      if (!isLink && i > 12 && places.has(text.toString("latin1", i, i + windowBytes))) windows++;
    }
    if (record.content.kind !== "reading") continue;
    for (const value of record.content.rows.flatMap((row) => row.values))
      if (value >= valueMin && (seen.includes(Buffer.from(encodeCbor(value))) || seen.includes(`${value}`))) values++;
  }
  return { windows, values };
}

async function run(t: TestContext, encrypt: boolean): Promise<{ seen: Buffer; records: StoredRecord[] }> {
  const scene = new Scene(t);
  const broker = await Mosquitto.prepare(scene);
  await broker.start();
  const wire = await tap(scene, broker.port);
  const { username, passwordFile } = broker;
  const community = await Community.setUp(scene, { broker: { port: wire.port, username, passwordFile } });
  if (!encrypt) {
    writeFileSync(community.config, exchanged(community.config, "uplink:\n", "uplink:\n  encrypt: false\n"));
    await scene.succeed("ecp", "config", "apply", "--config", community.config);
  }
  const node = await community.startNode(
    ...["--broker", `mqtt://127.0.0.1:${wire.port}`, "--username", username, "--password-file", passwordFile],
  );
  await community.startMeter();
  await community.startHub();
  let stored = 0;
  await node.event(({ event }) => event === "stored" && ++stored === 8);
  await eventually("receipts have come back", async () => ((await community.status()).wallet?.through ?? 0) >= 5);
  assert.equal(storedConflicts(community.nodeFolder), 0);
  return { seen: wire.seen(), records: storedRecords(community.nodeFolder) };
}

test("a broker that sees all that passes reads no record, no value", { skip: mosquittoMissing }, async (t) => {
  const { seen, records } = await run(t, true);
  const readings = records.filter(({ record }) => record.content.kind === "reading");
  assert.ok(readings.length >= 3 && seen.length > 5_000, `${readings.length} readings, ${seen.length} bytes`);
  assert.deepEqual(leaks(seen, records), { windows: 0, values: 0 });
  console.log(`${seen.length} bytes of ${records.length} records seen by the broker, and nothing read`);
});

test("control: without encryption the same scan finds records and values", { skip: mosquittoMissing }, async (t) => {
  const { seen, records } = await run(t, false);
  const { windows, values } = leaks(seen, records);
  assert.ok(windows > 500, `${windows} windows`);
  assert.ok(values > 5, `${values} values`);
});

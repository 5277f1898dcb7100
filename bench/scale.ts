/**
 * The figures that the calculation of docs/scale.md rests on, measured: what a record adds to the store, what a connection costs
 * mosquitto, how long a look at all devices takes. Holds where the model's constants are not exceeded by more than a fifth.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { NodeWatch } from "../fullnode/alarms.ts";
import { createNodeKeys } from "../fullnode/node-keys.ts";
import { RecordPath } from "../fullnode/record-path.ts";
import { Registry } from "../fullnode/registry.ts";
import { createSqliteStore } from "../fullnode/store-sqlite.ts";
import { systemClock } from "../platform/clock.ts";
import { createLog } from "../platform/log.ts";
import { topicOf } from "../protocol/mqtt-topic.ts";
import { freePort } from "../test/system/scene-fixture.ts";
import { type Campaign, runCampaign } from "./campaign.ts";
import { enrolSupply, SupplyDevice } from "./record-supply.ts";
import { measured, type Plan, plans, sizesOf } from "./scale-model.ts";

const mosquitto = "/usr/sbin/mosquitto";
const toleratedExcess = 1.2;
const pushedAtOnce = 2_000;
const connackBytes = 4;
const subackBytes = 5;

await runCampaign("scale", async (campaign) => {
  const minute = await intake(campaign, "minute", campaign.count(40_000, 8_000));
  const hour = await intake(campaign, "hour", campaign.count(4_000, 800));
  const look = await lookMicroseconds(campaign, 10_000);
  const connection = existsSync(mosquitto) ? await brokerConnectionBytes(campaign, campaign.count(4_000, 1_000)) : 0;
  const figures = {
    ...{ minuteStoredBytes: minute.storedBytes, hourStoredBytes: hour.storedBytes, brokerConnectionBytes: connection },
    ...{ minuteCpuMicroseconds: minute.cpuMicroseconds, hourCpuMicroseconds: hour.cpuMicroseconds },
    ...{ minuteMainMicroseconds: minute.mainMicroseconds, hourMainMicroseconds: hour.mainMicroseconds },
    ...{ minuteRecordBytes: sizesOf("minute").recordBytes, hourRecordBytes: sizesOf("hour").recordBytes },
    lookMicrosecondsPerDevice: look,
  };
  // Times depend on what else the machine does; sizes must not.
  const isWithin = (bytes: number, model: number) => bytes <= model * toleratedExcess;
  const { storedBytes, brokerConnectionBytes: modelled } = measured;
  const holds =
    isWithin(minute.storedBytes, storedBytes.minute) &&
    isWithin(hour.storedBytes, storedBytes.hour) &&
    isWithin(connection, modelled);
  const control = { modelMinuteStoredBytes: storedBytes.minute, modelHourStoredBytes: storedBytes.hour, modelled };
  return { figures, control, holds };
});

interface Intake {
  readonly storedBytes: number;
  /** CPU time of all threads for a record, from its bytes to its receipt, and that of the main thread in it. */
  readonly cpuMicroseconds: number;
  readonly mainMicroseconds: number;
}

/** What a record of a plan costs a node, over 20 devices. */
async function intake(campaign: Campaign, plan: Plan, records: number): Promise<Intake> {
  const folder = mkdtempSync(path.join(tmpdir(), "ecp-scale-"));
  campaign.after(() => rmSync(folder, { recursive: true, force: true }));
  const keys = createNodeKeys(folder, 1);
  const store = createSqliteStore(folder, "scale");
  const devices = Array.from({ length: 20 }, () => new SupplyDevice(campaign.random));
  await enrolSupply(store, devices);
  const file = path.join(folder, "node.db");
  let failure: unknown;
  const recordPath = new RecordPath({
    ...{ store, keys, clock: systemClock, log: createLog("bench", () => {}), registry: new Registry(store) },
    publish: () => {},
    report: (event) => {
      if (event.event === "refused") failure ??= new Error(`a record was refused: ${event.reason}`);
    },
    fail: (error) => {
      failure ??= error;
    },
  });
  const topics = devices.map(({ name }) => topicOf(name, "record"));
  let [cpuUs, mainUs] = [0, 0];
  for (let sent = 0; sent < records; ) {
    const room = Math.min(pushedAtOnce, records - sent);
    const sealed = Array.from({ length: room }, (_, i) =>
      (devices[i % devices.length] as SupplyDevice).seal(plans[plan]),
    );
    sent += room;
    const [all, main] = [process.cpuUsage(), process.threadCpuUsage()];
    for (const [i, bytes] of sealed.entries()) recordPath.push(topics[i % topics.length] as string, bytes);
    await recordPath.idle();
    const [allSince, mainSince] = [process.cpuUsage(all), process.threadCpuUsage(main)];
    cpuUs += allSince.user + allSince.system;
    mainUs += mainSince.user + mainSince.system;
  }
  await recordPath.stop();
  const { stored } = recordPath.counts;
  store.close(); // the write-ahead log goes into the file
  if (failure !== undefined) throw failure;
  if (stored !== records) throw new Error(`${stored} of ${records} records are stored`);
  const taken = {
    storedBytes: Math.round(statSync(file).size / records),
    cpuMicroseconds: Math.round(cpuUs / records),
    mainMicroseconds: Math.round(mainUs / records),
  };
  campaign.say(`records by the ${plan}: ${JSON.stringify(taken)}`);
  return taken;
}

/** One look at all devices, as the alarms take it, for a device. */
async function lookMicroseconds(campaign: Campaign, count: number): Promise<number> {
  const folder = mkdtempSync("/dev/shm/ecp-scale-");
  campaign.after(() => rmSync(folder, { recursive: true, force: true }));
  createNodeKeys(folder, 1);
  const store = createSqliteStore(folder, "scale");
  await enrolSupply(
    store,
    Array.from({ length: count }, () => new SupplyDevice(campaign.random)),
  );
  const watch = new NodeWatch({ store, clock: systemClock, queueShare: () => 0, onChanges: () => {} });
  watch.connected(true);
  await watch.look();
  const fromMs = performance.now();
  await watch.look();
  const us = ((performance.now() - fromMs) * 1_000) / count;
  const found = watch.devices.length;
  store.close();
  if (found !== count) throw new Error(`${found} of ${count} devices`);
  campaign.say(`a look at ${count} devices: ${us.toFixed(1)} µs each`);
  return Number(us.toPrecision(2));
}

/** Memory of mosquitto for each hub that is connected, subscribed to its receipts, and silent. */
async function brokerConnectionBytes(campaign: Campaign, count: number): Promise<number> {
  const folder = mkdtempSync(path.join(tmpdir(), "ecp-scale-"));
  campaign.after(() => rmSync(folder, { recursive: true, force: true }));
  const port = await freePort();
  const file = path.join(folder, "mosquitto.conf");
  writeFileSync(
    file,
    `user root\nlistener ${port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest stderr\n`,
  );
  const broker = spawn(mosquitto, ["-c", file], { stdio: ["ignore", "ignore", "pipe"] });
  campaign.after(() => broker.kill("SIGKILL"));
  for (;;) {
    const [chunk] = (await once(broker.stderr, "data")) as [Buffer];
    if (/running/.test(`${chunk}`)) break;
  }
  const before = residentBytes(broker);
  const sockets: Socket[] = [];
  campaign.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  for (let i = 0; i < count; i++) {
    const socket = connect(port, "127.0.0.1");
    sockets.push(socket);
    const name = new SupplyDevice(campaign.random).name;
    socket.write(Buffer.concat([connectPacket(`ecp-${name}`), subscribePacket(topicOf(name, "receipt"))]));
    for (let bytes = 0; bytes < connackBytes + subackBytes; )
      bytes += ((await once(socket, "data")) as [Buffer])[0].length;
  }
  const bytes = Math.round((residentBytes(broker) - before) / count);
  campaign.say(`mosquitto: ${bytes} bytes for each of ${count} connections`);
  return bytes;
}

/** MQTT 3.1.1 §3.1: a clean session with an id, and a keep-alive of 600 s. */
function connectPacket(clientId: string): Buffer {
  const body = Buffer.concat([text("MQTT"), Buffer.from([4, 2, 600 >> 8, 600 & 0xff]), text(clientId)]);
  return Buffer.concat([Buffer.from([0x10, body.length]), body]);
}

/** MQTT 3.1.1 §3.8 */
function subscribePacket(topic: string): Buffer {
  const body = Buffer.concat([Buffer.from([0, 1]), text(topic), Buffer.from([1])]);
  return Buffer.concat([Buffer.from([0x82, body.length]), body]);
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 0xff]), bytes]);
}

function residentBytes({ pid }: ChildProcess): number {
  const line = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"));
  return Number(line?.[1] ?? Number.NaN) * 1_024;
}

/**
 * How fast a full node takes records, from their bytes to the receipt that is on disk, against the limit that the machine's signature
 * verification sets, measured before and after each part: from memory, with 10, 1,000 and 10,000 devices; with 60 readings a record; and
 * through mosquitto, with a process that plays the devices on the same cores.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { queuedRecordsMax } from "../fullnode/device-queues.ts";
import type { NodeKeys } from "../fullnode/node-keys.ts";
import { RecordPath } from "../fullnode/record-path.ts";
import { Registry } from "../fullnode/registry.ts";
import { openSqliteStore, type SqliteStore } from "../fullnode/store-sqlite.ts";
import { systemClock } from "../platform/clock.ts";
import { createLog } from "../platform/log.ts";
import { topicOf } from "../protocol/mqtt-topic.ts";
import { runThroughBroker } from "./broker-intake.ts";
import { type Campaign, runCampaign } from "./campaign.ts";
import { fleetDevices } from "./device-fleet.ts";
import { nodeWith, type RecordShape, SupplyDevice, singleReading, sixtyReadings } from "./record-supply.ts";
import { type Signed, signedOf, verificationLimit } from "./verification-limit.ts";

/** As the issue of this benchmark states them: shares of the limit, and readings a second. */
const limits = { fromMemory: 0.75, throughMosquitto: 0.55, readingsPerSecond: 200_000 } as const;

interface Fed {
  readonly name: string;
  readonly devices: readonly SupplyDevice[];
  /** In the order in which they are given to the node. */
  readonly messages: readonly { readonly topic: string; readonly bytes: Uint8Array }[];
}

interface Taken {
  readonly recordsPerSecond: number;
  readonly limitPerSecond: number;
  readonly ratio: number;
  readonly receipts: number;
  /** CPU time of a verification against that of a record from bytes to receipt: the ratio that a machine without other work and waits would show. */
  readonly cpuRatio: number;
}

await runCampaign("intake", async (campaign) => {
  const folder = mkdtempSync(path.join(tmpdir(), "ecp-intake-"));
  campaign.after(() => rmSync(folder, { recursive: true, force: true }));
  const few = supply(campaign, "10 devices", 10, campaign.count(60_000, 8_000), singleReading);
  const signed = few.messages
    .slice(0, 500)
    .map(({ bytes }, i) => signedOf(bytes, (few.devices[i % 10] as SupplyDevice).publicKey));
  const figures: Record<string, number> = { recordBytes: few.messages[0]?.bytes.length ?? 0 };
  const memory: Record<string, number> = {};
  const take = async (fed: Fed, key: string) => {
    const taken = await fromMemory(campaign, folder, fed, signed);
    figures[`${key}PerSecond`] = Math.round(taken.recordsPerSecond);
    figures[`${key}Limit`] = Math.round(taken.limitPerSecond);
    figures[`${key}Ratio`] = rounded(taken.ratio);
    figures[`${key}CpuRatio`] = rounded(taken.cpuRatio);
    figures[`${key}Receipts`] = taken.receipts;
    memory[key] = taken.ratio;
    campaign.say(
      `${fed.name}: ${Math.round(taken.recordsPerSecond)}/s, ${rounded(taken.ratio)} (by CPU time ${rounded(taken.cpuRatio)}) of ${Math.round(taken.limitPerSecond)}/s`,
    );
    return taken;
  };
  await fromMemory(campaign, folder, supply(campaign, "warm-up", 10, 10_000, singleReading), signed);
  await take(few, "devices10");
  await take(supply(campaign, "1,000 devices", 1_000, campaign.count(60_000, 8_000), singleReading), "devices1000");
  if (!campaign.short) await take(supply(campaign, "10,000 devices", 10_000, 60_000, singleReading), "devices10000");
  const sixty = await take(
    supply(campaign, "60 readings a record", 10, campaign.count(20_000, 2_000), sixtyReadings),
    "sixty",
  );
  figures.readingsPerSecond = Math.round(sixty.recordsPerSecond * sixtyReadings.rows);
  const throughBroker = await throughMosquitto(campaign, folder, signed);
  Object.assign(figures, throughBroker);
  const holds =
    (memory.devices10 ?? 0) >= limits.fromMemory &&
    figures.readingsPerSecond >= limits.readingsPerSecond &&
    throughBroker.mosquittoRatio >= limits.throughMosquitto;
  return { figures, control: { limitPerSecond: figures.devices10Limit ?? 0 }, holds };
});

function rounded(value: number): number {
  return Number(value.toPrecision(3));
}

/** Each device sends its records in order; the devices take turns. */
function supply(campaign: Campaign, name: string, count: number, records: number, shape: RecordShape): Fed {
  const devices = Array.from({ length: count }, () => new SupplyDevice(campaign.random));
  const topics = devices.map((device) => topicOf(device.name, "record"));
  const messages = Array.from({ length: records }, (_, i) => ({
    topic: topics[i % count] as string,
    bytes: (devices[i % count] as SupplyDevice).seal(shape),
  }));
  campaign.say(`${name}: ${records} records sealed`);
  return { name, devices, messages };
}

async function fromMemory(campaign: Campaign, folder: string, fed: Fed, signed: readonly Signed[]): Promise<Taken> {
  const { data, keys } = await nodeWith(folder, fed.devices);
  const limitMs = campaign.count(2_000, 700);
  const store = openSqliteStore(data);
  try {
    const before = await verificationLimit(signed, limitMs);
    const fromMs = performance.now();
    const cpuFrom = process.cpuUsage();
    const receipts = await feed(store, keys, fed);
    const { user, system } = process.cpuUsage(cpuFrom);
    const recordsPerSecond = (fed.messages.length / (performance.now() - fromMs)) * 1_000;
    const after = await verificationLimit(signed, limitMs);
    const limitPerSecond = (before.perSecond + after.perSecond) / 2;
    const cpuRatio = (((before.cpuUs + after.cpuUs) / 2) * fed.messages.length) / (user + system);
    return { recordsPerSecond, limitPerSecond, ratio: recordsPerSecond / limitPerSecond, receipts, cpuRatio };
  } finally {
    store.close();
    rmSync(data, { recursive: true, force: true });
  }
}

/** The same with 10 devices in another process, and mosquitto between: all on the same cores. */
async function throughMosquitto(campaign: Campaign, folder: string, signed: readonly Signed[]) {
  const count = 10;
  const seed = campaign.random.uint32();
  const backlog = campaign.count(6_000, 1_000);
  const { data } = await nodeWith(folder, fleetDevices(seed, count));
  const limitMs = campaign.count(2_000, 700);
  const before = await verificationLimit(signed, limitMs);
  const run = await runThroughBroker(campaign, data, {
    ...{ seed, devices: count, backlogDevices: count, backlog, window: 500, live: 0, intervalMs: 0 },
  });
  const after = await verificationLimit(signed, limitMs);
  const limitPerSecond = (before.perSecond + after.perSecond) / 2;
  const perSecond = (run.stored / run.tookMs) * 1_000;
  if (run.stored !== count * backlog || run.acknowledged !== run.records)
    throw new Error(`${run.stored} of ${count * backlog} records are stored, ${run.acknowledged} acknowledged`);
  campaign.say(
    `mosquitto: ${Math.round(perSecond)}/s, ${rounded(perSecond / limitPerSecond)} of ${Math.round(limitPerSecond)}/s`,
  );
  return {
    ...{ mosquittoPerSecond: Math.round(perSecond), mosquittoLimit: Math.round(limitPerSecond) },
    ...{ mosquittoRatio: rounded(perSecond / limitPerSecond), mosquittoReceipts: run.receipts },
    ...{ mosquittoSentAgain: run.sentAgain },
  };
}

/** Gives a node all messages, as many at once as it queues; resolves when the last receipt is out. */
async function feed(store: SqliteStore, keys: NodeKeys, { messages, devices }: Fed): Promise<number> {
  let next = 0;
  let stored = 0;
  let receipts = 0;
  let refused = "";
  const done = Promise.withResolvers<void>();
  const more = (): void => {
    while (next < messages.length && next - stored < queuedRecordsMax / 2) {
      const { topic, bytes } = messages[next++] as Fed["messages"][number];
      recordPath.push(topic, bytes);
    }
  };
  const recordPath = new RecordPath({
    ...{ store, keys, clock: systemClock, log: createLog("bench", () => {}), registry: new Registry(store) },
    publish: (outgoing) => {
      receipts += outgoing.length;
      setImmediate(more);
    },
    report: (event) => {
      if (event.event === "stored") stored++;
      else refused = event.reason;
      if (stored === messages.length) setImmediate(done.resolve);
      if (refused) done.reject(new Error(`a record was refused: ${refused}`));
    },
    fail: done.reject,
  });
  more();
  await done.promise;
  await recordPath.stop();
  const whole = (await store.devices()).filter(({ epochs }) => (epochs[0]?.settled ?? 0) === epochs[0]?.records);
  const records = whole.reduce((sum, device) => sum + device.records, 0);
  if (whole.length !== devices.length || records !== messages.length)
    throw new Error(`${records} of ${messages.length} records are in the store, whole for ${whole.length} devices`);
  return receipts;
}

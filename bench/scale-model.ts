/**
 * What a community of so many hubs costs, and which part is full first: a calculation from sizes that the protocol itself gives and
 * from figures that were measured (`npm run bench -- scale`, `-- intake`). docs/scale.md has its tables; a test compares.
 */
import { kidBytes } from "../protocol/cose-sign1.ts";
import { encryptedRecordBytesMax, paddedLength } from "../protocol/encrypted-record.ts";
import { topicOf } from "../protocol/mqtt-topic.ts";
import { signReceipt } from "../protocol/receipt.ts";
import { recordBytesMax } from "../protocol/record.ts";
import { SeededRandom } from "../test/protocol/seeded-random.ts";
import { type RecordShape, SupplyDevice } from "./record-supply.ts";

/** Each hub has two meters (the house and its sun), read once a minute, 12 values a reading. */
export const assumptions = {
  metersPerHub: 2,
  valuesPerReading: 12,
  readingEveryS: 60,
  /** Cores and disk are given with so much room: what has waited is drained while new records come. */
  headroom: 2,
  /** Of a virtual machine, a month, in euros: what providers in Europe ask for in 2026, roughly. */
  coreEuros: 10,
  gigabyteEuros: 0.08,
} as const;

/** Measured on the machine of the development: 2 virtual cores of a server, SQLite, Node 24. */
export const measured = {
  /** `npm run bench -- scale`: CPU time of all threads for a record, from its bytes to its receipt, and that of the main thread in it. */
  cpuMicroseconds: { minute: 110, hour: 330 },
  mainMicroseconds: { minute: 30, hour: 180 },
  /** `npm run bench -- scale`: what a record adds to the file of the SQLite store, rows, quarter hours and ledger queue included. */
  storedBytes: { minute: 470, hour: 7_500 },
  /** `npm run bench -- scale`: memory of mosquitto for a connection without TLS that has subscribed to its receipts. */
  brokerConnectionBytes: 2_000,
  /** `npm run bench -- scale`: one look at all devices for the alarms, for a device. */
  lookMicrosecondsPerDevice: 3,
  /** Messages through one mosquitto, QoS 1, bridged: the peer of `npm run bench -- backlog`. */
  brokerMessagesPerSecond: 60_000,
} as const;

export type Plan = "minute" | "hour";
export const plans: Readonly<Record<Plan, RecordShape>> = {
  minute: { rows: 1, values: assumptions.valuesPerReading, slotS: assumptions.readingEveryS },
  hour: { rows: 60, values: assumptions.valuesPerReading, slotS: assumptions.readingEveryS },
};

const yearS = 365.25 * 86_400;
const monthS = yearS / 12;
const gigabyte = 1e9;
/** IPv4 and TCP headers; a TLS 1.3 record with its type byte and tag (RFC 8446 §5.2). */
const packetBytes = 40 + 22;
/** MQTT 5 PUBLISH beside topic and payload: fixed header of 3 bytes, topic length, packet identifier, no properties. PUBACK. */
const publishBytes = 3 + 2 + 2 + 1;
const pubackBytes = 4;
/** COSE_Encrypt0 around the padded record. */
const envelopeBytes = encryptedRecordBytesMax - paddedLength(recordBytesMax);

/** A receipt as it usually is: all up to one record, no ranges. */
function receiptLength(): number {
  const receipt = { device: new Uint8Array(kidBytes), epoch: 2 ** 31, through: 100_000, digest: new Uint8Array(32) };
  const rest = { ranges: [], held: false, refused: [], timeS: 1_750_000_000 };
  return signReceipt({ ...receipt, ...rest }, () => new Uint8Array(64), new Uint8Array(kidBytes)).length;
}

export interface Sizes {
  readonly recordBytes: number;
  /** On the hub's link, both ways, for one record and its receipt. */
  readonly linkBytes: number;
}

export function sizesOf(plan: Plan): Sizes {
  const device = new SupplyDevice(new SeededRandom(5));
  const recordBytes = device.seal(plans[plan]).length;
  const topicBytes = topicOf(device.name, "record").length;
  const sent = publishBytes + topicBytes + paddedLength(recordBytes) + envelopeBytes + packetBytes;
  const received = publishBytes + topicBytes + receiptLength() + packetBytes;
  return { recordBytes, linkBytes: sent + received + 2 * (pubackBytes + packetBytes) };
}

export interface Estimate {
  readonly hubs: number;
  readonly plan: Plan;
  readonly recordsPerSecond: number;
  readonly readingsPerSecond: number;
  /** Record and receipt, each into the broker and out of it. */
  readonly brokerMessagesPerSecond: number;
  readonly linkMegabytesPerHubMonth: number;
  readonly nodeMegabitsPerSecond: number;
  readonly storedGigabytesPerYear: number;
  /** Of the full nodes, with headroom. */
  readonly cores: number;
  readonly brokers: number;
  readonly brokerGigabytes: number;
  /** After a year, with its storage. */
  readonly eurosPerMonth: number;
}

export function estimate(hubs: number, plan: Plan): Estimate {
  const { metersPerHub, readingEveryS, headroom, coreEuros, gigabyteEuros } = assumptions;
  const { rows } = plans[plan];
  const { linkBytes } = sizesOf(plan);
  const readingsPerSecond = (hubs * metersPerHub) / readingEveryS;
  const recordsPerSecond = readingsPerSecond / rows;
  const brokerMessagesPerSecond = recordsPerSecond * 4;
  const cores = Math.max(1, Math.ceil(headroom * recordsPerSecond * (measured.cpuMicroseconds[plan] / 1e6)));
  const brokers = Math.max(1, Math.ceil((headroom * brokerMessagesPerSecond) / measured.brokerMessagesPerSecond));
  const storedGigabytesPerYear = (recordsPerSecond * yearS * measured.storedBytes[plan]) / gigabyte;
  return {
    ...{
      hubs,
      plan,
      recordsPerSecond,
      readingsPerSecond,
      brokerMessagesPerSecond,
      cores,
      brokers,
      storedGigabytesPerYear,
    },
    linkMegabytesPerHubMonth: ((recordsPerSecond / hubs) * linkBytes * monthS) / 1e6,
    nodeMegabitsPerSecond: (recordsPerSecond * linkBytes * 8) / 1e6,
    brokerGigabytes: (hubs * measured.brokerConnectionBytes) / gigabyte,
    eurosPerMonth: (cores + brokers) * coreEuros + storedGigabytesPerYear * gigabyteEuros,
  };
}

export interface Saturation {
  readonly part: string;
  readonly limit: string;
  /** Hubs at which it is full, without headroom. */
  readonly hubs: Readonly<Record<Plan, number>>;
  readonly next: string;
}

export function saturations(limits: {
  readonly embeddedConnections: number;
  readonly alarmSubjects: number;
}): Saturation[] {
  const both = (of: (plan: Plan) => number) => ({ minute: of("minute"), hour: of("hour") });
  const recordsPerHub = (plan: Plan) => estimate(1, plan).recordsPerSecond;
  const perSecond = (of: Readonly<Record<Plan, number>>, plan: Plan) => 1e6 / of[plan];
  const { cpuMicroseconds, mainMicroseconds } = measured;
  const recordLimit = (of: Readonly<Record<Plan, number>>) =>
    `${count(perSecond(of, "minute"))} or ${count(perSecond(of, "hour"))} records/s`;
  const lookEveryUs = 30e6;
  return [
    {
      part: "the node's own broker",
      limit: `${count(limits.embeddedConnections)} connections`,
      hubs: both(() => limits.embeddedConnections),
      next: "mosquitto",
    },
    {
      part: "one core of a full node",
      limit: recordLimit(cpuMicroseconds),
      hubs: both((plan) => perSecond(cpuMicroseconds, plan) / recordsPerHub(plan)),
      next: "more cores: verification uses all of them",
    },
    {
      part: "one node's main thread (decoding, placing, SQLite)",
      limit: recordLimit(mainMicroseconds),
      hubs: both((plan) => perSecond(mainMicroseconds, plan) / recordsPerHub(plan)),
      next: "several nodes over one PostgreSQL",
    },
    {
      part: "one mosquitto",
      limit: `${count(measured.brokerMessagesPerSecond)} messages/s`,
      hubs: both((plan) => measured.brokerMessagesPerSecond / estimate(1, plan).brokerMessagesPerSecond),
      next: "several brokers, hubs shared out among them, or a cluster",
    },
    {
      part: "a disk of 1 TB, one year",
      limit: "1 TB",
      hubs: both((plan) => 1_000 / estimate(1, plan).storedGigabytesPerYear),
      next: "records by the hour; more disk",
    },
    {
      part: "the look at all devices for alarms",
      limit: `a tenth of its 30 s, ${measured.lookMicrosecondsPerDevice} µs a device`,
      hubs: both(() => lookEveryUs / 10 / measured.lookMicrosecondsPerDevice),
      next: "metrics and alerts of your own",
    },
    {
      part: "alarms kept at once",
      limit: count(limits.alarmSubjects),
      hubs: both(() => limits.alarmSubjects),
      next: "of more, those that come later are not listed one by one",
    },
  ];
}

/** A number for people: three digits, in groups. */
export function count(value: number): string {
  if (value > 0 && value < 0.0005) return "< 0.001";
  const rounded = value === 0 ? 0 : Number(value.toPrecision(3));
  return rounded.toLocaleString("en-GB", { maximumFractionDigits: 3 });
}

export const hubCounts = [1, 100, 10_000, 1_000_000] as const;

export function estimateTable(plan: Plan): string {
  const columns = hubCounts.map((hubs) => estimate(hubs, plan));
  const line = (title: string, of: (one: Estimate) => number) =>
    `| ${title} | ${columns.map((one) => count(of(one))).join(" | ")} |\n`;
  return (
    `| hubs | ${hubCounts.map((hubs) => count(hubs)).join(" | ")} |\n|---|${hubCounts.map(() => "---:|").join("")}\n` +
    line("records/s", (one) => one.recordsPerSecond) +
    line("readings/s", (one) => one.readingsPerSecond) +
    line("messages/s at the broker", (one) => one.brokerMessagesPerSecond) +
    line("MB a month on a hub's link", (one) => one.linkMegabytesPerHubMonth) +
    line("Mbit/s at the broker, from and to hubs", (one) => one.nodeMegabitsPerSecond) +
    line("GB stored a year", (one) => one.storedGigabytesPerYear) +
    line("cores of full nodes", (one) => one.cores) +
    line("brokers (mosquitto processes)", (one) => one.brokers) +
    line("GB of memory for connections", (one) => one.brokerGigabytes) +
    line("euros a month, after a year", (one) => one.eurosPerMonth)
  );
}

export function saturationTable(found: readonly Saturation[]): string {
  const rows = found.map(
    ({ part, limit, hubs, next }) => `| ${part} | ${limit} | ${count(hubs.minute)} | ${count(hubs.hour)} | ${next} |\n`,
  );
  return `| part | full at | hubs, records by the minute | hubs, records by the hour | then |\n|---|---|---:|---:|---|\n${rows.join("")}`;
}

/**
 * A full node's path of records is given a million deliveries, doubled, in disorder (window of 1,000), replayed from epochs that had
 * ended, and is stopped and started in between. Its store must then hold what the store of a node holds that was given each record once,
 * in order: the canonical dumps (all but what tells of the arrival itself) are byte-identical. The records have voids, dropped sequences, a
 * rotated key, an epoch that nobody agreed to, slots that failed at first and slots that two records tell of. Forks are left out: of two
 * records with one place the first to arrive stays, so the order decides by intent. Control: a store that books a record's rows as it
 * arrives, instead of when its chain is whole.
 */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { canonicalDump } from "../fullnode/canonical-dump.ts";
import { createNodeKeys, type NodeKeys } from "../fullnode/node-keys.ts";
import { RecordPath } from "../fullnode/record-path.ts";
import { enrolDevice, Registry } from "../fullnode/registry.ts";
import type { Store } from "../fullnode/store.ts";
import { createSqliteStore, openSqliteStore } from "../fullnode/store-sqlite.ts";
import { createLog } from "../platform/log.ts";
import { topicOf } from "../protocol/mqtt-topic.ts";
import { bookingOnArrival } from "./booking-on-arrival.ts";
import { type Campaign, runCampaign } from "./campaign.ts";
import { type Delivery, disordered, inOrder, SealingDevice, windowDeliveries } from "./disordered-delivery.ts";
import { storeDump } from "./store-dump.ts";

const startMs = 1_800_000_000_000;
/** Messages in the queue at once: far below what the path takes. */
const pushedAtOnce = 4_096;
const restarts = 5;

class Node {
  readonly #data: string;
  readonly #keys: NodeKeys;
  readonly #wrap: (store: Store) => Store;
  #store: Store;
  #path: RecordPath;
  #nowMs = startMs;
  readonly #missing: Set<string>;
  /** What tells of dropped records waits here until all before those is stored. */
  #heldBack: Delivery[] = [];
  failure: unknown;
  receipts = 0;

  private constructor(campaign: Campaign, expected: readonly Delivery[], wrap: (store: Store) => Store) {
    this.#data = mkdtempSync(path.join(tmpdir(), "ecp-deliver-"));
    campaign.after(() => rmSync(this.#data, { recursive: true, force: true }));
    this.#keys = createNodeKeys(this.#data, 1);
    this.#wrap = wrap;
    this.#missing = new Set(expected.map(placeOf));
    this.#store = wrap(createSqliteStore(this.#data, "deliver"));
    this.#path = this.#newPath();
    campaign.after(() => this.#store.close());
  }

  static async make(
    campaign: Campaign,
    devices: readonly SealingDevice[],
    expected: readonly Delivery[],
    wrap: (store: Store) => Store = (store) => store,
  ): Promise<Node> {
    const node = new Node(campaign, expected, wrap);
    for (const { request } of devices) await enrolDevice(node.#store, node.#keys, request, startMs);
    return node;
  }

  #newPath(): RecordPath {
    return new RecordPath({
      store: this.#store,
      keys: this.#keys,
      registry: new Registry(this.#store),
      // A thousand deliveries a second of this node's time.
      clock: { wallMs: () => this.#nowMs, monotonicMs: () => this.#nowMs - startMs },
      log: createLog("deliver", () => undefined),
      publish: (receipts) => {
        this.receipts += receipts.length;
      },
      report: (event) => {
        if (event.event === "stored") this.#missing.delete(`${event.device}/${event.epoch}/${event.sequence}`);
      },
      fail: (error) => {
        this.failure ??= error;
      },
    });
  }

  async restart(): Promise<void> {
    await this.#path.stop();
    await this.#store.close();
    this.#store = this.#wrap(openSqliteStore(this.#data));
    this.#path = this.#newPath();
  }

  async deliver(deliveries: readonly Delivery[], progress: (done: number) => void = () => undefined): Promise<void> {
    for (let i = 0; i < deliveries.length; i += pushedAtOnce) {
      const due = [...this.#heldBack, ...deliveries.slice(i, i + pushedAtOnce)];
      this.#heldBack = [];
      for (const delivery of due) {
        this.#nowMs++;
        if (this.#isTooSoon(delivery)) this.#heldBack.push(delivery);
        else this.#path.push(topicOf(delivery.device.fixture.name, "record"), delivery.record.bytes);
      }
      await this.#path.idle();
      if (this.failure !== undefined) throw this.failure;
      progress(Math.min(i + pushedAtOnce, deliveries.length));
    }
  }

  /**
   * A wallet overwrites its oldest records first, so it has receipts for all before a dropped one when it tells of it. Were one of them
   * still to come, a node would have passed it by: of two records that tell of one slot the later could then count.
   */
  #isTooSoon({ device, record }: Delivery): boolean {
    if (!device.drops.has(record)) return false;
    return device.records
      .slice(0, device.records.indexOf(record))
      .some((before) => this.#missing.has(placeOf({ device, record: before })));
  }

  /** What a device without a receipt does: it sends again. Gives how many deliveries that took. */
  async deliverMissing(ordered: readonly Delivery[]): Promise<number> {
    let again = 0;
    for (let tries = 0; this.#missing.size > 0 && tries < 10; tries++) {
      const left = ordered.filter((one) => this.#missing.has(placeOf(one)));
      again += left.length;
      await this.deliver(left);
    }
    return again;
  }

  get missing(): number {
    return this.#missing.size;
  }
  get counts() {
    return this.#path.counts;
  }

  /** SHA-256 of the canonical dump, and its lines. */
  async dump(): Promise<{ digest: string; lines: number }> {
    await this.#path.idle();
    const hash = createHash("sha256");
    let lines = 0;
    for await (const line of canonicalDump(this.#store)) {
      hash.update(`${line}\n`);
      lines++;
    }
    // And past the store's own reading, with what the canonical dump leaves out.
    for (const line of storeDump(this.#data)) hash.update(`${line}\n`);
    return { digest: hash.digest("hex"), lines };
  }
}

function placeOf({ device, record }: Delivery): string {
  return `${device.fixture.did}/${record.epoch}/${record.sequence}`;
}

await runCampaign("deliver", async (campaign) => {
  const { random } = campaign;
  const size = { first: 1_000, second: 500, held: 160 };
  const small = { first: 100, second: 60, held: 20 };
  const devices = Array.from(
    { length: campaign.count(60, 10) },
    () => new SealingDevice(random, campaign.short ? small : size),
  );
  const ordered = inOrder(devices);
  const disorder = disordered(ordered, campaign.count(1_000_000, 20_000), random);
  const { deliveries } = disorder;
  campaign.say(`${ordered.length} records of ${devices.length} devices, ${deliveries.length} deliveries`);

  const node = await Node.make(campaign, devices, ordered);
  await node.deliver(ordered);
  const again = await node.deliverMissing(ordered);
  const expected = await node.dump();

  const other = await Node.make(campaign, devices, ordered);
  const part = Math.ceil(deliveries.length / (restarts + 1));
  let duplicates = 0;
  const startedMs = performance.now();
  for (let i = 0; i < deliveries.length; i += part) {
    await other.deliver(deliveries.slice(i, i + part), (done) => campaign.progress(i + done, deliveries.length));
    duplicates += other.counts.duplicates;
    await other.restart();
  }
  const seconds = (performance.now() - startedMs) / 1_000;
  const resent = await other.deliverMissing(ordered);
  const found = await other.dump();

  const few = devices.slice(0, 6);
  const fewOrdered = inOrder(few);
  const fewDisordered = disordered(fewOrdered, fewOrdered.length * 4, random).deliveries;
  const dumps: string[] = [];
  for (const order of [fewOrdered, fewDisordered]) {
    const naive = await Node.make(campaign, few, fewOrdered, bookingOnArrival);
    await naive.deliver(order);
    await naive.deliverMissing(fewOrdered);
    dumps.push((await naive.dump()).digest);
  }
  const controlDiffers = dumps[0] !== dumps[1];

  const figures = {
    records: ordered.length,
    deliveries: deliveries.length,
    window: windowDeliveries,
    replayedFromEndedEpochs: disorder.replayed,
    duplicates,
    resent,
    restarts: restarts + 1,
    deliveriesPerSecond: Math.round(deliveries.length / seconds),
    dumpLines: expected.lines,
    dump: expected.digest,
    identical: expected.digest === found.digest,
    missing: node.missing + other.missing,
    resentInOrder: again,
  };
  const isWhole = figures.missing === 0 && figures.identical && expected.lines > ordered.length && duplicates > 0;
  return { figures, control: { bookedOnArrivalDiffers: controlDiffers }, holds: isWhole && controlDiffers };
});

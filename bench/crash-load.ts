/**
 * Devices that deliver records without a pause and send again what no receipt names, as hubs do; and the check of all that the receipts
 * promised. Receipts are opened by the nodes' public keys.
 */
import mqtt, { type MqttClient } from "mqtt";
import { ed25519PublicKey, loadNodeKeys } from "../fullnode/node-keys.ts";
import { enrolDevice } from "../fullnode/registry.ts";
import type { Store } from "../fullnode/store.ts";
import { openStore } from "../fullnode/store-address.ts";
import { toBeSigned } from "../protocol/cose-sign1.ts";
import { topicOf } from "../protocol/mqtt-topic.ts";
import { decodeReceipt, type Receipt } from "../protocol/receipt.ts";
import { checkSlots } from "../test/fullnode/aggregate-fixture.ts";
import { DeviceFixture, openReceipt, type SealedRecord } from "../test/fullnode/device-fixture.ts";
import { eventually } from "../test/system/running-program-fixture.ts";

const againAfterMs = 1_000;
const turnMs = 20;
const unacknowledgedMax = 40;

interface Hub {
  readonly device: DeviceFixture;
  /** Sealed, not acknowledged. */
  readonly waiting: Map<number, SealedRecord>;
  readonly sealed: SealedRecord[];
  /** Sequences that some receipt named as stored. */
  readonly promised: Set<number>;
  through: number;
}

export interface Judgement extends Record<string, number> {
  readonly sealed: number;
  readonly promised: number;
  readonly receipts: number;
  /** Promised by a receipt, and not stored as sealed. */
  readonly lost: number;
  /** Sealed, and not stored, although all were sent until they were acknowledged. */
  readonly missing: number;
  /** Digests that the ledger's queue has twice, rows beyond those of the records, quarter hours that are not those of the rows. */
  readonly doubles: number;
  readonly evidence: number;
}

export class CrashLoad {
  readonly #hubs: Hub[];
  readonly #nodeKey: Uint8Array;
  readonly #clients: MqttClient[] = [];
  #receipts = 0;
  #waiters: (() => void)[] = [];
  #timer: NodeJS.Timeout | undefined;
  #sealing = true;

  private constructor(hubs: Hub[], nodeKey: Uint8Array) {
    this.#hubs = hubs;
    this.#nodeKey = nodeKey;
  }

  /** Enrols `devices` devices at the node of this data folder. */
  static async enrol(data: string, devices: number): Promise<CrashLoad> {
    const keys = loadNodeKeys(data);
    const store = await openStore(data);
    try {
      const hubs: Hub[] = [];
      for (let i = 0; i < devices; i++) {
        const device = new DeviceFixture(1_000 + i);
        await enrolDevice(store, keys, device.request(), Date.now());
        hubs.push({ device, waiting: new Map(), sealed: [], promised: new Set(), through: 0 });
      }
      return new CrashLoad(hubs, keys.publicKey);
    } finally {
      await store.close();
    }
  }

  start(broker: { port: number; username?: string; password?: string }): void {
    for (const hub of this.#hubs) {
      const { name } = hub.device;
      const client = mqtt.connect({
        ...{ host: "127.0.0.1", port: broker.port, protocol: "mqtt", clientId: `ecp-${name.slice(0, 20)}` },
        ...(broker.username !== undefined && { username: broker.username }),
        ...(broker.password !== undefined && { password: broker.password }),
        ...{ protocolVersion: 4, clean: true, reconnectPeriod: 100, queueQoSZero: false, resubscribe: false },
      });
      client.on("error", () => undefined);
      client.on("connect", () => {
        client.subscribe(topicOf(name, "receipt"), { qos: 1 });
        for (const record of hub.waiting.values()) send(client, hub, record);
      });
      client.on("message", (_topic, bytes) => this.#take(hub, bytes));
      this.#clients.push(client);
    }
    let turns = 0;
    this.#timer = setInterval(() => {
      turns++;
      for (const [i, hub] of this.#hubs.entries()) {
        const client = this.#clients[i];
        if (client === undefined || !client.connected) continue;
        if (turns % Math.ceil(againAfterMs / turnMs) === 0)
          for (const record of hub.waiting.values()) send(client, hub, record);
        if (!this.#sealing || hub.waiting.size >= unacknowledgedMax) continue;
        const record = hub.device.reading();
        hub.sealed.push(record);
        hub.waiting.set(record.sequence, record);
        send(client, hub, record);
      }
    }, turnMs);
  }

  #take(hub: Hub, bytes: Uint8Array): void {
    const receipt: Receipt = openReceipt(bytes, ed25519PublicKey(this.#nodeKey), (one) => {
      const { cose } = decodeReceipt(one);
      return toBeSigned(cose.protectedHeader, cose.payload);
    });
    this.#receipts++;
    for (let sequence = hub.through + 1; sequence <= receipt.through; sequence++) this.#acknowledge(hub, sequence);
    hub.through = Math.max(hub.through, receipt.through);
    for (const { first, last } of receipt.ranges)
      for (let sequence = first; sequence <= last; sequence++) this.#acknowledge(hub, sequence);
    for (const waiter of this.#waiters.splice(0)) waiter();
  }

  #acknowledge(hub: Hub, sequence: number): void {
    hub.promised.add(sequence);
    hub.waiting.delete(sequence);
  }

  /** The next receipt of any device. */
  nextReceipt(): Promise<void> {
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  get receipts(): number {
    return this.#receipts;
  }

  /** Seals nothing more, and waits until all is acknowledged. */
  async calm(timeoutMs: number): Promise<void> {
    this.#sealing = false;
    await eventually(
      "all that was sealed is acknowledged",
      () => this.#hubs.every(({ waiting }) => waiting.size === 0),
      timeoutMs,
    );
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    for (const client of this.#clients.splice(0)) {
      await client.endAsync(true);
    }
  }

  /** Compares what was promised with what the store of a data folder holds. */
  async judge(data: string): Promise<Judgement> {
    const store = await openStore(data);
    try {
      return await this.#judge(store);
    } finally {
      await store.close();
    }
  }

  async #judge(store: Store): Promise<Judgement> {
    const sum = { sealed: 0, promised: 0, lost: 0, missing: 0, doubles: 0, evidence: 0 };
    for (const { device, sealed, promised } of this.#hubs) {
      const id = (await store.device(device.name))?.id ?? 0;
      const digests = await store.digests(sealed.map(({ epoch, sequence }) => ({ device: id, epoch, sequence })));
      for (const [i, { sequence, digest }] of sealed.entries()) {
        const isStored = Buffer.from(digest).equals(digests[i] ?? new Uint8Array());
        if (isStored) continue;
        sum.missing++;
        if (promised.has(sequence)) sum.lost++;
      }
      sum.sealed += sealed.length;
      sum.promised += promised.size;
      sum.evidence += (await store.evidence(id)).length;
      const stored = digests.filter((digest) => digest !== undefined).length;
      const rows = (await store.rowsAfter(id, undefined, 1_000_000)).length;
      sum.doubles += Math.max(0, rows - stored);
      // Throws where they are not.
      await checkSlots(store, id).catch(() => sum.doubles++);
    }
    const { entries, different } = await store.ledgerQueue();
    sum.doubles += entries - different;
    return { ...sum, receipts: this.#receipts };
  }
}

function send(client: MqttClient, { device }: Hub, record: SealedRecord): void {
  // What it has no room for comes again: the client's own queue must not grow while the broker is away.
  if (client.connected) client.publish(topicOf(device.name, "record"), Buffer.from(record.bytes), { qos: 0 });
}

/** A full node's parts over a data folder of their own, without a broker: for tests of the record path. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { createNodeKeys, ed25519PublicKey, loadNodeKeys, type NodeKeys } from "../../fullnode/node-keys.ts";
import type { OutgoingReceipt, RefusedEvent, StoredEvent } from "../../fullnode/record-event.ts";
import { RecordPath } from "../../fullnode/record-path.ts";
import { enrolDevice, Registry } from "../../fullnode/registry.ts";
import type { BatchScope, Store } from "../../fullnode/store.ts";
import { decide } from "../../fullnode/succession.ts";
import { createLog } from "../../platform/log.ts";
import { toBeSigned } from "../../protocol/cose-sign1.ts";
import { topicOf } from "../../protocol/mqtt-topic.ts";
import { decodeReceipt, type Receipt } from "../../protocol/receipt.ts";
import { type ContractStore, contractStore } from "./contract-store.ts";
import { DeviceFixture, openReceipt, type SealedRecord } from "./device-fixture.ts";

/** A folder that goes when the test ends. */
export function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "ecp-node-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** What a test does to the first device. */
export const deviceScope: BatchScope = { devices: [1], places: [] };

export class NodeFixture {
  readonly data: string;
  readonly keys: NodeKeys;
  readonly contract: ContractStore;
  store: Store;
  path: RecordPath;
  registry!: Registry;
  readonly receipts: OutgoingReceipt[] = [];
  readonly events: (StoredEvent | RefusedEvent)[] = [];
  readonly logLines: string[] = [];
  readonly failures: unknown[] = [];

  /**
   * @param database a store to open, instead of a new one
   * @param data a folder with keys and a store, instead of a new one
   */
  constructor(t: TestContext, database?: Uint8Array, data?: string, contract?: ContractStore) {
    this.data = data ?? temporaryFolder(t);
    this.keys = data ? loadNodeKeys(data) : createNodeKeys(this.data, 1);
    if (database) writeFileSync(join(this.data, "node.db"), database, { mode: 0o600 });
    this.contract = contract ?? contractStore(this.data);
    this.store = database || data ? this.contract.open() : this.contract.create();
    this.path = this.#makePath();
    t.after(() => this.store.close());
  }

  /** Another node with the same keys on the same store. */
  another(t: TestContext): NodeFixture {
    return new NodeFixture(t, undefined, this.data, this.contract);
  }

  #makePath(): RecordPath {
    let wallMs = 1_800_000_000_000;
    this.registry = new Registry(this.store);
    return new RecordPath({
      store: this.store,
      keys: this.keys,
      registry: this.registry,
      clock: { wallMs: () => wallMs++, monotonicMs: () => performance.now() },
      log: createLog("test", (line) => this.logLines.push(line)),
      publish: (receipts) => this.receipts.push(...receipts),
      report: (event) => this.events.push(event),
      fail: (error) => this.failures.push(error),
    });
  }

  /** Stops and starts again on the same data, as after a restart of the process. */
  async restart(): Promise<void> {
    await this.path.stop();
    await this.store.close();
    this.store = this.contract.open();
    this.path = this.#makePath();
  }

  /** Puts another store before the real one, for what follows. */
  async useStore(wrap: (store: Store) => Store): Promise<void> {
    await this.path.stop();
    this.store = wrap(this.store);
    this.path = this.#makePath();
  }

  async enrolled(epoch?: number): Promise<DeviceFixture> {
    const device = new DeviceFixture(epoch);
    await enrolDevice(this.store, this.keys, device.request(), Date.now());
    return device;
  }

  /** Enrols a device of another node with the epoch that it began there. */
  async enrolledAs(device: DeviceFixture, epoch: number): Promise<void> {
    await enrolDevice(this.store, this.keys, new DeviceFixture(epoch, device.firstKey).request(), Date.now());
  }

  /** The owner accepts or rejects an epoch of the only device. */
  async decide(epoch: number, decision: "accepted" | "rejected" = "accepted"): Promise<void> {
    await this.store.transaction(deviceScope, async (tx) => {
      const stored = await tx.epoch(1, epoch);
      if (stored === undefined) throw new Error(`no epoch ${epoch}`);
      await decide(tx, 1, stored, decision);
    });
  }

  /** Delivers records on the topic of a device, and waits until they are worked on. */
  async deliver(device: DeviceFixture, ...records: readonly (SealedRecord | Uint8Array)[]): Promise<void> {
    for (const record of records)
      this.path.push(topicOf(device.name, "record"), record instanceof Uint8Array ? record : record.bytes);
    await this.path.idle();
    if (this.failures.length > 0) throw this.failures[0];
  }

  /** The last receipt given, opened by the node's public key. */
  lastReceipt(): Receipt {
    const last = this.receipts.at(-1);
    if (last === undefined) throw new Error("no receipt was given");
    return this.opened(last.bytes);
  }

  /** All receipts of an epoch, opened. */
  receiptsOf(epoch: number): Receipt[] {
    return this.receipts.filter((one) => one.epoch === epoch).map(({ bytes }) => this.opened(bytes));
  }

  opened(bytes: Uint8Array): Receipt {
    return openReceipt(bytes, ed25519PublicKey(this.keys.publicKey), (receipt) => {
      const { cose } = decodeReceipt(receipt);
      return toBeSigned(cose.protectedHeader, cose.payload);
    });
  }

  /** How many rows count, and how many of them enter totals. */
  counted(): { rows: number; booked: number } {
    const [found] = this.query(
      `SELECT count(*) AS rows, coalesce(sum(booked), 0) AS booked,
         (SELECT count(*) FROM (SELECT DISTINCT device, meter, generation, time_s FROM rows) k) AS keys FROM rows`,
    );
    if (found?.rows !== found?.keys) throw new Error("a counting key has two rows");
    return { rows: found?.rows as number, booked: found?.booked as number };
  }

  refusals(): string[] {
    return this.events.flatMap((event) => (event.event === "refused" ? [event.reason] : []));
  }

  /** Reads the database past the store, as an auditor would. */
  query(sql: string, ...parameters: (string | number)[]): Record<string, unknown>[] {
    return this.contract.query(sql, parameters);
  }

  count(table: string): number {
    return this.query(`SELECT count(*) AS n FROM ${table}`)[0]?.n as number;
  }
}

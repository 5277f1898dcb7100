/**
 * A full node's process: the real path of records over the real embedded store, on files. It ends before a transaction is committed, right
 * behind the commit, or between two batches, and starts again on what is on disk.
 */
import { createHash } from "node:crypto";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import path from "node:path";
import type { NodeKeys } from "../../fullnode/node-keys.ts";
import { RecordPath } from "../../fullnode/record-path.ts";
import { enrolDevice, Registry } from "../../fullnode/registry.ts";
import type { BatchScope, Store, StoreTransaction } from "../../fullnode/store.ts";
import { openSqliteStore, type SqliteStore } from "../../fullnode/store-sqlite.ts";
import { createLog } from "../../platform/log.ts";
import { loraReceiptInfo } from "../../protocol/lora-receipt.ts";
import { topicOf } from "../../protocol/mqtt-topic.ts";
import { didKeyOf, kidOf } from "../../protocol/public-key.ts";
import { nodeKey, sha256 } from "../../test/vectors/signature-suite.ts";
import { deviceKeyOf } from "../../wallet/keystore.ts";
import type { PlantedBug } from "./fault-plan.ts";
import { rowKey, type SealedTruth } from "./sealed-truth.ts";
import type { VirtualWorld } from "./virtual-world.ts";

const workDelayMaxMs = 60;

/** The process has ended. */
class Ended extends Error {}

type CrashPoint = "before commit" | "after commit";

export interface NodeParts {
  readonly world: VirtualWorld;
  readonly truth: SealedTruth;
  /** Multibase name of the device. */
  readonly device: string;
  readonly bug: PlantedBug | undefined;
  /** An empty store, to begin with. */
  readonly emptyStore: string;
  /** Where the store's folder is made. */
  readonly parent: string;
  readonly send: (receipt: Uint8Array) => void;
}

export class SimulatedNode {
  readonly keys: NodeKeys;
  readonly folder: string;
  readonly #parts: NodeParts;
  #store: SqliteStore | undefined;
  #path: RecordPath | undefined;
  #inbox: Uint8Array[] = [];
  #isWorkDue = false;
  #crashPoint: CrashPoint | undefined;
  #isEnding = false;
  /** For a planted bug: which record counted a row. */
  readonly #countedBy = new Map<string, number>();
  readonly counts = { starts: 0, crashes: 0, inTransaction: 0 };

  constructor(parts: NodeParts) {
    this.#parts = parts;
    const signing = nodeKey(parts.world.random.bytes(32));
    const { share, agree, agreeMac } = deviceKeyOf(parts.world.random.bytes(32));
    const { publicKey, sign } = signing;
    const loraMac = (peerShare: Uint8Array) => agreeMac(peerShare, loraReceiptInfo(peerShare, share));
    this.keys = { publicKey, did: didKeyOf(publicKey), kid: kidOf(publicKey, sha256), share, sign, agree, loraMac };
    this.folder = mkdtempSync(path.join(parts.parent, "store-"));
    copyFileSync(parts.emptyStore, path.join(this.folder, "node.db"));
  }

  get isRunning(): boolean {
    return this.#path !== undefined;
  }

  async enrol(request: Uint8Array): Promise<void> {
    await enrolDevice(this.store, this.keys, request, this.#parts.world.wallMs);
  }

  get store(): Store {
    if (this.#store === undefined) throw new Error("the node is not running");
    return this.#store;
  }

  async start(): Promise<void> {
    const { world, device } = this.#parts;
    this.#store = openSqliteStore(this.folder);
    this.#isEnding = false;
    this.counts.starts++;
    const store = this.#faultyStore(this.#store);
    this.#path = new RecordPath({
      store,
      registry: new Registry(store),
      keys: this.keys,
      clock: { wallMs: () => world.wallMs, monotonicMs: () => world.nowMs },
      log: createLog("simulation", () => undefined),
      publish: (receipts) => {
        for (const { bytes } of receipts) this.#publish(bytes);
      },
      report: (event) => {
        if (event.event === "refused") world.note("refused", event.reason, device.slice(0, 4));
      },
      fail: () => {
        this.#isEnding = true;
      },
    });
    this.#path.lookAround();
    await this.#path.idle();
    await this.checkPromises();
    world.note("node started");
  }

  async lookAround(): Promise<void> {
    this.#path?.lookAround();
    await this.#path?.idle();
  }

  /** A record's message from the broker. */
  take(payload: Uint8Array): void {
    if (!this.isRunning) return;
    this.#inbox.push(payload);
    if (this.#isWorkDue) return;
    this.#isWorkDue = true;
    const { world } = this.#parts;
    world.after(world.random.integer(1, workDelayMaxMs), () => this.#work());
  }

  async #work(): Promise<void> {
    this.#isWorkDue = false;
    const messages = this.#inbox.splice(0);
    const records = this.#path;
    if (records === undefined) return;
    for (const payload of messages) records.push(topicOf(this.#parts.device, "record"), payload);
    await records.idle();
    this.#parts.world.note("node worked", messages.length, records.counts.stored, records.counts.duplicates);
    if (this.#isEnding) await this.crash();
  }

  /** The process ends in its next transaction; where none comes, another fault will end it. */
  crashInTransaction(): void {
    this.#crashPoint = this.#parts.world.random.pick(["before commit", "after commit"]);
  }

  async crash(): Promise<void> {
    const ending = this.#path;
    if (ending === undefined) return;
    this.#path = undefined;
    this.#isEnding = true;
    this.#crashPoint = undefined;
    await ending.idle();
    this.#store?.close();
    this.#store = undefined;
    this.#inbox = [];
    this.counts.crashes++;
    this.#parts.world.note("node ended");
  }

  #publish(bytes: Uint8Array): void {
    if (this.#isEnding) return;
    this.#parts.truth.promised(bytes);
    this.#parts.world.note("receipt", createHash("sha256").update(bytes).digest("hex").slice(0, 16));
    this.#parts.send(bytes);
  }

  /** What receipts have promised is in the store. */
  async checkPromises(): Promise<void> {
    const { truth } = this.#parts;
    const device = await this.store.device(this.#parts.device);
    if (device === undefined) return;
    const promised = truth.promisedRecords;
    const digests = await this.store.digests(
      promised.map(({ epoch, sequence }) => ({ device: device.id, epoch, sequence })),
    );
    for (const [i, { epoch, sequence, digest }] of promised.entries()) {
      const found = digests[i];
      if (found === undefined || Buffer.from(found).toString("hex") !== digest)
        truth.violated(`a receipt names record ${epoch}/${sequence}, and the store does not have it`);
    }
    const summary = (await this.store.devices()).find(({ id }) => id === device.id);
    for (const { epoch, first, last } of truth.promisedRanges) {
      const spans = summary?.epochs.find((one) => one.epoch === epoch)?.spans ?? [];
      if (!spans.some((span) => span.first <= first && last <= span.last))
        truth.violated(`a receipt names ${first}-${last} of epoch ${epoch}, and the store does not have it all`);
    }
  }

  #faultyStore(store: SqliteStore): Store {
    const transaction = async <T>(scope: BatchScope, work: (tx: StoreTransaction) => Promise<T>): Promise<T> => {
      if (this.#isEnding) throw new Ended();
      const crashPoint = scope.places.length > 0 ? this.#crashPoint : undefined;
      const result = await store.transaction(scope, async (tx) => {
        const done = await work(this.#faultyTransaction(tx));
        if (this.#parts.bug === "receipt-before-commit") this.#publishEarly(done);
        if (crashPoint === "before commit") this.#endHere();
        return done;
      });
      if (crashPoint === "after commit") this.#endHere();
      return result;
    };
    return new Proxy<Store>(store, {
      get: (target, name) => {
        if (name === "transaction") return transaction;
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
  }

  #endHere(): never {
    this.#crashPoint = undefined;
    this.counts.inTransaction++;
    this.#isEnding = true;
    throw new Ended();
  }

  #publishEarly(result: unknown): void {
    const receipts = (result as { receipts?: readonly { bytes: Uint8Array }[] } | undefined)?.receipts ?? [];
    for (const { bytes } of receipts) this.#publish(bytes);
  }

  #faultyTransaction(tx: StoreTransaction): StoreTransaction {
    if (this.#parts.bug !== "row-counted-twice") return tx;
    return {
      ...tx,
      // A row that another record had already counts beside that one.
      countRows: (device, epoch, sequence, rows) => {
        const counted = rows.map((row) => {
          const key = rowKey(row.meter, row.timeS);
          const by = this.#countedBy.get(key) ?? sequence;
          this.#countedBy.set(key, by);
          return by === sequence ? row : { ...row, generation: row.generation + 1_000 };
        });
        return tx.countRows(device, epoch, sequence, counted);
      },
    };
  }

  async remove(): Promise<void> {
    await this.crash();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

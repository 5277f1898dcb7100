/**
 * A full node that takes frames of a network server, on the world's time: the real intake, path of records and embedded store. It is killed
 * as it stands and starts again on what is on disk.
 */
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import path from "node:path";
import { LorawanIntake } from "../../fullnode/lorawan-intake.ts";
import type { NetworkServer } from "../../fullnode/lorawan-uplink.ts";
import type { NodeKeys } from "../../fullnode/node-keys.ts";
import { RecordPath } from "../../fullnode/record-path.ts";
import { enrolDevice, Registry } from "../../fullnode/registry.ts";
import type { Store } from "../../fullnode/store.ts";
import { openSqliteStore, type SqliteStore } from "../../fullnode/store-sqlite.ts";
import { createLog } from "../../platform/log.ts";
import { loraReceiptInfo } from "../../protocol/lora-receipt.ts";
import { didKeyOf, kidOf } from "../../protocol/public-key.ts";
import { nodeKey, sha256 } from "../../test/vectors/signature-suite.ts";
import { deviceKeyOf } from "../../wallet/keystore.ts";
import type { WorldTiming } from "./lora-timing.ts";
import type { VirtualWorld } from "./virtual-world.ts";

const lookAroundMs = 5_000;

export interface LoraNodeParts {
  readonly world: VirtualWorld;
  readonly timing: WorldTiming;
  /** An empty store, to begin with, and where its copy's folder is made. */
  readonly emptyStore: string;
  readonly parent: string;
  readonly server: NetworkServer;
  readonly command: (topic: string, json: string) => void;
}

export class LoraNode {
  readonly keys: NodeKeys;
  readonly #parts: LoraNodeParts;
  readonly #folder: string;
  #store: SqliteStore | undefined;
  #path: RecordPath | undefined;
  #intake: LorawanIntake | undefined;
  /** Changes with each start: timers of an earlier one do nothing. */
  #life = 0;
  #ids = 0;
  readonly counts = { starts: 0, eventsMissed: 0, stored: 0, duplicates: 0, packets: 0, answers: 0, receipts: 0 };
  readonly refused: string[] = [];

  constructor(parts: LoraNodeParts) {
    this.#parts = parts;
    const signing = nodeKey(parts.world.random.bytes(32));
    const { share, agree, agreeMac } = deviceKeyOf(parts.world.random.bytes(32));
    const { publicKey, sign } = signing;
    const loraMac = (peerShare: Uint8Array) => agreeMac(peerShare, loraReceiptInfo(peerShare, share));
    this.keys = { publicKey, did: didKeyOf(publicKey), kid: kidOf(publicKey, sha256), share, sign, agree, loraMac };
    this.#folder = mkdtempSync(path.join(parts.parent, "store-"));
    copyFileSync(parts.emptyStore, path.join(this.#folder, "node.db"));
    parts.world.every(lookAroundMs, async () => {
      await this.#intake?.lookAround();
    });
  }

  get isRunning(): boolean {
    return this.#intake !== undefined;
  }

  get store(): Store {
    if (this.#store === undefined) throw new Error("the node is not running");
    return this.#store;
  }

  /** Once, while the node runs: what `ecp-node enrol` and `ecp-node lorawan bind` do. */
  async enrol(request: Uint8Array, devEui: string, name: string): Promise<void> {
    const { world } = this.#parts;
    await enrolDevice(this.store, this.keys, request, world.wallMs);
    await this.#store?.lorawan.bind(devEui, name, world.wallMs);
    // Another process does so in earnest, and a running node sees it there.
    await this.kill();
    await this.start();
  }

  async start(): Promise<void> {
    const { world, timing, server, command } = this.#parts;
    const life = ++this.#life;
    const isAlive = (): boolean => life === this.#life;
    const store = openSqliteStore(this.#folder);
    const clock = { wallMs: () => world.wallMs, monotonicMs: () => world.nowMs };
    const log = createLog("simulation", () => undefined);
    const records = new RecordPath({
      ...{ store, registry: new Registry(store), keys: this.keys, clock, log },
      publish: () => undefined, // no broker: what a device hears comes down by LoRaWAN
      report: (event) => {
        if (event.event === "refused") this.refused.push(event.reason);
      },
      fail: (error) => this.refused.push(`the path failed: ${String(error)}`),
    });
    this.#store = store;
    this.#path = records;
    records.lookAround();
    await records.idle();
    this.#intake = await LorawanIntake.open({
      ...{ store, keys: this.keys, path: records, server, receipts: "each", clock, log },
      registry: new Registry(store),
      publishCommand: (topic, json) => {
        if (isAlive()) command(topic, json);
        return isAlive();
      },
      after: (ms, work) => timing.after(ms, () => isAlive() && work()),
      report: ({ reason }) => this.refused.push(reason),
      newId: () => `00000000-0000-4000-8000-${(++this.#ids).toString(16).padStart(12, "0")}`,
    });
    await records.idle();
    this.counts.starts++;
    world.note("node started");
  }

  /** An event of the network server. With nobody there it is gone: brokers deliver these at most once unless told otherwise. */
  receive(topic: string, json: string): void {
    const [intake, records] = [this.#intake, this.#path];
    if (intake === undefined || records === undefined) {
      this.counts.eventsMissed++;
      return;
    }
    intake.receive(topic, Buffer.from(json));
    this.#parts.timing.waitFor(() => records.idle());
  }

  /** The process ends without a word; what it had not written is gone. */
  async kill(): Promise<void> {
    const [intake, records] = [this.#intake, this.#path];
    if (intake === undefined || records === undefined) return;
    this.#life++;
    this.#intake = undefined;
    this.#path = undefined;
    await records.idle();
    this.#tally(intake, records);
    this.#store?.close();
    this.#store = undefined;
    this.#parts.world.note("node ended");
  }

  #tally({ counts }: LorawanIntake, records: RecordPath): void {
    this.counts.packets += counts.packets;
    this.counts.answers += counts.answers;
    this.counts.receipts += counts.receipts;
    this.counts.stored += records.counts.stored;
    this.counts.duplicates += records.counts.duplicates;
  }

  async remove(): Promise<void> {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

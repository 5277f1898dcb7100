/** A full node that takes frames of a ChirpStack, without a broker: its intake, record path and embedded store, in a folder in memory. */
import { mkdtempSync, rmSync } from "node:fs";
import path from "node:path";
import { chirpStack } from "../fullnode/chirpstack.ts";
import { LorawanIntake } from "../fullnode/lorawan-intake.ts";
import { createNodeKeys, type NodeKeys, sha256 } from "../fullnode/node-keys.ts";
import { RecordPath } from "../fullnode/record-path.ts";
import { Registry } from "../fullnode/registry.ts";
import { createSqliteStore, type SqliteStore } from "../fullnode/store-sqlite.ts";
import type { Clock } from "../platform/clock.ts";
import { createLog } from "../platform/log.ts";
import type { Sign } from "../protocol/cose-sign1.ts";
import { signEnrolmentRequest } from "../protocol/enrolment.ts";
import { kidOf, multibaseOf } from "../protocol/public-key.ts";
import { application } from "../test/fullnode/lorawan-fixture.ts";

export interface EnrolledDevice {
  readonly devEui: string;
  readonly publicKey: Uint8Array;
  readonly share: Uint8Array;
  readonly epoch: number;
  readonly sign: Sign;
}

export interface NodeDownlink {
  readonly devEui: string;
  readonly id: string;
  readonly port: number;
  readonly bytes: Uint8Array;
}

export interface LoraNodeOptions {
  readonly clock: Clock;
  /** Does something later on that clock; what it returns calls it off. */
  readonly after?: (ms: number, work: () => void) => () => void;
  readonly stored: (device: string, sequence: number) => void;
  readonly downlink: (downlink: NodeDownlink) => void;
}

export class LoraNode {
  readonly keys: NodeKeys;
  readonly #folder = mkdtempSync("/dev/shm/ecp-lora-");
  readonly #store: SqliteStore;
  #intake: LorawanIntake | undefined;
  #path: RecordPath | undefined;
  refused = "";

  constructor() {
    this.keys = createNodeKeys(this.#folder, 1);
    this.#store = createSqliteStore(path.join(this.#folder), "bench");
  }

  /** Enrols devices and binds their modems, as if their requests had been checked. */
  enrol(devices: readonly EnrolledDevice[], nowMs: number): void {
    const meters = [{ index: 0, name: "house", profile: "sdm630" }];
    for (const { devEui, publicKey, share, epoch, sign } of devices) {
      const fields = { publicKey, share, epoch, softwareId: "ecp-bench 1", meters };
      const request = signEnrolmentRequest({ ...fields, timeS: Math.floor(nowMs / 1_000) }, sign, sha256);
      const name = multibaseOf(publicKey);
      this.#store.enrol({
        ...{ ...fields, name, kid: kidOf(publicKey, sha256), currentKey: publicKey, earlier: [] },
        ...{ request, requestDigest: sha256(request), enrolledMs: nowMs },
      });
      this.#store.lorawan.bind(devEui, name, nowMs);
    }
  }

  async open({ clock, after, stored, downlink }: LoraNodeOptions): Promise<void> {
    const { keys } = this;
    const store = this.#store;
    const log = createLog("bench", () => {});
    const registry = new Registry(store);
    this.#path = new RecordPath({
      ...{ store, keys, registry, clock, log },
      publish: () => undefined,
      report: (event) => {
        if (event.event === "stored") stored(event.device, event.sequence);
        else this.refused = event.reason;
      },
      fail: (error) => {
        throw error;
      },
    });
    this.#intake = await LorawanIntake.open({
      ...{ store, keys, registry, clock, log, path: this.#path, server: chirpStack(application), receipts: "each" },
      ...(after && { after }),
      publishCommand: (_topic, json) => {
        const { devEui, id, fPort, data } = JSON.parse(json);
        downlink({ devEui, id, port: fPort, bytes: new Uint8Array(Buffer.from(data, "base64")) });
        return true;
      },
      report: ({ reason }) => {
        this.refused = reason;
      },
    });
  }

  receive({ topic, payload }: { readonly topic: string; readonly payload: Uint8Array }): void {
    this.#intake?.receive(topic, payload);
  }

  get counts() {
    return this.#intake?.counts;
  }

  /** Fulfilled when all that it was given has been worked on, answered and saved. */
  async idle(): Promise<void> {
    await this.#intake?.idle();
  }

  async close(): Promise<void> {
    await this.#intake?.stop();
    await this.#path?.stop();
    this.#store.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** What ChirpStack publishes when a gateway has sent a downlink. */
export function chirpStackSent({ devEui, id }: NodeDownlink): { topic: string; payload: Buffer } {
  const event = { queueItemId: id, deviceInfo: { applicationId: application, devEui } };
  const topic = `application/${application}/device/${devEui}/event/txack`;
  return { topic, payload: Buffer.from(JSON.stringify(event)) };
}

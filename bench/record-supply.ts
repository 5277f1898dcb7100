/** Devices that have sealed all their records beforehand: what a benchmark of the full node feeds it with. */

import { createPrivateKey, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import path from "node:path";
import { createNodeKeys, type NodeKeys, sha256 } from "../fullnode/node-keys.ts";
import type { Store } from "../fullnode/store.ts";
import { createSqliteStore } from "../fullnode/store-sqlite.ts";
import { kidOf, multibaseOf } from "../protocol/public-key.ts";
import { noPrevious, previousBytes, type Row, sealRecord } from "../protocol/record.ts";
import type { SeededRandom } from "../test/protocol/seeded-random.ts";

const firstTimeS = 1_750_000_000;
const enrolledMs = firstTimeS * 1_000;
const pkcs8Prefix = Buffer.from("302e020100300506032b657004220420", "hex"); // RFC 8410 §7
const codes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20] as const;

/** How many readings a record holds, of how many values each. */
export interface RecordShape {
  readonly rows: number;
  readonly values: number;
  readonly slotS: number;
}

/** One reading of 18 values, about 250 bytes; and what a meter gives in an hour, a reading a minute. */
export const singleReading: RecordShape = { rows: 1, values: 18, slotS: 60 };
export const sixtyReadings: RecordShape = { rows: 60, values: 2, slotS: 60 };

export class SupplyDevice {
  readonly publicKey: Uint8Array;
  readonly name: string;
  readonly kid: Uint8Array;
  readonly epoch: number;
  readonly #key: KeyObject;
  #sequence = 0;
  #previous = noPrevious;
  #timeS = firstTimeS;

  constructor(random: SeededRandom) {
    const der = Buffer.concat([pkcs8Prefix, random.bytes(32)]);
    this.#key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
    const jwk = this.#key.export({ format: "jwk" });
    this.publicKey = Uint8Array.from(Buffer.from(jwk.x as string, "base64url"));
    this.name = multibaseOf(this.publicKey);
    this.kid = kidOf(this.publicKey, sha256);
    this.epoch = random.uint32();
  }

  get sequence(): number {
    return this.#sequence;
  }

  /** Seals the next record of the chain. */
  seal({ rows, values, slotS }: RecordShape): Uint8Array {
    this.#sequence++;
    const row = (i: number): Row => ({
      timeS: this.#timeS + i * slotS,
      status: 0,
      values: Array.from(
        { length: values },
        (_, k) => (k % 2 === 0 ? 50_000_000 : 230_000) + this.#sequence * 7 + i + k,
      ),
    });
    const content = {
      kind: "reading" as const,
      ...{ epoch: this.epoch, sequence: this.#sequence, previous: this.#previous, clockState: 0, generation: 0 },
      ...{ meter: 0, plan: 0, slotS, codes: codes.slice(0, values) },
      rows: Array.from({ length: rows }, (_, i) => row(i)),
    };
    const { bytes, decoded } = sealRecord(content, (message) => sign(null, message, this.#key), this.kid, sha256);
    this.#timeS += rows * slotS;
    this.#previous = decoded.digest.slice(0, previousBytes);
    return bytes;
  }
}

/** Enrols devices as if their requests had been checked: 10,000 of those would take a minute. */
export async function enrolSupply(store: Store, devices: readonly SupplyDevice[]): Promise<void> {
  const share = Uint8Array.from(
    generateKeyPairSync("x25519").publicKey.export({ format: "der", type: "spki" }).subarray(-32),
  );
  for (const { name, publicKey, kid, epoch } of devices)
    await store.enrol({
      ...{ name, publicKey, kid, currentKey: publicKey, share, softwareId: "ecp-bench 1", epoch, earlier: [] },
      meters: [{ index: 0, name: "house", profile: "sdm630" }],
      ...{ request: new Uint8Array(0), requestDigest: sha256(publicKey), enrolledMs },
    });
}

/** A new node's data folder with these devices. They are enrolled in memory, where a commit need not reach a disk. */
export async function nodeWith(
  folder: string,
  devices: readonly SupplyDevice[],
): Promise<{ data: string; keys: NodeKeys }> {
  const fast = mkdtempSync("/dev/shm/ecp-intake-");
  const data = mkdtempSync(path.join(folder, "node-"));
  try {
    const keys = createNodeKeys(fast, 1);
    const store = createSqliteStore(fast, "bench");
    await enrolSupply(store, devices);
    store.close();
    cpSync(fast, data, { recursive: true });
    return { data, keys };
  } finally {
    rmSync(fast, { recursive: true, force: true });
  }
}

/**
 * A house whose readings go by LoRaWAN: the real wallet and journal, over a disk in memory, with two energy registers in slots of 15 minutes.
 * What it seals is what a hub seals, byte for byte.
 */
import { kidOf } from "../protocol/public-key.ts";
import { decodeRecord, type ReadingContent, type Row, signRecord } from "../protocol/record.ts";
import {
  decodeAnswer,
  encodeWalletRequest,
  readReadAnswer,
  readReleaseAnswer,
  readSealAnswer,
  WalletRefusal,
  type WalletRequest,
} from "../protocol/wallet-message.ts";
import type { SeededRandom } from "../test/protocol/seeded-random.ts";
import { nodeKey, sha256 } from "../test/vectors/signature-suite.ts";
import { Journal } from "../wallet/journal.ts";
import { writeFirstCommit } from "../wallet/journal-creation.ts";
import { type DeviceKey, deviceKeyOf } from "../wallet/keystore.ts";
import { emptyPolicy, type PinnedNode } from "../wallet/policy.ts";
import { Wallet } from "../wallet/wallet.ts";
import { MemoryDisk } from "./simulation/memory-disk.ts";

export const slotS = 900;
export const rowsPerBatch = 4;
export const batchS = rowsPerBatch * slotS;
/** The plan of LoRaWAN, as hub.yaml gives it to the wallet. */
const plan = 1;
/** Active energy import and export, in Wh. */
const codes = [2, 4] as const;
const segments = 64;
const segmentBlocks = 16;
/** 2027-01-15 08:00:00 UTC, on the hour. */
export const startS = 1_800_000_000;

export interface SealedBatch {
  readonly epoch: number;
  readonly sequence: number;
  /** The bare COSE_Sign1. */
  readonly bytes: Uint8Array;
  readonly digest: Uint8Array;
}

export class House {
  readonly key: DeviceKey;
  readonly epoch: number;
  readonly #random: SeededRandom;
  readonly #wallet: Wallet;
  #nowS = startS;
  #id = 0;
  readonly #stands = { importWh: 0, exportWh: 0 };

  constructor(random: SeededRandom, nodes: readonly PinnedNode[]) {
    this.#random = random;
    const seed = random.bytes(32);
    // node:crypto signs the same bytes fifteen times faster; that the wallet's own signer does is tested by itself.
    this.key = { ...deviceKeyOf(seed), sign: nodeKey(seed).sign };
    this.epoch = random.integer(1, 0xffff_fffe);
    // A house of ten years: the longest stands that it will send.
    this.#stands = {
      importWh: random.integer(30_000_000, 60_000_000),
      exportWh: random.integer(30_000_000, 60_000_000),
    };
    const disk = new MemoryDisk(random, segments, segmentBlocks);
    writeFirstCommit(disk, this.epoch);
    const clock = { wallMs: () => this.#nowS * 1_000, monotonicMs: () => (this.#nowS - startS) * 1_000 };
    const meter = {
      index: 0,
      name: "house",
      profile: "sdm630",
      slotS: 60,
      powerMaxW: 0,
      rowsPerMinute: 60,
      resolutionWh: 1,
    };
    this.#wallet = new Wallet({
      journal: new Journal(disk),
      policy: {
        ...emptyPolicy,
        meters: [{ ...meter, installation: 0, installationReason: "" }],
        nodes,
        plans: [{ plan, slotS, sealEveryS: batchS }],
      },
      key: this.key,
      clock,
      softwareId: "ecp-wallet/0.1.0",
      isolation: { permission: true, jitless: true, uid: 1_000 },
      bootId: random.bytes(16),
      timeMarks: "/nonexistent",
    });
    while (this.#wallet.checkNext() !== undefined);
  }

  get kid(): Uint8Array {
    return kidOf(this.key.publicKey, sha256);
  }

  /** The events that came before the first batch. */
  events(): SealedBatch[] {
    return this.#read(1, 1);
  }

  /** The next four rows, sealed as a record of their own. `nowS`: the time at which the last of them is read. */
  seal(nowS: number): SealedBatch {
    const rows = Array.from({ length: rowsPerBatch }, (_, i) => this.#row(nowS - (rowsPerBatch - 1 - i) * slotS));
    this.#nowS = nowS;
    const { sequences } = readSealAnswer(
      this.#ask({ type: "seal", meter: 0, plan, slotS, codes: [...codes], rows, closes: true }),
    );
    const sequence = sequences.at(-1) as number;
    const [batch] = this.#read(sequence, sequence);
    if (batch === undefined) throw new Error(`record ${sequence} may not leave bare`);
    return batch;
  }

  #row(timeS: number): Row {
    // 2 to 3 bytes of difference for one, as in a house with its own production.
    this.#stands.importWh += this.#random.integer(0, 2_500);
    this.#stands.exportWh += this.#random.integer(0, 1_500);
    return { timeS, status: 0, values: [this.#stands.importWh, this.#stands.exportWh] };
  }

  #read(from: number, to: number): SealedBatch[] {
    const { records } = readReadAnswer(this.#ask({ type: "read", from, to, bare: true }));
    return records.map(([sequence, bytes]) => ({
      ...{ epoch: this.epoch, sequence, bytes },
      digest: decodeRecord(bytes, sha256).digest,
    }));
  }

  /** What the wallet makes of a receipt: sequences that it says are stored. Throws {@link WalletRefusal}. */
  release(receipt: Uint8Array): readonly (readonly [first: number, last: number])[] {
    const { through, stored = [] } = readReleaseAnswer(this.#ask({ type: "release", receipt }));
    return [[1, through], ...stored];
  }

  #ask(request: WalletRequest) {
    const { fields } = decodeAnswer(this.#wallet.answer(encodeWalletRequest(++this.#id, request)));
    if (fields instanceof WalletRefusal) throw fields;
    return fields;
  }

  /** The same readings as a device of seven years seals them: its sequence needs four bytes. */
  asLate({ bytes }: SealedBatch): Uint8Array {
    const content = { ...this.#contentOf(bytes), sequence: 70_000 };
    return signRecord(content, this.key.sign);
  }

  /** Each reading of a batch as a record of its own. */
  alone({ bytes }: SealedBatch): Uint8Array[] {
    const content = this.#contentOf(bytes);
    return content.rows.map((row, i) => signRecord({ ...content, sequence: 70_000 + i, rows: [row] }, this.key.sign));
  }

  #contentOf(bytes: Uint8Array): ReadingContent {
    const { content } = decodeRecord(bytes, sha256);
    if (content.kind !== "reading") throw new Error("not a record of readings");
    return content;
  }
}

/** A wallet over real files in a folder of its own, with a clock that the test moves, and a full node's key for receipts. */
import assert from "node:assert/strict";
import { createHash, createPrivateKey, createPublicKey, type KeyObject, sign } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { TestContext } from "node:test";
import { digestOf, type Sha256, verifyCose } from "../../protocol/cose-sign1.ts";
import type { CborMap } from "../../protocol/deterministic-cbor.ts";
import {
  encodeLoraReceipt,
  type LoraReceipt,
  loraDigestBytes,
  loraReceiptInfo,
  loraReceiptTypes,
} from "../../protocol/lora-receipt.ts";
import { kidOf } from "../../protocol/public-key.ts";
import { type Receipt, signReceipt } from "../../protocol/receipt.ts";
import { decodeRecord, eventCodes, noPrevious, previousBytes, type Row } from "../../protocol/record.ts";
import { readHello, type WalletHello } from "../../protocol/wallet-hello.ts";
import {
  decodeAnswer,
  encodeWalletRequest,
  readReadAnswer,
  readReleaseAnswer,
  readSealAnswer,
  type SealRequest,
  WalletRefusal,
  type WalletRefusalReason,
  type WalletRequest,
} from "../../protocol/wallet-message.ts";
import { Journal } from "../../wallet/journal.ts";
import { type DeviceKey, deviceKeyOf } from "../../wallet/keystore.ts";
import { emptyPolicy, type PolicyMeter, type WalletPolicy } from "../../wallet/policy.ts";
import { verifyEd25519 } from "../../wallet/verification.ts";
import { Wallet } from "../../wallet/wallet.ts";

export const sha256: Sha256 = (bytes) => Uint8Array.from(createHash("sha256").update(bytes).digest());

/** 2027-01-15 08:00:00 UTC, on the hour. */
export const startS = 1_800_000_000;
export const segmentBlocks = 16;
export const epoch = 0x1234_5678;

export class NodeFixture {
  readonly publicKey: Uint8Array;
  readonly seed: Uint8Array;
  /** Its X25519 half. */
  readonly agreement: Pick<DeviceKey, "share" | "agree" | "agreeMac">;
  readonly #key: KeyObject;

  constructor(name = "node") {
    const seed = createHash("sha256").update(name).digest();
    this.seed = Uint8Array.from(seed);
    this.agreement = deviceKeyOf(this.seed);
    const der = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]);
    this.#key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
    const spki = createPublicKey(this.#key).export({ format: "der", type: "spki" });
    this.publicKey = Uint8Array.from(spki.subarray(-32));
  }

  get kid(): Uint8Array {
    return kidOf(this.publicKey, sha256);
  }

  /** A receipt in the 41 bytes of LoRaWAN, for the device of a share. */
  loraReceipt(content: Partial<LoraReceipt>, deviceShare: Uint8Array): Uint8Array {
    const { share, agreeMac } = this.agreement;
    const digest = content.digest?.slice(0, loraDigestBytes) ?? new Uint8Array(loraDigestBytes);
    const full = { type: loraReceiptTypes.stored, epoch, sequence: 0, bitmap: 0, timeS: startS, ...content, digest };
    return encodeLoraReceipt(full, agreeMac(deviceShare, loraReceiptInfo(deviceShare, share)));
  }

  receipt(content: Partial<Receipt> & Pick<Receipt, "device">, kid = kidOf(this.publicKey, sha256)): Uint8Array {
    const full: Receipt = { epoch, through: 0, ranges: [], held: false, refused: [], timeS: startS, ...content };
    return signReceipt(full, (message) => sign(null, message, this.#key), kid);
  }
}

export class TestClock {
  #wallMs = startS * 1_000;
  #monotonicMs = 0;
  wallMs = (): number => this.#wallMs;
  monotonicMs = (): number => this.#monotonicMs;
  /** Somebody sets the wall clock; monotonic time goes on as if nothing had happened. */
  set(wallS: number): void {
    this.#wallMs = wallS * 1_000;
  }

  /** The machine was switched on, and has no clock that runs on without it. */
  boot(wallS = 0): void {
    this.#wallMs = wallS * 1_000;
    this.#monotonicMs = 0;
  }

  /** Both clocks go on. */
  pass(seconds: number): void {
    this.#wallMs += seconds * 1_000;
    this.#monotonicMs += seconds * 1_000;
  }
}

export function meterOf(meter: Partial<PolicyMeter> = {}): PolicyMeter {
  return {
    index: 0,
    name: "house",
    profile: "sdm630",
    slotS: 1,
    powerMaxW: 0,
    rowsPerMinute: 6_000,
    resolutionWh: 1,
    installation: 0,
    installationReason: "",
    ...meter,
  };
}

export interface FixtureOptions {
  readonly policy?: Partial<WalletPolicy>;
  readonly segments?: number;
  readonly segmentBlocks?: number;
  /** Where the journal's folder is made, or is already: then it is opened as it is. */
  readonly parent?: string;
  readonly key?: DeviceKey;
}

export class WalletFixture {
  readonly folder: string;
  readonly clock = new TestClock();
  readonly key: DeviceKey;
  readonly node = new NodeFixture();
  policy: WalletPolicy;
  journal: Journal;
  wallet: Wallet;
  /** How far the clock goes at each seal, and to the end of its rows at least; 0: the test moves the clock. */
  secondsPerSeal = 1;
  /** Takes effect at the next restart. */
  retired = false;
  softwareId = "ecp-wallet/test";
  counter: number | undefined;
  bootId: Uint8Array = new Uint8Array(16).fill(1);
  #open = true;

  constructor(t: Pick<TestContext, "after">, options: FixtureOptions = {}) {
    const parent = options.parent ?? mkdtempSync(path.join(tmpdir(), "ecp-wallet-test-"));
    this.folder = path.join(parent, "journal");
    this.key = options.key ?? deviceKeyOf(new Uint8Array(32).fill(7));
    const nodes = [{ name: "node", publicKey: this.node.publicKey, share: this.node.agreement.share }];
    this.policy = { ...emptyPolicy, meters: [meterOf()], nodes, sealEveryS: 0, ...options.policy };
    if (!existsSync(this.folder))
      Journal.create(this.folder, epoch, options.segments ?? 4, options.segmentBlocks ?? segmentBlocks);
    this.journal = new Journal(this.folder);
    this.wallet = this.#wallet();
    t.after(() => {
      this.close();
      if (options.parent === undefined) rmSync(parent, { recursive: true, force: true });
    });
  }

  get kid(): Uint8Array {
    return kidOf(this.key.publicKey, sha256);
  }

  #wallet(): Wallet {
    const { journal, policy, key, clock, retired, softwareId, bootId } = this;
    const isolation = { permission: true, jitless: true, uid: 1_000 };
    const paths = { timeMarks: path.dirname(this.folder) };
    const counter = this.counter === undefined ? {} : { counter: this.counter };
    return new Wallet({ journal, policy, key, clock, retired, softwareId, bootId, isolation, ...paths, ...counter });
  }

  /** Closes the files, under the wallet where that is still in use. */
  close(): void {
    if (this.#open) this.journal.close();
    this.#open = false;
  }

  /** Ends the wallet without a word and starts it again, as after kill -9. */
  restart(): void {
    this.close();
    this.journal = new Journal(this.folder);
    this.#open = true;
    this.wallet = this.#wallet();
  }

  ask(request: WalletRequest): CborMap {
    const { fields } = decodeAnswer(this.wallet.answer(encodeWalletRequest(1, request)));
    if (fields instanceof WalletRefusal) throw fields;
    return fields;
  }

  hello(): WalletHello {
    return readHello(this.ask({ type: "hello" }));
  }

  /** Seals and gives the sequence of each row. */
  seal(rows: readonly Row[], request: Partial<SealRequest> = {}): readonly number[] {
    this.clock.pass(this.secondsPerSeal);
    const endS = Math.max(0, ...rows.map(({ timeS }) => timeS));
    if (this.secondsPerSeal > 0) this.clock.pass(Math.max(0, endS - this.clock.wallMs() / 1_000));
    const { meters } = this.policy;
    const slotS = meters.find((meter) => meter.index === (request.meter ?? 0))?.slotS ?? 1;
    const base = { type: "seal", meter: 0, plan: 0, slotS, codes: [2, 4] } as const;
    return readSealAnswer(this.ask({ ...base, rows, ...request })).sequences;
  }

  /** All records of an epoch, the running one if none is named, that can be read back, by sequence. */
  records(epoch = this.journal.epoch): Map<number, Uint8Array> {
    const records = new Map<number, Uint8Array>();
    for (let from = 1; from < 0xffff_ffff; ) {
      const answer = readReadAnswer(this.ask({ type: "read", from, to: 0xffff_ffff, epoch }));
      for (const [sequence, bytes] of answer.records) records.set(sequence, bytes);
      const last = answer.records.at(-1);
      if (last === undefined) break;
      from = last[0] + 1;
    }
    return records;
  }

  digestOf(sequence: number): Uint8Array {
    const answer = readReadAnswer(this.ask({ type: "read", from: sequence, to: sequence }));
    return decodeRecord((answer.records[0] as readonly [number, Uint8Array])[1], sha256).digest;
  }

  receiptThrough(through: number, node = this.node): Uint8Array {
    return node.receipt({ device: this.kid, through, digest: this.digestOf(through) });
  }

  release(through: number): number {
    return readReleaseAnswer(this.ask({ type: "release", receipt: this.receiptThrough(through) })).through;
  }

  releaseAll(): void {
    const { nextSequence } = this.journal;
    if (this.release(nextSequence - 1) !== nextSequence - 1) throw new Error("not released");
  }

  segmentFiles(): string[] {
    return readdirSync(this.folder)
      .sort()
      .map((name) => path.join(this.folder, name));
  }

  /** The bytes of all segments. */
  image(): Buffer[] {
    return this.segmentFiles().map((file) => readFileSync(file));
  }

  /** Puts the bytes of all segments on disk; the wallet must be restarted afterwards. */
  putImage(image: readonly Buffer[]): void {
    for (const [index, file] of this.segmentFiles().entries()) writeFileSync(file, image[index] as Buffer);
  }
}

/** A good row of two registers, different at each time. */
export function rowAt(timeS: number, status = 0): Row {
  return { timeS, status, values: [timeS - startS + 1_000, 2 * (timeS - startS)] };
}

export function rowsFrom(timeS: number, count: number, slotS = 1): Row[] {
  return Array.from({ length: count }, (_, i) => rowAt(timeS + i * slotS));
}

/**
 * The chain as a full node sees it: signatures hold, each record names its predecessor's digest, sequences rise by one but
 * past voids. Gives what each void covers.
 */
export function checkChain(records: ReadonlyMap<number, Uint8Array>, publicKey: Uint8Array): [number, number][] {
  const voids: [number, number][] = [];
  let last: { sequence: number; digest: Uint8Array } | undefined;
  for (const [sequence, bytes] of records) {
    const { cose, content } = decodeRecord(bytes, sha256);
    verifyCose(cose, publicKey, verifyEd25519);
    assert.equal(content.sequence, sequence);
    let expected = last === undefined ? sequence : last.sequence + 1;
    if (content.kind === "event")
      for (const [code, first, end] of content.events)
        if (code === eventCodes.void) {
          if (last) assert.equal(first, expected, "a void begins where the chain ended");
          assert.equal(end, sequence - 1, "a void ends before its own record");
          voids.push([first as number, end as number]);
          expected = sequence;
        }
    assert.equal(sequence, expected, "no sequence without a record or a void");
    const previous =
      last?.digest.slice(0, previousBytes) ??
      (sequence === 1 && content.epoch === epoch ? noPrevious : content.previous);
    assert.deepEqual(content.previous, previous, `record ${sequence} names its predecessor`);
    last = { sequence, digest: digestOf(cose, sha256) };
  }
  return voids;
}

export function refusal(reason: WalletRefusalReason): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof WalletRefusal, String(error));
    assert.equal(error.reason, reason);
    return true;
  };
}

export function eventsIn(records: ReadonlyMap<number, Uint8Array>, code: number): unknown[][] {
  return [...records.values()].flatMap((bytes) => {
    const { content } = decodeRecord(bytes, sha256);
    return content.kind === "event"
      ? content.events.filter(([other]) => other === code).map((event) => [...event])
      : [];
  });
}

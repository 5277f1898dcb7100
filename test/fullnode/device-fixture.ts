/** A device for tests: signs records, events and enrolment requests with node:crypto, as a wallet would. */
import { createHash, generateKeyPairSync, type KeyObject, randomBytes, verify } from "node:crypto";
import { digestOf, type Sha256 } from "../../protocol/cose-sign1.ts";
import { signEnrolmentRequest } from "../../protocol/enrolment.ts";
import { didKeyOf, kidOf, multibaseOf } from "../../protocol/public-key.ts";
import { decodeReceipt, type Receipt } from "../../protocol/receipt.ts";
import {
  decodeRecord,
  eventCodes,
  noPrevious,
  previousBytes,
  type RecordContent,
  type RecordEvent,
  type Row,
  signRecord,
} from "../../protocol/record.ts";
import { type RotationCertificate, signRotation } from "../../protocol/rotation.ts";
import { nodeKey, type TestKey } from "../vectors/signature-suite.ts";

export const sha256: Sha256 = (bytes) => Uint8Array.from(createHash("sha256").update(bytes).digest());

export interface SealedRecord {
  readonly bytes: Uint8Array;
  readonly digest: Uint8Array;
  readonly sequence: number;
  readonly epoch: number;
}

export const firstTimeS = 1_700_000_000;

export class DeviceFixture {
  /** The key of its name. */
  readonly publicKey: Uint8Array;
  readonly name: string;
  readonly did: string;
  readonly kid: Uint8Array;
  /** The records with its rotations. */
  readonly rotations: Uint8Array[] = [];
  /** The key of its name, as whoever copied its card has it. */
  readonly firstKey: TestKey;
  /** The key that signs now. */
  key: TestKey;
  epoch: number;
  sequence = 0;
  /** Digest of the last record sealed. */
  digest: Uint8Array | undefined;

  constructor(epoch = 0x1234_5678, key: TestKey = nodeKey(randomBytes(32))) {
    this.firstKey = key;
    this.key = key;
    this.publicKey = key.publicKey;
    this.name = multibaseOf(this.publicKey);
    this.did = didKeyOf(this.publicKey);
    this.kid = kidOf(this.publicKey, sha256);
    this.epoch = epoch;
  }

  sign = (message: Uint8Array): Uint8Array => this.key.sign(message);

  request(): Uint8Array {
    const share = Uint8Array.from(
      generateKeyPairSync("x25519").publicKey.export({ format: "der", type: "spki" }).subarray(-32),
    );
    const meters = [{ index: 0, name: "house", profile: "sdm630" }];
    const { epoch, rotations } = this;
    const { publicKey } = this.key;
    const rotated = { nameKey: this.publicKey, records: rotations };
    return signEnrolmentRequest(
      {
        ...{ publicKey, share, epoch, timeS: firstTimeS, softwareId: "ecp-test 1", meters },
        ...(rotations.length > 0 && { rotated }),
      },
      this.sign,
      sha256,
    );
  }

  /** Seals the next record of the chain: a snapshot of two energies, or the rows given. */
  reading(
    options: { timeS?: number; rows?: readonly Row[]; slotS?: number; meter?: number; clockState?: number } = {},
  ): SealedRecord {
    const next = this.sequence + 1;
    const timeS = options.timeS ?? firstTimeS + next * 60;
    return this.seal({
      kind: "reading",
      ...this.#link(next),
      clockState: options.clockState ?? 0,
      meter: options.meter ?? 0,
      plan: 0,
      slotS: options.slotS ?? 0,
      codes: [1, 2],
      rows: options.rows ?? [{ timeS, status: 0, values: [1_000 + (next % 500), 50_000_000 + next] }],
    });
  }

  readings(count: number): SealedRecord[] {
    return Array.from({ length: count }, () => this.reading());
  }

  events(...events: RecordEvent[]): SealedRecord {
    const next = this.sequence + 1;
    return this.seal({ kind: "event", ...this.#link(next), timeS: firstTimeS + next * 60, events });
  }

  /** Loses `count` sequences, as a wallet does after its journal's tail was spoilt, and seals the void that says so. */
  void(count: number): SealedRecord {
    const first = this.sequence + 1;
    const last = this.sequence + count;
    const link = { ...this.#link(last + 1) };
    return this.seal({ kind: "event", ...link, timeS: firstTimeS, events: [[eventCodes.void, first, last]] });
  }

  /** The record with the rotation to another key; `certificate` changes what the new key signs, `by` who signs it. */
  rotation(
    next: { key: TestKey; epoch: number },
    certificate: Partial<RotationCertificate> = {},
    by: TestKey = next.key,
  ): SealedRecord {
    const link = this.#link(this.sequence + 1);
    const signed = signRotation(
      {
        device: this.kid,
        epoch: link.epoch,
        sequence: link.sequence,
        previous: link.previous,
        nextEpoch: next.epoch,
        publicKey: next.key.publicKey,
        share: new Uint8Array(32),
        ...certificate,
      },
      by.sign,
    );
    return this.events([eventCodes.keyRotated, signed]);
  }

  /** Rotates the key: the record that ends the epoch; what follows is of the new key. */
  rotate(
    next: { key: TestKey; epoch: number } = { key: nodeKey(randomBytes(32)), epoch: this.epoch + 1 },
  ): SealedRecord {
    const record = this.rotation(next);
    this.rotations.push(record.bytes);
    this.begin(next.epoch, next.key);
    return record;
  }

  /** Goes on in another epoch; its first record follows the last one sealed. */
  begin(epoch: number, key = this.key): void {
    this.key = key;
    this.epoch = epoch;
    this.sequence = 0;
  }

  /** Seals any content and makes it the tail of the chain. */
  seal(content: RecordContent): SealedRecord {
    const bytes = signRecord(content, this.sign, kidOf(this.key.publicKey, sha256));
    const { cose } = decodeRecord(bytes, sha256);
    const digest = digestOf(cose, sha256);
    this.sequence = content.sequence;
    this.digest = digest;
    return { bytes, digest, sequence: content.sequence, epoch: content.epoch };
  }

  /** What a restored image of the device would be: the same key, an earlier tail. */
  rewind(to: SealedRecord | undefined): void {
    this.sequence = to?.sequence ?? 0;
    this.digest = to?.digest;
  }

  #link(sequence: number) {
    const previous = this.digest?.slice(0, previousBytes) ?? noPrevious;
    return { epoch: this.epoch, sequence, previous, clockState: 0, generation: 0 };
  }
}

/** Opens a receipt as a wallet does: by the key that it pinned. Throws where the signature does not hold. */
export function openReceipt(
  bytes: Uint8Array,
  nodeKey: KeyObject,
  toBeSigned: (receipt: Uint8Array) => Uint8Array,
): Receipt {
  const { cose, content } = decodeReceipt(bytes);
  if (!verify(null, toBeSigned(bytes), nodeKey, cose.signature))
    throw new Error("the receipt's signature does not hold");
  return content;
}

/** Whether a receipt says that a record is stored. */
export function acknowledges(receipt: Receipt, record: SealedRecord): boolean {
  const { sequence } = record;
  return (
    receipt.epoch === record.epoch &&
    (sequence <= receipt.through || receipt.ranges.some(({ first, last }) => sequence >= first && sequence <= last))
  );
}

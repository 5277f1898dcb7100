/** What a full node's receipt says in the 41 bytes that LoRaWAN has room for, and with which key for which device. */
import { UnusableShare } from "../platform/agreed-cipher.ts";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { openEnrolmentRequest } from "../protocol/enrolment.ts";
import {
  encodeLoraReceipt,
  type LoraMac,
  type LoraReceipt,
  loraBitmapBits,
  loraDigestBytes,
  loraReceiptTypes,
} from "../protocol/lora-receipt.ts";
import type { Receipt, ReceiptRange } from "../protocol/receipt.ts";
import { decodeRecord } from "../protocol/record.ts";
import { certificateIn } from "../protocol/rotation.ts";
import { type NodeKeys, sha256 } from "./node-keys.ts";
import type { KnownDevice } from "./registry.ts";
import type { EpochKey, Store, StoredDevice } from "./store.ts";

/** A record that came just now, and what became of it. */
export interface CameNow {
  readonly sequence: number;
  /** Without it a range is told of by its last record, from which the one that came may be too far away. */
  readonly digest?: Uint8Array;
  /** It contradicts the chain, and is kept as evidence. */
  readonly isEvidence?: boolean;
  /** It was there already. */
  readonly isRepeated?: boolean;
}

/**
 * The short form of a signed receipt's content, as an answer to a record. Where that is among the 32 behind `through`, or before
 * them, it is of type 1; farther behind, of type 2, around the range that the record is in; and of type 3 where it is evidence. What
 * came again, and is named under `kept`, is told of by type 2 as well.
 */
export function loraReceiptOf(
  receipt: Pick<Receipt, "epoch" | "through" | "digest" | "ranges" | "kept" | "timeS">,
  { sequence, digest, isEvidence, isRepeated }: CameNow,
): LoraReceipt {
  const { epoch, through, ranges, kept = [], timeS } = receipt;
  const isIn = (one: number, runs: readonly Pick<ReceiptRange, "first" | "last">[]): boolean =>
    runs.some(({ first, last }) => one >= first && one <= last);
  const isStored = (one: number): boolean => (one > 0 && one <= through) || isIn(one, ranges);
  const bitmapOf = (sequenceOf: (bit: number) => number, isNamed = isStored): number => {
    let bitmap = 0;
    for (let i = 0; i < loraBitmapBits; i++) bitmap = ((bitmap << 1) | (isNamed(sequenceOf(i)) ? 1 : 0)) >>> 0;
    return bitmap;
  };
  const named = (type: LoraReceipt["type"], at: number, of: Uint8Array, isNamed = isStored): LoraReceipt => ({
    ...{ type, epoch, sequence: at, timeS },
    bitmap: bitmapOf((i) => at - 1 - i, isNamed),
    digest: of.slice(0, loraDigestBytes),
  });
  if (isEvidence && digest) {
    // Of another chain than the ranges speak of: only its own run counts.
    const run = kept.filter((one) => isIn(sequence, [one]));
    return named(loraReceiptTypes.evidence, sequence, digest, (one) => isIn(one, run));
  }
  // An older card may have a part only of what `through` speaks of: it learns of its own record by that record's digest.
  if (isRepeated && digest && kept.some((one) => isIn(sequence, [one])))
    return named(loraReceiptTypes.storedBehindGap, sequence, digest);
  const range = ranges.find((one) => isIn(sequence, [one]));
  if (range && sequence > through + loraBitmapBits) {
    const isNear = digest === undefined || range.last - sequence <= loraBitmapBits;
    const [at, of] = isNear ? [range.last, range.digest] : [sequence, digest];
    return named(loraReceiptTypes.storedBehindGap, at, of);
  }
  return {
    ...{ type: loraReceiptTypes.stored, epoch, sequence: through, timeS },
    bitmap: bitmapOf((i) => through + 1 + i),
    digest: receipt.digest?.slice(0, loraDigestBytes) ?? new Uint8Array(loraDigestBytes),
  };
}

/** The short receipts of one node. */
export class LoraReceipts {
  readonly #store: Store;
  readonly #keys: Pick<NodeKeys, "loraMac">;
  /** The registry gives another object once a key of the device has changed: then its MAC is made anew. */
  readonly #macs = new WeakMap<KnownDevice, LoraMac>();

  constructor(store: Store, keys: Pick<NodeKeys, "loraMac">) {
    this.#store = store;
    this.#keys = keys;
  }

  /**
   * 41 bytes for a device, as an answer to a record that came just now. Undefined where no secret can be agreed on with the device:
   * the signed receipt must then reach it another way.
   */
  async receipt(device: KnownDevice, receipt: Receipt, came: CameNow): Promise<Uint8Array | undefined> {
    const mac = this.#macs.get(device) ?? (await this.#agreed(device));
    if (mac === undefined) return undefined;
    this.#macs.set(device, mac);
    return encodeLoraReceipt(loraReceiptOf(receipt, came), mac);
  }

  async #agreed(device: KnownDevice): Promise<LoraMac | undefined> {
    const share = await shareOf(this.#store, device);
    if (share === undefined) return undefined;
    try {
      return this.#keys.loraMac(share);
    } catch (error) {
      if (error instanceof UnusableShare) return undefined;
      throw error;
    }
  }
}

/**
 * The X25519 share of the key that the device has now: of its enrolment request, or of the certificate that rotated to the key.
 * Undefined where neither is there.
 */
async function shareOf(
  store: Pick<Store, "epochKeys" | "recordBytes" | "enrolmentRequest">,
  device: Pick<StoredDevice, "id" | "currentKey">,
): Promise<Uint8Array | undefined> {
  const epochs = await store.epochKeys(device.id);
  const publicKey = newestKey(device.currentKey, epochs);
  for (const { parent } of epochs.filter((epoch) => equalBytes(epoch.publicKey, publicKey))) {
    const bytes = parent && (await store.recordBytes(device.id, parent));
    const certificate = bytes && certificateIn(decodeRecord(bytes, sha256).content)?.certificate;
    if (certificate && equalBytes(certificate.publicKey, publicKey)) return certificate.share;
  }
  const bytes = await store.enrolmentRequest(device.id);
  if (bytes === undefined) return undefined;
  const { request } = openEnrolmentRequest(bytes, () => true, sha256); // it was verified when it came
  return equalBytes(request.publicKey, publicKey) ? request.share : undefined;
}

/**
 * The key that the wallet has. A rotation is the last that the old key signs: whoever sent it has the new one, whether or not the
 * records before it have come and settled it.
 */
function newestKey(currentKey: Uint8Array, epochs: readonly EpochKey[]): Uint8Array {
  let key = currentKey;
  const passed = new Set<number>();
  for (;;) {
    const ofKey = epochs.filter(({ publicKey }) => equalBytes(publicKey, key)).map(({ epoch }) => epoch);
    const next = epochs.find(
      ({ epoch, parent, decision }) =>
        parent !== undefined && decision !== "rejected" && ofKey.includes(parent.epoch) && !passed.has(epoch),
    );
    if (next === undefined) return key;
    passed.add(next.epoch);
    key = next.publicKey;
  }
}

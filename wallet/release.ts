/**
 * Receipts: what a full node's signature releases, and what it tells of a card that is older than the device's own past. The
 * agent only carries receipts: everything that they say is checked here.
 */
import { timingSafeEqual } from "node:crypto";
import { UnusableShare } from "../platform/agreed-cipher.ts";
import { type Verify, verifyCose } from "../protocol/cose-sign1.ts";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import {
  type DecodedLoraReceipt,
  decodeLoraReceipt,
  isLoraReceipt,
  type LoraMac,
  loraMacBytes,
  loraReceiptInfo,
  loraReceiptTypes,
  storedSequences,
} from "../protocol/lora-receipt.ts";
import { kidOf } from "../protocol/public-key.ts";
import { type DecodedReceipt, decodeReceipt, type Receipt, type ReceiptRange } from "../protocol/receipt.ts";
import { decodeRecord } from "../protocol/record.ts";
import { Refusal } from "../protocol/refusal.ts";
import { type ReleaseAnswer, readBytesMax, WalletRefusal } from "../protocol/wallet-message.ts";
import type { Journal } from "./journal.ts";
import type { JournalEpoch } from "./journal-epochs.ts";
import { sha256 } from "./journal-segments.ts";
import type { DeviceKey } from "./keystore.ts";
import type { PinnedNode } from "./policy.ts";
import { verifierOf } from "./verification.ts";

/** A record that a full node has, and this journal has not, or has another one in its place. */
export interface Contradiction {
  readonly epoch: number;
  readonly sequence: number;
  readonly digest: Uint8Array;
}

export interface ReleaseOptions {
  readonly journal: Journal;
  readonly nodes: readonly PinnedNode[];
  /** Agrees with the nodes on what their receipts over LoRaWAN are authenticated with. */
  readonly key: Pick<DeviceKey, "share" | "agreeMac">;
  /** kid of the device's name. */
  readonly device: Uint8Array;
  /**
   * Called when a verified receipt contradicts the running epoch: this card is older than the node's, or has a twin. Gives
   * what there is to say of it, for people.
   */
  readonly onContradiction: (contradiction: Contradiction) => string;
}

type StoredRun = readonly [first: number, last: number];

/** A receipt whose signature or MAC holds. One over LoRaWAN has the first 8 bytes of digests. */
interface VerifiedReceipt extends Pick<Receipt, "epoch" | "through" | "digest" | "ranges" | "kept"> {
  /** What it says is stored in the chain, with a digest or without. */
  readonly stored: readonly StoredRun[];
  /** The highest sequence that is named without a digest. */
  readonly highest?: number;
  /** The node's chain has other records than those that it says it keeps. */
  readonly contradicted?: true;
}

/** Places whose digest was compared; a receipt has 17 of them at most. */
const comparedMax = 64;

export class Releases {
  readonly #options: ReleaseOptions;
  /** Digests of sealed records that receipts have named rightly, by epoch and sequence. What is sealed never changes. */
  readonly #compared = new Map<string, Uint8Array>();
  readonly #nodes: readonly { readonly kid: Uint8Array; readonly publicKey: Uint8Array; readonly verify: Verify }[];
  /** Of each node whose share can be agreed with; made when the first receipt over LoRaWAN comes. */
  #macs: readonly LoraMac[] | undefined;

  constructor(options: ReleaseOptions) {
    this.#options = options;
    this.#nodes = options.nodes.map(({ publicKey }) => ({
      ...{ publicKey, kid: kidOf(publicKey, sha256), verify: verifierOf(publicKey) },
    }));
  }

  /** Releases what a receipt says is stored. Throws {@link WalletRefusal}. */
  release(bytes: Uint8Array): ReleaseAnswer {
    const { journal } = this.#options;
    const content = isLoraReceipt(bytes) ? this.#verifiedLora(bytes) : this.#verifiedSigned(bytes);
    const epoch = journal.epochs.find((item) => item.epoch === content.epoch);
    if (!epoch) throw new WalletRefusal("receipt-other-epoch", `${content.epoch} instead of ${journal.epoch}`);
    if (content.contradicted) this.#checkEvidence(content, epoch);
    let stored = this.#releaseKept(content, bytes);
    try {
      this.#releaseThrough(content, epoch, bytes);
      const isNamed = ([first, last]: StoredRun): boolean =>
        content.stored.some((run) => run[0] <= first && run[1] >= last);
      stored = [...content.stored, ...stored.filter((run) => !isNamed(run))];
    } catch (error) {
      // Of an epoch that was contradicted the node cannot say more than that it keeps these records.
      if (!(error instanceof WalletRefusal && stored.length > 0)) throw error;
    }
    const after = journal.epochs.find((item) => item.epoch === content.epoch);
    return { epoch: content.epoch, through: after?.through ?? epoch.last, stored };
  }

  /**
   * A record of the running epoch is kept as evidence: the node's chain of it is another wallet's, or an older past's. One of an
   * earlier epoch must be the journal's own.
   */
  #checkEvidence({ kept = [] }: VerifiedReceipt, epoch: JournalEpoch): void {
    const { journal } = this.#options;
    for (const { last, digest } of kept) {
      if (!this.#isOwn(epoch.epoch, last, digest))
        throw new WalletRefusal("receipt-digest-mismatch", `record ${last}, of which the node has another one`);
      if (epoch.epoch !== journal.epoch) continue;
      const said = this.#contradicted(epoch, { last, digest });
      throw new WalletRefusal("receipt-digest-mismatch", `record ${last} contradicts what the node has${said}`);
    }
  }

  /** Runs of an earlier epoch that the node keeps, be it as evidence: they are not lost. Gives them. */
  #releaseKept(content: VerifiedReceipt, bytes: Uint8Array): StoredRun[] {
    const { journal } = this.#options;
    if (content.epoch === journal.epoch) return [];
    // Each record names the one before, so the digest of the last speaks for the whole run.
    const runs = (content.kept ?? []).filter(({ last, digest }) => this.#isOwn(content.epoch, last, digest));
    for (const { first, last } of runs) journal.releaseRun(content.epoch, first, last, bytes);
    return runs.map(({ first, last }) => [first, last]);
  }

  #releaseThrough(content: VerifiedReceipt, epoch: JournalEpoch, bytes: Uint8Array): void {
    const { journal } = this.#options;
    const { through, digest, ranges, highest = 0 } = content;
    const last = epoch.epoch === journal.epoch ? journal.nextSequence - 1 : epoch.last;
    const newest = ranges.at(-1) ?? (digest && { last: through, digest });
    if (newest && newest.last > last) {
      const said = this.#contradicted(epoch, newest);
      throw new WalletRefusal("receipt-beyond-sealed", `${newest.last}, sealed up to ${last}${said}`);
    }
    if (highest > last) throw new WalletRefusal("receipt-beyond-sealed", `${highest}, sealed up to ${last}`);
    for (const range of ranges) this.#checkDigest(epoch, range);
    if (digest && through > epoch.through) {
      this.#checkDigest(epoch, { last: through, digest });
      journal.release(through, bytes, epoch.epoch);
    }
  }

  #verifiedSigned(bytes: Uint8Array): VerifiedReceipt {
    const { content } = this.#verified(bytes);
    if (!equalBytes(content.device, this.#options.device)) throw new WalletRefusal("receipt-other-device");
    return { ...content, stored: storedRuns(content) };
  }

  /** Whose MAC holds was made by a pinned node for this very key of this device: nobody else has the secret. */
  #verifiedLora(bytes: Uint8Array): VerifiedReceipt {
    let receipt: DecodedLoraReceipt;
    try {
      receipt = decodeLoraReceipt(bytes);
    } catch (error) {
      if (error instanceof Refusal) throw new WalletRefusal("receipt-invalid", error.message);
      throw error;
    }
    const { type, epoch, sequence, digest, signed, mac } = receipt;
    this.#macs ??= this.#options.nodes.flatMap((node) => this.#macOf(node));
    if (!this.#macs.some((make) => timingSafeEqual(make(signed).subarray(0, loraMacBytes), mac)))
      throw new WalletRefusal("receipt-invalid", "its MAC is of no pinned node's and this key's");
    const stored = storedSequences(receipt);
    if (type === loraReceiptTypes.stored) {
      const [, highest = 0] = stored.at(-1) ?? [];
      return { epoch, through: sequence, ranges: [], ...(sequence > 0 && { digest }), stored, highest };
    }
    const [first, last] = stored.at(-1) as StoredRun;
    const kept = [{ first, last, digest }];
    if (type === loraReceiptTypes.evidence)
      return { epoch, through: 0, ranges: [], kept, stored: [], contradicted: true };
    return { epoch, through: 0, ranges: [{ first: last, last, digest }], kept, stored };
  }

  #macOf({ share }: PinnedNode): LoraMac[] {
    const { key } = this.#options;
    try {
      return [key.agreeMac(share, loraReceiptInfo(key.share, share))];
    } catch (error) {
      if (error instanceof UnusableShare) return [];
      throw error;
    }
  }

  #verified(bytes: Uint8Array): DecodedReceipt {
    try {
      const receipt = decodeReceipt(bytes);
      const { kid } = receipt.cose;
      const node = this.#nodes.find((item) => kid !== undefined && equalBytes(item.kid, kid));
      if (!node) throw new WalletRefusal("receipt-not-pinned");
      verifyCose(receipt.cose, node.publicKey, node.verify);
      return receipt;
    } catch (error) {
      if (error instanceof Refusal) throw new WalletRefusal("receipt-invalid", error.message);
      throw error;
    }
  }

  #checkDigest(epoch: JournalEpoch, place: Pick<ReceiptRange, "last" | "digest">): void {
    // Receipts name the same ranges again and again; each look would have another segment read while a backlog is sent.
    const name = `${epoch.epoch}/${place.last}`;
    const compared = this.#compared.get(name);
    if (compared && equalBytes(compared, place.digest)) return;
    const { journal } = this.#options;
    const record = this.#record(epoch.epoch, place.last);
    if (record === undefined) {
      // Recycled records were released before; any other sequence without a record cannot be acknowledged.
      if (place.last < epoch.first) return;
      throw new WalletRefusal("receipt-digest-mismatch", `${place.last} is void`);
    }
    // Of the newest record, which receipts name while little waits, the journal has the digest at hand.
    const isNewest = epoch.epoch === journal.epoch && place.last === journal.nextSequence - 1;
    const digest = isNewest ? journal.lastDigest : decodeRecord(record, sha256).digest;
    if (beginsWith(digest, place.digest)) {
      for (const oldest of this.#compared.keys()) if (this.#compared.size >= comparedMax) this.#compared.delete(oldest);
      this.#compared.set(name, place.digest);
      return;
    }
    const said = this.#contradicted(epoch, place);
    throw new WalletRefusal("receipt-digest-mismatch", `record ${place.last}${said}`);
  }

  /** Whether the journal has the record of this digest, or of one that begins so. */
  #isOwn(epoch: number, sequence: number, digest: Uint8Array): boolean {
    const record = this.#record(epoch, sequence);
    return record !== undefined && beginsWith(decodeRecord(record, sha256).digest, digest);
  }

  #contradicted({ epoch }: JournalEpoch, { last, digest }: Pick<ReceiptRange, "last" | "digest">): string {
    const { journal, onContradiction } = this.#options;
    return epoch === journal.epoch ? onContradiction({ epoch, sequence: last, digest }) : "";
  }

  #record(epoch: number, sequence: number): Uint8Array | undefined {
    return this.#options.journal.records(sequence, sequence, readBytesMax, epoch)[0]?.[1];
  }
}

function beginsWith(digest: Uint8Array, start: Uint8Array): boolean {
  return equalBytes(digest.subarray(0, start.length), start);
}

/** What a signed receipt says is stored in the chain, ascending. */
function storedRuns({ through, ranges }: Receipt): StoredRun[] {
  const runs = ranges.map(({ first, last }): StoredRun => [first, last]);
  return through > 0 ? [[1, through], ...runs] : runs;
}

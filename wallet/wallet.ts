/** The wallet: answers the requests of wallet-message.ts, one at a time. Alone holds the key, the sequence and the journal. */
import type { Clock } from "../platform/clock.ts";
import { verifyCose } from "../protocol/cose-sign1.ts";
import type { CborMap } from "../protocol/deterministic-cbor.ts";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { type EnrolmentRequest, signEnrolmentRequest } from "../protocol/enrolment.ts";
import { kidOf } from "../protocol/public-key.ts";
import { type DecodedReceipt, decodeReceipt } from "../protocol/receipt.ts";
import { decodeRecord, eventCodes } from "../protocol/record.ts";
import { Refusal } from "../protocol/refusal.ts";
import {
  decodeWalletRequest,
  encodeAnswer,
  encodeRefusal,
  enrolFields,
  helloFields,
  readBytesMax,
  readFields,
  releaseFields,
  sealFields,
  type WalletHello,
  WalletRefusal,
  type WalletRequest,
} from "../protocol/wallet-message.ts";
import { timeOf } from "./clock-state.ts";
import type { Journal } from "./journal.ts";
import { sha256 } from "./journal-segments.ts";
import type { Hole } from "./journal-walk.ts";
import type { DeviceKey } from "./keystore.ts";
import { encodePolicy, type WalletPolicy } from "./policy.ts";
import { Sealer } from "./sealing.ts";
import { verifyEd25519 } from "./verification.ts";

export interface Isolation {
  readonly permission: boolean;
  readonly jitless: boolean;
  readonly uid: number;
}

export interface WalletOptions {
  readonly journal: Journal;
  readonly policy: WalletPolicy;
  /** The key that signs now. Of a retired device only its public half: nothing is signed any more. */
  readonly key: DeviceKey;
  /** Where the key was rotated: the key of the device's name, and the records that lead from it to `key`. */
  readonly rotated?: NonNullable<EnrolmentRequest["rotated"]>;
  readonly keyProtection?: WalletHello["keyProtection"];
  readonly retired?: boolean;
  readonly clock: Clock;
  readonly softwareId: string;
  readonly isolation: Isolation;
}

/** Requests that need the key. */
const signingRequests: ReadonlySet<WalletRequest["type"]> = new Set(["enrol", "seal", "statement"]);

export class Wallet {
  readonly #options: WalletOptions;
  readonly #kid: Uint8Array;
  /** kid of the device's name. */
  readonly #device: Uint8Array;
  readonly #policyDigest: Uint8Array;
  readonly #sealer: Sealer;
  readonly #check: Generator<readonly Hole[]>;
  #holes = 0;

  /** Seals at once what recovery and start ask for. */
  constructor(options: WalletOptions) {
    const { journal, policy, key, clock } = options;
    this.#options = options;
    this.#kid = kidOf(key.publicKey, sha256);
    this.#device = options.rotated ? kidOf(options.rotated.nameKey, sha256) : this.#kid;
    this.#policyDigest = sha256(encodePolicy(policy));
    this.#sealer = new Sealer({ journal, policy, key, kid: this.#kid, clock });
    if (!options.retired) this.#sealer.begin([[eventCodes.started, options.softwareId, this.#policyDigest]]);
    this.#check = journal.check();
  }

  /** One step of the check of the whole ring: what is missing is sealed as an event. Gives the holes; undefined at the end. */
  checkNext(): readonly Hole[] | undefined {
    const { done, value: holes } = this.#check.next();
    if (done) return undefined;
    this.#holes += holes.length;
    if (this.#options.retired) return holes;
    this.#sealer.report(
      holes.map(({ segment, firstBlock, lastBlock, firstCommit, lastCommit }) => [
        eventCodes.storageError,
        `segment ${segment}, blocks ${firstBlock}-${lastBlock}: commits ${firstCommit}-${lastCommit} missing`,
      ]),
    );
    return holes;
  }

  /** The answer to one framed message. Never throws for what an agent sends; a failing disk does throw, and must end us. */
  answer(message: Uint8Array): Uint8Array {
    const { id, request } = decodeWalletRequest(message);
    if (request instanceof WalletRefusal) return encodeRefusal(id, request);
    try {
      return encodeAnswer(id, this.#fields(request));
    } catch (error) {
      if (error instanceof WalletRefusal) return encodeRefusal(id, error);
      throw error;
    }
  }

  #fields(request: WalletRequest): CborMap {
    if (this.#options.retired && signingRequests.has(request.type)) throw new WalletRefusal("key-retired");
    switch (request.type) {
      case "hello":
        return helloFields(this.hello());
      case "enrol":
        return enrolFields(this.#enrolmentRequest());
      case "seal":
        return sealFields(this.#sealer.seal(request));
      case "read":
        return readFields({ records: this.#options.journal.records(request.from, request.to, readBytesMax) });
      case "release":
        return releaseFields(this.#release(request.receipt));
      case "statement":
        throw new WalletRefusal("period-not-held");
    }
  }

  hello(): WalletHello {
    const { journal, policy, key, rotated, keyProtection, retired, softwareId, isolation } = this.#options;
    return {
      softwareId,
      publicKey: key.publicKey,
      epoch: journal.epoch,
      nextSequence: journal.nextSequence,
      through: journal.releasedThrough,
      policyDigest: this.#policyDigest,
      clockState: this.#sealer.clockState,
      generation: journal.generation,
      ...isolation,
      meters: policy.meters.map(({ index, slotS }) => ({ index, slotS, lastTimeS: this.#lastTimeS(index) })),
      sealEveryS: policy.sealEveryS,
      pinnedNodes: policy.nodes.length,
      segments: journal.segments,
      segmentsInUse: journal.segmentsInUse,
      pendingRows: journal.pendingRows.length,
      firstSequence: journal.firstSequence,
      nameKey: rotated?.nameKey ?? key.publicKey,
      earlierEpochs: [],
      keyProtection: keyProtection ?? "passphrase",
      retired: retired ?? false,
      holes: this.#holes,
    };
  }

  /** End of the newest row of a meter's full plan, in the running generation; 0 where there is none. */
  #lastTimeS(meter: number): number {
    const { journal } = this.#options;
    const last = journal.lastRow(meter, 0);
    return last?.generation === journal.generation ? last.timeS : 0;
  }

  #enrolmentRequest(): Uint8Array {
    const { journal, policy, key, rotated, clock, softwareId } = this.#options;
    const meters = policy.meters.map(({ index, name, profile }) => ({ index, name, profile }));
    const timeS = timeOf(clock);
    const { publicKey, share } = key;
    return signEnrolmentRequest(
      { publicKey, share, epoch: journal.epoch, timeS, softwareId, meters, ...(rotated && { rotated }) },
      key.sign,
      sha256,
    );
  }

  /** Releases what a receipt says is stored. The agent only carries it: everything it says is checked here. */
  #release(bytes: Uint8Array): { epoch: number; through: number } {
    const { journal } = this.#options;
    const { content } = this.#verifiedReceipt(bytes);
    if (!equalBytes(content.device, this.#device)) throw new WalletRefusal("receipt-other-device");
    if (content.epoch !== journal.epoch)
      throw new WalletRefusal("receipt-other-epoch", `${content.epoch} instead of ${journal.epoch}`);
    const highest = content.ranges.at(-1)?.last ?? content.through;
    if (highest >= journal.nextSequence)
      throw new WalletRefusal("receipt-beyond-sealed", `${highest}, sealed up to ${journal.nextSequence - 1}`);
    for (const range of content.ranges) this.#checkDigest(range.last, range.digest);
    if (content.digest && content.through > journal.releasedThrough) {
      this.#checkDigest(content.through, content.digest);
      journal.release(content.through, bytes);
    }
    return { epoch: journal.epoch, through: journal.releasedThrough };
  }

  #verifiedReceipt(bytes: Uint8Array): DecodedReceipt {
    const { policy } = this.#options;
    try {
      const receipt = decodeReceipt(bytes);
      const { kid } = receipt.cose;
      const node = policy.nodes.find((item) => kid !== undefined && equalBytes(kidOf(item.publicKey, sha256), kid));
      if (!node) throw new WalletRefusal("receipt-not-pinned");
      verifyCose(receipt.cose, node.publicKey, verifyEd25519);
      return receipt;
    } catch (error) {
      if (error instanceof Refusal) throw new WalletRefusal("receipt-invalid", error.message);
      throw error;
    }
  }

  #checkDigest(sequence: number, digest: Uint8Array): void {
    const [found] = this.#options.journal.records(sequence, sequence, readBytesMax);
    if (!found) {
      // Recycled records were released before; any other sequence without a record cannot be acknowledged.
      if (sequence < this.#options.journal.firstSequence) return;
      throw new WalletRefusal("receipt-digest-mismatch", `${sequence} is void`);
    }
    if (!equalBytes(decodeRecord(found[1], sha256).digest, digest))
      throw new WalletRefusal("receipt-digest-mismatch", `record ${sequence}`);
  }
}

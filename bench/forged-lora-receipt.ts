/** Receipts of 41 bytes that no pinned node has made for this wallet, and verifiers without one of the checks that some of them pass. */
import { createHmac, hkdfSync } from "node:crypto";
import {
  decodeLoraReceipt,
  encodeLoraReceipt,
  type LoraMac,
  type LoraReceipt,
  loraMacBytes,
  loraReceiptBytes,
  loraReceiptInfo,
  loraReceiptTypes,
} from "../protocol/lora-receipt.ts";
import { Refusal } from "../protocol/refusal.ts";
import type { SeededRandom } from "../test/protocol/seeded-random.ts";
import { NodeFixture, startS, type WalletFixture } from "../test/wallet/wallet-fixture.ts";
import { deviceKeyOf } from "../wallet/keystore.ts";
import { flippedBit } from "./forged-signature.ts";

const signedBytes = loraReceiptBytes - loraMacBytes;
const otherNode = new NodeFixture("another community's node");
const otherDevice = deviceKeyOf(new Uint8Array(32).fill(0x5a));

/** One of each kind. */
export function forgedLoraReceipts(wallet: WalletFixture, random: SeededRandom): Uint8Array[] {
  const newest = wallet.journal.nextSequence - 1;
  const sequence = random.integer(1, newest);
  const truth: LoraReceipt = {
    type: random.chance(80) ? loraReceiptTypes.stored : loraReceiptTypes.storedBehindGap,
    ...{ epoch: wallet.journal.epoch, sequence, bitmap: 0, digest: wallet.digestOf(sequence).slice(0, 8) },
    timeS: startS,
  };
  const { share } = wallet.key;
  const genuine = wallet.node.loraReceipt(truth, share);
  const other = wallet.node.loraReceipt({ ...truth, sequence: random.integer(1, newest), timeS: startS + 1 }, share);
  const macOf = (bytes: Uint8Array): Uint8Array => bytes.subarray(signedBytes);
  const withMac = (mac: Uint8Array): Uint8Array => Uint8Array.from([...genuine.subarray(0, signedBytes), ...mac]);
  const at = random.integer(0, signedBytes - 1);
  return [
    flippedBit(genuine, random),
    genuine.with(at, (genuine[at] as number) ^ random.integer(1, 255)),
    withMac(random.bytes(loraMacBytes)),
    withMac(macOf(other)),
    withMac(Uint8Array.from([...macOf(genuine).subarray(0, 4), ...random.bytes(12)])),
    genuine.slice(0, random.integer(1, loraReceiptBytes - 1)),
    Uint8Array.from([...genuine, ...random.bytes(random.integer(1, 8))]),
    otherNode.loraReceipt(truth, share),
    wallet.node.loraReceipt(truth, otherDevice.share),
    wallet.node.loraReceipt({ ...truth, epoch: random.uint32() }, share),
    encodeLoraReceipt(truth, macOfZeros(share, wallet.node.agreement.share)),
    encodeLoraReceipt(truth, wallet.node.agreement.agreeMac(share, loraReceiptInfo(new Uint8Array(32), share))),
    wallet.receiptThrough(sequence).slice(0, loraReceiptBytes),
  ].filter((bytes) => Buffer.compare(bytes, genuine) !== 0);
}

/** What whoever takes the secret for zeros computes. */
function macOfZeros(deviceShare: Uint8Array, nodeShare: Uint8Array): LoraMac {
  const info = loraReceiptInfo(deviceShare, nodeShare);
  const key = new Uint8Array(hkdfSync("sha256", new Uint8Array(32), new Uint8Array(0), info, 32));
  return (message) => createHmac("sha256", key).update(message).digest();
}

/** What verifiers without one of the checks have accepted. */
export class CarelessMacs {
  readonly accepted = { withoutMac: 0, withFourBytesOfIt: 0, withoutLength: 0, withoutPinnedNode: 0, withoutEpoch: 0 };

  get smallest(): number {
    return Math.min(...Object.values(this.accepted));
  }

  try(bytes: Uint8Array, wallet: WalletFixture): void {
    const { share } = wallet.key;
    const macWith = ({ agreement }: NodeFixture): LoraMac =>
      agreement.agreeMac(share, loraReceiptInfo(share, agreement.share));
    const cut = bytes.subarray(0, loraReceiptBytes);
    const receipt = decoded(cut);
    if (receipt === undefined) return;
    const isHere = receipt.epoch === wallet.journal.epoch && receipt.sequence < wallet.journal.nextSequence;
    const holds = (node: NodeFixture, length: number = loraMacBytes): boolean =>
      Buffer.compare(macWith(node)(receipt.signed).subarray(0, length), receipt.mac.subarray(0, length)) === 0;
    const isPinned = holds(wallet.node);
    if (isHere && !isPinned) this.accepted.withoutMac++;
    if (isHere && !isPinned && holds(wallet.node, 4)) this.accepted.withFourBytesOfIt++;
    if (isHere && isPinned && bytes.length > loraReceiptBytes) this.accepted.withoutLength++;
    if (isHere && holds(otherNode)) this.accepted.withoutPinnedNode++;
    if (!isHere && isPinned) this.accepted.withoutEpoch++;
  }
}

function decoded(bytes: Uint8Array): ReturnType<typeof decodeLoraReceipt> | undefined {
  try {
    return decodeLoraReceipt(bytes);
  } catch (error) {
    if (error instanceof Refusal) return undefined;
    throw error;
  }
}

/** Receipts that are signed by rights, and not for this wallet: of another node, or for another device or epoch. */
import { kidOf } from "../protocol/public-key.ts";
import { type Receipt, signReceipt } from "../protocol/receipt.ts";
import type { SeededRandom } from "../test/protocol/seeded-random.ts";
import { keyOfLabel, sha256, type TestKey } from "../test/vectors/signature-suite.ts";
import { startS, type WalletFixture } from "../test/wallet/wallet-fixture.ts";

const otherNode = keyOfLabel("another community's node");

export interface SignedReceipt {
  readonly bytes: Uint8Array;
  readonly key: { readonly publicKey: Uint8Array; readonly isPinned: boolean };
}

export function receiptsOfOthers(wallet: WalletFixture, pinned: TestKey, random: SeededRandom): SignedReceipt[] {
  const through = random.integer(1, wallet.journal.nextSequence - 1);
  const truth: Receipt = {
    ...{ device: wallet.kid, epoch: wallet.journal.epoch, through, digest: wallet.digestOf(through) },
    ...{ ranges: [], held: false, refused: [], timeS: startS },
  };
  const signed = (receipt: Receipt, key: TestKey, kid = key.publicKey): SignedReceipt => ({
    bytes: signReceipt(receipt, key.sign, kidOf(kid, sha256)),
    key: { publicKey: key.publicKey, isPinned: key === pinned },
  });
  return [
    signed(truth, otherNode),
    signed(truth, otherNode, pinned.publicKey),
    signed({ ...truth, device: random.bytes(8) }, pinned),
    signed({ ...truth, epoch: random.uint32() }, pinned),
  ];
}

/** Whether records leave the wallet encrypted, and to whom: as its policy says, which the agent does not write. */
import { UnusableShare } from "../platform/agreed-cipher.ts";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { encryptionInfo, encryptRecord } from "../protocol/encrypted-record.ts";
import type { RecordForm } from "../protocol/wallet-hello.ts";
import { WalletRefusal } from "../protocol/wallet-message.ts";
import type { DeviceKey } from "./keystore.ts";
import type { PinnedNode, WalletPolicy } from "./policy.ts";

export interface RecordEncryption {
  readonly form: RecordForm;
  /** The record as it leaves the wallet. Throws {@link WalletRefusal} where it must not leave at all. */
  readonly seal: (record: Uint8Array) => Uint8Array;
}

export function recordEncryption(key: DeviceKey, policy: WalletPolicy): RecordEncryption {
  if (policy.encryptTo === "nobody") return { form: "plain", seal: (record) => record };
  const node = recipientOf(policy);
  if (node === undefined) return withheld("no full node is pinned that they are to be encrypted to");
  try {
    const cipher = key.agree(node.share, encryptionInfo(key.share, node.share));
    return { form: "encrypted", seal: (record) => encryptRecord(record, key.share, cipher) };
  } catch (error) {
    if (error instanceof UnusableShare) return withheld(error.message);
    throw error;
  }
}

function recipientOf({ encryptTo, nodes }: WalletPolicy): PinnedNode | undefined {
  if (typeof encryptTo === "string") return nodes[0];
  return nodes.find(({ publicKey }) => equalBytes(publicKey, encryptTo));
}

function withheld(detail: string): RecordEncryption {
  return {
    form: "withheld",
    seal: () => {
      throw new WalletRefusal("no-recipient", detail);
    },
  };
}

/** Opens records that travelled encrypted to this node (protocol/encrypted-record.ts). What comes out is verified like any other. */
import { UnusableShare } from "../platform/agreed-cipher.ts";
import {
  decodeEncrypted,
  decryptRecord,
  encryptionInfo,
  isEncrypted,
  type RecordCipher,
} from "../protocol/encrypted-record.ts";
import { Refusal } from "../protocol/refusal.ts";
import type { NodeKeys } from "./node-keys.ts";

/** Agreed keys that are kept, one for each device. Anybody may send another share: what is used stays, what is not goes. */
const cachedSharesMax = 20_000;

export class SealedEnvelopes {
  readonly #keys: Pick<NodeKeys, "share" | "agree">;
  /** By the device's share; the newest used last. */
  readonly #ciphers = new Map<string, RecordCipher>();

  constructor(keys: Pick<NodeKeys, "share" | "agree">) {
    this.#keys = keys;
  }

  /** The record inside; a message that is not encrypted comes back as it is. Throws {@link Refusal}. */
  open(bytes: Uint8Array): Uint8Array {
    if (!isEncrypted(bytes)) return bytes;
    const envelope = decodeEncrypted(bytes);
    const name = Buffer.from(envelope.deviceShare).toString("latin1");
    const known = this.#ciphers.get(name);
    const cipher = known ?? this.#agree(envelope.deviceShare);
    const record = decryptRecord(envelope, cipher);
    // Only a share with which something was opened is kept: what a stranger makes up costs no room.
    if (known) this.#ciphers.delete(name);
    else if (this.#ciphers.size >= cachedSharesMax)
      for (const oldest of this.#ciphers.keys()) {
        this.#ciphers.delete(oldest);
        break;
      }
    this.#ciphers.set(name, cipher);
    return record;
  }

  #agree(deviceShare: Uint8Array): RecordCipher {
    try {
      return this.#keys.agree(deviceShare, encryptionInfo(deviceShare, this.#keys.share));
    } catch (error) {
      if (error instanceof UnusableShare) throw new Refusal("cannot-decrypt", error.message);
      throw error;
    }
  }
}

/** Whether a message is a record that may be placed: its form, its device, the key of its epoch, its signature. */
import { type KeyObject, verify } from "node:crypto";
import {
  type CoseSign1,
  contentTypes,
  decodeCose,
  encodeCose,
  toBeSigned,
  type Verify,
} from "../protocol/cose-sign1.ts";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { parseTopic } from "../protocol/mqtt-topic.ts";
import { vetPublicKey } from "../protocol/public-key.ts";
import { decodeRecordPayload, type RecordContent, recordBytesMax } from "../protocol/record.ts";
import { Refusal } from "../protocol/refusal.ts";
import { type RotationCertificate, rotationIn } from "../protocol/rotation.ts";
import type { Arrival } from "./chain.ts";
import { droppedOf, voidOf } from "./chain-events.ts";
import { ed25519PublicKey, sha256 } from "./node-keys.ts";
import { type KnownDevice, keyOfName, type Registry } from "./registry.ts";
import type { QuarantinedRecord, Store } from "./store.ts";
import type { VerdictReason } from "./verdict.ts";

export const quarantinePerNameMax = 64;
export const quarantineTotalMax = 4_096;
const cachedTopicsMax = 50_000;

export interface Message {
  readonly topic: string;
  readonly payload: Uint8Array;
  readonly receivedMs: number;
  /** Set where the record comes out of quarantine. */
  readonly adopted?: QuarantinedRecord;
  /** Set where it has waited for the key of its epoch. */
  readonly early?: true;
}

/** A record whose signature holds. */
export interface Examined extends Arrival {
  readonly message: Message;
  readonly name: string;
  /** Undefined: nobody has enrolled it. */
  readonly device: KnownDevice | undefined;
  readonly signedBy: Uint8Array;
  readonly rotation?: RotationCertificate;
}

export interface Refused {
  readonly refused: VerdictReason;
  readonly message: Message;
  readonly detail?: string;
  /** The epoch whose key is not known, or another than this one: the record may hold once it is. */
  readonly early?: { readonly name: string; readonly epoch: number; readonly publicKey: Uint8Array };
}

const verifyNow: Verify = (publicKey, message, signature) =>
  verify(null, message, ed25519PublicKey(publicKey), signature);

export class RecordExamination {
  readonly #store: Store;
  readonly #registry: Registry;
  readonly #namesByTopic = new Map<string, string>();

  constructor(store: Store, registry: Registry) {
    this.#store = store;
    this.#registry = registry;
  }

  /** @param mayHold whether the place of this record may be taken; asked before the store is */
  async examine(
    message: Message,
    mayHold: (device: number, epoch: number, sequence: number) => boolean,
  ): Promise<Examined | Refused> {
    try {
      return await this.#examine(message, mayHold);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return { refused: error.reason, message, detail: error.message };
    }
  }

  async #examine(
    message: Message,
    mayHold: (device: number, epoch: number, sequence: number) => boolean,
  ): Promise<Examined | Refused> {
    const name = this.#nameOf(message.topic);
    if (name === undefined) return { refused: "unknown-topic", message };
    const cose = decodeCose(message.payload, contentTypes.record, recordBytesMax);
    const content = decodeRecordPayload(cose.payload);
    const voided = voidOf(content);
    if (voided === "bad-void") return { refused: voided, message };
    const dropped = droppedOf(content);
    if (dropped === undefined) return { refused: "bad-dropped", message };
    // The form without tag and kid: what a broker adds or changes outside the signature is not stored.
    const { protectedHeader, payload, signature } = cose;
    const bytes = encodeCose({ protectedHeader, payload, signature });
    const digest = sha256(bytes);
    const { receivedMs } = message;
    const arrival = { message, name, content, bytes, digest, receivedMs, dropped, ...(voided && { voided }) };
    const device = await this.#registry.device(name);
    if (device === undefined) return await this.#examineStranger({ ...arrival, device }, cose);

    const { epoch, sequence } = content;
    const known = device.keys.get(epoch);
    const { publicKey, key, kid } = known ?? device.current;
    const record = { ...arrival, device, signedBy: publicKey };
    // The digest covers the signature, so a record that is stored with this digest has been verified.
    if (known && mayHold(device.id, epoch, sequence)) {
      const [stored] = await this.#store.digests([{ device: device.id, epoch, sequence }]);
      if (stored && equalBytes(stored, digest)) return record;
    }
    if (await holds(cose, key)) return this.#withRotation(record, content, device);
    for (const other of known ? [] : device.rejected)
      if (await holds(cose, other.key))
        return this.#withRotation({ ...record, signedBy: other.publicKey }, content, device);
    // The kid is a hint that anyone may have changed: it only says which refusal helps most.
    const isOther = cose.kid !== undefined && !equalBytes(cose.kid, kid);
    const early = { name, epoch, publicKey };
    if (known && !isOther) return { refused: "signature-invalid", message };
    if (known) return { refused: "wrong-device", message, early };
    const isOld = [...device.keys.values()].some((one) => cose.kid !== undefined && equalBytes(cose.kid, one.kid));
    const refused = isOther ? (isOld ? "old-key" : "unknown-key") : "signature-invalid";
    return { refused, message, early };
  }

  #withRotation(record: Omit<Examined, "rotation">, content: RecordContent, device: KnownDevice): Examined | Refused {
    try {
      const rotation = rotationIn({ content }, device.kid, verifyNow);
      return rotation ? { ...record, rotation } : record;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return { refused: "bad-rotation", message: record.message, detail: error.message };
    }
  }

  /** A record of a device that nobody enrolled is kept if the key that its topic names has signed it, and there is room. */
  async #examineStranger(record: Omit<Examined, "signedBy">, cose: CoseSign1): Promise<Examined | Refused> {
    const { message } = record;
    const { ofName, total } = await this.#store.quarantineCount(record.name);
    if (ofName >= quarantinePerNameMax || total >= quarantineTotalMax) return { refused: "quarantine-full", message };
    const { publicKey, key } = keyOfName(record.name);
    if (!(await holds(cose, key))) return { refused: "signature-invalid", message };
    vetPublicKey(publicKey);
    return { ...record, signedBy: publicKey };
  }

  #nameOf(topic: string): string | undefined {
    const known = this.#namesByTopic.get(topic);
    if (known !== undefined) return known;
    const parsed = parseTopic(topic);
    if (parsed?.kind !== "record") return undefined;
    if (this.#namesByTopic.size >= cachedTopicsMax) this.#namesByTopic.clear();
    this.#namesByTopic.set(topic, parsed.device);
    return parsed.device;
  }
}

/** Ed25519 on the thread pool: the event loop goes on meanwhile (RFC 8032 §5.1.7 as OpenSSL does it, on vetted keys). */
function holds(cose: CoseSign1, key: KeyObject): Promise<boolean> {
  const message = toBeSigned(cose.protectedHeader, cose.payload);
  return new Promise((resolve, reject) => {
    verify(null, message, key, cose.signature, (error, valid) => (error ? reject(error) : resolve(valid)));
  });
}

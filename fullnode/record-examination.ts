/** Whether a message is a record that may be placed: its form, its device, the key of its epoch, its signature. */
import { type KeyObject, verify } from "node:crypto";
import { type CoseSign1, contentTypes, encodeCose, toBeSigned, type Verify, viewCose } from "../protocol/cose-sign1.ts";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { parseTopic } from "../protocol/mqtt-topic.ts";
import { vetPublicKey } from "../protocol/public-key.ts";
import { decodeRecordPayload, recordBytesMax } from "../protocol/record.ts";
import { Refusal } from "../protocol/refusal.ts";
import { type RotationCertificate, rotationIn } from "../protocol/rotation.ts";
import type { Arrival } from "./chain.ts";
import { droppedOf, voidOf } from "./chain-events.ts";
import { ed25519PublicKey, sha256 } from "./node-keys.ts";
import type { RecordAnswer } from "./record-event.ts";
import { type KnownDevice, keyOfName, type Registry } from "./registry.ts";
import type { SealedEnvelopes } from "./sealed-envelope.ts";
import type { QuarantinedRecord, Store, StorePlace } from "./store.ts";
import type { VerdictReason } from "./verdict.ts";

export const quarantinePerNameMax = 64;
export const quarantineTotalMax = 4_096;
const cachedTopicsMax = 50_000;
const vettedNamesMax = 4_096;
const askedAgainAfter = 1_000;

export interface Message {
  readonly topic: string;
  readonly payload: Uint8Array;
  readonly receivedMs: number;
  /** Set where the record comes out of quarantine. */
  readonly adopted?: QuarantinedRecord;
  /** Set where it has waited for the key of its epoch. */
  readonly early?: true;
  /**
   * Told what became of the record, once that is on disk; never where the store failed. Must not throw. Told again where a record that
   * was refused for an unknown key holds after all.
   */
  readonly answered?: (answer: RecordAnswer) => void;
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

/** Whether the place of a record may be taken; asked before the store is. */
export type MayHold = (device: number, epoch: number, sequence: number) => boolean;

/** Messages that are examined together. */
export interface Slice {
  /** In the order of the messages; complete once nothing is pending. */
  readonly results: (Examined | Refused)[];
  readonly pending: number;
  /** Fulfilled when nothing is pending any more. Fails where the store does. */
  readonly done: Promise<void>;
}

/** A record whose form holds. */
interface Formed {
  readonly arrival: Omit<Examined, "device" | "signedBy">;
  readonly cose: CoseSign1;
}

export class RecordExamination {
  readonly #store: Store;
  readonly #registry: Registry;
  readonly #mayHold: MayHold;
  readonly #envelopes: SealedEnvelopes;
  readonly #namesByTopic = new Map<string, string>();
  /** Names whose share of the quarantine is full: only their enrolment empties it, and then they are no strangers. */
  readonly #fullNames = new Set<string>();
  /** The quarantine was full: so many strangers are turned away before it is asked again. */
  #fullFor = 0;
  /** Keys of names that nobody has enrolled, whose signatures have held. */
  readonly #vetted = new Map<string, ReturnType<typeof keyOfName>>();

  constructor(store: Store, registry: Registry, mayHold: MayHold, envelopes: SealedEnvelopes) {
    this.#store = store;
    this.#registry = registry;
    this.#mayHold = mayHold;
    this.#envelopes = envelopes;
  }

  /**
   * Form, device and duplicates of all of them, one after the other; then their signatures are on their way through the thread
   * pool. Resolves as soon as they are.
   */
  async begin(messages: readonly Message[]): Promise<Slice> {
    const slice = new OpenSlice(messages.length);
    const formed = messages.map((message) => this.#form(message));
    const devices = new Map<string, KnownDevice | undefined>();
    for (const one of formed) {
      if ("refused" in one || devices.has(one.arrival.name)) continue;
      const device = this.#registry.device(one.arrival.name);
      devices.set(one.arrival.name, device instanceof Promise ? await device : device);
    }
    const stored = await this.#storedDigests(formed, devices);
    for (const [i, one] of formed.entries()) {
      if ("refused" in one) slice.set(i, one);
      else this.#examine(slice, i, one, devices.get(one.arrival.name), stored.get(i));
    }
    return slice;
  }

  #examine(
    slice: OpenSlice,
    index: number,
    { arrival, cose }: Formed,
    device: KnownDevice | undefined,
    stored: Uint8Array | undefined,
  ): void {
    if (device === undefined) {
      slice.wait(index, this.#examineStranger(arrival, cose));
      return;
    }
    const known = device.keys.get(arrival.content.epoch);
    const { publicKey, key } = known ?? device.current;
    const record: Examined = { ...arrival, device, signedBy: publicKey };
    // The digest covers the signature, so a record that is stored with this digest has been verified.
    if (known && stored && equalBytes(stored, arrival.digest)) {
      slice.set(index, record);
      return;
    }
    check(cose, key, (error, valid) => {
      if (error) slice.fail(error);
      else if (!valid) slice.wait(index, this.#otherwise(record, device, cose));
      else if (record.content.kind === "reading") slice.set(index, record);
      else slice.wait(index, this.#withRotation(record, device));
    });
  }

  #form(message: Message): Formed | Refused {
    const name = this.#nameOf(message.topic);
    if (name === undefined) return { refused: "unknown-topic", message };
    try {
      const cose = viewCose(asPlain(this.#envelopes.open(message.payload)), contentTypes.record, recordBytesMax);
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
      return { cose, arrival: { message, name, content, bytes, digest, receivedMs, voided, dropped } };
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return { refused: error.reason, message, detail: error.message };
    }
  }

  /** Digests of what the store has at the places of these records, by their index. */
  async #storedDigests(
    formed: readonly (Formed | Refused)[],
    devices: ReadonlyMap<string, KnownDevice | undefined>,
  ): Promise<ReadonlyMap<number, Uint8Array | undefined>> {
    const places: StorePlace[] = [];
    const indexes: number[] = [];
    for (const [i, one] of formed.entries()) {
      if ("refused" in one) continue;
      const device = devices.get(one.arrival.name);
      const { epoch, sequence } = one.arrival.content;
      if (!device?.keys.has(epoch) || !this.#mayHold(device.id, epoch, sequence)) continue;
      places.push({ device: device.id, epoch, sequence });
      indexes.push(i);
    }
    if (places.length === 0) return new Map();
    const digests = await this.#store.digests(places);
    return new Map(indexes.map((index, i) => [index, digests[i]]));
  }

  /** The signature does not hold by the key that it should be of. */
  async #otherwise(record: Examined, device: KnownDevice, cose: CoseSign1): Promise<Examined | Refused> {
    const { message, name, content, signedBy: publicKey } = record;
    const known = device.keys.get(content.epoch);
    for (const other of known ? [] : device.rejected)
      if (await holds(cose, other.key)) return this.#withRotation({ ...record, signedBy: other.publicKey }, device);
    // The kid is a hint that anyone may have changed: it only says which refusal helps most.
    const { kid } = known ?? device.current;
    const isOther = cose.kid !== undefined && !equalBytes(cose.kid, kid);
    const early = { name, epoch: content.epoch, publicKey };
    if (known && !isOther) return { refused: "signature-invalid", message };
    if (known) return { refused: "wrong-device", message, early };
    const isOld = [...device.keys.values()].some((one) => cose.kid !== undefined && equalBytes(cose.kid, one.kid));
    const refused = isOther ? (isOld ? "old-key" : "unknown-key") : "signature-invalid";
    return { refused, message, early };
  }

  async #withRotation(record: Examined, device: KnownDevice): Promise<Examined | Refused> {
    try {
      const rotation = rotationIn({ content: record.content }, device.kid, verifyNow);
      return rotation ? { ...record, rotation } : record;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return { refused: "bad-rotation", message: record.message, detail: error.message };
    }
  }

  /** A record of a device that nobody enrolled is kept if the key that its topic names has signed it, and there is room. */
  async #examineStranger(arrival: Formed["arrival"], cose: CoseSign1): Promise<Examined | Refused> {
    const { message, name } = arrival;
    if (await this.#hasNoRoomFor(name)) return { refused: "quarantine-full", message };
    try {
      const known = this.#vetted.get(name);
      const { publicKey, key } = known ?? keyOfName(name);
      if (!(await holds(cose, key))) return { refused: "signature-invalid", message };
      if (known === undefined) {
        vetPublicKey(publicKey); // a millisecond of this thread: once for each name
        if (this.#vetted.size >= vettedNamesMax) this.#vetted.clear();
        this.#vetted.set(name, { publicKey, key });
      }
      return { ...arrival, device: undefined, signedBy: publicKey };
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return { refused: error.reason, message, detail: error.message };
    }
  }

  /** Asks the store rarely where it is full: a flood of strangers must not cost a query each. */
  async #hasNoRoomFor(name: string): Promise<boolean> {
    if (this.#fullNames.has(name)) return true;
    if (this.#fullFor > 0) {
      this.#fullFor--;
      return true;
    }
    const { ofName, total } = await this.#store.quarantineCount(name);
    if (total >= quarantineTotalMax) this.#fullFor = askedAgainAfter;
    if (ofName < quarantinePerNameMax) return total >= quarantineTotalMax;
    if (this.#fullNames.size >= vettedNamesMax) this.#fullNames.clear();
    this.#fullNames.add(name);
    return true;
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

class OpenSlice implements Slice {
  readonly results: (Examined | Refused)[];
  readonly done: Promise<void>;
  pending: number;
  #resolve!: () => void;
  #reject!: (error: unknown) => void;

  constructor(size: number) {
    this.results = new Array(size);
    this.pending = size;
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.done.catch(() => undefined); // whoever waits for it is told; it may fail before anybody waits
    if (size === 0) this.#resolve();
  }

  set(index: number, result: Examined | Refused): void {
    this.results[index] = result;
    this.pending--;
    if (this.pending === 0) this.#resolve();
  }

  wait(index: number, result: Promise<Examined | Refused>): void {
    result.then(
      (one) => this.set(index, one),
      (error) => this.fail(error),
    );
  }

  fail(error: unknown): void {
    this.#reject(error);
  }
}

/** Ed25519 on the thread pool: the event loop goes on meanwhile (RFC 8032 §5.1.7 as OpenSSL does it, on vetted keys). */
function check(cose: CoseSign1, key: KeyObject, done: (error: Error | null, valid: boolean) => void): void {
  verify(null, toBeSigned(cose.protectedHeader, cose.payload), key, cose.signature, done);
}

function holds(cose: CoseSign1, key: KeyObject): Promise<boolean> {
  return new Promise((resolve, reject) => {
    check(cose, key, (error, valid) => (error ? reject(error) : resolve(valid)));
  });
}

/** Pieces of a Buffer are dear: each is a Buffer again. */
function asPlain(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** Which devices the full node knows: enrolled by hand from a request file, found by the name in their topic. */
import assert from "node:assert/strict";
import { type KeyObject, verify } from "node:crypto";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { type EnrolmentRequest, openEnrolmentRequest, signEnrolmentAnswer } from "../protocol/enrolment.ts";
import { didKeyOf, kidOf, multibaseOf, publicKeyOfDid } from "../protocol/public-key.ts";
import { decodeRecord } from "../protocol/record.ts";
import { certificateIn } from "../protocol/rotation.ts";
import { ed25519PublicKey, type NodeKeys, sha256 } from "./node-keys.ts";
import type { Awaitable, Enrolment, EpochKey, Store, StoredDevice } from "./store.ts";
import { rejectedKeys } from "./succession.ts";

export interface KnownKey {
  readonly publicKey: Uint8Array;
  readonly key: KeyObject;
  readonly kid: Uint8Array;
}

export interface KnownDevice extends StoredDevice {
  readonly did: string;
  /** The keys of its epochs. */
  readonly keys: ReadonlyMap<number, KnownKey>;
  /** The key of epochs that are not known yet. */
  readonly current: KnownKey;
  /** Keys that the owner rejected with their epochs; they begin others only to be held. */
  readonly rejected: readonly KnownKey[];
}

export interface EnrolmentResult {
  readonly isNew: boolean;
  readonly name: string;
  readonly did: string;
  readonly meters: StoredDevice["meters"];
  /** The answer, to be carried to the device as a file. */
  readonly answer: Uint8Array;
}

const cachedDevicesMax = 50_000;

/**
 * Takes a device by its signed request, and answers it. The same request twice gives the same device. Throws Refusal on a
 * request whose form, key or signature does not hold.
 */
export async function enrolDevice(
  store: Store,
  keys: NodeKeys,
  requestBytes: Uint8Array,
  nowMs: number,
): Promise<EnrolmentResult> {
  const { request, digest } = openEnrolmentRequest(
    requestBytes,
    (publicKey, message, signature) => verify(null, message, ed25519PublicKey(publicKey), signature),
    sha256,
  );
  const { share, softwareId, meters, epoch } = request;
  const publicKey = request.rotated?.nameKey ?? request.publicKey;
  const kid = kidOf(publicKey, sha256);
  const answer = signEnrolmentAnswer(
    {
      device: kid,
      request: digest,
      publicKey: keys.publicKey,
      share: keys.share,
      timeS: Math.floor(nowMs / 1000),
      nodeName: store.nodeName,
    },
    keys.sign,
    sha256,
  );
  const name = multibaseOf(publicKey);
  const isNew = await store.enrol({
    name,
    publicKey,
    kid,
    currentKey: request.publicKey,
    share,
    softwareId,
    meters,
    epoch,
    earlier: earlierEpochs(request),
    request: requestBytes,
    requestDigest: digest,
    enrolledMs: nowMs,
  });
  return { isNew, name, did: didKeyOf(publicKey), meters, answer };
}

/** The epochs that a request's rotations end and begin, with their keys. */
function earlierEpochs({ rotated }: EnrolmentRequest): Enrolment["earlier"] {
  let publicKey = rotated?.nameKey ?? new Uint8Array(0);
  return (rotated?.records ?? []).flatMap((bytes) => {
    const { content } = decodeRecord(bytes, sha256);
    const certificate = certificateIn(content)?.certificate;
    assert(certificate, "the request was opened, so each of its records holds a certificate");
    const ended = { epoch: content.epoch, publicKey };
    publicKey = certificate.publicKey;
    return [ended, { epoch: certificate.nextEpoch, publicKey }];
  });
}

/** Finds devices by name and keeps what it found, until someone else has written to the store. */
export class Registry {
  readonly #store: Store;
  readonly #devices = new Map<string, KnownDevice>();
  /** Counts what was forgotten: what was asked for before may be old by the time the answer comes. */
  #forgotten = 0;

  constructor(store: Store) {
    this.#store = store;
  }

  /** Answers at once where it knows, or where the store does. */
  device(name: string): Awaitable<KnownDevice | undefined> {
    const cached = this.#devices.get(name);
    if (cached) return cached;
    const stored = this.#store.device(name);
    if (stored instanceof Promise) return this.#whenFound(name, stored);
    return stored && this.#withKeys(stored);
  }

  async #whenFound(name: string, answer: Promise<StoredDevice | undefined>): Promise<KnownDevice | undefined> {
    const before = this.#forgotten;
    const stored = await answer;
    const epochs = stored && (await this.#store.epochKeys(stored.id));
    if (before !== this.#forgotten) return await this.device(name);
    return stored && epochs && this.#remembered(stored, epochs);
  }

  #withKeys(stored: StoredDevice): Awaitable<KnownDevice> {
    const epochs = this.#store.epochKeys(stored.id);
    return epochs instanceof Promise
      ? epochs.then((found) => this.#remembered(stored, found))
      : this.#remembered(stored, epochs);
  }

  #remembered(stored: StoredDevice, epochs: readonly EpochKey[]): KnownDevice {
    if (this.#devices.size >= cachedDevicesMax) this.#devices.clear();
    const current = knownKey(stored.currentKey);
    const keys = new Map<number, KnownKey>();
    for (const { epoch, publicKey } of epochs)
      keys.set(epoch, equalBytes(publicKey, stored.currentKey) ? current : knownKey(publicKey));
    const rejected = rejectedKeys(epochs).map(knownKey);
    const known = { ...stored, did: didKeyOf(stored.publicKey), keys, current, rejected };
    this.#devices.set(stored.name, known);
    return known;
  }

  /** After an epoch or key of a device has changed. */
  forgetDevice(name: string): void {
    this.#forgotten++;
    this.#devices.delete(name);
  }

  forget(): void {
    this.#forgotten++;
    this.#devices.clear();
  }
}

function knownKey(publicKey: Uint8Array): KnownKey {
  return { publicKey, key: ed25519PublicKey(publicKey), kid: kidOf(publicKey, sha256) };
}

/** The key that a device's name stands for, not vetted: only to see whether a stranger's record is at least its own. */
export function keyOfName(name: string): { publicKey: Uint8Array; key: KeyObject } {
  const publicKey = publicKeyOfDid(name);
  return { publicKey, key: ed25519PublicKey(publicKey) };
}

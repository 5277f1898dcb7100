/** Which devices the full node knows: enrolled by hand from a request file, found by the name in their topic. */
import { type KeyObject, verify } from "node:crypto";
import { openEnrolmentRequest, signEnrolmentAnswer } from "../protocol/enrolment.ts";
import { didKeyOf, kidOf, multibaseOf, publicKeyOfDid } from "../protocol/public-key.ts";
import { ed25519PublicKey, type NodeKeys, sha256 } from "./node-keys.ts";
import type { Store, StoredDevice } from "./store.ts";

export interface KnownDevice extends StoredDevice {
  readonly key: KeyObject;
  readonly did: string;
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
  const { publicKey, share, softwareId, meters, epoch } = request;
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
    share,
    softwareId,
    meters,
    epoch,
    request: requestBytes,
    requestDigest: digest,
    enrolledMs: nowMs,
  });
  return { isNew, name, did: didKeyOf(publicKey), meters, answer };
}

/** Finds devices by name and keeps what it found, until someone else has written to the store. */
export class Registry {
  readonly #store: Store;
  readonly #devices = new Map<string, KnownDevice>();

  constructor(store: Store) {
    this.#store = store;
  }

  async device(name: string): Promise<KnownDevice | undefined> {
    const cached = this.#devices.get(name);
    if (cached) return cached;
    const stored = await this.#store.device(name);
    if (stored === undefined) return undefined;
    if (this.#devices.size >= cachedDevicesMax) this.#devices.clear();
    const { publicKey } = stored;
    const known = { ...stored, key: ed25519PublicKey(publicKey), did: didKeyOf(publicKey) };
    this.#devices.set(name, known);
    return known;
  }

  forget(): void {
    this.#devices.clear();
  }
}

/** The key that a device's name stands for, not vetted: only to see whether a stranger's record is at least its own. */
export function keyOfName(name: string): { publicKey: Uint8Array; key: KeyObject } {
  const publicKey = publicKeyOfDid(name);
  return { publicKey, key: ed25519PublicKey(publicKey) };
}

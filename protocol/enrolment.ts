/**
 * Enrolment: the device asks to be known (signed by its key), the full node answers with its own keys (signed by its key).
 * Both travel as files, by hands: who pins whose key is a decision of people. Layout: protocol/README.md and ecp.cddl.
 */
import {
  contentTypes,
  decodeCose,
  digestBytes,
  digestOf,
  kidBytes,
  type Sha256,
  type Sign,
  signCose,
  type Verify,
  verifyCose,
} from "./cose-sign1.ts";
import { type CborMap, type CborValue, decodeCbor, encodeCbor, equalBytes } from "./deterministic-cbor.ts";
import { asArray, asBytes, asInteger, asMap, asText, uint32Max } from "./field.ts";
import { kidOf, publicKeyBytes, vetPublicKey } from "./public-key.ts";
import { metersMax } from "./record.ts";
import { Refusal } from "./refusal.ts";
import { followRotations, rotationsMax } from "./rotation.ts";

export const enrolmentVersion = 1;
export const enrolmentBytesMax = 16_384;
export const shareBytes = 32;

export interface EnrolledMeter {
  readonly index: number;
  readonly name: string;
  readonly profile: string;
}

export interface EnrolmentRequest {
  /** Ed25519 key of the device, 32 bytes. */
  readonly publicKey: Uint8Array;
  /** X25519 public share of the device (RFC 7748), 32 bytes. */
  readonly share: Uint8Array;
  readonly epoch: number;
  readonly timeS: number;
  readonly softwareId: string;
  readonly meters: readonly EnrolledMeter[];
  /** Where the key was rotated: the key of the device's name, and the records that lead from it to `publicKey`. */
  readonly rotated?: { readonly nameKey: Uint8Array; readonly records: readonly Uint8Array[] };
}

export interface EnrolmentAnswer {
  /** kid of the device that asked. */
  readonly device: Uint8Array;
  /** Digest of the request that this answers. */
  readonly request: Uint8Array;
  /** Ed25519 key with which the node signs receipts, 32 bytes. */
  readonly publicKey: Uint8Array;
  /** X25519 public share of the node, 32 bytes. */
  readonly share: Uint8Array;
  readonly timeS: number;
  readonly nodeName: string;
}

/** Throws Refusal on a request that nobody would take: nothing is signed that cannot be read. */
export function signEnrolmentRequest(request: EnrolmentRequest, sign: Sign, sha256: Sha256): Uint8Array {
  const payload = new Map<number, CborValue>([
    [1, enrolmentVersion],
    [2, request.publicKey],
    [3, request.share],
    [4, request.epoch],
    [5, request.timeS],
    [6, request.softwareId],
    [7, request.meters.map((meter) => [meter.index, meter.name, meter.profile])],
  ]);
  const { rotated } = request;
  if (rotated) payload.set(8, rotated.nameKey).set(9, [...rotated.records]);
  const bytes = encodeCbor(payload);
  readRequest(bytes);
  return signCose(contentTypes.enrolmentRequest, bytes, sign, kidOf(request.publicKey, sha256));
}

/**
 * Takes a request: form, key and signature are checked, by the very key that it names; and where that is not the key of the
 * device's name, the rotations that lead to it. Throws {@link Refusal}.
 */
export function openEnrolmentRequest(
  bytes: Uint8Array,
  verify: Verify,
  sha256: Sha256,
): { request: EnrolmentRequest; digest: Uint8Array } {
  const cose = decodeCose(bytes, contentTypes.enrolmentRequest, enrolmentBytesMax);
  const request = readRequest(cose.payload);
  vetPublicKey(request.publicKey);
  verifyCose(cose, request.publicKey, verify);
  if (request.rotated) {
    const { nameKey, records } = request.rotated;
    vetPublicKey(nameKey);
    if (!equalBytes(followRotations(nameKey, records, verify, sha256), request.publicKey))
      throw new Refusal("bad-field", "the rotations do not lead to the request's key");
  }
  return { request, digest: digestOf(cose, sha256) };
}

function readRequest(bytes: Uint8Array): EnrolmentRequest {
  const payload = versioned(bytes);
  const rotated = readRotated(payload);
  const request: EnrolmentRequest = {
    publicKey: asBytes(payload.get(2), "public key", publicKeyBytes),
    share: asBytes(payload.get(3), "share", shareBytes),
    epoch: asInteger(payload.get(4), "epoch", 0, uint32Max),
    timeS: asInteger(payload.get(5), "time", 0, uint32Max),
    softwareId: asText(payload.get(6), "software id", 64),
    meters: asArray(payload.get(7), "meters", metersMax).map((item) => {
      const [index, name, profile] = asArray(item, "meter", 3);
      return {
        index: asInteger(index, "meter index", 0, metersMax - 1),
        name: asText(name, "meter name", 64),
        profile: asText(profile, "meter profile", 64),
      };
    }),
    ...(rotated && { rotated }),
  };
  if (new Set(request.meters.map((meter) => meter.index)).size !== request.meters.length)
    throw new Refusal("bad-field", "two meters of one index");
  return request;
}

function readRotated(payload: CborMap): EnrolmentRequest["rotated"] {
  const nameKey = payload.get(8);
  const records = payload.get(9);
  if (nameKey === undefined && records === undefined) return undefined;
  const list = asArray(records, "rotations", rotationsMax).map((item) => asBytes(item, "rotation", 1_024, 1));
  if (list.length === 0) throw new Refusal("bad-field", "no rotation");
  return { nameKey: asBytes(nameKey, "name's key", publicKeyBytes), records: list };
}

export function signEnrolmentAnswer(answer: EnrolmentAnswer, sign: Sign, sha256: Sha256): Uint8Array {
  const payload = new Map<number, CborValue>([
    [1, enrolmentVersion],
    [2, answer.device],
    [3, answer.request],
    [4, answer.publicKey],
    [5, answer.share],
    [6, answer.timeS],
    [7, answer.nodeName],
  ]);
  const bytes = encodeCbor(payload);
  readAnswer(bytes);
  return signCose(contentTypes.enrolmentAnswer, bytes, sign, kidOf(answer.publicKey, sha256));
}

/**
 * Takes an answer: form, key and signature are checked. That the key is the right node's is for people to check, by the
 * did:key that the node's operator shows. Throws {@link Refusal}.
 */
export function openEnrolmentAnswer(bytes: Uint8Array, verify: Verify): EnrolmentAnswer {
  const cose = decodeCose(bytes, contentTypes.enrolmentAnswer, enrolmentBytesMax);
  const answer = readAnswer(cose.payload);
  vetPublicKey(answer.publicKey);
  verifyCose(cose, answer.publicKey, verify);
  return answer;
}

function readAnswer(bytes: Uint8Array): EnrolmentAnswer {
  const payload = versioned(bytes);
  return {
    device: asBytes(payload.get(2), "device", kidBytes),
    request: asBytes(payload.get(3), "request", digestBytes),
    publicKey: asBytes(payload.get(4), "public key", publicKeyBytes),
    share: asBytes(payload.get(5), "share", shareBytes),
    timeS: asInteger(payload.get(6), "time", 0, uint32Max),
    nodeName: asText(payload.get(7), "node name", 64),
  };
}

function versioned(bytes: Uint8Array): ReturnType<typeof asMap> {
  const payload = asMap(decodeCbor(bytes, enrolmentBytesMax), "payload");
  const version = asInteger(payload.get(1), "version", 0, uint32Max);
  if (version !== enrolmentVersion) throw new Refusal("unsupported-version", `${version}`);
  return payload;
}

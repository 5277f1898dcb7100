/**
 * Rotation of a device's key: the last record of an epoch, signed by the old key, holds a certificate that the new key signed.
 * So both have signed that the one follows the other, and the device keeps the name of its first key. Layout:
 * protocol/README.md and ecp.cddl.
 */
import {
  type CoseSign1,
  contentTypes,
  decodeCose,
  kidBytes,
  type Sha256,
  type Sign,
  signCose,
  type Verify,
  verifyCose,
} from "./cose-sign1.ts";
import { type CborValue, decodeCbor, encodeCbor, equalBytes } from "./deterministic-cbor.ts";
import { asBytes, asInteger, asMap, uint32Max } from "./field.ts";
import { kidOf, publicKeyBytes, vetPublicKey } from "./public-key.ts";
import { type DecodedRecord, decodeRecord, eventCodes, previousBytes, type RecordContent } from "./record.ts";
import { Refusal } from "./refusal.ts";

export const rotationVersion = 1;
export const certificateBytesMax = 512;
/** Rotations that a device carries with its name, so that an enrolment request can name them all; after so many it enrols anew. */
export const rotationsMax = 12;
const shareBytes = 32;

export interface RotationCertificate {
  /** kid of the device's enrolment key. */
  readonly device: Uint8Array;
  /** The place of the record that holds it, and that record's `previous`: it cannot stand anywhere else. */
  readonly epoch: number;
  readonly sequence: number;
  readonly previous: Uint8Array;
  /** The epoch that the new key begins. */
  readonly nextEpoch: number;
  readonly publicKey: Uint8Array;
  /** X25519 public share of the new key. */
  readonly share: Uint8Array;
}

/** Signs with the new key. Throws Refusal on a certificate that nobody would take. */
export function signRotation(certificate: RotationCertificate, sign: Sign): Uint8Array {
  const bytes = encodeCbor(
    new Map<number, CborValue>([
      [1, rotationVersion],
      [2, certificate.device],
      [3, certificate.epoch],
      [4, certificate.sequence],
      [5, certificate.previous],
      [6, certificate.nextEpoch],
      [7, certificate.publicKey],
      [8, certificate.share],
    ]),
  );
  readCertificate(bytes);
  return signCose(contentTypes.rotation, bytes, sign);
}

/**
 * The certificate in a record, or undefined where it holds none. Checks the new key and its signature, and that it was made
 * for this very record of this device; the record's own signature is the caller's to check. Throws {@link Refusal}.
 */
export function rotationIn(
  { content }: Pick<DecodedRecord, "content">,
  device: Uint8Array,
  verify: Verify,
): RotationCertificate | undefined {
  const found = certificateIn(content);
  if (found === undefined) return undefined;
  const { cose, certificate } = found;
  vetPublicKey(certificate.publicKey);
  verifyCose(cose, certificate.publicKey, verify);
  const isHere =
    equalBytes(certificate.device, device) &&
    certificate.epoch === content.epoch &&
    certificate.sequence === content.sequence &&
    equalBytes(certificate.previous, content.previous);
  if (!isHere) throw new Refusal("bad-field", "the certificate is for another record");
  return certificate;
}

/** The certificate in a record, its form only: for records that {@link rotationIn} has checked before. Throws {@link Refusal}. */
export function certificateIn(
  content: RecordContent,
): { cose: CoseSign1; certificate: RotationCertificate } | undefined {
  if (content.kind !== "event") return undefined;
  const [event, second] = content.events.filter(([code]) => code === eventCodes.keyRotated);
  if (event === undefined) return undefined;
  const [, bytes, ...rest] = event;
  if (second !== undefined || rest.length > 0 || !(bytes instanceof Uint8Array))
    throw new Refusal("bad-field", "not one certificate");
  const cose = decodeCose(bytes, contentTypes.rotation, certificateBytesMax);
  return { cose, certificate: readCertificate(cose.payload) };
}

/**
 * The key that a device has now, by the key of its name and its rotation records, oldest first. Each is verified by the key
 * before it. Throws {@link Refusal}.
 */
export function followRotations(
  nameKey: Uint8Array,
  records: readonly Uint8Array[],
  verify: Verify,
  sha256: Sha256,
): Uint8Array {
  if (records.length > rotationsMax) throw new Refusal("bad-field", `${records.length} rotations`);
  const device = kidOf(nameKey, sha256);
  return records.reduce((key, bytes) => {
    const record = decodeRecord(bytes, sha256);
    verifyCose(record.cose, key, verify);
    const certificate = rotationIn(record, device, verify);
    if (certificate === undefined) throw new Refusal("bad-field", "a record without a rotation");
    return certificate.publicKey;
  }, nameKey);
}

function readCertificate(bytes: Uint8Array): RotationCertificate {
  const payload = asMap(decodeCbor(bytes, certificateBytesMax), "certificate");
  const version = asInteger(payload.get(1), "version", 0, uint32Max);
  if (version !== rotationVersion) throw new Refusal("unsupported-version", `${version}`);
  const epoch = asInteger(payload.get(3), "epoch", 0, uint32Max);
  // Two keys in one epoch: nobody could tell whose a record is.
  if (payload.get(6) === epoch) throw new Refusal("bad-field", "the next epoch is the one that ends");
  return {
    device: asBytes(payload.get(2), "device", kidBytes),
    epoch,
    sequence: asInteger(payload.get(4), "sequence", 1, uint32Max),
    previous: asBytes(payload.get(5), "previous", previousBytes),
    nextEpoch: asInteger(payload.get(6), "next epoch", 0, uint32Max),
    publicKey: asBytes(payload.get(7), "public key", publicKeyBytes),
    share: asBytes(payload.get(8), "share", shareBytes),
  };
}

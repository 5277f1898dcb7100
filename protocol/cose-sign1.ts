/**
 * COSE_Sign1 (RFC 9052 §4.2) as this protocol uses it: Ed25519 only, a content type in every protected header as the
 * domain of the signature, nothing in the unprotected header but a kid, which is a hint.
 */
import { type CborValue, decodeCbor, encodeCbor, messageBytesMax } from "./deterministic-cbor.ts";
import { Refusal } from "./refusal.ts";

/** SHA-256; the caller picks the implementation (node:crypto's or @noble/hashes'). */
export type Sha256 = (bytes: Uint8Array) => Uint8Array;
/** Ed25519 (RFC 8032 §5.1.6) over the message, 64 bytes. */
export type Sign = (message: Uint8Array) => Uint8Array;
/** Ed25519 verification (RFC 8032 §5.1.7) with a vetted public key of 32 bytes. */
export type Verify = (publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array) => boolean;

/** Content types of the CoAP experimental range (RFC 7252 §12.3): what a signature of a wallet or a node is for. */
export const contentTypes = {
  record: 65000,
  receipt: 65001,
  enrolmentRequest: 65002,
  enrolmentAnswer: 65003,
  statement: 65004,
  rotation: 65006,
} as const;
export type ContentType = (typeof contentTypes)[keyof typeof contentTypes];

export const algorithmEdDsa = -8; // RFC 9053 §2.2: what we write
export const algorithmEd25519 = -19; // RFC 9864 §2.2: taken as well
export const kidBytes = 8;
export const signatureBytes = 64;
export const digestBytes = 32;

const headerAlgorithm = 1;
const headerCritical = 2;
const headerContentType = 3;
const headerKid = 4;
const tag18 = 0xd2;

export interface CoseSign1 {
  /** The serialised protected header, as signed. */
  readonly protectedHeader: Uint8Array;
  readonly algorithm: number;
  readonly contentType: number;
  /** First 8 bytes of the signer's key thumbprint (RFC 9679): a hint, not signed. */
  readonly kid?: Uint8Array;
  readonly payload: Uint8Array;
  readonly signature: Uint8Array;
}

/** Signs a payload; the bytes that come back are tagged (18) and carry the kid where one is given, else neither. */
export function signCose(contentType: ContentType, payload: Uint8Array, sign: Sign, kid?: Uint8Array): Uint8Array {
  const protectedHeader = encodeCbor(
    new Map([
      [headerAlgorithm, algorithmEdDsa],
      [headerContentType, contentType],
    ]),
  );
  const signature = sign(toBeSigned(protectedHeader, payload));
  if (signature.length !== signatureBytes) throw new TypeError(`signature of ${signature.length} bytes`);
  return encodeCose({ protectedHeader, payload, signature, ...(kid && { kid }) });
}

/** The message in its form for the wire: with the tag where a kid is given, in the bare form of LoRaWAN without. */
export function encodeCose(message: Pick<CoseSign1, "protectedHeader" | "payload" | "signature" | "kid">): Uint8Array {
  const { protectedHeader, payload, signature, kid } = message;
  const unprotected = new Map<number, CborValue>(kid ? [[headerKid, kid]] : []);
  const bare = encodeCbor([protectedHeader, unprotected, payload, signature]);
  if (!kid) return bare;
  const tagged = new Uint8Array(bare.length + 1);
  tagged[0] = tag18;
  tagged.set(bare, 1);
  return tagged;
}

/** Takes a COSE_Sign1 apart, tagged or not. Checks the form only; throws {@link Refusal}. */
export function decodeCose(bytes: Uint8Array, contentType?: ContentType, bytesMax = messageBytesMax): CoseSign1 {
  const items = decodeCbor(bytes[0] === tag18 ? bytes.subarray(1) : bytes, bytesMax);
  if (!Array.isArray(items) || items.length !== 4) throw new Refusal("not-cose-sign1", "an array of 4 was expected");
  const [protectedHeader, unprotected, payload, signature] = items;
  if (!(protectedHeader instanceof Uint8Array && unprotected instanceof Map && payload instanceof Uint8Array))
    throw new Refusal("not-cose-sign1", "[bytes, map, bytes, bytes] was expected");
  if (!(signature instanceof Uint8Array && signature.length === signatureBytes))
    throw new Refusal("bad-signature-length");
  const kid = unprotected.get(headerKid);
  if (unprotected.size > (kid === undefined ? 0 : 1)) throw new Refusal("bad-unprotected-header");
  if (kid !== undefined && !(kid instanceof Uint8Array && kid.length === kidBytes))
    throw new Refusal("bad-unprotected-header");
  const header = readProtectedHeader(protectedHeader);
  if (contentType !== undefined && header.contentType !== contentType)
    throw new Refusal("wrong-content-type", `expected ${contentType}, got ${header.contentType}`);
  return {
    ...header,
    protectedHeader: Uint8Array.from(protectedHeader),
    ...(kid && { kid: Uint8Array.from(kid) }),
    payload: Uint8Array.from(payload),
    signature: Uint8Array.from(signature),
  };
}

function readProtectedHeader(bytes: Uint8Array): { algorithm: number; contentType: number } {
  const header = decodeCbor(bytes);
  if (!(header instanceof Map)) throw new Refusal("bad-protected-header");
  // RFC 9052 §3.1: what stands in crit must be understood; we understand nothing beyond labels 1 and 3.
  if (header.has(headerCritical)) throw new Refusal("unknown-critical-header");
  const algorithm = header.get(headerAlgorithm);
  const contentType = header.get(headerContentType);
  if (typeof algorithm !== "number" || typeof contentType !== "number" || header.size !== 2)
    throw new Refusal("bad-protected-header");
  if (algorithm !== algorithmEdDsa && algorithm !== algorithmEd25519)
    throw new Refusal("unknown-algorithm", `${algorithm}`);
  return { algorithm, contentType };
}

/** The Sig_structure of RFC 9052 §4.4 with an empty external_aad: the bytes that are signed. */
export function toBeSigned(protectedHeader: Uint8Array, payload: Uint8Array): Uint8Array {
  return encodeCbor(["Signature1", protectedHeader, new Uint8Array(0), payload]);
}

/** Throws {@link Refusal} `signature-invalid` unless the signature holds under the key. */
export function verifyCose(message: CoseSign1, publicKey: Uint8Array, verify: Verify): void {
  if (!verify(publicKey, toBeSigned(message.protectedHeader, message.payload), message.signature))
    throw new Refusal("signature-invalid");
}

/**
 * The one digest of a message, for chain, receipt, store and ledger: SHA-256 of the untagged COSE_Sign1 with an empty
 * unprotected map. What is changed outside the signature changes no digest.
 */
export function digestOf(message: CoseSign1, sha256: Sha256): Uint8Array {
  const { protectedHeader, payload, signature } = message;
  return sha256(encodeCose({ protectedHeader, payload, signature }));
}

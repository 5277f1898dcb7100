/**
 * COSE_Sign1 (RFC 9052 §4.2) as this protocol uses it: Ed25519 only, a content type in every protected header as the
 * domain of the signature, nothing in the unprotected header but a kid, which is a hint.
 */
import { decodeCbor, encodeCbor, equalBytes, messageBytesMax } from "./deterministic-cbor.ts";
import { Refusal } from "./refusal.ts";

/** SHA-256; the caller picks the implementation (node:crypto's or @noble/hashes'). */
export type Sha256 = (bytes: Uint8Array) => Uint8Array;
/** Ed25519 (RFC 8032 §5.1.6) over the message, 64 bytes. */
export type Sign = (message: Uint8Array) => Uint8Array;
/** Ed25519 verification (RFC 8032 §5.1.7) with a vetted public key of 32 bytes. */
export type Verify = (publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array) => boolean;

/** Content types of the CoAP experimental range (RFC 7252 §12.3): what a signature of a wallet or a node is for, or what is encrypted. */
export const contentTypes = {
  record: 65000,
  receipt: 65001,
  enrolmentRequest: 65002,
  enrolmentAnswer: 65003,
  statement: 65004,
  rotation: 65006,
  encryptedRecord: 65007,
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
  return encodeCose(signedCose(contentType, payload, sign, kid));
}

/** The same, taken apart. */
export function signedCose(contentType: ContentType, payload: Uint8Array, sign: Sign, kid?: Uint8Array): CoseSign1 {
  const protectedHeader = protectedHeaderOf(contentType);
  const signature = sign(toBeSigned(protectedHeader, payload));
  if (signature.length !== signatureBytes) throw new TypeError(`signature of ${signature.length} bytes`);
  if (kid && kid.length !== kidBytes) throw new TypeError(`kid of ${kid.length} bytes`);
  return { protectedHeader, algorithm: algorithmEdDsa, contentType, payload, signature, ...(kid && { kid }) };
}

const protectedHeaders: ReadonlyMap<ContentType, Uint8Array> = new Map(
  Object.values(contentTypes).map((contentType) => [
    contentType,
    encodeCbor(
      new Map([
        [headerAlgorithm, algorithmEdDsa],
        [headerContentType, contentType],
      ]),
    ),
  ]),
);

/** The protected header that our own encoder writes for a content type: EdDSA, and the type. */
export function protectedHeaderOf(contentType: ContentType): Uint8Array {
  return protectedHeaders.get(contentType) as Uint8Array;
}

const arrayOf4 = 0x84;
const mapOf1 = 0xa1;
const noHeaders = 0xa0;
const emptyByteString = 0x40;
/** An array of 4 whose first item is the context string "Signature1". */
const signatureStart = Uint8Array.of(arrayOf4, 0x6a, 0x53, 0x69, 0x67, 0x6e, 0x61, 0x74, 0x75, 0x72, 0x65, 0x31);

/**
 * The message in its form for the wire: with the tag where a kid is given, in the bare form of LoRaWAN without. Put together
 * from its parts, since it is made several times for each record.
 */
export function encodeCose(message: Pick<CoseSign1, "protectedHeader" | "payload" | "signature" | "kid">): Uint8Array {
  const { protectedHeader, payload, signature, kid } = message;
  const lengths = byteStringLength(protectedHeader) + byteStringLength(payload) + byteStringLength(signature);
  const bytes = room(lengths + (kid ? 4 + byteStringLength(kid) : 2));
  let offset = 0;
  if (kid) bytes[offset++] = tag18;
  bytes[offset++] = arrayOf4;
  offset = putByteString(bytes, offset, protectedHeader);
  if (kid) {
    bytes[offset++] = mapOf1;
    bytes[offset++] = headerKid;
    offset = putByteString(bytes, offset, kid);
  } else bytes[offset++] = noHeaders;
  offset = putByteString(bytes, offset, payload);
  putByteString(bytes, offset, signature);
  return bytes;
}

const slabBytes = 16_384;
let slab = new Uint8Array(slabBytes);
let slabUsed = 0;

/** Fresh bytes, all 0. Short ones share their buffer with others: engines make a buffer of its own for each array slowly. */
function room(length: number): Uint8Array {
  if (length > slabBytes / 8) return new Uint8Array(length);
  if (slabUsed + length > slabBytes) {
    slab = new Uint8Array(slabBytes);
    slabUsed = 0;
  }
  slabUsed += length;
  return slab.subarray(slabUsed - length, slabUsed);
}

/** How long a byte string of deterministic CBOR is (RFC 8949 §3.1, major type 2): its head, and its bytes. */
function byteStringLength({ length }: Uint8Array): number {
  return length + (length < 24 ? 1 : length < 0x100 ? 2 : 3);
}

/** Puts a byte string into `bytes` and returns the offset behind it. */
function putByteString(bytes: Uint8Array, start: number, string: Uint8Array): number {
  const { length } = string;
  if (length >= 0x1_0000) throw new TypeError(`a byte string of ${length} bytes`);
  let offset = start;
  if (length < 24) bytes[offset++] = 0x40 | length;
  else if (length < 0x100) {
    bytes[offset++] = 0x58;
    bytes[offset++] = length;
  } else {
    bytes[offset++] = 0x59;
    bytes[offset++] = length >>> 8;
    bytes[offset++] = length & 0xff;
  }
  bytes.set(string, offset);
  return offset + length;
}

/** Takes a COSE_Sign1 apart, tagged or not. Checks the form only; throws {@link Refusal}. */
export function decodeCose(bytes: Uint8Array, contentType?: ContentType, bytesMax = messageBytesMax): CoseSign1 {
  const message = viewCose(bytes, contentType, bytesMax);
  const { protectedHeader, payload, signature, kid } = message;
  const copy = {
    ...message,
    protectedHeader: new Uint8Array(protectedHeader),
    payload: new Uint8Array(payload),
    signature: new Uint8Array(signature),
  };
  return kid ? { ...copy, kid: new Uint8Array(kid) } : copy;
}

/** The same without copies: what comes back are views of the bytes, which must not change meanwhile. */
export function viewCose(bytes: Uint8Array, contentType?: ContentType, bytesMax = messageBytesMax): CoseSign1 {
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
  const message = { protectedHeader, ...header, payload, signature };
  return kid ? { ...message, kid } : message;
}

/** Of the header that nearly all messages have, as our own encoder writes it, no byte need be looked at twice. */
function readProtectedHeader(bytes: Uint8Array): { algorithm: number; contentType: number } {
  for (const [contentType, known] of protectedHeaders)
    if (equalBytes(known, bytes)) return { algorithm: algorithmEdDsa, contentType };
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
  const start = signatureStart.length;
  const bytes = room(start + byteStringLength(protectedHeader) + 1 + byteStringLength(payload));
  bytes.set(signatureStart);
  const offset = putByteString(bytes, start, protectedHeader);
  bytes[offset] = emptyByteString; // external_aad
  putByteString(bytes, offset + 1, payload);
  return bytes;
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

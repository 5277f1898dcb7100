/**
 * A sealed record on its way past a broker that is not to read it: COSE_Encrypt0 (RFC 9052 §5.2) under a key that device and
 * full node agree by their X25519 shares. The signature of what is inside proves the device; this only hides. Layout: README.md.
 */
import { contentTypes } from "./cose-sign1.ts";
import { decodeCbor, encodeCbor, equalBytes } from "./deterministic-cbor.ts";
import { shareBytes } from "./enrolment.ts";
import { recordBytesMax } from "./record.ts";
import { Refusal } from "./refusal.ts";

/** ChaCha20/Poly1305 with a tag of 16 bytes (RFC 9053 §4.3). */
export const algorithmChaCha20Poly1305 = 24;
export const nonceBytes = 12;
const tagBytes = 16;
/** The shortest padded text; each longer step is twice the one before. */
export const paddedBytesMin = 192;
const padMark = 0x80;

const tag16 = 0xd0;
const arrayOf3 = 0x83;
const headerAlgorithm = 1;
const headerContentType = 3;
const headerKid = 4;
const headerIv = 5;

/** What both sides do with the keys they agreed; platform/agreed-cipher.ts is one. */
export interface RecordCipher {
  /** The first 12 bytes of HMAC-SHA-256 over the padded record, with the second of the agreed keys. */
  nonceOf(padded: Uint8Array): Uint8Array;
  encrypt(nonce: Uint8Array, authenticated: Uint8Array, padded: Uint8Array): Uint8Array;
  /** Undefined where the tag does not hold. */
  decrypt(nonce: Uint8Array, authenticated: Uint8Array, ciphertext: Uint8Array): Uint8Array | undefined;
}

/** What HKDF-SHA-256 binds the two keys to: the purpose, its version, and both shares (RFC 5869 §3.2). */
export function encryptionInfo(deviceShare: Uint8Array, nodeShare: Uint8Array): Uint8Array {
  const purpose = "ecp/1 encrypted record";
  return joined(
    Uint8Array.from(purpose, (letter) => letter.charCodeAt(0)),
    deviceShare,
    nodeShare,
  );
}

const protectedHeader = encodeCbor(
  new Map([
    [headerAlgorithm, algorithmChaCha20Poly1305],
    [headerContentType, contentTypes.encryptedRecord],
  ]),
);
/** The Enc_structure (RFC 9052 §5.3) with an empty external_aad. It is the same for all: nothing else is in the header. */
const authenticated = encodeCbor(["Encrypt0", protectedHeader, new Uint8Array(0)]);
/** All up to the share, and what stands between it and the nonce. */
const start = joined(
  Uint8Array.of(tag16, arrayOf3, 0x40 | protectedHeader.length),
  protectedHeader,
  Uint8Array.of(0xa2, headerKid, 0x58, shareBytes),
);
const middle = Uint8Array.of(headerIv, 0x40 | nonceBytes);
const shareAt = start.length;
const nonceAt = shareAt + shareBytes + middle.length;
const ciphertextHeadAt = nonceAt + nonceBytes;
const headBytes = { short: 2, long: 3 } as const;

/** Longest message: the largest record, padded. */
export const encryptedRecordBytesMax: number =
  ciphertextHeadAt + headBytes.long + paddedLength(recordBytesMax) + tagBytes;

/** Bytes of a record once it is padded: 192, or the next step that has room for one byte more than the record. */
export function paddedLength(recordBytes: number): number {
  let length = paddedBytesMin;
  while (length < recordBytes + 1) length *= 2;
  return length;
}

/** Whether a message claims to be encrypted: it bears the tag of COSE_Encrypt0. */
export function isEncrypted(bytes: Uint8Array): boolean {
  return bytes[0] === tag16;
}

/** The same record gives the same bytes each time: sending it again shows a broker nothing new. */
export function encryptRecord(record: Uint8Array, deviceShare: Uint8Array, cipher: RecordCipher): Uint8Array {
  if (record.length > recordBytesMax) throw new RangeError(`a record of ${record.length} bytes`);
  const padded = new Uint8Array(paddedLength(record.length));
  padded.set(record);
  padded[record.length] = padMark;
  const nonce = cipher.nonceOf(padded);
  const ciphertext = cipher.encrypt(nonce, authenticated, padded);
  padded.fill(0);
  return joined(start, deviceShare, middle, nonce, headOf(ciphertext.length), ciphertext);
}

/** An encrypted record taken apart. */
export interface EncryptedRecord {
  /** X25519 share of the sender: with the receiver's own secret it gives the key. */
  readonly deviceShare: Uint8Array;
  readonly nonce: Uint8Array;
  readonly ciphertext: Uint8Array;
}

/** Checks the form; throws {@link Refusal}. What is given shares memory with `bytes`. */
export function decodeEncrypted(bytes: Uint8Array): EncryptedRecord {
  if (bytes.length > encryptedRecordBytesMax) throw new Refusal("too-large", `${bytes.length} bytes`);
  // There is one encoding: where anything before the ciphertext differs, the message is not one of these.
  const ciphertextAt = ciphertextHeadAt + ((bytes[ciphertextHeadAt] ?? 0) === 0x58 ? headBytes.short : headBytes.long);
  const length = bytes.length - ciphertextAt;
  const fits =
    length > 0 &&
    startsWith(bytes, start, 0) &&
    startsWith(bytes, middle, shareAt + shareBytes) &&
    startsWith(bytes, headOf(length), ciphertextHeadAt);
  if (!fits) throw whyNot(bytes);
  if (paddedLength(length - tagBytes - 1) !== length - tagBytes)
    throw new Refusal("bad-padding", `a ciphertext of ${length} bytes`);
  return {
    deviceShare: bytes.subarray(shareAt, shareAt + shareBytes),
    nonce: bytes.subarray(nonceAt, ciphertextHeadAt),
    ciphertext: bytes.subarray(ciphertextAt),
  };
}

/** What is wrong with the form, for people: the first thing that a full decoder finds. */
function whyNot(bytes: Uint8Array): Refusal {
  try {
    const isTagged = ((bytes[0] ?? 0) & 0xe0) === 0xc0; // whatever the tag is
    const items = decodeCbor(isTagged ? bytes.subarray(1) : bytes, encryptedRecordBytesMax);
    if (bytes[0] !== tag16 || !Array.isArray(items) || items.length !== 3)
      return new Refusal("not-cose-encrypt0", "an array of 3 with tag 16 was expected");
    const [header, unprotected] = items;
    if (!(header instanceof Uint8Array) || !equalBytes(header, protectedHeader))
      return new Refusal("not-cose-encrypt0", "another protected header");
    if (!(unprotected instanceof Map)) return new Refusal("not-cose-encrypt0", "no unprotected header");
    return new Refusal("not-cose-encrypt0", "a kid of 32 bytes, an IV of 12 and a ciphertext were expected");
  } catch (error) {
    if (error instanceof Refusal) return error;
    throw error;
  }
}

/**
 * Opens it and gives the record inside, whose signature is still to be checked. Throws {@link Refusal}: `cannot-decrypt` where it
 * was meant for another node or was changed.
 */
export function decryptRecord({ nonce, ciphertext }: EncryptedRecord, cipher: RecordCipher): Uint8Array {
  const padded = cipher.decrypt(nonce, authenticated, ciphertext);
  if (padded === undefined) throw new Refusal("cannot-decrypt");
  if (!equalBytes(cipher.nonceOf(padded), nonce)) throw new Refusal("bad-nonce");
  let end = padded.length - 1;
  while (end > 0 && padded[end] === 0) end--;
  if (padded[end] !== padMark || end === 0 || paddedLength(end) !== padded.length) throw new Refusal("bad-padding");
  return padded.subarray(0, end);
}

/** The head of a byte string (RFC 8949 §3.1); of those here none is shorter than 192 bytes or longer than 65,535. */
function headOf(length: number): Uint8Array {
  return length < 0x100 ? Uint8Array.of(0x58, length) : Uint8Array.of(0x59, length >>> 8, length & 0xff);
}

function startsWith(bytes: Uint8Array, part: Uint8Array, at: number): boolean {
  for (let i = 0; i < part.length; i++) if (bytes[at + i] !== part[i]) return false;
  return true;
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}

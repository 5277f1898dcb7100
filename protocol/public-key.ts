/** Ed25519 public keys: vetted once at enrolment, named by did:key, hinted at by the first bytes of their thumbprint. */
import { Point } from "@noble/ed25519";
import { kidBytes, type Sha256 } from "./cose-sign1.ts";
import { encodeCbor } from "./deterministic-cbor.ts";
import { Refusal } from "./refusal.ts";

export const publicKeyBytes = 32;

/**
 * Refuses keys under which a signature could hold for more than one signer or message: non-canonical encodings, points of
 * small order, points with a torsion part. After this, cofactored and cofactorless verifiers agree on honest signatures.
 */
export function vetPublicKey(publicKey: Uint8Array): void {
  if (publicKey.length !== publicKeyBytes) throw new Refusal("bad-public-key", `${publicKey.length} bytes`);
  let point: Point;
  try {
    point = Point.fromBytes(publicKey); // RFC 8032 §5.1.3, refuses y ≥ p
  } catch {
    throw new Refusal("bad-public-key", "not a point of the curve in canonical form");
  }
  if (point.isSmallOrder()) throw new Refusal("bad-public-key", "of small order");
  if (!point.isTorsionFree()) throw new Refusal("bad-public-key", "with a torsion part");
}

/** First 8 bytes of the COSE key thumbprint (RFC 9679 §3): SHA-256 of {1: 1 (OKP), -1: 6 (Ed25519), -2: x}. */
export function kidOf(publicKey: Uint8Array, sha256: Sha256): Uint8Array {
  const required = new Map<number, number | Uint8Array>([
    [1, 1],
    [-1, 6],
    [-2, publicKey],
  ]);
  return sha256(encodeCbor(required)).slice(0, kidBytes);
}

const alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"; // base58btc
const multicodecEd25519 = [0xed, 0x01]; // multicodec 0xed as an unsigned varint
const didPrefix = "did:key:";
const multibaseLength = 48; // of 'z' and 34 bytes in base58btc, for this prefix always

/** did:key of an Ed25519 key (W3C CCG did:key §3.1.1): `did:key:z6Mk…`. */
export function didKeyOf(publicKey: Uint8Array): string {
  return didPrefix + multibaseOf(publicKey);
}

/** The multibase part of the did:key, `z6Mk…`: the device's name in topics and stores. */
export function multibaseOf(publicKey: Uint8Array): string {
  if (publicKey.length !== publicKeyBytes) throw new TypeError("an Ed25519 public key has 32 bytes");
  let number = 0n;
  for (const byte of [...multicodecEd25519, ...publicKey]) number = number * 256n + BigInt(byte);
  let text = "";
  for (; number > 0n; number /= 58n) text = alphabet[Number(number % 58n)] + text;
  return `z${text}`;
}

/** The public key that a did:key (or its multibase part alone) names. Throws {@link Refusal} `bad-did`. */
export function publicKeyOfDid(did: string): Uint8Array {
  const text = did.startsWith(didPrefix) ? did.slice(didPrefix.length) : did;
  if (!text.startsWith("z6Mk") || text.length !== multibaseLength)
    throw new Refusal("bad-did", "did:key:z6Mk… of 48 characters after did:key: was expected");
  let number = 0n;
  for (const character of text.slice(1)) {
    const digit = alphabet.indexOf(character);
    if (digit < 0) throw new Refusal("bad-did", `'${character}' is not a base58 character`);
    number = number * 58n + BigInt(digit);
  }
  const bytes = new Uint8Array(multicodecEd25519.length + publicKeyBytes);
  for (let i = bytes.length - 1; i >= 0; i--, number /= 256n) bytes[i] = Number(number % 256n);
  const publicKey = bytes.slice(multicodecEd25519.length);
  if (number !== 0n || multibaseOf(publicKey) !== text) throw new Refusal("bad-did");
  return publicKey;
}

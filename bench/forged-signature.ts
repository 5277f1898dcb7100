/**
 * Signatures that nobody with the right to it has made: changed ones, others in other forms, some that careless verifiers take
 * (RFC 8032 §5.1.7 without its checks).
 */
import { Point } from "@noble/ed25519";
import { sha512 } from "@noble/hashes/sha2.js";
import type { SeededRandom } from "../test/protocol/seeded-random.ts";
import { bytesOf, hexOf, type TestKey } from "../test/vectors/signature-suite.ts";

/** The order of the base point (RFC 8032 §5.1). */
export const groupOrder: bigint = Point.CURVE().n;
const scalarBytes = 32;
const fieldPrime = 2n ** 255n - 19n;

/** All points of small order in their canonical encodings, and the encodings of them that are not canonical. */
export const smallOrderPoints: readonly Uint8Array[] = [
  `01${"00".repeat(31)}`,
  `ec${"ff".repeat(30)}7f`,
  "00".repeat(32),
  `${"00".repeat(31)}80`,
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
  `01${"00".repeat(30)}80`,
  `ec${"ff".repeat(31)}`,
  `ed${"ff".repeat(30)}7f`,
  `ed${"ff".repeat(31)}`,
  `ee${"ff".repeat(30)}7f`,
  `ee${"ff".repeat(31)}`,
].map(bytesOf);

export function littleEndian(bytes: Uint8Array): bigint {
  return BigInt(`0x${hexOf(bytes.toReversed())}`);
}

export function scalarOf(number: bigint): Uint8Array {
  return bytesOf(number.toString(16).padStart(2 * scalarBytes, "0")).toReversed();
}

function joined(r: Uint8Array, s: Uint8Array): Uint8Array {
  return Uint8Array.from([...r, ...s]);
}

export function flippedBit(bytes: Uint8Array, random: SeededRandom): Uint8Array {
  const bit = random.integer(0, bytes.length * 8 - 1);
  const changed = Uint8Array.from(bytes);
  changed[bit >> 3] = (changed[bit >> 3] as number) ^ (1 << (bit & 7));
  return changed;
}

/** S with the group's order added as often as 32 bytes can hold: the same number modulo L (RFC 8032 §8.4). */
export function malleated(signature: Uint8Array, random: SeededRandom): Uint8Array {
  const s = littleEndian(signature.slice(scalarBytes)) + BigInt(random.integer(1, 14)) * groupOrder;
  return joined(signature.slice(0, scalarBytes), scalarOf(s));
}

/** What a verifier that does not look at the range of S makes of it. */
export function reducedS(signature: Uint8Array): Uint8Array {
  const s = littleEndian(signature.slice(scalarBytes)) % groupOrder;
  return joined(signature.slice(0, scalarBytes), scalarOf(s));
}

/** R with y = p added, where there is such an encoding of it; else R of small order beside S = 0. */
export function otherEncoding(signature: Uint8Array, random: SeededRandom): Uint8Array {
  const y = littleEndian(signature.slice(0, scalarBytes)) & (2n ** 255n - 1n);
  if (y + fieldPrime < 2n ** 255n)
    return joined(scalarOf((y + fieldPrime) | (BigInt(signature[31] as number) >> 7n)), signature.slice(scalarBytes));
  return joined(random.pick(smallOrderPoints), new Uint8Array(scalarBytes));
}

/**
 * Made by the key's holder with an R that has a torsion part: it holds where both sides are multiplied by the cofactor, and is
 * another signature of the same message for whoever does that.
 */
export function torsionSignature(key: TestKey, message: Uint8Array, random: SeededRandom): Uint8Array {
  const head = sha512(key.seed).slice(0, scalarBytes);
  head[0] = (head[0] as number) & 248;
  head[31] = ((head[31] as number) & 127) | 64;
  const torsion = Point.fromHex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05");
  const nonce = BigInt(random.integer(1, 2 ** 48));
  const r = Point.BASE.multiply(nonce).add(torsion).toBytes();
  const k = littleEndian(sha512(Uint8Array.from([...r, ...key.publicKey, ...message]))) % groupOrder;
  return joined(r, scalarOf((nonce + k * littleEndian(head)) % groupOrder));
}

/**
 * Under a public key of small order this holds without any secret: for any message with the cofactor, for one in eight at least
 * without it, unless the verifier refuses such keys (OpenSSL 3.5 does).
 */
export function secretlessSignature(random: SeededRandom): Uint8Array {
  const s = BigInt(random.integer(1, 2 ** 48));
  return joined(Point.BASE.multiply(s).toBytes(), scalarOf(s));
}

/** R of small order and S = 0: it holds under a public key of small order where both fit. */
export function smallOrderSignature(random: SeededRandom): Uint8Array {
  return joined(random.pick(smallOrderPoints), new Uint8Array(scalarBytes));
}

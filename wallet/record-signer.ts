/**
 * Ed25519 signatures (RFC 8032 §5.1.6) over noble's curve, with what depends on the key alone made once: noble's own sign()
 * makes the public key anew for each signature, which takes as long as the rest of it.
 */
import { hash } from "node:crypto";
import { etc, Point, utils } from "@noble/ed25519";
import type { Sign } from "../protocol/cose-sign1.ts";

/** The order of the base point (RFC 8032 §5.1). */
const order = Point.CURVE().n;
const scalarBytes = 32;

/** Signs with a seed. The seed may be wiped afterwards; what was made of it stays in this closure until the process ends. */
export function signerOf(seed: Uint8Array): Sign {
  const { prefix, scalar, pointBytes } = utils.getExtendedPublicKey(seed);
  return (message) => {
    const r = scalarOf(sha512(prefix, message));
    const point = Point.BASE.multiply(r).toBytes();
    const k = scalarOf(sha512(point, pointBytes, message));
    const signature = new Uint8Array(2 * scalarBytes);
    signature.set(point);
    signature.set(littleEndian(etc.mod(r + k * scalar, order)), scalarBytes);
    return signature;
  };
}

function sha512(...parts: readonly Uint8Array[]): Buffer {
  return hash("sha512", Buffer.concat(parts), "buffer");
}

/** A hash as an integer, little-endian, modulo the order. */
function scalarOf(digest: Buffer): bigint {
  return etc.mod(BigInt(`0x${digest.reverse().toString("hex")}`), order);
}

function littleEndian(value: bigint): Uint8Array {
  return Buffer.from(value.toString(16).padStart(2 * scalarBytes, "0"), "hex").reverse();
}

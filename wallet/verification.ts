/** Verification of signatures in the wallet: node:crypto, for public keys that were vetted before. */
import { createPublicKey, type KeyObject, verify as verifySignature } from "node:crypto";
import type { Verify } from "../protocol/cose-sign1.ts";

const spkiEd25519 = Buffer.from("302a300506032b6570032100", "hex"); // RFC 8410 §4

/** Ed25519 (RFC 8032) without the cofactor, as OpenSSL does it. */
export const verifyEd25519: Verify = (publicKey, message, signature) =>
  verifySignature(null, message, keyObjectOf(publicKey), signature);

/** The same for one public key, which OpenSSL takes apart once, at the first signature. */
export function verifierOf(publicKey: Uint8Array): Verify {
  let key: KeyObject | undefined;
  return (given, message, signature) => {
    if (given !== publicKey) return verifyEd25519(given, message, signature);
    key ??= keyObjectOf(publicKey);
    return verifySignature(null, message, key, signature);
  };
}

function keyObjectOf(publicKey: Uint8Array): KeyObject {
  return createPublicKey({ key: Buffer.concat([spkiEd25519, publicKey]), format: "der", type: "spki" });
}

/** Verification of signatures in the wallet: node:crypto, for public keys that were vetted before. */
import { createPublicKey, verify as verifySignature } from "node:crypto";
import type { Verify } from "../protocol/cose-sign1.ts";

const spkiEd25519 = Buffer.from("302a300506032b6570032100", "hex"); // RFC 8410 §4

/** Ed25519 (RFC 8032) without the cofactor, as OpenSSL does it. */
export const verifyEd25519: Verify = (publicKey, message, signature) => {
  const key = createPublicKey({ key: Buffer.concat([spkiEd25519, publicKey]), format: "der", type: "spki" });
  return verifySignature(null, message, key, signature);
};

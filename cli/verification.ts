/** Hash and signature check for the command line, by node:crypto. */
import { createHash, createPublicKey, verify } from "node:crypto";
import type { Sha256, Verify } from "../protocol/cose-sign1.ts";

const spkiEd25519 = Buffer.from("302a300506032b6570032100", "hex"); // RFC 8410 §4

export const sha256: Sha256 = (bytes) => new Uint8Array(createHash("sha256").update(bytes).digest());

export const verifyEd25519: Verify = (publicKey, message, signature) => {
  const key = createPublicKey({ key: Buffer.concat([spkiEd25519, publicKey]), format: "der", type: "spki" });
  return verify(null, message, key, signature);
};

/** Keys of the vectors and tests, from fixed seeds, with both implementations of Ed25519 that the project uses. */
import { createHash, createPrivateKey, createPublicKey, type KeyObject, sign, verify } from "node:crypto";
import * as ed25519 from "@noble/ed25519";
import { sha512 } from "@noble/hashes/sha2.js";
import type { Sha256, Sign, Verify } from "../../protocol/cose-sign1.ts";

ed25519.hashes.sha512 = sha512;

export const sha256: Sha256 = (bytes) => Uint8Array.from(createHash("sha256").update(bytes).digest());

export interface TestKey {
  readonly seed: Uint8Array;
  readonly publicKey: Uint8Array;
  readonly sign: Sign;
}

const pkcs8Prefix = Buffer.from("302e020100300506032b657004220420", "hex"); // RFC 8410 §7
const spkiPrefix = Buffer.from("302a300506032b6570032100", "hex"); // RFC 8410 §4

export function nodeKey(seed: Uint8Array): TestKey {
  const key = createPrivateKey({ key: Buffer.concat([pkcs8Prefix, seed]), format: "der", type: "pkcs8" });
  const spki = createPublicKey(key).export({ format: "der", type: "spki" });
  return {
    seed,
    publicKey: Uint8Array.from(spki.subarray(spkiPrefix.length)),
    sign: (message) => Uint8Array.from(sign(null, message, key)),
  };
}

export function nobleKey(seed: Uint8Array): TestKey {
  return { seed, publicKey: ed25519.getPublicKey(seed), sign: (message) => ed25519.sign(message, seed) };
}

/** A key whose seed is the SHA-256 of a label: nobody's secret. */
export function keyOfLabel(label: string): TestKey {
  return nodeKey(sha256(new TextEncoder().encode(`ecp test vector: ${label}`)));
}

const keyObjects = new Map<string, KeyObject>();

export const nodeVerify: Verify = (publicKey, message, signature) => {
  const name = Buffer.from(publicKey).toString("hex");
  let key = keyObjects.get(name);
  if (key === undefined) {
    key = createPublicKey({ key: Buffer.concat([spkiPrefix, publicKey]), format: "der", type: "spki" });
    if (keyObjects.size < 100) keyObjects.set(name, key);
  }
  return verify(null, message, key, signature);
};

/** ZIP 215 is noble's default and takes encodings that RFC 8032 §5.1.7 refuses: it is turned off. */
export const nobleVerify: Verify = (publicKey, message, signature) =>
  ed25519.verify(signature, message, publicKey, { zip215: false });

export function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

export function bytesOf(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex, "hex"));
}

/**
 * The device key at rest: a seed of 32 bytes, encrypted under a passphrase. argon2id (RFC 9106) makes the key, AES-256-GCM
 * (NIST SP 800-38D) holds the seed; the header is authenticated with it. Everything else is derived from the seed.
 */
import {
  argon2Sync,
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  createPublicKey,
  hash,
  hkdfSync,
  randomBytes,
} from "node:crypto";
import { getPublicKey, hashes, sign } from "@noble/ed25519";
import { type CborValue, decodeCbor, encodeCbor } from "../protocol/deterministic-cbor.ts";
import { asBytes, asInteger, asMap } from "../protocol/field.ts";
import { Refusal } from "../protocol/refusal.ts";

// node:crypto's SHA-512 under noble's curve: 2.5 times faster without a JIT, the same signatures.
hashes.sha512 = (message) => new Uint8Array(hash("sha512", message, "buffer"));

const keystoreVersion = 1;
const keystoreBytesMax = 4_096;
const seedBytes = 32;
export const passphraseBytesMax = 1_024;

/** Cost of one try of a passphrase (RFC 9106 §3.1). */
export interface PassphraseCost {
  readonly memoryKiB: number;
  readonly passes: number;
  readonly parallelism: number;
}
const memoryKiBDefault = 65_536;
const memoryKiBMax = 1_048_576;
/** What is measured for one try: a fifth above the 300 ms that are promised. */
const calibratedMs = 360;
const passesMax = 1_000;

/** The passphrase does not open the key file, or the file was changed: the two cannot be told apart. */
export class WrongPassphrase extends Error {
  constructor(path: string) {
    super(`the passphrase does not open ${path} (or the file was changed)`);
    this.name = "WrongPassphrase";
  }
}

/** The passes that make one try take 300 ms at least on this machine. */
export function calibrateCost(memoryKiB = memoryKiBDefault): PassphraseCost {
  for (let passes = 1; ; ) {
    const cost = { memoryKiB, passes, parallelism: 1 };
    // The faster of two: a machine that is busy just now must not make the passphrase cheaper to try.
    const tryMs = Math.min(tryTimeMs(cost), tryTimeMs(cost));
    if (tryMs >= calibratedMs || passes === passesMax) return cost;
    passes = Math.min(passesMax, Math.max(passes + 1, Math.ceil((passes * calibratedMs) / tryMs)));
  }
}

function tryTimeMs(cost: PassphraseCost): number {
  const started = performance.now();
  deriveKey(Buffer.from("calibration"), Buffer.alloc(16), cost);
  return performance.now() - started;
}

function deriveKey(passphrase: Uint8Array, salt: Uint8Array, cost: PassphraseCost): Buffer {
  const { memoryKiB, passes, parallelism } = cost;
  const parameters = { message: passphrase, nonce: salt, tagLength: 32, memory: memoryKiB, passes, parallelism };
  return argon2Sync("argon2id", parameters);
}

/** A new random seed. Wipe it after use. */
export function newSeed(): Buffer {
  return randomBytes(seedBytes);
}

/** The key file's bytes. The passphrase and seed stay the caller's to wipe. */
export function lockSeed(seed: Uint8Array, passphrase: Uint8Array, cost: PassphraseCost): Uint8Array {
  const salt = randomBytes(16);
  const nonce = randomBytes(12);
  const header = encodeHeader(cost, salt, nonce, getPublicKey(seed));
  const key = deriveKey(passphrase, salt, cost);
  const cipher = createCipheriv("aes-256-gcm", key, nonce);
  cipher.setAAD(header);
  const sealed = Buffer.concat([cipher.update(seed), cipher.final(), cipher.getAuthTag()]);
  key.fill(0);
  return encodeCbor([header, new Uint8Array(sealed)]);
}

function encodeHeader(cost: PassphraseCost, salt: Uint8Array, nonce: Uint8Array, publicKey: Uint8Array): Uint8Array {
  return encodeCbor(
    new Map<number, CborValue>([
      [1, keystoreVersion],
      [2, cost.memoryKiB],
      [3, cost.passes],
      [4, cost.parallelism],
      [5, new Uint8Array(salt)],
      [6, new Uint8Array(nonce)],
      [7, publicKey],
    ]),
  );
}

interface KeyFile {
  readonly header: Uint8Array;
  readonly sealed: Uint8Array;
  readonly cost: PassphraseCost;
  readonly salt: Uint8Array;
  readonly nonce: Uint8Array;
  readonly publicKey: Uint8Array;
}

function readKeyFile(bytes: Uint8Array): KeyFile {
  const items = decodeCbor(bytes, keystoreBytesMax);
  if (!Array.isArray(items) || !(items[0] instanceof Uint8Array)) throw new Refusal("bad-field", "not a key file");
  const header = Uint8Array.from(items[0]);
  const map = asMap(decodeCbor(header, keystoreBytesMax), "header");
  const version = asInteger(map.get(1), "version", 0, 65_535);
  if (version !== keystoreVersion) throw new Refusal("unsupported-version", `key file ${version}`);
  const parallelism = asInteger(map.get(4), "parallelism", 1, 16);
  return {
    header,
    sealed: asBytes(items[1], "sealed seed", seedBytes + 16),
    cost: {
      memoryKiB: asInteger(map.get(2), "memory", 8 * parallelism, memoryKiBMax), // RFC 9106 §3.1
      passes: asInteger(map.get(3), "passes", 1, passesMax),
      parallelism,
    },
    salt: asBytes(map.get(5), "salt", 16),
    nonce: asBytes(map.get(6), "nonce", 12),
    publicKey: asBytes(map.get(7), "public key", 32),
  };
}

/** The public key that a key file names; needs no passphrase. */
export function publicKeyOfFile(bytes: Uint8Array): Uint8Array {
  return readKeyFile(bytes).publicKey;
}

/** Opens a key file. Throws {@link WrongPassphrase}, or Refusal where the file is not one. `path` is for the message. */
export function unlockSeed(bytes: Uint8Array, passphrase: Uint8Array, path: string): Buffer {
  const file = readKeyFile(bytes);
  const key = deriveKey(passphrase, file.salt, file.cost);
  const decipher = createDecipheriv("aes-256-gcm", key, file.nonce);
  decipher.setAAD(file.header);
  decipher.setAuthTag(file.sealed.subarray(seedBytes));
  const seed = decipher.update(file.sealed.subarray(0, seedBytes));
  try {
    decipher.final();
  } catch {
    seed.fill(0);
    throw new WrongPassphrase(path);
  } finally {
    key.fill(0);
  }
  return seed;
}

/** What the wallet does with its key. The seed stays in this closure. */
export interface DeviceKey {
  readonly publicKey: Uint8Array;
  /** X25519 public share, derived from the seed by HKDF (RFC 5869) under its own label. */
  readonly share: Uint8Array;
  sign(message: Uint8Array): Uint8Array;
}

export function deviceKeyOf(seed: Uint8Array): DeviceKey {
  const publicKey = getPublicKey(seed);
  return { publicKey, share: shareOf(seed), sign: (message) => sign(message, seed) };
}

const pkcs8X25519 = Buffer.from("302e020100300506032b656e04220420", "hex"); // RFC 8410 §7

function shareOf(seed: Uint8Array): Uint8Array {
  const scalar = Buffer.from(hkdfSync("sha256", seed, new Uint8Array(0), "ecp/1 x25519", 32));
  const der = Buffer.concat([pkcs8X25519, scalar]);
  scalar.fill(0);
  const publicDer = createPublicKey(createPrivateKey({ key: der, format: "der", type: "pkcs8" })).export({
    format: "der",
    type: "spki",
  });
  der.fill(0);
  return new Uint8Array(publicDer.subarray(-32));
}

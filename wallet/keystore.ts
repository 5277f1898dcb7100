/**
 * The device key at rest: a seed of 32 bytes, encrypted under a passphrase. argon2id (RFC 9106) makes the key, AES-256-GCM
 * (NIST SP 800-38D) holds the seed; the header is authenticated with it. Everything else is derived from the seed. A backup
 * is such a file with the chain's history in its header. Layout: wallet/README.md.
 */
import {
  argon2Sync,
  createCipheriv,
  createDecipheriv,
  generateKeyPairSync,
  hash,
  hkdfSync,
  randomBytes,
} from "node:crypto";
import { getPublicKey, hashes } from "@noble/ed25519";
import {
  type AgreedCipher,
  agreedCipher,
  agreedMac,
  x25519PrivateKey,
  x25519Share,
} from "../platform/agreed-cipher.ts";
import { type CborMap, type CborValue, decodeCbor, encodeCbor, equalBytes } from "../protocol/deterministic-cbor.ts";
import { asArray, asBytes, asInteger, asMap, uint32Max } from "../protocol/field.ts";
import { Refusal } from "../protocol/refusal.ts";
import { followRotations, rotationsMax } from "../protocol/rotation.ts";
import { sha256 } from "./journal-segments.ts";
import { signerOf } from "./record-signer.ts";
import { verifyEd25519 } from "./verification.ts";

// node:crypto's SHA-512 under noble's curve: 2.5 times faster without a JIT, the same signatures.
hashes.sha512 = (message) => new Uint8Array(hash("sha512", message, "buffer"));

/** Version 1 knows a seed under a passphrase and no rotation; what it cannot say is version 2. */
export const keystoreVersions = { first: 1, newest: 2 } as const;
const keystoreBytesMax = 32_768;
const seedBytes = 32;
export const passphraseBytesMax = 1_024;

/** How the seed lies in the file; `retired`: it is gone. */
const protections = ["passphrase", "none", "retired"] as const;
export type SeedProtection = (typeof protections)[number];

/** Where a key comes from: the key of the device's name, and the records that lead from it to this one, oldest first. */
export interface KeyLineage {
  readonly nameKey: Uint8Array;
  readonly rotations: readonly Uint8Array[];
}

/** What a backup knows of the chain that its key has signed. */
export interface KeyHistory {
  readonly epoch: number;
  /** 0 where nothing was sealed in the epoch. */
  readonly lastSequence: number;
  /** Digest of the newest record; zeros before the first. */
  readonly lastDigest: Uint8Array;
  readonly generation: number;
  /** The newest receipt, where there is one. */
  readonly receipt?: Uint8Array;
}

/** What a key file says without its passphrase. */
export interface KeyFile extends KeyLineage {
  readonly protection: SeedProtection;
  readonly publicKey: Uint8Array;
  /** A backup's only. */
  readonly history?: KeyHistory;
}

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

/** In processor time, which others on a busy machine do not lengthen. */
function tryTimeMs(cost: PassphraseCost): number {
  const before = process.cpuUsage();
  deriveKey(Buffer.from("calibration"), Buffer.alloc(16), cost);
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1_000;
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

/** What a key file holds beside its seed; without a lineage the key is that of the device's name. */
export interface KeyFileContent {
  readonly lineage?: KeyLineage;
  readonly history?: KeyHistory;
}

/** The file of a seed under a passphrase. Passphrase and seed stay the caller's to wipe. */
export function lockSeed(
  seed: Uint8Array,
  passphrase: Uint8Array,
  cost: PassphraseCost,
  content: KeyFileContent = {},
): Uint8Array {
  const salt = randomBytes(16);
  const nonce = randomBytes(12);
  const header = encodeHeader("passphrase", getPublicKey(seed), content, [
    [2, cost.memoryKiB],
    [3, cost.passes],
    [4, cost.parallelism],
    [5, new Uint8Array(salt)],
    [6, new Uint8Array(nonce)],
  ]);
  const key = deriveKey(passphrase, salt, cost);
  const cipher = createCipheriv("aes-256-gcm", key, nonce);
  cipher.setAAD(header);
  const sealed = Buffer.concat([cipher.update(seed), cipher.final(), cipher.getAuthTag()]);
  key.fill(0);
  return encodeCbor([header, new Uint8Array(sealed)]);
}

/** The file of a seed that nothing protects but its mode. */
export function plainSeed(seed: Uint8Array, content: KeyFileContent = {}): Uint8Array {
  return encodeCbor([encodeHeader("none", getPublicKey(seed), content, []), Uint8Array.from(seed)]);
}

/** The file of a retired key: its name is left, its seed is not. */
export function retiredKey(publicKey: Uint8Array, lineage: KeyLineage): Uint8Array {
  return encodeCbor([encodeHeader("retired", publicKey, { lineage }, []), new Uint8Array(0)]);
}

function encodeHeader(
  protection: SeedProtection,
  publicKey: Uint8Array,
  { lineage, history }: KeyFileContent,
  lock: readonly (readonly [number, CborValue])[],
): Uint8Array {
  const rotated = lineage !== undefined && lineage.rotations.length > 0;
  const isFirst = protection === "passphrase" && !rotated && history === undefined;
  const { first, newest } = keystoreVersions;
  const header = new Map<number, CborValue>([[1, isFirst ? first : newest], ...lock, [7, publicKey]]);
  if (rotated) header.set(8, lineage.nameKey).set(9, [...lineage.rotations]);
  if (history) header.set(10, encodeHistory(history));
  if (protection !== "passphrase") header.set(11, protections.indexOf(protection));
  return encodeCbor(header);
}

function encodeHistory({ epoch, lastSequence, lastDigest, generation, receipt }: KeyHistory): CborValue[] {
  return [epoch, lastSequence, lastDigest, generation, receipt ?? new Uint8Array(0)];
}

interface ReadKeyFile extends KeyFile {
  readonly header: Uint8Array;
  readonly map: CborMap;
  readonly sealed: CborValue;
}

/** What a key file says without its passphrase; rotations are verified. Throws Refusal where it is none. */
export function readKeyFile(bytes: Uint8Array): KeyFile {
  const { protection, publicKey, nameKey, rotations, history } = readHeader(bytes);
  return { protection, publicKey, nameKey, rotations, ...(history && { history }) };
}

function readHeader(bytes: Uint8Array): ReadKeyFile {
  const items = decodeCbor(bytes, keystoreBytesMax);
  if (!Array.isArray(items) || items.length !== 2 || !(items[0] instanceof Uint8Array))
    throw new Refusal("bad-field", "not a key file");
  const header = Uint8Array.from(items[0]);
  const map = asMap(decodeCbor(header, keystoreBytesMax), "header");
  const version = asInteger(map.get(1), "version", 0, uint32Max);
  if (version < keystoreVersions.first || version > keystoreVersions.newest)
    throw new Refusal(
      "unsupported-version",
      `key file ${version}, this program knows up to ${keystoreVersions.newest}`,
    );
  const publicKey = asBytes(map.get(7), "public key", 32);
  const history = map.get(10);
  return {
    header,
    map,
    sealed: items[1] as CborValue,
    protection: protections[asInteger(map.get(11) ?? 0, "protection", 0, protections.length - 1)] as SeedProtection,
    publicKey,
    ...readLineage(map, publicKey),
    ...(history !== undefined && { history: readHistory(history) }),
  };
}

function readLineage(map: CborMap, publicKey: Uint8Array): KeyLineage {
  if (!map.has(8) && !map.has(9)) return { nameKey: publicKey, rotations: [] };
  const nameKey = asBytes(map.get(8), "name's key", 32);
  const rotations = asArray(map.get(9), "rotations", rotationsMax).map((item) => asBytes(item, "rotation", 1_024, 1));
  if (!equalBytes(followRotations(nameKey, rotations, verifyEd25519, sha256), publicKey))
    throw new Refusal("bad-field", "the rotations do not lead to the key");
  return { nameKey, rotations };
}

function readHistory(value: CborValue): KeyHistory {
  const [epoch, lastSequence, lastDigest, generation, bytes] = asArray(value, "history", 5);
  const receipt = asBytes(bytes, "receipt", 4_096, 0);
  return {
    epoch: asInteger(epoch, "epoch", 0, uint32Max),
    lastSequence: asInteger(lastSequence, "last sequence", 0, uint32Max),
    lastDigest: asBytes(lastDigest, "last digest", 32),
    generation: asInteger(generation, "generation", 0, uint32Max),
    ...(receipt.length > 0 && { receipt }),
  };
}

/**
 * Opens a key file; one without protection needs no passphrase. Throws {@link WrongPassphrase}, or Refusal where the file is
 * not one, or holds no seed. `path` is for the message.
 */
export function unlockSeed(bytes: Uint8Array, passphrase: Uint8Array | undefined, path: string): Buffer {
  const file = readHeader(bytes);
  if (file.protection === "retired") throw new Refusal("bad-field", "the key is retired, its seed is gone");
  if (file.protection === "none") return plainSeedOf(file);
  if (passphrase === undefined) throw new WrongPassphrase(path);
  const parallelism = asInteger(file.map.get(4), "parallelism", 1, 16);
  const cost = {
    memoryKiB: asInteger(file.map.get(2), "memory", 8 * parallelism, memoryKiBMax), // RFC 9106 §3.1
    passes: asInteger(file.map.get(3), "passes", 1, passesMax),
    parallelism,
  };
  const sealed = asBytes(file.sealed, "sealed seed", seedBytes + 16);
  const key = deriveKey(passphrase, asBytes(file.map.get(5), "salt", 16), cost);
  const decipher = createDecipheriv("aes-256-gcm", key, asBytes(file.map.get(6), "nonce", 12));
  decipher.setAAD(file.header);
  decipher.setAuthTag(sealed.subarray(seedBytes));
  const seed = decipher.update(sealed.subarray(0, seedBytes));
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

function plainSeedOf(file: ReadKeyFile): Buffer {
  const seed = Buffer.from(asBytes(file.sealed, "seed", seedBytes));
  if (!equalBytes(getPublicKey(seed), file.publicKey))
    throw new Refusal("bad-field", "the seed is not that of the key");
  return seed;
}

/** What the wallet does with its key. The seed stays in this closure. */
export interface DeviceKey {
  readonly publicKey: Uint8Array;
  /** X25519 public share, derived from the seed by HKDF (RFC 5869) under its own label. */
  readonly share: Uint8Array;
  sign(message: Uint8Array): Uint8Array;
  /** The cipher that the owner of another share has too. `info` says what it is for. Throws UnusableShare. */
  agree(peerShare: Uint8Array, info: Uint8Array): AgreedCipher;
  /** HMAC-SHA-256 under a key that the owner of another share has too. Throws UnusableShare. */
  agreeMac(peerShare: Uint8Array, info: Uint8Array): (message: Uint8Array) => Uint8Array;
}

export function deviceKeyOf(seed: Uint8Array): DeviceKey {
  const publicKey = getPublicKey(seed);
  return { publicKey, ...agreementOf(seed), sign: signerOf(seed) };
}

/** What is left of a retired key: it signs nothing. What is still to be sent is encrypted with a share made for this run. */
export function retiredDeviceKey(publicKey: Uint8Array): DeviceKey {
  const { privateKey } = generateKeyPairSync("x25519");
  return {
    publicKey,
    share: x25519Share(privateKey),
    agree: (peerShare, info) => agreedCipher(privateKey, peerShare, info),
    agreeMac: (peerShare, info) => agreedMac(privateKey, peerShare, info),
    sign: () => {
      throw new Error("a retired key signs nothing");
    },
  };
}

function agreementOf(seed: Uint8Array): Pick<DeviceKey, "share" | "agree" | "agreeMac"> {
  const secret = Buffer.from(hkdfSync("sha256", seed, new Uint8Array(0), "ecp/1 x25519", 32));
  const privateKey = x25519PrivateKey(secret);
  secret.fill(0);
  return {
    share: x25519Share(privateKey),
    agree: (peerShare, info) => agreedCipher(privateKey, peerShare, info),
    agreeMac: (peerShare, info) => agreedMac(privateKey, peerShare, info),
  };
}

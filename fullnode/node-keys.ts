/**
 * The full node's keys: Ed25519 signs receipts and enrolment answers, X25519 agrees on secrets with devices. Both lie in
 * DATA/node.key, CBOR, mode 0600, with their public halves, so that a spoilt file is noticed and never signs.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, hash, type KeyObject, sign } from "node:crypto";
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { type AgreedCipher, agreedCipher, agreedMac } from "../platform/agreed-cipher.ts";
import { writeFileDurably } from "../platform/durable-file.ts";
import type { Sha256, Sign } from "../protocol/cose-sign1.ts";
import { type CborMap, decodeCbor, encodeCbor, equalBytes } from "../protocol/deterministic-cbor.ts";
import { asBytes, asInteger, asMap, asText, uint32Max } from "../protocol/field.ts";
import { type LoraMac, loraReceiptInfo } from "../protocol/lora-receipt.ts";
import { didKeyOf, kidOf } from "../protocol/public-key.ts";
import { Refusal } from "../protocol/refusal.ts";
import { NodeError, systemCode } from "./node-error.ts";

const keyFileName = "node.key";
const keyFileKind = "ecp-node-key";
const keyFileVersion = 1;
const keyFileMode = 0o600;
const secretBytes = 32;

/** RFC 8410 §7 and §4: what stands before the 32 bytes in PKCS #8 and in SubjectPublicKeyInfo. */
const pkcs8Prefix = {
  ed25519: "302e020100300506032b657004220420",
  x25519: "302e020100300506032b656e04220420",
} as const;
const spkiPrefix = { ed25519: "302a300506032b6570032100", x25519: "302a300506032b656e032100" } as const;

export const sha256: Sha256 = (bytes) => hash("sha256", bytes, "buffer");

export interface NodeKeys {
  /** Ed25519 public key, 32 bytes. */
  readonly publicKey: Uint8Array;
  readonly did: string;
  readonly kid: Uint8Array;
  /** X25519 public share, 32 bytes. */
  readonly share: Uint8Array;
  readonly sign: Sign;
  /** The cipher that the owner of another share has too. `info` says what it is for. Throws UnusableShare. */
  readonly agree: (peerShare: Uint8Array, info: Uint8Array) => AgreedCipher;
  /** What receipts over LoRaWAN are authenticated with, for the device of this share. Throws UnusableShare. */
  readonly loraMac: (deviceShare: Uint8Array) => LoraMac;
}

/** The KeyObject of a raw Ed25519 public key. */
export function ed25519PublicKey(publicKey: Uint8Array): KeyObject {
  const der = Buffer.concat([Buffer.from(spkiPrefix.ed25519, "hex"), publicKey]);
  return createPublicKey({ key: der, format: "der", type: "spki" });
}

/** Makes new keys in a data folder and returns them. Refuses to replace keys that are there. */
export function createNodeKeys(data: string, timeS: number): NodeKeys {
  const path = join(data, keyFileName);
  if (existsSync(path)) throw keysAreThere(path, data);
  const signing = generateKeyPairSync("ed25519");
  const agreement = generateKeyPairSync("x25519");
  const content: CborMap = new Map<number, number | string | Uint8Array>([
    [1, keyFileVersion],
    [2, keyFileKind],
    [3, secretOf(signing.privateKey)],
    [4, rawPublic(signing.publicKey)],
    [5, secretOf(agreement.privateKey)],
    [6, rawPublic(agreement.publicKey)],
    [7, timeS],
  ]);
  const bytes = encodeCbor(content);
  writeFileDurably(path, bytes, keyFileMode);
  bytes.fill(0);
  return loadNodeKeys(data);
}

/** Gives a new data folder the keys of another node, with which it shares a store. Refuses to replace keys that are there. */
export function copyNodeKeys(from: string, data: string): NodeKeys {
  loadNodeKeys(from); // whole, and not readable by others
  const path = join(data, keyFileName);
  if (existsSync(path)) throw keysAreThere(path, data);
  const bytes = readFileSync(join(from, keyFileName));
  writeFileDurably(path, bytes, keyFileMode);
  bytes.fill(0);
  return loadNodeKeys(data);
}

/** Loads the keys of a data folder. Refuses a file that others may read, and one that does not fit itself. */
export function loadNodeKeys(data: string): NodeKeys {
  const path = join(data, keyFileName);
  const bytes = readKeyFile(path);
  try {
    const { secret, publicKey, agreement, share } = parseKeyFile(bytes);
    const privateKey = privateKeyOf("ed25519", secret);
    const agreementKey = privateKeyOf("x25519", agreement);
    const fits =
      equalBytes(rawPublic(createPublicKey(privateKey)), publicKey) &&
      equalBytes(rawPublic(createPublicKey(agreementKey)), share);
    secret.fill(0);
    agreement.fill(0);
    if (!fits) throw damaged(path, "a secret key that does not fit the public key beside it");
    return {
      publicKey,
      did: didKeyOf(publicKey),
      kid: kidOf(publicKey, sha256),
      share,
      sign: (message) => sign(null, message, privateKey),
      agree: (peerShare, info) => agreedCipher(agreementKey, peerShare, info),
      loraMac: (deviceShare) => agreedMac(agreementKey, deviceShare, loraReceiptInfo(deviceShare, share)),
    };
  } catch (error) {
    if (error instanceof Refusal) throw damaged(path, error.message);
    throw error;
  } finally {
    bytes.fill(0);
  }
}

function keysAreThere(path: string, data: string): NodeError {
  return new NodeError("data-exists", {
    expected: "a data folder without a node key",
    got: `the key file ${path}`,
    where: data,
    todo: "use another folder with --data; a node key that devices have pinned cannot be made again, so it is never overwritten",
  });
}

function readKeyFile(path: string): Uint8Array {
  try {
    const mode = statSync(path).mode & 0o777;
    if ((mode & 0o077) !== 0)
      throw new NodeError("key-permissions", {
        expected: "a key file that only its owner may read (mode 600)",
        got: `mode ${mode.toString(8)}`,
        where: path,
        todo: `chmod 600 ${path}; if others could read it until now, make a new node and have the devices pin that one`,
      });
    return readFileSync(path);
  } catch (error) {
    if (systemCode(error) === "ENOENT")
      throw new NodeError("key-missing", {
        expected: "the node's key file",
        got: "no such file",
        where: path,
        todo: "ecp-node init --data DIR makes one; or restore the file from your backup, mode 600",
      });
    if (systemCode(error) === "EACCES")
      throw new NodeError("key-permissions", {
        expected: "a key file that this user may read",
        got: "permission denied",
        where: path,
        todo: "run as the user that owns the data folder (ecp-node)",
      });
    throw error;
  }
}

function parseKeyFile(bytes: Uint8Array): Record<"secret" | "publicKey" | "agreement" | "share", Uint8Array> {
  const content = asMap(decodeCbor(bytes, 1_024), "key file");
  if (asInteger(content.get(1), "version", 0, uint32Max) !== keyFileVersion)
    throw new Refusal("unsupported-version", "key file");
  if (asText(content.get(2), "kind", 40) !== keyFileKind) throw new Refusal("bad-field", "kind");
  return {
    secret: asBytes(content.get(3), "signing key", secretBytes),
    publicKey: asBytes(content.get(4), "public key", secretBytes),
    agreement: asBytes(content.get(5), "agreement key", secretBytes),
    share: asBytes(content.get(6), "share", secretBytes),
  };
}

function damaged(path: string, got: string): NodeError {
  return new NodeError("key-damaged", {
    expected: "a key file as ecp-node init wrote it",
    got,
    where: path,
    todo: "restore the file from your backup; devices have pinned this key and take receipts from no other",
  });
}

function privateKeyOf(curve: keyof typeof pkcs8Prefix, secret: Uint8Array): KeyObject {
  const der = Buffer.concat([Buffer.from(pkcs8Prefix[curve], "hex"), secret]);
  const key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  der.fill(0);
  return key;
}

function secretOf(key: KeyObject): Uint8Array {
  return Uint8Array.from(key.export({ format: "der", type: "pkcs8" }).subarray(-secretBytes));
}

function rawPublic(key: KeyObject): Uint8Array {
  return Uint8Array.from(key.export({ format: "der", type: "spki" }).subarray(-secretBytes));
}

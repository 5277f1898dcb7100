/** What the vectors have in common: their form, their keys, and messages put together by hand: the codec under test has no part in it. */
import { type ContentType } from "../../protocol/cose-sign1.ts";
import { type CborValue, encodeCbor } from "../../protocol/deterministic-cbor.ts";
import { kidOf } from "../../protocol/public-key.ts";
import { type RefusalReason } from "../../protocol/refusal.ts";
import { bytesOf, hexOf, keyOfLabel, sha256, type TestKey } from "./signature-suite.ts";

export type Json = string | number | boolean | null | Json[] | { [name: string]: Json };
export type Expect = "ok" | RefusalReason;

/** One vector; `hex` is the message, or `text` where the input is a text. */
export interface Vector {
  readonly name: string;
  readonly hex?: string;
  readonly text?: string;
  /** Public key that the signature is checked with, hex. */
  readonly key?: string;
  readonly expect: Expect;
  readonly meaning?: Json;
  readonly [other: string]: Json | undefined;
}

export interface VectorFile {
  readonly about: string;
  readonly source: string;
  readonly vectors: readonly Vector[];
}

/** A CBOR value in JSON: byte strings, maps and 64-bit integers as objects that say so. */
export function cborJsonOf(value: CborValue): Json {
  if (value instanceof Uint8Array) return { bytes: hexOf(value) };
  if (value instanceof Map) return { map: [...value].map(([key, item]) => [jsonOf(key), cborJsonOf(item)]) };
  return Array.isArray(value) ? value.map(cborJsonOf) : jsonOf(value);
}

/** Bytes as hex, 64-bit integers as text: what JSON cannot hold. */
export function jsonOf(value: unknown): Json {
  if (value instanceof Uint8Array) return hexOf(value);
  if (Array.isArray(value)) return value.map(jsonOf);
  if (typeof value === "bigint") return { integer: value.toString() };
  if (typeof value === "object" && value !== null)
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, jsonOf(item)]));
  return value as Json;
}

export const wallet = keyOfLabel("wallet key");
export const node = keyOfLabel("full node key");
export const stranger = keyOfLabel("nobody's key");

export function join(...parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(parts));
}

/** A byte string with its header (RFC 8949 §3.1). */
export function byteString(bytes: Uint8Array): Uint8Array {
  const { length } = bytes;
  if (length < 24) return join(Uint8Array.of(0x40 | length), bytes);
  if (length < 256) return join(Uint8Array.of(0x58, length), bytes);
  return join(Uint8Array.of(0x59, length >> 8, length & 0xff), bytes);
}

/** {1: algorithm, 3: content type}; the algorithm is -8 (0x27) or another given in hex. */
export function protectedHeaderOf(contentType: number, algorithmHex = "27"): Uint8Array {
  return join(bytesOf(`a201${algorithmHex}0319`), Uint8Array.of(contentType >> 8, contentType & 0xff));
}

export interface Wrapping {
  readonly key: TestKey;
  readonly tagged?: boolean;
  readonly unprotectedHex?: string;
  readonly protectedHeader?: Uint8Array;
  readonly breakSignature?: (signature: Uint8Array) => Uint8Array;
}

export function wrap(contentType: ContentType, payload: Uint8Array, wrapping: Wrapping): Uint8Array {
  const protectedHeader = wrapping.protectedHeader ?? protectedHeaderOf(contentType);
  // Sig_structure, RFC 9052 §4.4: ["Signature1", protected, external_aad, payload]
  const context = join(Uint8Array.of(0x84, 0x6a), new TextEncoder().encode("Signature1"));
  const signed = join(context, byteString(protectedHeader), byteString(new Uint8Array(0)), byteString(payload));
  const signature = wrapping.key.sign(signed);
  const unprotected = bytesOf(wrapping.unprotectedHex ?? `a10448${hexOf(kidOf(wrapping.key.publicKey, sha256))}`);
  return join(
    bytesOf(wrapping.tagged === false ? "84" : "d284"),
    byteString(protectedHeader),
    unprotected,
    byteString(payload),
    byteString(wrapping.breakSignature?.(signature) ?? signature),
  );
}

/** The one digest: SHA-256 of the untagged message with an empty unprotected map. */
export function digestOfWrapped(contentType: ContentType, payload: Uint8Array, wrapping: Wrapping): Uint8Array {
  return sha256(wrap(contentType, payload, { ...wrapping, tagged: false, unprotectedHex: "a0" }));
}

export function flipped(bytes: Uint8Array, offset: number): Uint8Array {
  return bytes.map((byte, i) => (i === offset ? byte ^ 1 : byte));
}

export const previous = sha256(new TextEncoder().encode("the record before")).slice(0, 16);
export const digestOfLabel = (label: string): Uint8Array => sha256(new TextEncoder().encode(label));
export const device = kidOf(wallet.publicKey, sha256);

export type Changes = readonly (readonly [number, CborValue | undefined])[];

export function changed(payload: Map<number, CborValue>, changes: Changes): Uint8Array {
  for (const [key, value] of changes) {
    if (value === undefined) payload.delete(key);
    else payload.set(key, value);
  }
  return encodeCbor(payload);
}

/**
 * A full node's receipt in 41 bytes, for LoRaWAN, where a signature has no room: the same statement as receipt.ts makes, under a
 * MAC whose key only the device and the node can make (X25519, RFC 7748; HKDF-SHA-256, RFC 5869). Big-endian. Layout:
 * protocol/README.md and ecp.cddl.
 */
import { uint32Max } from "./field.ts";
import { Refusal } from "./refusal.ts";

export const loraReceiptBytes = 41;
/** Sequences that the bitmap speaks of. */
export const loraBitmapBits = 32;
/** First bytes of a record's digest. */
export const loraDigestBytes = 8;
/** HMAC-SHA-256 (RFC 2104), cut. */
export const loraMacBytes = 16;
const signedBytes = loraReceiptBytes - loraMacBytes;

/**
 * `stored`: all up to a sequence, and what the bitmap has of the next ones. `storedBehindGap`: a sequence, and what it has before it.
 * `evidence`: a sequence whose record contradicts the chain that the node has, and is kept, and what the bitmap has right before it.
 */
export const loraReceiptTypes = { stored: 1, storedBehindGap: 2, evidence: 3 } as const;
export type LoraReceiptType = (typeof loraReceiptTypes)[keyof typeof loraReceiptTypes];

export interface LoraReceipt {
  readonly type: LoraReceiptType;
  readonly epoch: number;
  /** Type 1: all up to here are stored, 0: none. Types 2 and 3: this one is. */
  readonly sequence: number;
  /** Bit i, from the highest on: type 1, sequence + 1 + i is stored; types 2 and 3, sequence − 1 − i is. */
  readonly bitmap: number;
  /** First 8 bytes of the digest of the record `sequence`; zeros where that is 0. */
  readonly digest: Uint8Array;
  /** Unix seconds of the node's clock. */
  readonly timeS: number;
}

export interface DecodedLoraReceipt extends LoraReceipt {
  /** The bytes that the MAC is over. */
  readonly signed: Uint8Array;
  readonly mac: Uint8Array;
}

/** HMAC-SHA-256 under the agreed key; 32 bytes, of which a receipt has the first 16. */
export type LoraMac = (message: Uint8Array) => Uint8Array;

const infoText = Uint8Array.from("ecp lorawan receipt 1", (letter) => letter.charCodeAt(0));

/** The `info` of HKDF that makes the key: what it is for, and between whom. */
export function loraReceiptInfo(deviceShare: Uint8Array, nodeShare: Uint8Array): Uint8Array {
  return Uint8Array.from([...infoText, ...deviceShare, ...nodeShare]);
}

/** Whether bytes have the length of such a receipt; no signed one is so short. */
export function isLoraReceipt(bytes: Uint8Array): boolean {
  return bytes.length === loraReceiptBytes;
}

/** Throws {@link Refusal} on content that {@link decodeLoraReceipt} would refuse. */
export function encodeLoraReceipt(receipt: LoraReceipt, mac: LoraMac): Uint8Array {
  check(receipt);
  const bytes = new Uint8Array(loraReceiptBytes);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, receipt.type);
  view.setUint32(1, receipt.epoch);
  view.setUint32(5, receipt.sequence);
  view.setUint32(9, receipt.bitmap);
  bytes.set(receipt.digest, 13);
  view.setUint32(21, receipt.timeS);
  bytes.set(mac(bytes.slice(0, signedBytes)).subarray(0, loraMacBytes), signedBytes);
  return bytes;
}

/** Takes a receipt apart: its form only, the MAC is the caller's to check. Throws {@link Refusal}. */
export function decodeLoraReceipt(bytes: Uint8Array): DecodedLoraReceipt {
  if (bytes.length < loraReceiptBytes) throw new Refusal("truncated", `${bytes.length} bytes`);
  if (bytes.length > loraReceiptBytes) throw new Refusal("trailing-bytes", `${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const receipt = {
    type: view.getUint8(0) as LoraReceiptType,
    epoch: view.getUint32(1),
    sequence: view.getUint32(5),
    bitmap: view.getUint32(9),
    digest: bytes.slice(13, 13 + loraDigestBytes),
    timeS: view.getUint32(21),
  };
  check(receipt);
  return { ...receipt, signed: bytes.slice(0, signedBytes), mac: bytes.slice(signedBytes) };
}

function check({ type, epoch, sequence, bitmap, digest, timeS }: LoraReceipt): void {
  if (!Object.values(loraReceiptTypes).includes(type))
    throw new Refusal("unsupported-version", `a receipt of type ${type}`);
  for (const [name, value] of Object.entries({ epoch, sequence, bitmap, timeS }))
    if (!Number.isInteger(value) || value < 0 || value > uint32Max) throw new Refusal("bad-field", name);
  if (digest.length !== loraDigestBytes) throw new Refusal("bad-field", `a digest of ${digest.length} bytes`);
  const isEmpty = digest.every((byte) => byte === 0);
  if (sequence === 0 && (type !== loraReceiptTypes.stored || !isEmpty))
    throw new Refusal("bad-field", "there is no record of sequence 0");
  const [lowest, highest] = namedEnds({ type, sequence, bitmap });
  if (lowest < 0 || highest > uint32Max) throw new Refusal("bad-field", "the bitmap names what no sequence can be");
}

/** The lowest and highest sequence that the bitmap could name wrongly: types 2 and 3 must not reach 0, type 1 not beyond 32 bits. */
function namedEnds({ type, sequence, bitmap }: Pick<LoraReceipt, "type" | "sequence" | "bitmap">): [number, number] {
  if (bitmap === 0) return [sequence, sequence];
  const lastBit = loraBitmapBits - 1 - Math.log2(lowestBit(bitmap));
  return type === loraReceiptTypes.stored ? [sequence, sequence + 1 + lastBit] : [sequence - 2 - lastBit, sequence];
}

function lowestBit(bitmap: number): number {
  return (bitmap & -bitmap) >>> 0;
}

/** What a receipt says is stored: ascending runs [first, last] of sequences. */
export function storedSequences(receipt: Pick<LoraReceipt, "type" | "sequence" | "bitmap">): [number, number][] {
  const { type, sequence, bitmap } = receipt;
  const isThrough = type === loraReceiptTypes.stored;
  const named = Array.from({ length: loraBitmapBits }, (_, i) => i)
    .filter((i) => isBitSet(bitmap, i))
    .map((i) => (isThrough ? sequence + 1 + i : sequence - 1 - i));
  const runs: [number, number][] = isThrough && sequence > 0 ? [[1, sequence]] : [];
  for (const one of isThrough ? named : [...named.reverse(), sequence]) {
    const run = runs.at(-1);
    if (run && run[1] === one - 1) run[1] = one;
    else runs.push([one, one]);
  }
  return runs;
}

function isBitSet(bitmap: number, index: number): boolean {
  return ((bitmap >>> (loraBitmapBits - 1 - index)) & 1) === 1;
}

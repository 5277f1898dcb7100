/**
 * A full node's signed receipt: which records of a device it has stored. The only thing that releases a record from a
 * wallet's journal. Layout: protocol/README.md and ecp.cddl.
 */
import { type CoseSign1, contentTypes, decodeCose, digestBytes, kidBytes, type Sign, signCose } from "./cose-sign1.ts";
import { type CborKey, type CborMap, type CborValue, decodeCbor, encodeCbor } from "./deterministic-cbor.ts";
import { asArray, asBytes, asInteger, asMap, asText, uint32Max } from "./field.ts";
import { Refusal } from "./refusal.ts";

export const receiptVersion = 1;
export const receiptBytesMax = 2_048;
export const receiptRangesMax = 16;
export const receiptRefusedMax = 16;
export const receiptKeptMax = 8;

export interface ReceiptRange {
  readonly first: number;
  readonly last: number;
  /** SHA-256 digest of the record `last`. */
  readonly digest: Uint8Array;
}

export interface Receipt {
  /** kid of the device's enrolment key: whom the receipt is for. */
  readonly device: Uint8Array;
  readonly epoch: number;
  /** All sequences of the epoch up to and with this one are stored, voided or refused for good; 0: none. */
  readonly through: number;
  /** Digest of the record `through`; absent when `through` is 0. */
  readonly digest?: Uint8Array;
  /** Stored above `through`, ascending, with gaps between. */
  readonly ranges: readonly ReceiptRange[];
  /** The node holds this epoch until the owner agrees: its records are stored, and not booked. */
  readonly held: boolean;
  /** Kept as evidence, not booked: [sequence, reason]. */
  readonly refused: readonly (readonly [sequence: number, reason: string])[];
  /**
   * Only for an epoch with evidence, or for records that came again of a device with several epochs: runs of records that came
   * just now, as they came, and are kept, be it in the chain or as evidence. So a wallet whose chain is not the one that `digest` speaks of learns that its own records are not lost.
   */
  readonly kept?: readonly ReceiptRange[];
  /** Unix seconds of the node's clock. */
  readonly timeS: number;
  /** Size of the ledger's tree that has all of these; absent before the ledger has them. */
  readonly treeSize?: number;
}

const key = {
  version: 1,
  device: 2,
  epoch: 3,
  through: 4,
  digest: 5,
  ranges: 6,
  held: 7,
  refused: 8,
  time: 9,
  treeSize: 10,
  kept: 11,
} as const;

function encodeReceiptPayload(receipt: Receipt): Uint8Array {
  const payload: CborMap = new Map<CborKey, CborValue>([
    [key.version, receiptVersion],
    [key.device, receipt.device],
    [key.epoch, receipt.epoch],
    [key.through, receipt.through],
    [key.time, receipt.timeS],
  ]);
  if (receipt.digest) payload.set(key.digest, receipt.digest);
  if (receipt.ranges.length > 0) payload.set(key.ranges, rangesField(receipt.ranges));
  if (receipt.held) payload.set(key.held, true);
  if (receipt.refused.length > 0)
    payload.set(
      key.refused,
      receipt.refused.map(([sequence, reason]) => [sequence, reason]),
    );
  if (receipt.treeSize !== undefined) payload.set(key.treeSize, receipt.treeSize);
  if (receipt.kept && receipt.kept.length > 0) payload.set(key.kept, rangesField(receipt.kept));
  const bytes = encodeCbor(payload);
  decodeReceiptPayload(bytes);
  return bytes;
}

function rangesField(ranges: readonly ReceiptRange[]): CborValue[] {
  return ranges.map((range) => [range.first, range.last, range.digest]);
}

function decodeReceiptPayload(bytes: Uint8Array): Receipt {
  const payload = asMap(decodeCbor(bytes, receiptBytesMax), "payload");
  const version = asInteger(payload.get(key.version), "version", 0, uint32Max);
  if (version !== receiptVersion) throw new Refusal("unsupported-version", `${version}`);
  const through = asInteger(payload.get(key.through), "through", 0, uint32Max);
  const digest = payload.get(key.digest);
  if ((through === 0) !== (digest === undefined)) throw new Refusal("bad-field", "digest goes with a through above 0");
  const held = payload.get(key.held);
  if (held !== undefined && held !== true) throw new Refusal("bad-field", "held is true or absent");
  const treeSize = payload.get(key.treeSize);
  const kept = payload.get(key.kept);
  return {
    device: asBytes(payload.get(key.device), "device", kidBytes),
    epoch: asInteger(payload.get(key.epoch), "epoch", 0, uint32Max),
    through,
    ...(digest !== undefined && { digest: asBytes(digest, "digest", digestBytes) }),
    // A range that touched `through` would have been part of it.
    ranges: readRanges(payload.get(key.ranges), through),
    held: held === true,
    refused: readRefused(payload.get(key.refused)),
    timeS: asInteger(payload.get(key.time), "time", 0, uint32Max),
    ...(treeSize !== undefined && { treeSize: asInteger(treeSize, "tree size", 1, Number.MAX_SAFE_INTEGER) }),
    ...(kept !== undefined && { kept: readKept(kept) }),
  };
}

function readRanges(value: CborValue | undefined, through: number): ReceiptRange[] {
  if (value === undefined) return [];
  let above = through + 1; // a range that touched `through` would have been part of it
  return asArray(value, "ranges", receiptRangesMax).map((item) => {
    const range = readRange(item, above + 1);
    above = range.last + 1;
    return range;
  });
}

/** In any order, and they may overlap: two wallets of one key may have sent records of the same sequences. */
function readKept(value: CborValue): ReceiptRange[] {
  const runs = asArray(value, "kept", receiptKeptMax).map((item) => readRange(item, 1));
  if (runs.length === 0) throw new Refusal("bad-field", "kept names a run, or is absent");
  return runs;
}

function readRange(item: CborValue, lowest: number): ReceiptRange {
  const [first, last, digest] = asArray(item, "range", 3);
  return {
    first: asInteger(first, "range's first", lowest, uint32Max),
    last: asInteger(last, "range's last", typeof first === "number" ? first : 0, uint32Max),
    digest: asBytes(digest, "range's digest", digestBytes),
  };
}

function readRefused(value: CborValue | undefined): [number, string][] {
  if (value === undefined) return [];
  return asArray(value, "refused", receiptRefusedMax).map((item) => {
    const [sequence, reason] = asArray(item, "refused", 2);
    return [asInteger(sequence, "refused sequence", 1, uint32Max), asText(reason, "refused reason", 40)];
  });
}

export interface DecodedReceipt {
  readonly cose: CoseSign1;
  readonly content: Receipt;
}

/** A receipt from its bytes: form and content checked, its signature not yet. Throws {@link Refusal}. */
export function decodeReceipt(bytes: Uint8Array): DecodedReceipt {
  const cose = decodeCose(bytes, contentTypes.receipt, receiptBytesMax);
  return { cose, content: decodeReceiptPayload(cose.payload) };
}

/** Signs a receipt with a node's key; `kid` is the node key's. */
export function signReceipt(receipt: Receipt, sign: Sign, kid: Uint8Array): Uint8Array {
  return signCose(contentTypes.receipt, encodeReceiptPayload(receipt), sign, kid);
}

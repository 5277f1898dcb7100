/**
 * Receipts that are carried back to a device where the network does not reach: a CBOR sequence (RFC 8742) of byte strings, each a
 * receipt. The file itself is not signed; the receipts are. Layout: protocol/README.md.
 */
import { decodeCbor, encodeCbor } from "./deterministic-cbor.ts";
import { asBytes } from "./field.ts";
import { receiptBytesMax } from "./receipt.ts";
import { Refusal } from "./refusal.ts";

export const receiptFileReceiptsMax = 4_096;
const headBytesMax = 3;
export const receiptFileBytesMax: number = receiptFileReceiptsMax * (receiptBytesMax + headBytesMax);

export function encodeReceiptFile(receipts: readonly Uint8Array[]): Uint8Array {
  const items = receipts.map((receipt) => encodeCbor(receipt));
  const bytes = new Uint8Array(items.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const item of items) {
    bytes.set(item, at);
    at += item.length;
  }
  decodeReceiptFile(bytes);
  return bytes;
}

/** The receipts of a file, in its order; their own form and signatures are not checked. Throws {@link Refusal}. */
export function decodeReceiptFile(bytes: Uint8Array): Uint8Array[] {
  if (bytes.length > receiptFileBytesMax) throw new Refusal("too-large", `${bytes.length} bytes`);
  if (bytes.length === 0) throw new Refusal("truncated", "an empty file");
  const receipts: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; ) {
    if (receipts.length === receiptFileReceiptsMax)
      throw new Refusal("too-large", `more than ${receiptFileReceiptsMax} receipts`);
    const end = at + itemLength(bytes, at);
    if (end > bytes.length) throw new Refusal("truncated", `in the receipt at byte ${at}`);
    receipts.push(asBytes(decodeCbor(bytes.subarray(at, end)), "receipt", receiptBytesMax, 1));
    at = end;
  }
  return receipts;
}

/** Length of a byte string's item (RFC 8949 §3.1). */
function itemLength(bytes: Uint8Array, at: number): number {
  const initial = bytes[at] as number;
  const information = initial & 31;
  if (initial >> 5 !== 2) throw new Refusal("bad-field", `no byte string with a receipt at byte ${at}`);
  if (information < 24) return 1 + information;
  const [first, second] = [bytes[at + 1], bytes[at + 2]];
  if (information === 24 && first !== undefined) return 2 + first;
  if (information === 25 && first !== undefined && second !== undefined) return 3 + 256 * first + second;
  if (information > 25) throw new Refusal("too-large", `a receipt of more than ${receiptBytesMax} bytes at byte ${at}`);
  throw new Refusal("truncated", `in the receipt at byte ${at}`);
}

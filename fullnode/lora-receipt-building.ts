/** What a full node's receipt says in the 41 bytes that LoRaWAN has room for. */
import { type LoraReceipt, loraBitmapBits, loraDigestBytes, loraReceiptTypes } from "../protocol/lora-receipt.ts";
import type { Receipt } from "../protocol/receipt.ts";

/**
 * The short form of a signed receipt's content, as an answer to a record that came just now. Where that record is among the 32
 * behind `through`, or before them, it is of type 1; else of type 2, around the range that the record is in. `digest` is that of the
 * record itself: without it a range is told of by its last record, from which the one that came may be too far away.
 */
export function loraReceiptOf(
  receipt: Pick<Receipt, "epoch" | "through" | "digest" | "ranges" | "timeS">,
  sequence: number,
  digest?: Uint8Array,
): LoraReceipt {
  const { epoch, through, ranges, timeS } = receipt;
  const isStored = (one: number): boolean =>
    (one > 0 && one <= through) || ranges.some(({ first, last }) => one >= first && one <= last);
  const bitmapOf = (sequenceOf: (bit: number) => number): number => {
    let bitmap = 0;
    for (let i = 0; i < loraBitmapBits; i++) bitmap = ((bitmap << 1) | (isStored(sequenceOf(i)) ? 1 : 0)) >>> 0;
    return bitmap;
  };
  const range = ranges.find(({ first, last }) => sequence >= first && sequence <= last);
  if (range && sequence > through + loraBitmapBits) {
    const isNear = digest === undefined || range.last - sequence <= loraBitmapBits;
    const [at, of] = isNear ? [range.last, range.digest] : [sequence, digest];
    return {
      ...{ type: loraReceiptTypes.storedBehindGap, epoch, sequence: at, timeS },
      bitmap: bitmapOf((i) => at - 1 - i),
      digest: of.slice(0, loraDigestBytes),
    };
  }
  return {
    ...{ type: loraReceiptTypes.stored, epoch, sequence: through, timeS },
    bitmap: bitmapOf((i) => through + 1 + i),
    digest: receipt.digest?.slice(0, loraDigestBytes) ?? new Uint8Array(loraDigestBytes),
  };
}

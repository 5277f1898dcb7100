/** What a receipt says about a chain, within the receipt's limits. */
import {
  decodeReceipt,
  type Receipt,
  type ReceiptRange,
  receiptRangesMax,
  receiptRefusedMax,
  signReceipt,
} from "../protocol/receipt.ts";
import type { Chain } from "./chain.ts";
import type { NodeKeys } from "./node-keys.ts";
import type { Span, StoreTransaction } from "./store.ts";

/** A receipt for what is stored of a chain now; `touched` are the sequences that it should name first. */
export async function buildReceipt(
  tx: StoreTransaction,
  chain: Chain,
  device: Uint8Array,
  touched: ReadonlySet<number>,
  timeS: number,
): Promise<Receipt> {
  const { through, spans } = chain;
  const first = spans[0];
  const evidence = chain.evidence > 0 ? await tx.evidenceSequences(chain.device, chain.epoch, receiptRefusedMax) : [];
  return {
    device,
    epoch: chain.epoch,
    through,
    ...(through > 0 && first && { digest: first.digest }),
    ranges: chooseRanges(through > 0 ? spans.slice(1) : spans, touched),
    held: chain.held,
    refused: [...new Map(evidence)].sort(([a], [b]) => a - b),
    timeS,
  };
}

/**
 * The last receipt again, where nothing has changed since and it names all that came again; else undefined. So duplicates
 * cost neither a signature nor a write.
 */
export async function receiptAgain(
  tx: StoreTransaction,
  chain: Chain,
  touched: ReadonlySet<number>,
): Promise<Uint8Array | undefined> {
  const bytes = await tx.lastReceipt(chain.device, chain.epoch);
  if (bytes === undefined) return undefined;
  const { through, ranges, held } = decodeReceipt(bytes).content;
  const names = (sequence: number) =>
    sequence <= through || ranges.some((range) => sequence >= range.first && sequence <= range.last);
  return through === chain.through && held === chain.held && [...touched].every(names) ? bytes : undefined;
}

export function sealReceipt(receipt: Receipt, keys: NodeKeys): Uint8Array {
  return signReceipt(receipt, keys.sign, keys.kid);
}

/** At most {@link receiptRangesMax}, ascending: those of the sequences just come first, then the lowest. */
function chooseRanges(spans: readonly Span[], touched: ReadonlySet<number>): ReceiptRange[] {
  if (spans.length <= receiptRangesMax) return [...spans];
  const sequences = [...touched].sort((a, b) => a - b);
  const chosen = new Set<Span>();
  let next = 0;
  for (const span of spans) {
    while ((sequences[next] ?? Number.POSITIVE_INFINITY) < span.first) next++;
    if ((sequences[next] ?? Number.POSITIVE_INFINITY) <= span.last && chosen.size < receiptRangesMax) chosen.add(span);
  }
  for (const span of spans) if (chosen.size < receiptRangesMax) chosen.add(span);
  return [...chosen].sort((a, b) => a.first - b.first);
}

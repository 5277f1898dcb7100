/** What a receipt says about a chain, within the receipt's limits. */

import { equalBytes } from "../protocol/deterministic-cbor.ts";
import {
  decodeReceipt,
  type Receipt,
  type ReceiptRange,
  receiptKeptMax,
  receiptRangesMax,
  receiptRefusedMax,
  signReceipt,
} from "../protocol/receipt.ts";
import { previousBytes } from "../protocol/record.ts";
import type { Arrival, Chain } from "./chain.ts";
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

/**
 * Receipts that also name the records of a batch that are kept, be they in the chain or evidence; several where there are more
 * runs than one receipt may name.
 */
export function withKept(receipt: Receipt, kept: readonly Arrival[]): Receipt[] {
  const runs = runsOf(kept);
  const receipts: Receipt[] = [];
  for (let i = 0; i < runs.length; i += receiptKeptMax)
    receipts.push({ ...receipt, kept: runs.slice(i, i + receiptKeptMax) });
  return receipts.length > 0 ? receipts : [receipt];
}

/** Records of which each has the one before as predecessor. Those of two wallets may have come alternately. */
function runsOf(kept: readonly Arrival[]): ReceiptRange[] {
  const runs: { first: number; last: number; digest: Uint8Array }[] = [];
  for (const { content, digest, voided } of kept.toSorted((a, b) => a.content.sequence - b.content.sequence)) {
    const { sequence, previous } = content;
    const predecessor = voided ? voided.first - 1 : sequence - 1;
    if (runs.some((run) => run.last === sequence && equalBytes(run.digest, digest))) continue;
    const before = runs.find(
      (run) => run.last === predecessor && equalBytes(run.digest.subarray(0, previousBytes), previous),
    );
    if (before) Object.assign(before, { last: sequence, digest });
    else runs.push({ first: sequence, last: sequence, digest });
  }
  return runs;
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

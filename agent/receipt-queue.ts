/**
 * Receipts that wait for the wallet. While a backlog drains they come faster than it verifies them; one that says all that an
 * earlier one says replaces it, so that the wallet verifies few. Bounded: of more the oldest goes; a later one says the same and more.
 */
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { type DecodedReceipt, decodeReceipt } from "../protocol/receipt.ts";
import { Refusal } from "../protocol/refusal.ts";

const waitingMax = 64;

interface Waiting {
  readonly bytes: Uint8Array;
  /** Undefined where it cannot be read: the wallet is to say so. */
  readonly receipt: DecodedReceipt | undefined;
}

export class ReceiptQueue {
  #waiting: readonly Waiting[] = [];

  push(bytes: Uint8Array): void {
    const receipt = decoded(bytes);
    const kept = receipt
      ? this.#waiting.filter((other) => !(other.receipt && covers(receipt, other.receipt)))
      : this.#waiting;
    this.#waiting = [...kept, { bytes, receipt }].slice(-waitingMax);
  }

  shift(): Uint8Array | undefined {
    const [first, ...rest] = this.#waiting;
    this.#waiting = rest;
    return first?.bytes;
  }
}

function decoded(bytes: Uint8Array): DecodedReceipt | undefined {
  try {
    return decodeReceipt(bytes);
  } catch (error) {
    if (error instanceof Refusal) return undefined;
    throw error;
  }
}

/** Whether a receipt of the same full node, epoch and device names all that another one names. */
function covers(newer: DecodedReceipt, older: DecodedReceipt): boolean {
  const [one, other] = [newer.content, older.content];
  const isSame =
    one.epoch === other.epoch &&
    equalBytes(one.device, other.device) &&
    equalBytes(newer.cose.kid ?? new Uint8Array(), older.cose.kid ?? new Uint8Array());
  // `kept` is said once, of what came just then.
  if (!isSame || other.kept !== undefined || one.through < other.through) return false;
  return other.ranges.every(
    ({ first, last }) => last <= one.through || one.ranges.some((range) => range.first <= first && range.last >= last),
  );
}

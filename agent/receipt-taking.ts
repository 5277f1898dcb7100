/** Receipts on their way to the wallet, which verifies them; what it then says is released, or stored, need not be sent again. */

import { decodeReceipt } from "../protocol/receipt.ts";
import { Refusal } from "../protocol/refusal.ts";
import { WalletRefusal } from "../protocol/wallet-message.ts";
import type { EpochForwarders } from "./epoch-forwarders.ts";
import type { AgentEvent } from "./event.ts";
import { Rest } from "./pause.ts";
import { ReceiptQueue } from "./receipt-queue.ts";
import { type WalletClient, WalletUnavailable } from "./wallet-client.ts";

/** A loop that only news can give work to. */
const idleMs = 60_000;

export interface ReceiptTakingOptions {
  readonly wallet: WalletClient;
  readonly forwarders: EpochForwarders;
  readonly monotonicMs: () => number;
  readonly emit: (event: AgentEvent) => void;
  /** The wallet has judged one. `refused`: it may have begun a new epoch over it. */
  readonly onTaken: (refused: boolean) => void;
}

export class ReceiptTaking {
  readonly #options: ReceiptTakingOptions;
  readonly #receipts = new ReceiptQueue();
  readonly #news = new Rest();

  constructor(options: ReceiptTakingOptions) {
    this.#options = options;
  }

  push(receipt: Uint8Array): void {
    this.#receipts.push(receipt);
    this.#news.wake();
  }

  /** Gives the wallet what comes, until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.takeAll();
      await this.#news.rest(idleMs, signal);
    }
  }

  async takeAll(): Promise<void> {
    for (;;) {
      const receipt = this.#receipts.shift();
      if (!receipt) return;
      await this.#take(receipt);
    }
  }

  /** The agent only carries a receipt: the wallet verifies it, and what it then says is released is released. */
  async #take(receipt: Uint8Array): Promise<void> {
    const { wallet, forwarders, monotonicMs, emit, onTaken } = this.#options;
    let refused = false;
    try {
      const { epoch, through, stored = rangesOf(receipt) } = await wallet.release(receipt);
      const forwarder = forwarders.of(epoch);
      const before = forwarder?.through ?? through;
      const receiptMs = forwarder?.released(through, stored, monotonicMs()) ?? [];
      if ((through > before || receiptMs.length > 0) && forwarder === forwarders.running)
        emit({ event: "acknowledged", through, receiptMs });
    } catch (error) {
      if (error instanceof WalletUnavailable) return; // what it said is said again once records are resent
      if (!(error instanceof WalletRefusal)) throw error;
      emit({ event: "refused", by: "wallet", reason: error.reason, detail: error.message });
      refused = true;
    }
    onTaken(refused);
  }
}

/** What a signed receipt names. The wallet has verified it; one of LoRaWAN's form it has taken apart as well. */
function rangesOf(receipt: Uint8Array): (readonly [first: number, last: number])[] {
  try {
    return decodeReceipt(receipt).content.ranges.map((range) => [range.first, range.last] as const);
  } catch (error) {
    if (error instanceof Refusal) return [];
    throw error;
  }
}

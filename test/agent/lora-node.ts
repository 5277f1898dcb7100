/** The full node's side of LoRaWAN without store and signatures: real SCHC receivers, and receipts under a MAC that nobody checks. */
import type { LoraRecord } from "../../agent/lora-record.ts";
import type { LoraDownlink } from "../../drivers/lora/modem.ts";
import { SchcReceiver } from "../../fullnode/schc-receiver.ts";
import { encodeLoraReceipt } from "../../protocol/lora-receipt.ts";
import { fragmentPorts, receiptPort, recordOfPacket, recordPort } from "../../protocol/lorawan.ts";

export const epoch = 7;

export class LoraNode {
  /** By sequence. */
  readonly stored = new Set<number>();
  /** What waits to go down, one of each. */
  answer: LoraDownlink | undefined;
  receipt: LoraDownlink | undefined;
  readonly #sealed: readonly LoraRecord[];
  readonly #receivers = new Map(fragmentPorts.map((port) => [port as number, new SchcReceiver()]));

  constructor(sealed: readonly LoraRecord[]) {
    this.#sealed = sealed;
  }

  receive(port: number, bytes: Uint8Array, fCnt: number, nowMs: number, devAddr = "26010203"): void {
    if (port === recordPort && bytes.length > 0) this.#store(bytes);
    const receiver = this.#receivers.get(port);
    if (receiver === undefined) return;
    for (const action of receiver.receive(bytes, fCnt, nowMs, devAddr)) {
      const isPacket = action.kind === "packet";
      if (isPacket) this.#store(action.packet);
      const answers = isPacket ? receiver.stored(nowMs) : [action];
      for (const answer of answers) if (answer.kind === "answer") this.answer = { port, bytes: answer.bytes };
    }
  }

  /** The next one to go down, an answer before a receipt. */
  take(): LoraDownlink | undefined {
    const downlink = this.answer ?? this.receipt;
    if (downlink === this.answer) this.answer = undefined;
    else this.receipt = undefined;
    return downlink;
  }

  #store(packet: Uint8Array): void {
    const bytes = Buffer.from(recordOfPacket(packet));
    const record = this.#sealed.find((one) => bytes.equals(one.bytes));
    if (record === undefined) throw new Error("a record that nobody sealed");
    this.stored.add(record.sequence);
    let through = 0;
    while (this.stored.has(through + 1)) through++;
    const isNear = record.sequence <= through + 32;
    const sequence = isNear ? through : record.sequence;
    const named = (i: number): number => (isNear ? sequence + 1 + i : sequence - 1 - i);
    const bits = Array.from({ length: 32 }, (_, i) => (this.stored.has(named(i)) ? 2 ** (31 - i) : 0));
    const digest = new Uint8Array(8).fill(sequence === 0 ? 0 : 1);
    const content = { epoch, sequence, digest, timeS: 1_772_323_200, bitmap: bits.reduce((sum, bit) => sum + bit, 0) };
    const receipt = encodeLoraReceipt({ type: isNear ? 1 : 2, ...content }, () => new Uint8Array(32));
    this.receipt = { port: receiptPort, bytes: receipt };
  }
}

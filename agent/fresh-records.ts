/** Records that came with the answers to seal requests: what is published at once need not be read back from the wallet. */
import { liveRecordsMax, type SequenceRange } from "./forwarder.ts";

export type SequencedRecord = readonly [sequence: number, record: Uint8Array];

export class FreshRecords {
  /** By sequence of the running epoch; so many of the newest as go before all that waits. */
  readonly #records = new Map<number, Uint8Array>();

  keep(records: readonly SequencedRecord[]): void {
    for (const [sequence, record] of records) this.#records.set(sequence, record);
    for (const sequence of this.#records.keys())
      if (this.#records.size > liveRecordsMax) this.#records.delete(sequence);
  }

  /** The records of a range where each of them is here, and then no more; else undefined: the wallet has them. */
  take({ from, to }: SequenceRange): SequencedRecord[] | undefined {
    const taken: SequencedRecord[] = [];
    for (let sequence = from; sequence <= to; sequence++) {
      const record = this.#records.get(sequence);
      if (record === undefined) return undefined;
      taken.push([sequence, record]);
    }
    for (const [sequence] of taken) this.#records.delete(sequence);
    return taken;
  }

  clear(): void {
    this.#records.clear();
  }
}

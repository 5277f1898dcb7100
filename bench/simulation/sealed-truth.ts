/**
 * What the simulated meters showed, what the wallet answered for, and what the full node promised: kept outside of all of them, and compared with
 * the store. Anything that differs is a violation, in words.
 */
import { decodeReceipt } from "../../protocol/receipt.ts";
import { type DecodedRecord, eventCodes } from "../../protocol/record.ts";

const violationsMax = 20;

interface SeenRecord {
  readonly digest: string;
  /** The disk's write that it became durable with, or an earlier one. */
  readonly write: number;
  readonly rows: readonly string[];
  /** The disk spoilt it after it was acknowledged, or the operator's policy let it be overwritten: it may be missing. */
  mayBeMissing: boolean;
}

interface SealedRow {
  readonly write: number;
  mayBeMissing: boolean;
}

export interface PromisedRecord {
  readonly epoch: number;
  readonly sequence: number;
  readonly digest: string;
}

/** What a receipt says is stored: all from `first` to `last`. */
export interface PromisedRange {
  readonly epoch: number;
  readonly first: number;
  readonly last: number;
}

export function rowKey(meter: number, timeS: number): string {
  return `${meter}/${timeS}`;
}

export class SealedTruth {
  readonly violations: string[] = [];
  /** By epoch and sequence. */
  readonly records = new Map<string, SeenRecord>();
  /** Rows that the wallet has answered for. */
  readonly rows = new Map<string, SealedRow>();
  readonly #promised = new Map<string, PromisedRecord>();
  readonly #ranges = new Map<string, PromisedRange>();
  receipts = 0;
  /** Told of each receipt that leaves the node. */
  onReceipt: (bytes: Uint8Array) => void = () => undefined;
  voids = 0;
  dropped = 0;

  violated(what: string): void {
    if (this.violations.length < violationsMax) this.violations.push(what);
  }

  /** A record can be read back from the wallet. */
  seen({ content, digest }: DecodedRecord, write: number): void {
    const place = `${content.epoch}/${content.sequence}`;
    const hex = Buffer.from(digest).toString("hex");
    const known = this.records.get(place);
    if (known && known.digest !== hex) this.violated(`record ${place} was sealed twice, with other bytes`);
    if (known) return;
    const rows = content.kind === "reading" ? content.rows.map(({ timeS }) => rowKey(content.meter, timeS)) : [];
    this.records.set(place, { digest: hex, write, rows, mayBeMissing: false });
    if (content.kind !== "event") return;
    for (const [code, epoch, first, last] of content.events) {
      if (code === eventCodes.void) this.voids++;
      if (code === eventCodes.dropped) this.#dropped(epoch as number, first as number, last as number);
      if (code === eventCodes.epochBegun) this.violated(`epoch ${content.epoch} began without need`);
    }
  }

  #dropped(epoch: number, first: number, last: number): void {
    this.dropped += last - first + 1;
    for (let sequence = first; sequence <= last; sequence++) {
      const record = this.records.get(`${epoch}/${sequence}`);
      if (record) record.mayBeMissing = true;
    }
  }

  /** The wallet has answered for a row. */
  sealed(meter: number, timeS: number, write: number): void {
    const key = rowKey(meter, timeS);
    if (!this.rows.has(key)) this.rows.set(key, { write, mayBeMissing: false });
  }

  /** The disk has spoilt this write although it was acknowledged. */
  spoilt(write: number): void {
    for (const record of this.records.values()) if (record.write === write) record.mayBeMissing = true;
    for (const row of this.rows.values()) if (row.write === write) row.mayBeMissing = true;
  }

  /** Rows that must be in the store. */
  rowsOwed(): string[] {
    const kept = new Set<string>();
    const lost = new Set<string>();
    for (const { rows, mayBeMissing } of this.records.values())
      for (const key of rows) (mayBeMissing ? lost : kept).add(key);
    return [...this.rows].flatMap(([key, { mayBeMissing }]) =>
      kept.has(key) || !(mayBeMissing || lost.has(key)) ? [key] : [],
    );
  }

  /** Whether something that tells of this row may be missing: then a thinner row may stand in its place. */
  mayBeThin(key: string): boolean {
    if (this.rows.get(key)?.mayBeMissing) return true;
    return [...this.records.values()].some(({ rows, mayBeMissing }) => mayBeMissing && rows.includes(key));
  }

  /** A receipt has left the node. */
  promised(bytes: Uint8Array): void {
    this.receipts++;
    this.onReceipt(bytes);
    const { epoch, through, digest, ranges } = decodeReceipt(bytes).content;
    if (digest) this.#promise({ epoch, first: 1, last: through }, digest);
    for (const range of ranges) this.#promise({ epoch, first: range.first, last: range.last }, range.digest);
  }

  #promise(range: PromisedRange, digest: Uint8Array): void {
    const { epoch, first, last } = range;
    this.#promised.set(`${epoch}/${last}`, { epoch, sequence: last, digest: Buffer.from(digest).toString("hex") });
    const key = `${epoch}/${first}`;
    if ((this.#ranges.get(key)?.last ?? 0) < last) this.#ranges.set(key, range);
  }

  get promisedRecords(): readonly PromisedRecord[] {
    return [...this.#promised.values()];
  }
  get promisedRanges(): readonly PromisedRange[] {
    return [...this.#ranges.values()];
  }

  /** Forgets what was kept for comparing: for runs that are so long that it would grow. */
  forget(): void {
    this.records.clear();
    this.rows.clear();
    this.#promised.clear();
    this.#ranges.clear();
  }
}

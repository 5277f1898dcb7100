/** The messages that came to a full node, in their order, judged by others than the node. */
import { decodeRecord } from "../protocol/record.ts";
import { sha256 } from "../test/vectors/signature-suite.ts";
import { countedRows } from "./node-books.ts";

const previousDigits = 32;

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

interface Seat {
  readonly digest: string;
  readonly previous: string;
}

/** What may be said of a record when it comes: no more of the rules than finds the first conflict of each epoch. */
export class ChainReader {
  /** Digest of the first record that stands against another one. */
  firstConflict: string | undefined;
  lastSequence = 0;
  readonly #seats = new Map<string, Seat>();

  take(bytes: Uint8Array): "stored" | "again" | "fork" {
    const { content, digest } = decodeRecord(bytes, sha256);
    const { epoch, sequence } = content;
    const record: Seat = { digest: hexOf(digest), previous: hexOf(content.previous) };
    this.lastSequence = sequence;
    const seat = (of: number): Seat | undefined => this.#seats.get(`${epoch}/${of}`);
    const follows = (later: Seat, earlier: Seat): boolean => later.previous === earlier.digest.slice(0, previousDigits);
    const there = seat(sequence);
    if (there?.digest === record.digest) return "again";
    const before = seat(sequence - 1);
    const after = seat(sequence + 1);
    const isConflict = there !== undefined || (before !== undefined && !follows(record, before));
    if (isConflict) {
      this.firstConflict ??= record.digest;
      return "fork";
    }
    // It takes its place, and one that came before it and speaks of another record leaves its own.
    if (after !== undefined && !follows(after, record)) this.firstConflict ??= after.digest;
    this.#seats.set(`${epoch}/${sequence}`, record);
    return "stored";
  }
}

/** Stores that take what is signed and look no further. */
export class NaiveStores {
  readonly #byPlace = new Map<string, string>();
  readonly #records = new Set<string>();
  readonly #counted = new Map<string, number>();
  /** By one that puts a record into the place of its epoch and sequence, whatever is there. */
  recordsOverwritten = 0;

  take(bytes: Uint8Array): void {
    const { content, digest } = decodeRecord(bytes, sha256);
    const place = `${content.epoch}/${content.sequence}`;
    const name = hexOf(digest);
    const there = this.#byPlace.get(place);
    if (there !== undefined && there !== name) this.recordsOverwritten++;
    this.#byPlace.set(place, name);
    if (this.#records.has(name)) return;
    this.#records.add(name);
    for (const { key } of countedRows(bytes)) this.#counted.set(key, (this.#counted.get(key) ?? 0) + 1);
  }

  /** By one that adds up the rows of all records that differ. */
  get keysBookedTwice(): number {
    return [...this.#counted.values()].filter((count) => count > 1).length;
  }
}

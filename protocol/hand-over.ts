/**
 * The hand-over file: sealed records carried by phone or stick where the network does not reach. A CBOR sequence (RFC 8742):
 * first the map {1: version, 2: key of the device's name, 3: number of records}, then each record as a byte string, oldest
 * first. The file itself is not signed; the records are. Layout: protocol/README.md.
 */
import { type CborValue, decodeCbor, encodeCbor } from "./deterministic-cbor.ts";
import { asBytes, asInteger, asMap, uint32Max } from "./field.ts";
import { publicKeyBytes } from "./public-key.ts";
import { recordBytesMax } from "./record.ts";
import { Refusal } from "./refusal.ts";

export const handOverVersion = 1;
/** As many records as the largest journal can hold. */
export const handOverRecordsMax = 2 ** 24;

export interface HandOverHeader {
  /** Ed25519 key of the device's name. */
  readonly nameKey: Uint8Array;
  readonly records: number;
}

export function encodeHandOverHeader({ nameKey, records }: HandOverHeader): Uint8Array {
  const bytes = encodeCbor(
    new Map<number, CborValue>([
      [1, handOverVersion],
      [2, nameKey],
      [3, records],
    ]),
  );
  readHeader(bytes);
  return bytes;
}

export function encodeHandOverRecord(record: Uint8Array): Uint8Array {
  if (record.length < 1 || record.length > recordBytesMax)
    throw new Refusal("too-large", `a record of ${record.length} bytes, at most ${recordBytesMax}`);
  return encodeCbor(record);
}

/** What each header of this version begins with: a map of three, {1: 1, 2: a byte string of 32 bytes, 3: …. */
const headerStart = [0xa3, 0x01, handOverVersion, 0x02, 0x58, publicKeyBytes];
const countAt = headerStart.length + publicKeyBytes + 1;

/**
 * Reads a hand-over file in chunks of any size, strictly. It checks the form of the file, not of its records. Holds no more
 * than a record and a chunk. Throws {@link Refusal}.
 */
export class HandOverReader {
  #rest: Uint8Array = new Uint8Array(0);
  #header: HandOverHeader | undefined;
  #count = 0;
  #offset = 0;
  #refusal: unknown;

  /** Known once the first bytes were read. */
  get header(): HandOverHeader | undefined {
    return this.#header;
  }
  /** Records read so far. */
  get count(): number {
    return this.#count;
  }

  /** Takes a chunk and gives the records that are whole with it, oldest first; those before what is refused are given first. */
  push(chunk: Uint8Array): Uint8Array[] {
    if (this.#refusal !== undefined) throw this.#refusal;
    const bytes = new Uint8Array(this.#rest.length + chunk.length);
    bytes.set(this.#rest);
    bytes.set(chunk, this.#rest.length);
    const records: Uint8Array[] = [];
    let at = 0;
    try {
      for (;;) {
        const length = this.#header === undefined ? headerLength(bytes) : this.#itemLength(bytes, at);
        if (length === undefined || at + length > bytes.length) break;
        const item = bytes.subarray(at, at + length);
        if (this.#header === undefined) this.#header = readHeader(item);
        else {
          records.push(asBytes(decodeCbor(item, recordBytesMax + 3), "record", recordBytesMax, 1));
          this.#count++;
        }
        at += length;
        this.#offset += length;
      }
    } catch (error) {
      this.#refusal = error;
      if (records.length === 0) throw error;
    }
    this.#rest = bytes.slice(at);
    return records;
  }

  /** To be called when the file has ended: gives its header, and refuses a file that ended before its records did. */
  end(): HandOverHeader {
    if (this.#refusal !== undefined) throw this.#refusal;
    if (this.#header === undefined) throw new Refusal("truncated", "in the header of a hand-over file");
    if (this.#rest.length > 0 || this.#count < this.#header.records)
      throw new Refusal(
        "truncated",
        `after ${this.#count} of ${this.#header.records} records, at byte ${this.#offset}`,
      );
    return this.#header;
  }

  /** Length of the record's item; undefined where its head is not there yet. */
  #itemLength(bytes: Uint8Array, at: number): number | undefined {
    const where = `at byte ${this.#offset}`;
    const initial = bytes[at];
    if (initial === undefined) return undefined;
    if (this.#count === this.#header?.records) throw new Refusal("trailing-bytes", where);
    if (initial >> 5 !== 2) throw new Refusal("bad-field", `no byte string with a record ${where}`);
    const information = initial & 31;
    if (information < 24) return 1 + information;
    const width = information === 24 ? 1 : 2;
    if (information > 25) throw new Refusal("too-large", `a record of more than ${recordBytesMax} bytes ${where}`);
    if (at + 1 + width > bytes.length) return undefined;
    const length =
      width === 1 ? (bytes[at + 1] as number) : (bytes[at + 1] as number) * 256 + (bytes[at + 2] as number);
    if (length > recordBytesMax) throw new Refusal("too-large", `a record of ${length} bytes ${where}`);
    return 1 + width + length;
  }
}

/** Length of the header; undefined where it is not known yet. */
function headerLength(bytes: Uint8Array): number | undefined {
  for (const [at, expected] of headerStart.entries()) {
    const found = bytes[at];
    if (found === undefined) return undefined;
    if (at === 2 && found !== expected) throw new Refusal("unsupported-version", `${found}, of a hand-over file`);
    if (found !== expected) throw new Refusal("bad-field", "this is no hand-over file");
  }
  const head = bytes[countAt];
  if (head === undefined) return undefined;
  return countAt + 1 + (head < 0x18 ? 0 : 1 << (head & 3));
}

function readHeader(bytes: Uint8Array): HandOverHeader {
  const header = asMap(decodeCbor(bytes), "header of a hand-over file");
  const version = asInteger(header.get(1), "version", 0, uint32Max);
  if (version !== handOverVersion) throw new Refusal("unsupported-version", `${version}, of a hand-over file`);
  if (header.size !== 3) throw new Refusal("bad-field", "the header of a hand-over file has three fields");
  return {
    nameKey: asBytes(header.get(2), "key of the name", publicKeyBytes),
    records: asInteger(header.get(3), "number of records", 0, handOverRecordsMax),
  };
}

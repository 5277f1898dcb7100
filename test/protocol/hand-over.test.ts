import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { type CborValue, encodeCbor } from "../../protocol/deterministic-cbor.ts";
import {
  encodeHandOverHeader,
  encodeHandOverRecord,
  HandOverReader,
  handOverRecordsMax,
} from "../../protocol/hand-over.ts";
import { recordBytesMax } from "../../protocol/record.ts";
import { Refusal, type RefusalReason } from "../../protocol/refusal.ts";
import { randomOfRun } from "./seeded-random.ts";

const nameKey = new Uint8Array(32).fill(7);

function fileOf(records: readonly Uint8Array[], announced = records.length): Buffer {
  return Buffer.concat([encodeHandOverHeader({ nameKey, records: announced }), ...records.map(encodeHandOverRecord)]);
}

/** What a reader makes of a file in chunks of so many bytes: the records, and the reason where it refuses. */
function read(file: Uint8Array, chunkBytes = 4_096): { records: Uint8Array[]; reason?: RefusalReason } {
  const reader = new HandOverReader();
  const records: Uint8Array[] = [];
  try {
    for (let at = 0; at < file.length; at += chunkBytes)
      records.push(...reader.push(file.subarray(at, at + chunkBytes)));
    assert.equal(reader.end().records, records.length);
    return { records };
  } catch (error) {
    assert.ok(error instanceof Refusal, String(error));
    return { records, reason: error.reason };
  }
}

const lengths = [1, 23, 24, 255, 256, 4_000, recordBytesMax];
const records = lengths.map((length, i) => new Uint8Array(length).fill(i));

test("a file comes back as it was written, whatever the chunks", () => {
  const file = fileOf(records);
  for (const chunkBytes of [1, 2, 7, 44, 1_000, file.length]) assert.deepEqual(read(file, chunkBytes), { records });
  assert.deepEqual(read(fileOf([])), { records: [] });
  const many = Array.from({ length: 300 }, () => records[0] as Uint8Array);
  assert.equal(read(fileOf(many), 100).records.length, 300);
});

test("a file that was cut is refused at every byte, and what came before is given", () => {
  const small = records.slice(0, 5);
  const file = fileOf(small);
  for (let cut = 0; cut < file.length; cut++) {
    const { records: found, reason } = read(file.subarray(0, cut), 16);
    assert.equal(reason, "truncated", `cut at ${cut}`);
    assert.deepEqual(found, small.slice(0, found.length));
  }
});

test("bytes behind the last record, fewer records than announced, and what is no record are refused", () => {
  const header = encodeHandOverHeader({ nameKey, records: 1 });
  const withHeader = (fields: [number, CborValue][]) => encodeCbor(new Map<number, CborValue>(fields));
  const one = fileOf([new Uint8Array([9])]);
  const cases: [string, Uint8Array, RefusalReason][] = [
    ["a byte more", Buffer.concat([one, Buffer.from([0])]), "trailing-bytes"],
    ["a record more", Buffer.concat([one, encodeHandOverRecord(new Uint8Array([9]))]), "trailing-bytes"],
    ["a record too few", fileOf([new Uint8Array([9])], 2), "truncated"],
    ["an integer for a record", Buffer.concat([header, Buffer.from([1])]), "bad-field"],
    ["a text for a record", Buffer.concat([header, encodeCbor("abc")]), "bad-field"],
    ["an empty record", Buffer.concat([header, encodeCbor(new Uint8Array(0))]), "bad-field"],
    ["a record too long", Buffer.concat([header, encodeCbor(new Uint8Array(recordBytesMax + 1))]), "too-large"],
    ["a record of 4 GiB", Buffer.concat([header, Buffer.from([0x5a, 0xff, 0xff, 0xff, 0xff])]), "too-large"],
    ["an endless record", Buffer.concat([header, Buffer.from([0x5f, 0x41, 0x01, 0xff])]), "too-large"],
    ["a length in two bytes that needs one", Buffer.concat([header, Buffer.from([0x58, 1, 9])]), "non-minimal-integer"],
    [
      "another version",
      withHeader([
        [1, 2],
        [2, nameKey],
        [3, 0],
      ]),
      "unsupported-version",
    ],
    [
      "a short key",
      withHeader([
        [1, 1],
        [2, nameKey.subarray(1)],
        [3, 0],
      ]),
      "bad-field",
    ],
    [
      "a field more",
      withHeader([
        [1, 1],
        [2, nameKey],
        [3, 0],
        [4, 0],
      ]),
      "bad-field",
    ],
    [
      "a field less",
      withHeader([
        [1, 1],
        [2, nameKey],
      ]),
      "bad-field",
    ],
    [
      "too many records",
      withHeader([
        [1, 1],
        [2, nameKey],
        [3, handOverRecordsMax + 1],
      ]),
      "bad-field",
    ],
    ["a picture", Buffer.from("\x89PNG\r\n\x1a\n0000000000000000000000000000000000000000", "latin1"), "bad-field"],
    ["nothing", Buffer.alloc(0), "truncated"],
  ];
  for (const [name, bytes, reason] of cases)
    for (const chunkBytes of [1, 3, 100_000]) assert.equal(read(bytes, chunkBytes).reason, reason, name);
  assert.deepEqual(read(one), { records: [new Uint8Array([9])] }, "control");
});

test("records before what is refused come first, wherever the chunks end", () => {
  const file = Buffer.concat([fileOf(records.slice(0, 3), 9), Buffer.from([0xff])]);
  for (let chunkBytes = 1; chunkBytes < file.length + 1; chunkBytes++) {
    const { records: found, reason } = read(file, chunkBytes);
    assert.equal(reason, "bad-field");
    assert.equal(found.length, 3, `chunks of ${chunkBytes}`);
  }
});

test("seeded: any byte changed gives other bytes of a record or a refusal, never an error of another kind", () => {
  const random = randomOfRun();
  const file = fileOf(records.slice(0, 5));
  for (let i = 0; i < 2_000; i++) {
    const changed = Buffer.from(file);
    const at = random.integer(0, file.length - 1);
    changed[at] = (changed[at] as number) ^ random.integer(1, 255);
    const { records: found, reason } = read(changed, random.integer(1, 200));
    assert.ok(reason !== undefined || found.length === 5, `seed ${random.seed}, byte ${at}`);
  }
});

test("the specification has its numbers", () => {
  const text = readFileSync(path.resolve(import.meta.dirname, "../../protocol/README.md"), "utf8").replace(/\s+/g, " ");
  assert.ok(text.includes(`follow, at most ${handOverRecordsMax.toLocaleString("en-US")};`));
  assert.ok(text.includes(`a byte string of 1 to ${recordBytesMax.toLocaleString("en-US")} bytes, tagged or not`));
});

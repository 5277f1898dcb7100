// Writes the vectors: `node test/vectors/generate.ts`. Every input is fixed, so the same files come out each time; a
// test compares. What a vector expects is stated here by hand or taken from what went in, never from the decoder.
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { Point } from "@noble/ed25519";
import { sha512 } from "@noble/hashes/sha2.js";
import { type ContentType, contentTypes } from "../../protocol/cose-sign1.ts";
import { type CborMap, type CborValue, encodeCbor } from "../../protocol/deterministic-cbor.ts";
import { type EnrolmentAnswer, type EnrolmentRequest } from "../../protocol/enrolment.ts";
import { didKeyOf, kidOf } from "../../protocol/public-key.ts";
import { type Receipt } from "../../protocol/receipt.ts";
import { encodeRecordPayload, eventCodes, type RecordContent, valueMax } from "../../protocol/record.ts";
import { type RefusalReason } from "../../protocol/refusal.ts";
import { bytesOf, hexOf, keyOfLabel, sha256, type TestKey } from "./signature-suite.ts";
import {
  energyRows,
  epoch,
  exportWh,
  good,
  importWh,
  noonS,
  readingOf,
  twelveCodes,
  twelveValues,
} from "./sample-content.ts";

type Json = string | number | boolean | null | Json[] | { [name: string]: Json };
type Expect = "ok" | RefusalReason;

/** One vector; `hex` is the message, or `text` where the input is a text. */
export interface Vector {
  readonly name: string;
  readonly hex?: string;
  readonly text?: string;
  /** Public key that the signature is checked with, hex. */
  readonly key?: string;
  readonly expect: Expect;
  readonly meaning?: Json;
  readonly [other: string]: Json | undefined;
}

export interface VectorFile {
  readonly about: string;
  readonly source: string;
  readonly vectors: readonly Vector[];
}

/** A CBOR value in JSON: byte strings, maps and 64-bit integers as objects that say so. */
export function cborJsonOf(value: CborValue): Json {
  if (value instanceof Uint8Array) return { bytes: hexOf(value) };
  if (value instanceof Map) return { map: [...value].map(([key, item]) => [jsonOf(key), cborJsonOf(item)]) };
  return Array.isArray(value) ? value.map(cborJsonOf) : jsonOf(value);
}

/** Bytes as hex, 64-bit integers as text: what JSON cannot hold. */
export function jsonOf(value: unknown): Json {
  if (value instanceof Uint8Array) return hexOf(value);
  if (Array.isArray(value)) return value.map(jsonOf);
  if (typeof value === "bigint") return { integer: value.toString() };
  if (typeof value === "object" && value !== null)
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, jsonOf(item)]));
  return value as Json;
}

const ours = "this project: test/vectors/generate.ts";
const wallet = keyOfLabel("wallet key");
const node = keyOfLabel("full node key");
const stranger = keyOfLabel("nobody's key");

// --- CBOR ---

const cborAccepted: readonly (readonly [name: string, hex: string, value: CborValue])[] = [
  ["zero", "00", 0],
  ["23 in the initial byte", "17", 23],
  ["24 in one byte", "1818", 24],
  ["255", "18ff", 255],
  ["256 in two bytes", "190100", 256],
  ["65535", "19ffff", 65_535],
  ["65536 in four bytes", "1a00010000", 65_536],
  ["2^32-1", "1affffffff", 4_294_967_295],
  ["2^32 in eight bytes", "1b0000000100000000", 4_294_967_296],
  ["2^53-1", "1b001fffffffffffff", 9_007_199_254_740_991],
  ["2^53", "1b0020000000000000", 9_007_199_254_740_992n],
  ["2^64-1", "1bffffffffffffffff", 18_446_744_073_709_551_615n],
  ["-1", "20", -1],
  ["-24", "37", -24],
  ["-25", "3818", -25],
  ["-2^31", "3a7fffffff", -2_147_483_648],
  ["-2^32", "3affffffff", -4_294_967_296],
  ["-2^32-1", "3b0000000100000000", -4_294_967_297],
  ["-2^63", "3b7fffffffffffffff", -9_223_372_036_854_775_808n],
  ["false", "f4", false],
  ["true", "f5", true],
  ["null", "f6", null],
  ["no bytes", "40", new Uint8Array(0)],
  ["four bytes", "4401020304", Uint8Array.of(1, 2, 3, 4)],
  ["no text", "60", ""],
  ["text of every UTF-8 length", "6a61c3bce282acf09f92a1", "aü€💡"],
  ["byte order mark that is not the first character", "6461efbbbf", "a\ufeff"],
  ["no items", "80", []],
  ["arrays in arrays", "8301820203820405", [1, [2, 3], [4, 5]]],
  ["no pairs", "a0", new Map()],
  [
    "keys in the order of their bytes",
    "a40a010b0220036161f4",
    new Map<number | string, CborValue>([
      [10, 1],
      [11, 2],
      [-1, 3],
      ["a", false],
    ]),
  ],
  ["a key of eight bytes", "a11b000000020000000001", new Map([[8_589_934_592, 1]])],
  ["eight levels", "8181818181818100", [[[[[[[0]]]]]]]],
];

const cborRefused: readonly (readonly [name: string, hex: string, expect: RefusalReason])[] = [
  ["nothing", "", "truncated"],
  ["integer without its bytes", "19ff", "truncated"],
  ["byte string cut off", "43aabb", "truncated"],
  ["text of 2^32-1 bytes that are not there", "7affffffff61", "truncated"],
  ["array of 2^64-1 items that are not there", "9bffffffffffffffff", "truncated"],
  ["array cut off", "8201", "truncated"],
  ["map without its value", "a101", "truncated"],
  ["a second item", "0000", "trailing-bytes"],
  ["zeros behind a map", "a000000000", "trailing-bytes"],
  ["byte string of indefinite length", "5f4101ff", "indefinite-length"],
  ["text of indefinite length", "7f6161ff", "indefinite-length"],
  ["array of indefinite length", "9f01ff", "indefinite-length"],
  ["map of indefinite length", "bf0102ff", "indefinite-length"],
  ["break alone", "ff", "indefinite-length"],
  ["23 in one byte", "1817", "non-minimal-integer"],
  ["255 in two bytes", "1900ff", "non-minimal-integer"],
  ["65535 in four bytes", "1a0000ffff", "non-minimal-integer"],
  ["2^32-1 in eight bytes", "1b00000000ffffffff", "non-minimal-integer"],
  ["-24 in one byte", "3817", "non-minimal-integer"],
  ["long length of a byte string", "580101", "non-minimal-integer"],
  ["long length of a text", "780161", "non-minimal-integer"],
  ["long count of an array", "980101", "non-minimal-integer"],
  ["long count of a map", "b8010101", "non-minimal-integer"],
  ["long key", "a1180100", "non-minimal-integer"],
  ["reserved additional information 28", "1c", "non-minimal-integer"],
  ["half float", "f93c00", "float"],
  ["single float", "fa3f800000", "float"],
  ["double float", "fb3ff0000000000000", "float"],
  ["float in an array", "8201f97e00", "float"],
  ["date tag", "c11a69bd3d00", "tag"],
  ["bignum tag", "c249010000000000000000", "tag"],
  ["tag 18 within", "81d28440a040", "tag"],
  ["undefined", "f7", "simple-value"],
  ["simple value 16", "f0", "simple-value"],
  ["simple value 255", "f8ff", "simple-value"],
  ["lone continuation byte", "6180", "bad-utf8"],
  ["overlong slash", "62c0af", "bad-utf8"],
  ["overlong in three bytes", "63e080af", "bad-utf8"],
  ["surrogate", "63eda080", "bad-utf8"],
  ["above U+10FFFF", "64f4908080", "bad-utf8"],
  ["character cut off by the text's end", "61c3", "bad-utf8"],
  ["byte string as key", "a1410100", "map-key-type"],
  ["array as key", "a1800000", "map-key-type"],
  ["true as key", "a1f500", "map-key-type"],
  ["the same key twice", "a201000101", "duplicate-key"],
  ["the same text key twice", "a2616100616101", "duplicate-key"],
  ["keys descending", "a202000100", "unsorted-keys"],
  ["negative key before a positive one", "a220000100", "unsorted-keys"],
  ["shorter text key after a longer one", "a262616100616200", "unsorted-keys"],
  ["nine levels", "818181818181818100", "too-deep"],
  ["a depth bomb", "81".repeat(2_000), "too-deep"],
  ["a depth bomb of maps", "a100".repeat(1_000), "too-deep"],
  ["integer below -2^63", "3b8000000000000000", "not-reproduced"],
  ["text that begins with a byte order mark", "64efbbbf61", "not-reproduced"],
];

function cborVectors(): Vector[] {
  return [
    ...cborAccepted.map(([name, hex, value]) => ({ name, hex, expect: "ok" as const, meaning: cborJsonOf(value) })),
    ...cborRefused.map(([name, hex, expect]) => ({ name, hex, expect })),
  ];
}

// --- COSE_Sign1, put together by hand: the codec under test has no part in it ---

function join(...parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(parts));
}

/** A byte string with its header (RFC 8949 §3.1). */
function byteString(bytes: Uint8Array): Uint8Array {
  const { length } = bytes;
  if (length < 24) return join(Uint8Array.of(0x40 | length), bytes);
  if (length < 256) return join(Uint8Array.of(0x58, length), bytes);
  return join(Uint8Array.of(0x59, length >> 8, length & 0xff), bytes);
}

/** {1: algorithm, 3: content type}; the algorithm is -8 (0x27) or another given in hex. */
function protectedHeaderOf(contentType: number, algorithmHex = "27"): Uint8Array {
  return join(bytesOf(`a201${algorithmHex}0319`), Uint8Array.of(contentType >> 8, contentType & 0xff));
}

interface Wrapping {
  readonly key: TestKey;
  readonly tagged?: boolean;
  readonly unprotectedHex?: string;
  readonly protectedHeader?: Uint8Array;
  readonly breakSignature?: (signature: Uint8Array) => Uint8Array;
}

function wrap(contentType: ContentType, payload: Uint8Array, wrapping: Wrapping): Uint8Array {
  const protectedHeader = wrapping.protectedHeader ?? protectedHeaderOf(contentType);
  // Sig_structure, RFC 9052 §4.4: ["Signature1", protected, external_aad, payload]
  const context = join(Uint8Array.of(0x84, 0x6a), new TextEncoder().encode("Signature1"));
  const signed = join(context, byteString(protectedHeader), byteString(new Uint8Array(0)), byteString(payload));
  const signature = wrapping.key.sign(signed);
  const unprotected = bytesOf(wrapping.unprotectedHex ?? `a10448${hexOf(kidOf(wrapping.key.publicKey, sha256))}`);
  return join(
    bytesOf(wrapping.tagged === false ? "84" : "d284"),
    byteString(protectedHeader),
    unprotected,
    byteString(payload),
    byteString(wrapping.breakSignature?.(signature) ?? signature),
  );
}

/** The one digest: SHA-256 of the untagged message with an empty unprotected map. */
function digestOfWrapped(contentType: ContentType, payload: Uint8Array, wrapping: Wrapping): Uint8Array {
  return sha256(wrap(contentType, payload, { ...wrapping, tagged: false, unprotectedHex: "a0" }));
}

function flipped(bytes: Uint8Array, offset: number): Uint8Array {
  return bytes.map((byte, i) => (i === offset ? byte ^ 1 : byte));
}

function coseVectors(): Vector[] {
  const payload = bytesOf("a10101");
  const key = hexOf(wallet.publicKey);
  const kid = hexOf(kidOf(wallet.publicKey, sha256));
  const header = hexOf(protectedHeaderOf(contentTypes.record));
  const ok = (name: string, wrapping: Partial<Wrapping>, meaning: { [name: string]: Json }): Vector => ({
    name,
    hex: hexOf(wrap(contentTypes.record, payload, { key: wallet, ...wrapping })),
    key,
    expect: "ok",
    meaning: {
      contentType: contentTypes.record,
      payload: hexOf(payload),
      digest: hexOf(digestOfWrapped(contentTypes.record, payload, { key: wallet, ...wrapping })),
      ...meaning,
    },
  });
  const bad = (name: string, expect: RefusalReason, wrapping: Partial<Wrapping>): Vector => ({
    name,
    hex: hexOf(wrap(contentTypes.record, payload, { key: wallet, ...wrapping })),
    key,
    expect,
  });
  const headerBad = (name: string, expect: RefusalReason, hex: string): Vector =>
    bad(name, expect, { protectedHeader: bytesOf(hex) });
  const raw = (name: string, expect: RefusalReason, hex: string): Vector => ({ name, hex, key, expect });
  const body = `4${(header.length / 2).toString(16)}${header}`;
  const signature = `5840${"00".repeat(64)}`;
  return [
    ok("tagged, with kid", {}, { algorithm: -8, kid }),
    ok("untagged, without kid (LoRaWAN)", { tagged: false, unprotectedHex: "a0" }, { algorithm: -8, kid: null }),
    ok("tagged, without kid", { unprotectedHex: "a0" }, { algorithm: -8, kid: null }),
    ok(
      "a kid of another key: a hint, not signed",
      { unprotectedHex: "a104480102030405060708" },
      { algorithm: -8, kid: "0102030405060708" },
    ),
    ok("algorithm -19", { protectedHeader: protectedHeaderOf(contentTypes.record, "32") }, { algorithm: -19, kid }),
    raw("a map", "not-cose-sign1", "a0"),
    raw("an array of three", "not-cose-sign1", `83${body}a040`),
    raw("an array of five", "not-cose-sign1", `85${body}a040${signature}00`),
    raw("protected header as a map", "not-cose-sign1", `84a0a040${signature}`),
    raw("detached payload", "not-cose-sign1", `84${body}a0f6${signature}`),
    raw("COSE_Sign (tag 98)", "tag", `d862${`84${body}a040${signature}`}`),
    raw("tag 18 twice", "tag", `d2d284${body}a040${signature}`),
    headerBad("no protected header", "truncated", ""),
    headerBad("protected header of another type", "bad-protected-header", "80"),
    headerBad("no algorithm", "bad-protected-header", "a10319fde8"),
    headerBad("no content type", "bad-protected-header", "a10127"),
    headerBad("content type as text", "bad-protected-header", "a20127036161"),
    headerBad("a header parameter more", "bad-protected-header", "a301270319fde8044101"),
    headerBad("keys unsorted in the protected header", "unsorted-keys", "a20319fde80127"),
    headerBad("ES256", "unknown-algorithm", "a201260319fde8"),
    headerBad("ML-DSA-44 (-48)", "unknown-algorithm", "a201382f0319fde8"),
    headerBad("crit", "unknown-critical-header", "a3012702810a0319fde8"),
    bad("algorithm in the unprotected header", "bad-unprotected-header", { unprotectedHex: "a10127" }),
    bad("kid and another parameter", "bad-unprotected-header", { unprotectedHex: `a20448${kid}0500` }),
    bad("kid of seven bytes", "bad-unprotected-header", { unprotectedHex: "a10447aabbccddeeff00" }),
    bad("kid as text", "bad-unprotected-header", { unprotectedHex: "a104686162636465666768" }),
    bad("a receipt where a record is expected", "wrong-content-type", {
      protectedHeader: protectedHeaderOf(contentTypes.receipt),
    }),
    bad("signature of 63 bytes", "bad-signature-length", { breakSignature: (bytes) => bytes.slice(1) }),
    bad("signature of 65 bytes", "bad-signature-length", { breakSignature: (bytes) => join(bytes, Uint8Array.of(0)) }),
    bad("one bit changed in R", "signature-invalid", { breakSignature: (bytes) => flipped(bytes, 0) }),
    bad("one bit changed in S", "signature-invalid", { breakSignature: (bytes) => flipped(bytes, 32) }),
    bad("a signature of zeros", "signature-invalid", { breakSignature: () => new Uint8Array(64) }),
    bad("signed by another key", "signature-invalid", { key: stranger }),
  ];
}

// --- records ---

const previous = sha256(new TextEncoder().encode("the record before")).slice(0, 16);

const acceptedRecords: readonly (readonly [name: string, content: RecordContent, bare?: true])[] = [
  [
    "first record of an epoch: one reading of two energies",
    readingOf({ sequence: 1, codes: [2, 4], rows: [good(noonS, [importWh, exportWh])] }),
  ],
  ["one reading of twelve values", readingOf({ previous, codes: twelveCodes, rows: [good(noonS, twelveValues)] })],
  [
    "four rows of 15 minutes, untagged, without kid",
    readingOf({ previous, plan: 1, slotS: 900, codes: [2, 4], rows: energyRows(4, 900, 0) }),
    true,
  ],
  ["sixty rows of a minute", readingOf({ previous, slotS: 60, codes: [2, 4], rows: energyRows(60, 60, 2_000) })],
  [
    "a row that failed between good ones",
    readingOf({
      previous,
      slotS: 60,
      codes: [1, 2],
      rows: [good(noonS, [400, 1_000]), { timeS: noonS + 60, status: 2, values: [] }, good(noonS + 120, [380, 1_013])],
    }),
  ],
  [
    "the first row failed, the next is absolute against zero",
    readingOf({
      previous,
      slotS: 60,
      codes: [2],
      rows: [{ timeS: noonS, status: 3, values: [] }, good(noonS + 60, [importWh])],
    }),
  ],
  [
    "all rows failed",
    readingOf({
      previous,
      slotS: 1,
      codes: [2, 4],
      rows: [0, 1].map((i) => ({ timeS: noonS + i, status: 3, values: [] })),
    }),
  ],
  [
    "rows of different statuses, none good",
    readingOf({
      previous,
      slotS: 1,
      codes: [2],
      rows: [
        { timeS: noonS, status: 2, values: [] },
        { timeS: noonS + 1, status: 5, values: [7] },
      ],
    }),
  ],
  [
    "one substitute value",
    readingOf({ previous, codes: [2], rows: [{ timeS: noonS, status: 9, values: [importWh] }] }),
  ],
  ["zero is a value", readingOf({ previous, codes: [1, 2], rows: [good(noonS, [0, 0])] })],
  [
    "signed values",
    readingOf({ previous, slotS: 1, codes: [26, 29], rows: [good(noonS, [-1, -2_500]), good(noonS + 1, [4, 2_500])] }),
  ],
  [
    "the greatest values and their difference",
    readingOf({ previous, slotS: 1, codes: [17], rows: [good(noonS, [-valueMax]), good(noonS + 1, [valueMax])] }),
  ],
  [
    "every optional field",
    readingOf({
      sequence: 0xffff_ffff,
      previous,
      meter: 255,
      plan: 255,
      slotS: 86_400,
      clockState: 2,
      generation: 7,
      codes: [2, 65_535],
      rows: [good(noonS, [1, 2])],
      meterSerial: "SDM630-Nr. 4711 °",
    }),
  ],
  [
    "before any clock was set: time since boot",
    readingOf({ epoch: 0, previous, clockState: 3, generation: 1, codes: [2], rows: [good(0, [5])] }),
  ],
  [
    "event: started",
    {
      kind: "event",
      epoch,
      sequence: 2,
      previous,
      clockState: 0,
      generation: 0,
      timeS: noonS,
      events: [[eventCodes.started, "ecp-wallet 0.1.0", sha256(new Uint8Array(0))]],
    },
  ],
  [
    "event: sequences that will never come",
    {
      kind: "event",
      epoch,
      sequence: 4_714,
      previous,
      clockState: 1,
      generation: 0,
      timeS: noonS,
      events: [[eventCodes.void, 4_711, 4_713]],
    },
  ],
  [
    "every event",
    {
      kind: "event",
      epoch,
      sequence: 9,
      previous,
      clockState: 2,
      generation: 3,
      timeS: noonS,
      events: [
        [eventCodes.stopped],
        [eventCodes.parametersChanged, sha256(Uint8Array.of(1))],
        [eventCodes.clockStepped, 2, 3, -3_600],
        [eventCodes.meterReplaced, 1, "another serial number"],
        [eventCodes.registerWentBack, 1, 2],
        [eventCodes.refusals, 12],
        [eventCodes.storageError, "no space left on device"],
        [eventCodes.updated, "ecp-wallet 0.1.0", "ecp-wallet 0.2.0"],
      ],
    },
  ],
];

/** A good payload to break: one row of two energies. */
function payloadWith(changes: readonly (readonly [key: number, value: CborValue | undefined])[]): Uint8Array {
  const payload: CborMap = new Map<number, CborValue>([
    [1, 1],
    [2, epoch],
    [3, 4_711],
    [4, previous],
    [6, noonS],
    [8, 60],
    [9, [2, 4]],
    [10, [importWh, exportWh, 7, 0]],
  ]);
  for (const [key, value] of changes) {
    if (value === undefined) payload.delete(key);
    else payload.set(key, value);
  }
  return encodeCbor(payload);
}

const refusedRecords: readonly (readonly [
  name: string,
  expect: RefusalReason,
  ...changes: (readonly [number, CborValue | undefined])[],
])[] = [
  ["version 2", "unsupported-version", [1, 2]],
  ["no version", "missing-field", [1, undefined]],
  ["no epoch", "missing-field", [2, undefined]],
  ["no sequence", "missing-field", [3, undefined]],
  ["no predecessor", "missing-field", [4, undefined]],
  ["no time", "missing-field", [6, undefined]],
  ["no slot", "missing-field", [8, undefined]],
  ["no codes", "missing-field", [9, undefined]],
  ["no rows", "missing-field", [10, undefined]],
  ["epoch above 32 bits", "bad-field", [2, 0x1_0000_0000]],
  ["sequence 0", "bad-field", [3, 0]],
  ["sequence above 32 bits", "bad-field", [3, 0x1_0000_0000]],
  ["sequence as text", "bad-field", [3, "4711"]],
  ["predecessor of 15 bytes", "bad-field", [4, previous.slice(1)]],
  ["predecessor of 32 bytes", "bad-field", [4, new Uint8Array(32)]],
  ["meter 0 stated", "bad-field", [5, 0]],
  ["meter 256", "bad-field", [5, 256]],
  ["time in milliseconds", "bad-field", [6, noonS * 1_000]],
  ["time before 1970", "bad-field", [6, -1]],
  ["clock state 0 stated", "bad-field", [7, 0]],
  ["clock state 4", "bad-field", [7, 4]],
  ["slot of two days", "bad-field", [8, 172_800]],
  ["status 0 stated", "bad-field", [11, 0]],
  ["status 12", "bad-field", [11, 12]],
  ["row statuses beside a status for all", "bad-field", [11, 5], [12, new Map([[1, 5]])]],
  ["row statuses without a row", "bad-field", [12, new Map()]],
  ["row statuses that state what is good", "bad-field", [12, new Map([[1, 0]])]],
  ["row statuses of a row that is not there", "bad-field", [12, new Map([[2, 2]])]],
  [
    "row statuses that are all the same",
    "bad-field",
    [
      12,
      new Map([
        [0, 5],
        [1, 5],
      ]),
    ],
  ],
  ["clock generation 0 stated", "bad-field", [13, 0]],
  ["serial of 65 bytes", "bad-field", [16, `${"a".repeat(63)}ü`]],
  ["plan 256", "bad-field", [20, 256]],
  ["code 0", "bad-field", [9, [0, 2]]],
  ["a value as text", "bad-field", [10, [importWh, "1", 7, 0]]],
  ["a difference above ±(2^53-2)", "bad-field", [10, [importWh, 2n ** 53n, 7, 0]]],
  ["no codes in the list", "bad-rows", [9, []]],
  ["codes descending", "bad-rows", [9, [4, 2]]],
  ["a code twice", "bad-rows", [9, [2, 2]]],
  ["rows that do not fill up", "bad-rows", [10, [importWh, exportWh, 7]]],
  ["no row", "bad-rows", [10, []]],
  ["a snapshot of two rows", "bad-rows", [8, 0]],
  ["a value above 2^52-1", "bad-rows", [10, [valueMax, 0, 1, 0]]],
  ["a failed row with values", "bad-rows", [12, new Map([[1, 2]])]],
  ["failed rows with values", "bad-rows", [11, 3]],
  ["the last row's time above 32 bits", "bad-rows", [6, 0xffff_ffff]],
  ["rows and events", "bad-rows", [19, [[1]]]],
  ["an event with a slot", "bad-rows", [9, undefined], [10, undefined], [19, [[2]]]],
  ["no event in the list", "bad-field", [8, undefined], [9, undefined], [10, undefined], [19, []]],
  ["an event without its code", "missing-field", [8, undefined], [9, undefined], [10, undefined], [19, [[]]]],
  [
    "an event's parameter of another type",
    "bad-field",
    [8, undefined],
    [9, undefined],
    [10, undefined],
    [19, [[7, true]]],
  ],
  [
    "more than 64 events",
    "bad-field",
    [8, undefined],
    [9, undefined],
    [10, undefined],
    [19, Array.from({ length: 65 }, () => [2])],
  ],
];

function recordVectors(): Vector[] {
  const key = hexOf(wallet.publicKey);
  const type = contentTypes.record;
  const unknownKeys = payloadWith([
    [14, 1],
    [17, "app"],
    [99, [1, new Map([["x", null]])]],
  ]);
  const twoRows = readingOf({
    previous,
    slotS: 60,
    codes: [2, 4],
    rows: [good(noonS, [importWh, exportWh]), good(noonS + 60, [importWh + 7, exportWh])],
  });
  const accepted = (
    name: string,
    payload: Uint8Array,
    content: RecordContent,
    wrapping: Partial<Wrapping> = {},
  ): Vector => ({
    name,
    hex: hexOf(wrap(type, payload, { key: wallet, ...wrapping })),
    key,
    expect: "ok",
    meaning: { digest: hexOf(digestOfWrapped(type, payload, { key: wallet, ...wrapping })), content: jsonOf(content) },
  });
  const refused = (
    name: string,
    expect: RefusalReason,
    payload: Uint8Array,
    wrapping: Partial<Wrapping> = {},
  ): Vector => ({
    name,
    hex: hexOf(wrap(type, payload, { key: wallet, ...wrapping })),
    key,
    expect,
  });
  return [
    ...acceptedRecords.map(([name, content, bare]) =>
      accepted(name, encodeRecordPayload(content), content, bare ? { tagged: false, unprotectedHex: "a0" } : {}),
    ),
    accepted("two rows of two energies", payloadWith([]), twoRows),
    accepted("keys that are not known are ignored", unknownKeys, twoRows),
    accepted("algorithm -19", payloadWith([]), twoRows, { protectedHeader: protectedHeaderOf(type, "32") }),
    ...refusedRecords.map(([name, expect, ...changes]) => refused(name, expect, payloadWith(changes))),
    refused("a payload that is no map", "bad-field", bytesOf("80")),
    refused("no payload", "truncated", new Uint8Array(0)),
    refused("bytes behind the payload", "trailing-bytes", join(payloadWith([]), Uint8Array.of(0))),
    refused("a receipt", "wrong-content-type", payloadWith([]), {
      protectedHeader: protectedHeaderOf(contentTypes.receipt),
    }),
    refused("signed by another key", "signature-invalid", payloadWith([]), { key: stranger }),
    refused("longer than 16 KiB", "too-large", payloadWith([[99, new Uint8Array(16_384)]])),
  ];
}

// --- receipts ---

const digestOfLabel = (label: string): Uint8Array => sha256(new TextEncoder().encode(label));
const device = kidOf(wallet.publicKey, sha256);

const receiptBase: Receipt = {
  device,
  epoch,
  through: 4_711,
  digest: digestOfLabel("4711"),
  ranges: [],
  held: false,
  refused: [],
  timeS: noonS,
};
const acceptedReceipts: readonly (readonly [name: string, content: Receipt])[] = [
  ["all up to here", receiptBase],
  ["nothing yet", { device, epoch, through: 0, ranges: [], held: false, refused: [], timeS: noonS }],
  [
    "gaps, a refusal, held, in the ledger",
    {
      ...receiptBase,
      ranges: [
        { first: 4_713, last: 4_713, digest: digestOfLabel("4713") },
        { first: 4_720, last: 4_800, digest: digestOfLabel("4800") },
      ],
      held: true,
      refused: [[4_700, "fork"]],
      treeSize: 9_007_199_254_740_991,
    },
  ],
  [
    "sixteen ranges",
    {
      ...receiptBase,
      ranges: Array.from({ length: 16 }, (_, i) => ({
        first: 5_000 + 10 * i,
        last: 5_005 + 10 * i,
        digest: digestOfLabel(`${i}`),
      })),
    },
  ],
];

function receiptPayload(
  receipt: Receipt,
  changes: readonly (readonly [number, CborValue | undefined])[] = [],
): Uint8Array {
  const payload: CborMap = new Map<number, CborValue>([
    [1, 1],
    [2, receipt.device],
    [3, receipt.epoch],
    [4, receipt.through],
    [9, receipt.timeS],
  ]);
  if (receipt.digest) payload.set(5, receipt.digest);
  if (receipt.ranges.length > 0)
    payload.set(
      6,
      receipt.ranges.map(({ first, last, digest }) => [first, last, digest]),
    );
  if (receipt.held) payload.set(7, true);
  if (receipt.refused.length > 0)
    payload.set(
      8,
      receipt.refused.map(([sequence, reason]) => [sequence, reason]),
    );
  if (receipt.treeSize !== undefined) payload.set(10, receipt.treeSize);
  for (const [key, value] of changes) {
    if (value === undefined) payload.delete(key);
    else payload.set(key, value);
  }
  return encodeCbor(payload);
}

const someDigest = digestOfLabel("any");
const refusedReceipts: readonly (readonly [
  name: string,
  expect: RefusalReason,
  ...changes: (readonly [number, CborValue | undefined])[],
])[] = [
  ["version 0", "unsupported-version", [1, 0]],
  ["no device", "missing-field", [2, undefined]],
  ["no epoch", "missing-field", [3, undefined]],
  ["no through", "missing-field", [4, undefined]],
  ["no time", "missing-field", [9, undefined]],
  ["device of 32 bytes", "bad-field", [2, new Uint8Array(32)]],
  ["through without its digest", "bad-field", [5, undefined]],
  ["through 0 with a digest", "bad-field", [4, 0]],
  ["digest cut to 16 bytes", "bad-field", [5, new Uint8Array(16)]],
  ["held false stated", "bad-field", [7, false]],
  ["tree size 0", "bad-field", [10, 0]],
  ["a range that touches through", "bad-field", [6, [[4_712, 4_713, someDigest]]]],
  ["a range below through", "bad-field", [6, [[1, 3, someDigest]]]],
  ["a range that ends before it begins", "bad-field", [6, [[4_800, 4_799, someDigest]]]],
  [
    "ranges that overlap",
    "bad-field",
    [
      6,
      [
        [4_720, 4_730, someDigest],
        [4_725, 4_740, someDigest],
      ],
    ],
  ],
  ["a range without its digest", "missing-field", [6, [[4_720, 4_730]]]],
  [
    "seventeen ranges",
    "bad-field",
    [6, Array.from({ length: 17 }, (_, i) => [5_000 + 10 * i, 5_005 + 10 * i, someDigest])],
  ],
  ["a refusal of sequence 0", "bad-field", [8, [[0, "fork"]]]],
  ["a refusal's reason of 41 bytes", "bad-field", [8, [[1, "a".repeat(41)]]]],
  ["longer than 2 KiB", "too-large", [99, new Uint8Array(2_048)]],
];

function receiptVectors(): Vector[] {
  const key = hexOf(node.publicKey);
  const type = contentTypes.receipt;
  return [
    ...acceptedReceipts.map(([name, content]): Vector => {
      const payload = receiptPayload(content);
      return {
        name,
        hex: hexOf(wrap(type, payload, { key: node })),
        key,
        expect: "ok",
        meaning: { content: jsonOf(content) },
      };
    }),
    ...refusedReceipts.map(
      ([name, expect, ...changes]): Vector => ({
        name,
        hex: hexOf(wrap(type, receiptPayload(receiptBase, changes), { key: node })),
        key,
        expect,
      }),
    ),
    {
      name: "a record",
      hex: hexOf(wrap(contentTypes.record, receiptPayload(receiptBase), { key: node })),
      key,
      expect: "wrong-content-type",
    },
    {
      name: "signed by a key that is not the node's",
      hex: hexOf(wrap(type, receiptPayload(receiptBase), { key: stranger })),
      key,
      expect: "signature-invalid",
    },
  ];
}

// --- enrolment ---

const request: EnrolmentRequest = {
  publicKey: wallet.publicKey,
  share: digestOfLabel("X25519 share of the device"),
  epoch,
  timeS: noonS,
  softwareId: "ecp-wallet 0.1.0",
  meters: [
    { index: 0, name: "house", profile: "eastron-sdm630" },
    { index: 1, name: "Wärmepumpe", profile: "eastron-sdm72" },
  ],
};
const answerTo = (requestDigest: Uint8Array): EnrolmentAnswer => ({
  device,
  request: requestDigest,
  publicKey: node.publicKey,
  share: digestOfLabel("X25519 share of the node"),
  timeS: noonS + 60,
  nodeName: "node of the street",
});

type Changes = readonly (readonly [number, CborValue | undefined])[];

function requestPayload(changes: Changes = []): Uint8Array {
  const { publicKey, share, timeS, softwareId } = request;
  const meters = request.meters.map(({ index, name, profile }) => [index, name, profile]);
  return changed(
    new Map<number, CborValue>([
      [1, 1],
      [2, publicKey],
      [3, share],
      [4, epoch],
      [5, timeS],
      [6, softwareId],
      [7, meters],
    ]),
    changes,
  );
}

function answerPayload(answer: EnrolmentAnswer, changes: Changes = []): Uint8Array {
  const fields: [number, CborValue][] = [
    [1, 1],
    [2, answer.device],
    [3, answer.request],
    [4, answer.publicKey],
    [5, answer.share],
    [6, answer.timeS],
    [7, answer.nodeName],
  ];
  return changed(new Map(fields), changes);
}

function changed(payload: Map<number, CborValue>, changes: Changes): Uint8Array {
  for (const [key, value] of changes) {
    if (value === undefined) payload.delete(key);
    else payload.set(key, value);
  }
  return encodeCbor(payload);
}

/** B + a point of order 8: passes every test but that of the torsion part. */
const pointOfOrder8 = Point.fromHex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05");
const torsionKey = bytesOf(Point.BASE.add(pointOfOrder8).toHex());
const smallOrderKey = bytesOf(`01${"00".repeat(31)}`);

const refusedRequests: readonly (readonly [
  name: string,
  expect: RefusalReason,
  ...changes: (readonly [number, CborValue | undefined])[],
])[] = [
  ["version 2", "unsupported-version", [1, 2]],
  ["no public key", "missing-field", [2, undefined]],
  ["no share", "missing-field", [3, undefined]],
  ["no epoch", "missing-field", [4, undefined]],
  ["no meters", "missing-field", [7, undefined]],
  ["public key of 33 bytes", "bad-field", [2, new Uint8Array(33)]],
  ["share of 31 bytes", "bad-field", [3, new Uint8Array(31)]],
  ["software id of 65 bytes", "bad-field", [6, "a".repeat(65)]],
  ["a meter without its profile", "missing-field", [7, [[0, "house"]]]],
  ["a meter with a field more", "bad-field", [7, [[0, "house", "eastron-sdm630", 1]]]],
  [
    "two meters of one index",
    "bad-field",
    [
      7,
      [
        [0, "a", "b"],
        [0, "c", "d"],
      ],
    ],
  ],
  ["a key of small order", "bad-public-key", [2, smallOrderKey]],
  ["a key with a torsion part", "bad-public-key", [2, torsionKey]],
  ["the key of somebody else", "signature-invalid", [2, stranger.publicKey]],
];

function enrolmentRequestVectors(): Vector[] {
  const type = contentTypes.enrolmentRequest;
  const ok = (name: string, content: EnrolmentRequest, changes: Changes): Vector => ({
    name,
    hex: hexOf(wrap(type, requestPayload(changes), { key: wallet })),
    expect: "ok",
    meaning: {
      digest: hexOf(digestOfWrapped(type, requestPayload(changes), { key: wallet })),
      content: jsonOf(content),
    },
  });
  return [
    ok("two meters", request, []),
    ok("no meter yet", { ...request, meters: [] }, [[7, []]]),
    ok("keys that are not known are ignored", request, [[42, "later"]]),
    ...refusedRequests.map(
      ([name, expect, ...changes]): Vector => ({
        name,
        hex: hexOf(wrap(type, requestPayload(changes), { key: wallet })),
        expect,
      }),
    ),
    {
      name: "an answer",
      hex: hexOf(wrap(contentTypes.enrolmentAnswer, requestPayload(), { key: wallet })),
      expect: "wrong-content-type",
    },
    {
      name: "longer than 16 KiB",
      hex: hexOf(wrap(type, requestPayload([[42, new Uint8Array(16_384)]]), { key: wallet })),
      expect: "too-large",
    },
  ];
}

function enrolmentAnswerVectors(): Vector[] {
  const type = contentTypes.enrolmentAnswer;
  const answer = answerTo(digestOfWrapped(contentTypes.enrolmentRequest, requestPayload(), { key: wallet }));
  const bad = (name: string, expect: RefusalReason, changes: Changes, key = node): Vector => ({
    name,
    hex: hexOf(wrap(type, answerPayload(answer, changes), { key })),
    expect,
  });
  return [
    {
      name: "an answer",
      hex: hexOf(wrap(type, answerPayload(answer), { key: node })),
      expect: "ok",
      meaning: { content: jsonOf(answer) },
    },
    bad("version 2", "unsupported-version", [[1, 2]]),
    bad("no device", "missing-field", [[2, undefined]]),
    bad("no request", "missing-field", [[3, undefined]]),
    bad("request's digest cut to 16 bytes", "bad-field", [[3, new Uint8Array(16)]]),
    bad("name of 65 bytes", "bad-field", [[7, "a".repeat(65)]]),
    bad("a key of small order", "bad-public-key", [[4, smallOrderKey]]),
    bad("a key with a torsion part", "bad-public-key", [[4, torsionKey]]),
    bad("signed by another key than the one it names", "signature-invalid", [], stranger),
    {
      name: "a request",
      hex: hexOf(wrap(contentTypes.enrolmentRequest, answerPayload(answer), { key: node })),
      expect: "wrong-content-type",
    },
  ];
}

// --- names and keys ---

function didKeyVectors(): Vector[] {
  const ok = (name: string, text: string, publicKey: string): Vector => ({
    name,
    text,
    expect: "ok",
    meaning: { publicKey },
  });
  const bad = (name: string, text: string): Vector => ({ name, text, expect: "bad-did" });
  return [
    ok(
      "did:key specification, test vector of seed 00…00",
      "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp",
      "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29",
    ),
    ok(
      "did:key specification, test vector of seed 00…01",
      "did:key:z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG",
      "4cb5abf6ad79fbf5abbccafcc269d85cd2651ed4b885b5869f241aedf0a5ba29",
    ),
    ok(
      "did:key specification, test vector of seed 00…02",
      "did:key:z6MknGc3ocHs3zdPiJbnaaqDi58NGb4pk1Sp9WxWufuXSdxf",
      "7422b9887598068e32c4448a949adb290d0f4e35b9e01b0ee5f1a1e600fe2674",
    ),
    ok(
      "did:key specification, example of §1",
      "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK",
      "2e6fcce36701dc791488e0d0b1745cc1e33a4c1c9fcc41c63bd343dbbe0970e6",
    ),
    ok(
      "the multibase part alone",
      "z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp",
      "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29",
    ),
    ok("the wallet of these vectors", didKeyOf(wallet.publicKey), hexOf(wallet.publicKey)),
    bad("nothing", ""),
    bad("another method", "did:web:example.org"),
    bad("another method with the same key", "did:peer:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"),
    bad("did:key of a secp256k1 key", "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme"),
    bad("did:key of an X25519 key", "did:key:z6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc"),
    bad("one character less", "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooW"),
    bad("one character more", "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWpp"),
    bad("with a fragment", "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp#z6Mk"),
    bad("0 is not a character of base58", "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDoo0p"),
    bad("l is not a character of base58", "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDoolp"),
    bad("multibase prefix of base58flickr", "did:key:Z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"),
    bad("prefix in capitals", "DID:KEY:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"),
    bad("a number above the multicodec's range", `did:key:z6Mk${"z".repeat(44)}`),
    bad("a number below the multicodec's range", `did:key:z6Mk${"1".repeat(44)}`),
  ];
}

function publicKeyVectors(): Vector[] {
  const ff = (first: string, last: string): string => `${first}${"ff".repeat(30)}${last}`;
  const zero = (first: string, last: string): string => `${first}${"00".repeat(30)}${last}`;
  const bad = (name: string, hex: string): Vector => ({ name, hex, expect: "bad-public-key" });
  const ok = (name: string, hex: string): Vector => ({ name, hex, expect: "ok" });
  return [
    ok("RFC 8032 §7.1 TEST 1", "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"),
    ok("RFC 8032 §7.1 TEST 2", "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"),
    ok("the base point", `58${"66".repeat(31)}`),
    bad("order 1: the identity", zero("01", "00")),
    bad("order 2", ff("ec", "7f")),
    bad("order 4", zero("00", "00")),
    bad("order 4, negative", zero("00", "80")),
    bad("order 8, 1st", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bad("order 8, 2nd", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
    bad("order 8, 3rd", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    bad("order 8, 4th", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
    bad("order 1, not canonical: negative zero", zero("01", "80")),
    bad("order 2, not canonical: negative zero", ff("ec", "ff")),
    bad("order 4, not canonical: y = p", ff("ed", "7f")),
    bad("order 4, not canonical: y = p, negative", ff("ed", "ff")),
    bad("order 1, not canonical: y = p + 1", ff("ee", "7f")),
    bad("order 1, not canonical: y = p + 1, negative", ff("ee", "ff")),
    bad("not canonical: y = p + 3, a point of the curve", ff("f0", "7f")),
    bad("not canonical: y = 2^255 - 1", ff("ff", "7f")),
    bad("no point of the curve: y = 2", zero("02", "00")),
    bad("with a torsion part: base point + point of order 8", hexOf(torsionKey)),
    bad("with a torsion part: base point + point of order 2", Point.BASE.add(Point.fromHex(ff("ec", "7f"))).toHex()),
    bad("with a torsion part: y = 3", zero("03", "00")),
    bad("no byte", ""),
    bad("31 bytes", "66".repeat(31)),
    bad("33 bytes", `58${"66".repeat(31)}00`),
  ];
}

// --- signatures: RFC 8032 §7.1, and what must not verify ---

const groupOrder = 2n ** 252n + 27742317777372353535851937790883648493n;

function littleEndian(bytes: Uint8Array): bigint {
  return BigInt(`0x${hexOf(bytes.toReversed())}`);
}

function scalarBytes(scalar: bigint): Uint8Array {
  return bytesOf(scalar.toString(16).padStart(64, "0")).toReversed();
}

/** A signature whose R has a torsion part: it holds with the cofactor (ZIP 215) and not without (RFC 8032 §5.1.7). */
function torsionSignature(key: TestKey, message: Uint8Array): Uint8Array {
  const head = sha512(key.seed).slice(0, 32);
  head[0] = (head[0] as number) & 248;
  head[31] = ((head[31] as number) & 127) | 64;
  const nonce = 4_711n;
  const r = bytesOf(Point.BASE.multiply(nonce).add(pointOfOrder8).toHex());
  const k = littleEndian(sha512(join(r, key.publicKey, message))) % groupOrder;
  return join(r, scalarBytes((nonce + k * littleEndian(head)) % groupOrder));
}

function signatureVectors(): Vector[] {
  const source = readFileSync(path.join(import.meta.dirname, "rfc8032-section-7.1.json"), "utf8");
  const tests = JSON.parse(source) as {
    name: string;
    seed: string;
    publicKey: string;
    message: string;
    signature: string;
  }[];
  const first = tests[1] as (typeof tests)[number];
  const signature = bytesOf(first.signature);
  const s = littleEndian(signature.slice(32));
  const message = bytesOf(first.message);
  const bad = (name: string, broken: Uint8Array, more: { [name: string]: Json } = {}): Vector => ({
    name,
    key: first.publicKey,
    message: first.message,
    signature: hexOf(broken),
    expect: "signature-invalid",
    ...more,
  });
  return [
    ...tests.map(
      ({ name, seed, publicKey, ...rest }): Vector => ({ name, seed, key: publicKey, ...rest, expect: "ok" }),
    ),
    bad("S + L: the same signature in another form", join(signature.slice(0, 32), scalarBytes(s + groupOrder))),
    bad("S = 2^256 - 1", join(signature.slice(0, 32), new Uint8Array(32).fill(0xff))),
    bad("R = 0, S = 0", new Uint8Array(64)),
    bad("one bit of R changed", flipped(signature, 31)),
    bad("one bit of S changed", flipped(signature, 63)),
    {
      ...bad("R with a torsion part, made by the key's holder", torsionSignature(keyOfLabel("wallet key"), message)),
      key: hexOf(wallet.publicKey),
      // @noble/ed25519 verifies with the cofactor in both of its modes; node:crypto, which decides what is booked, does not.
      cofactored: "ok",
    },
  ];
}

export function vectorFiles(): ReadonlyMap<string, VectorFile> {
  const rfc8032 = "RFC 8032 §7.1 (rfc8032-section-7.1.json); the ones that must fail: this project";
  return new Map([
    ["cbor.json", { about: "Deterministic CBOR: decodeCbor", source: ours, vectors: cborVectors() }],
    [
      "cose-sign1.json",
      {
        about: "COSE_Sign1 with the content type of a record: decodeCose and verifyCose",
        source: ours,
        vectors: coseVectors(),
      },
    ],
    ["record.json", { about: "Sealed records: decodeRecord and verifyCose", source: ours, vectors: recordVectors() }],
    ["receipt.json", { about: "Receipts: decodeReceipt and verifyCose", source: ours, vectors: receiptVectors() }],
    [
      "enrolment-request.json",
      { about: "Enrolment requests: openEnrolmentRequest", source: ours, vectors: enrolmentRequestVectors() },
    ],
    [
      "enrolment-answer.json",
      { about: "Enrolment answers: openEnrolmentAnswer", source: ours, vectors: enrolmentAnswerVectors() },
    ],
    [
      "did-key.json",
      {
        about: "did:key: publicKeyOfDid",
        source: "did:key specification (W3C CCG), §1 and its test vectors; the broken ones: this project",
        vectors: didKeyVectors(),
      },
    ],
    [
      "public-key.json",
      {
        about: "Ed25519 public keys: vetPublicKey",
        source: "the points of small order are those of libsodium's and Wycheproof's lists; others: this project",
        vectors: publicKeyVectors(),
      },
    ],
    ["signature.json", { about: "Ed25519 signatures", source: rfc8032, vectors: signatureVectors() }],
  ]);
}

export function fileText(file: VectorFile): string {
  return `${JSON.stringify(file, undefined, 1)}\n`;
}

export const vectorsFolder: string = import.meta.dirname;

if (import.meta.main) {
  for (const [name, file] of vectorFiles()) writeFileSync(path.join(vectorsFolder, name), fileText(file));
}

/** Sealed records. */
import { contentTypes } from "../../protocol/cose-sign1.ts";
import { type CborMap, type CborValue, encodeCbor } from "../../protocol/deterministic-cbor.ts";
import { encodeRecordPayload, eventCodes, type RecordContent, valueMax } from "../../protocol/record.ts";
import { type RefusalReason } from "../../protocol/refusal.ts";
import { energyRows, epoch, exportWh, good, importWh, noonS, readingOf, twelveCodes, twelveValues } from "./sample-content.ts";
import { bytesOf, hexOf, sha256 } from "./signature-suite.ts";
import { digestOfWrapped, join, jsonOf, previous, protectedHeaderOf, stranger, type Vector, wallet, wrap, type Wrapping } from "./vector.ts";

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

export function recordVectors(): Vector[] {
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

/** Receipts. */
import { contentTypes } from "../../protocol/cose-sign1.ts";
import { type CborMap, type CborValue, encodeCbor } from "../../protocol/deterministic-cbor.ts";
import { type Receipt } from "../../protocol/receipt.ts";
import { type RefusalReason } from "../../protocol/refusal.ts";
import { epoch, noonS } from "./sample-content.ts";
import { hexOf } from "./signature-suite.ts";
import { device, digestOfLabel, jsonOf, node, stranger, type Vector, wrap } from "./vector.ts";

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

export function receiptVectors(): Vector[] {
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

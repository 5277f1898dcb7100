/** Enrolment: requests and answers. */
import { contentTypes } from "../../protocol/cose-sign1.ts";
import { type CborValue } from "../../protocol/deterministic-cbor.ts";
import { type EnrolmentAnswer, type EnrolmentRequest } from "../../protocol/enrolment.ts";
import { type RefusalReason } from "../../protocol/refusal.ts";
import { smallOrderKey, torsionKey } from "./key-vectors.ts";
import { epoch, noonS } from "./sample-content.ts";
import { hexOf } from "./signature-suite.ts";
import { changed, type Changes, device, digestOfLabel, digestOfWrapped, jsonOf, node, stranger, type Vector, wallet, wrap } from "./vector.ts";

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

export function enrolmentRequestVectors(): Vector[] {
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

export function enrolmentAnswerVectors(): Vector[] {
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

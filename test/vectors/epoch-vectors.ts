/** What came with epochs that follow each other: new events, rotations, requests of rotated keys, receipts that name what they keep. */
import { contentTypes } from "../../protocol/cose-sign1.ts";
import { type CborValue, encodeCbor } from "../../protocol/deterministic-cbor.ts";
import { type EventContent, encodeRecordPayload, epochReasons, eventCodes } from "../../protocol/record.ts";
import { type RefusalReason } from "../../protocol/refusal.ts";
import { epoch, noonS } from "./sample-content.ts";
import { hexOf, keyOfLabel, type TestKey } from "./signature-suite.ts";
import {
  type Changes,
  changed,
  device,
  digestOfLabel,
  digestOfWrapped,
  jsonOf,
  node,
  previous,
  stranger,
  type Vector,
  wallet,
  wrap,
} from "./vector.ts";

const secondKey = keyOfLabel("wallet key after the first rotation");
const thirdKey = keyOfLabel("wallet key after the second rotation");
const nextEpoch = 0x1f3a_90c4;
const last = 5_000;

const event = (
  sequence: number,
  events: EventContent["events"],
  more: Partial<EventContent> = {},
): EventContent => ({
  kind: "event",
  epoch,
  sequence,
  previous,
  clockState: 0,
  generation: 0,
  timeS: noonS,
  events,
  ...more,
});

/** Events that records of the first version did not have. */
export function epochEventVectors(): Vector[] {
  const key = hexOf(wallet.publicKey);
  const contents: readonly (readonly [name: string, content: EventContent])[] = [
    [
      "started, with a TPM's counter",
      event(2, [[eventCodes.started, "ecp-wallet 0.2.0", digestOfLabel("policy"), 17]]),
    ],
    [
      "a boot whose clock is not set",
      event(3, [[eventCodes.clockStepped, 1, 2, 0, digestOfLabel("boot").slice(0, 16)]], {
        clockState: 3,
        generation: 2,
        timeS: 12,
      }),
    ],
    ["a meter replaced, its second installation", event(4, [[eventCodes.meterReplaced, 1, "broken display", 2]])],
    [
      "the key signed an enrolment request and a statement",
      event(5, [
        [eventCodes.keyUsed, contentTypes.enrolmentRequest, digestOfLabel("request").slice(0, 16)],
        [eventCodes.keyUsed, contentTypes.statement, digestOfLabel("statement").slice(0, 16)],
      ]),
    ],
    ...Object.entries(epochReasons).map(
      ([name, reason]) =>
        [
          `an epoch began: ${name}`,
          event(1, [[eventCodes.epochBegun, reason, epoch, last, digestOfLabel("last")]], { epoch: nextEpoch }),
        ] as const,
    ),
    [
      "dropped, as the policy says: of this epoch and of the one before",
      event(9_001, [
        [eventCodes.dropped, 0x0102_0304, 1, 77],
        [eventCodes.dropped, epoch, 4_711, 5_711],
      ]),
    ],
    ["the key retired", event(last, [[eventCodes.stopped], [eventCodes.keyRetired]])],
  ];
  return [
    ...contents.map(([name, content]): Vector => {
      const payload = encodeRecordPayload(content);
      const digest = hexOf(digestOfWrapped(contentTypes.record, payload, { key: wallet }));
      return {
        name,
        hex: hexOf(wrap(contentTypes.record, payload, { key: wallet })),
        key,
        expect: "ok",
        meaning: { digest, content: jsonOf(content) },
      };
    }),
    {
      name: "an event's parameter that is a list",
      hex: hexOf(wrap(contentTypes.record, eventPayload([[eventCodes.dropped, [1, 2]]]), { key: wallet })),
      key,
      expect: "bad-field",
    },
  ];
}

function eventPayload(events: CborValue, sequence = last): Uint8Array {
  return encodeCbor(
    new Map<number, CborValue>([
      [1, 1],
      [2, epoch],
      [3, sequence],
      [4, previous],
      [6, noonS],
      [19, events],
    ]),
  );
}

// --- rotation ---

function certificatePayload(changes: Changes = []): Uint8Array {
  return changed(
    new Map<number, CborValue>([
      [1, 1],
      [2, device],
      [3, epoch],
      [4, last],
      [5, previous],
      [6, nextEpoch],
      [7, secondKey.publicKey],
      [8, digestOfLabel("X25519 share of the second key")],
    ]),
    changes,
  );
}

/** The certificate as a wallet makes it: bare, signed by the new key. */
function certificate(changes: Changes = [], key: TestKey = secondKey): Uint8Array {
  return wrap(contentTypes.rotation, certificatePayload(changes), { key, tagged: false, unprotectedHex: "a0" });
}

function rotationRecord(bytes: CborValue, key: TestKey = wallet): Uint8Array {
  return wrap(contentTypes.record, eventPayload([[eventCodes.keyRotated, bytes]]), { key });
}

const smallOrderKey = Uint8Array.of(1, ...new Uint8Array(31));

/** Records with a rotation, checked with the device's key of before: `meaning` is the certificate. */
export function rotationVectors(): Vector[] {
  const key = hexOf(wallet.publicKey);
  const meaning = {
    certificate: jsonOf({
      device,
      epoch,
      sequence: last,
      previous,
      nextEpoch,
      publicKey: secondKey.publicKey,
      share: digestOfLabel("X25519 share of the second key"),
    }),
  };
  const bad = (name: string, expect: RefusalReason, hex: Uint8Array): Vector => ({ name, hex: hexOf(hex), key, expect });
  const badCertificate = (name: string, expect: RefusalReason, changes: Changes, by = secondKey): Vector =>
    bad(name, expect, rotationRecord(certificate(changes, by)));
  return [
    { name: "a rotation", hex: hexOf(rotationRecord(certificate())), key, expect: "ok", meaning },
    {
      name: "fields of the certificate that are not known are ignored",
      hex: hexOf(rotationRecord(certificate([[42, "later"]]))),
      key,
      expect: "ok",
      meaning,
    },
    badCertificate("for another device", "bad-field", [[2, digestOfLabel("another").slice(0, 8)]]),
    badCertificate("for another epoch", "bad-field", [[3, epoch + 1]]),
    badCertificate("for another sequence", "bad-field", [[4, last + 1]]),
    badCertificate("for a record with another one before it", "bad-field", [[5, digestOfLabel("x").slice(0, 16)]]),
    badCertificate("into the epoch that ends", "bad-field", [[6, epoch]]),
    badCertificate("version 2", "unsupported-version", [[1, 2]]),
    badCertificate("no device", "missing-field", [[2, undefined]]),
    badCertificate("no sequence", "missing-field", [[4, undefined]]),
    badCertificate("no next epoch", "missing-field", [[6, undefined]]),
    badCertificate("no public key", "missing-field", [[7, undefined]]),
    badCertificate("no share", "missing-field", [[8, undefined]]),
    badCertificate("share of 31 bytes", "bad-field", [[8, new Uint8Array(31)]]),
    badCertificate("a key of small order", "bad-public-key", [[7, smallOrderKey]]),
    badCertificate("certificate longer than 512 bytes", "too-large", [[42, new Uint8Array(512)]]),
    badCertificate("certificate by the old key", "signature-invalid", [], wallet),
    badCertificate("certificate by a stranger", "signature-invalid", [], stranger),
    bad(
      "a certificate that is an enrolment answer",
      "wrong-content-type",
      rotationRecord(
        wrap(contentTypes.enrolmentAnswer, certificatePayload(), {
          key: secondKey,
          tagged: false,
          unprotectedHex: "a0",
        }),
      ),
    ),
    bad("a certificate as text", "bad-field", rotationRecord("certificate")),
    bad(
      "two certificates",
      "bad-field",
      wrap(
        contentTypes.record,
        eventPayload([
          [eventCodes.keyRotated, certificate()],
          [eventCodes.keyRotated, certificate()],
        ]),
        { key: wallet },
      ),
    ),
    bad(
      "a parameter more",
      "bad-field",
      wrap(contentTypes.record, eventPayload([[eventCodes.keyRotated, certificate(), 1]]), { key: wallet }),
    ),
    bad("the record signed by the new key", "signature-invalid", rotationRecord(certificate(), secondKey)),
  ];
}

// --- enrolment of a rotated key ---

/** The second rotation, in the epoch that the first began. */
function secondRotation(by: TestKey = secondKey): Uint8Array {
  const place: Changes = [
    [3, nextEpoch],
    [4, 300],
    [6, nextEpoch + 1],
    [7, thirdKey.publicKey],
    [8, digestOfLabel("X25519 share of the third key")],
  ];
  const payload = changed(
    new Map<number, CborValue>([
      [1, 1],
      [2, nextEpoch],
      [3, 300],
      [4, previous],
      [6, noonS + 60],
      [19, [[eventCodes.keyRotated, certificate(place, thirdKey)]]],
    ]),
    [],
  );
  return wrap(contentTypes.record, payload, { key: by });
}

export function rotatedRequestVectors(): Vector[] {
  const type = contentTypes.enrolmentRequest;
  const share = digestOfLabel("X25519 share of the third key");
  const meters = [{ index: 0, name: "house", profile: "eastron-sdm630" }];
  const records = [rotationRecord(certificate()), secondRotation()];
  const payload = (changes: Changes): Uint8Array =>
    changed(
      new Map<number, CborValue>([
        [1, 1],
        [2, thirdKey.publicKey],
        [3, share],
        [4, nextEpoch + 1],
        [5, noonS],
        [6, "ecp-wallet 0.2.0"],
        [7, meters.map(({ index, name, profile }) => [index, name, profile])],
        [8, wallet.publicKey],
        [9, records],
      ]),
      changes,
    );
  const hex = (changes: Changes, key: TestKey = thirdKey) => hexOf(wrap(type, payload(changes), { key }));
  const bad = (name: string, expect: RefusalReason, changes: Changes, key?: TestKey): Vector => ({
    name,
    hex: hex(changes, key),
    expect,
  });
  return [
    {
      name: "two rotations after the name's key",
      hex: hex([]),
      expect: "ok",
      meaning: {
        digest: hexOf(digestOfWrapped(type, payload([]), { key: thirdKey })),
        content: jsonOf({
          publicKey: thirdKey.publicKey,
          share,
          epoch: nextEpoch + 1,
          timeS: noonS,
          softwareId: "ecp-wallet 0.2.0",
          meters,
          rotated: { nameKey: wallet.publicKey, records },
        }),
      },
    },
    bad("rotations without the name's key", "missing-field", [[8, undefined]]),
    bad("a name's key without rotations", "missing-field", [[9, undefined]]),
    bad("no rotation in the list", "bad-field", [[9, []]]),
    bad("thirteen rotations", "bad-field", [[9, Array.from({ length: 13 }, () => rotationRecord(certificate()))]]),
    bad("the last rotation left out", "bad-field", [[9, records.slice(0, 1)]]),
    bad("the first rotation left out", "signature-invalid", [[9, records.slice(1)]]),
    bad("rotations in another order", "signature-invalid", [[9, records.toReversed()]]),
    bad("another name's key", "signature-invalid", [[8, stranger.publicKey]]),
    bad("a name's key of small order", "bad-public-key", [[8, smallOrderKey]]),
    bad("the second rotation signed by the first key", "signature-invalid", [
      [9, [rotationRecord(certificate()), secondRotation(wallet)]],
    ]),
    bad("a record without a rotation", "bad-field", [
      [9, [wrap(contentTypes.record, eventPayload([[eventCodes.stopped]]), { key: wallet })]],
    ]),
    bad("signed by the key of the name", "signature-invalid", [], wallet),
  ];
}

// --- receipts with kept ---

export function keptReceiptVectors(): Vector[] {
  const key = hexOf(node.publicKey);
  const type = contentTypes.receipt;
  const kept = [
    { first: 4_700, last: 4_720, digest: digestOfLabel("of the chain") },
    { first: 4_690, last: 4_711, digest: digestOfLabel("evidence") },
  ];
  const runs = (count: number) =>
    Array.from({ length: count }, (_, i) => [100 * i + 1, 100 * i + 1, digestOfLabel(`run ${i}`)]);
  const payload = (field: CborValue): Uint8Array =>
    encodeCbor(
      new Map<number, CborValue>([
        [1, 1],
        [2, device],
        [3, epoch],
        [4, 4_711],
        [5, digestOfLabel("4711")],
        [8, [[4_700, "fork"]]],
        [9, noonS],
        [11, field],
      ]),
    );
  const hex = (field: CborValue) => hexOf(wrap(type, payload(field), { key: node }));
  const bad = (name: string, expect: RefusalReason, field: CborValue): Vector => ({
    name,
    hex: hex(field),
    key,
    expect,
  });
  const content = {
    device,
    epoch,
    through: 4_711,
    digest: digestOfLabel("4711"),
    ranges: [],
    held: false,
    refused: [[4_700, "fork"]],
    timeS: noonS,
  };
  return [
    {
      name: "two runs that overlap",
      hex: hex(kept.map((run) => [run.first, run.last, run.digest])),
      key,
      expect: "ok",
      meaning: { content: jsonOf({ ...content, kept }) },
    },
    {
      name: "eight runs",
      hex: hex(runs(8)),
      key,
      expect: "ok",
      meaning: { content: jsonOf({ ...content, kept: runs(8).map(([first, end, digest]) => ({ first, last: end, digest })) }) },
    },
    bad("nine runs", "bad-field", runs(9)),
    bad("no run in the list", "bad-field", []),
    bad("a run from sequence 0", "bad-field", [[0, 1, digestOfLabel("x")]]),
    bad("a run that ends before it begins", "bad-field", [[7, 6, digestOfLabel("x")]]),
    bad("a run without its digest", "missing-field", [[7, 8]]),
    bad("a run's digest cut to 16 bytes", "bad-field", [[7, 8, new Uint8Array(16)]]),
  ];
}

import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeCose, digestOf, encodeCose, verifyCose } from "../../protocol/cose-sign1.ts";
import { type CborMap, decodeCbor } from "../../protocol/deterministic-cbor.ts";
import { signEnrolmentAnswer, signEnrolmentRequest } from "../../protocol/enrolment.ts";
import { parseTopic, topicFilter, topicKinds, topicOf } from "../../protocol/mqtt-topic.ts";
import { kidOf, multibaseOf } from "../../protocol/public-key.ts";
import { hasValues, statuses, statusLetters } from "../../protocol/reading-status.ts";
import { decodeReceipt, type Receipt, signReceipt } from "../../protocol/receipt.ts";
import {
  codeMax,
  codesMax,
  decodeRecord,
  decodeRecordPayload,
  encodeRecordPayload,
  type ReadingContent,
  type RecordContent,
  type Row,
  rowsMax,
  signRecord,
  valueMax,
} from "../../protocol/record.ts";
import { Refusal, type RefusalReason } from "../../protocol/refusal.ts";
import { epoch, good, noonS, readingOf } from "../vectors/sample-content.ts";
import { hexOf, keyOfLabel, nodeVerify, sha256 } from "../vectors/signature-suite.ts";
import { randomOfRun } from "./seeded-random.ts";

const random = randomOfRun();
console.log(`seed ${random.seed} (ECP_TEST_SEED=${random.seed} repeats this run)`);
const wallet = keyOfLabel("wallet key");
const kid = kidOf(wallet.publicKey, sha256);
const reason = (expected: RefusalReason) => (error: unknown) => error instanceof Refusal && error.reason === expected;

function randomReading(): ReadingContent {
  const codeSet = new Set(
    Array.from({ length: random.integer(1, 16) }, () => random.integer(1, random.chance(90) ? 44 : codeMax)),
  );
  const codes = [...codeSet].sort((a, b) => a - b);
  const slotS = random.pick([0, 1, 60, 900, 86_400]);
  const count = slotS === 0 ? 1 : random.integer(1, 70);
  const statusOfAll = random.chance(20) ? random.integer(0, statusLetters.length - 1) : undefined;
  const span = random.pick([1, 100, 100_000, valueMax]);
  const rows: Row[] = [];
  for (let i = 0; i < count; i++) {
    const status = statusOfAll ?? (random.chance(85) ? 0 : random.integer(0, statusLetters.length - 1));
    const values = hasValues(status) ? codes.map(() => random.integer(-span, span)) : [];
    rows.push({ timeS: noonS + i * slotS, status, values });
  }
  return readingOf({
    epoch: random.uint32(),
    sequence: random.integer(1, 0xffff_ffff),
    previous: random.bytes(16),
    clockState: random.integer(0, 3),
    generation: random.pick([0, 1, 0xffff_ffff]),
    meter: random.integer(0, 255),
    plan: random.pick([0, 0, 1, 255]),
    slotS,
    codes,
    rows,
    ...(random.chance(20) && { meterSerial: random.pick(["", "1234567", "Zähler 7"]) }),
  });
}

test("random records come back equal, signed and verified, whatever failed in them", () => {
  const counts = { rows: 0, failedRows: 0, bytes: 0 };
  for (let i = 0; i < 400; i++) {
    const content = randomReading();
    const bytes = signRecord(content, wallet.sign, random.chance(50) ? kid : undefined);
    const record = decodeRecord(bytes, sha256);
    assert.deepEqual(record.content, content, `record ${i}`);
    verifyCose(record.cose, wallet.publicKey, nodeVerify);
    counts.rows += content.rows.length;
    counts.failedRows += content.rows.filter((row) => !hasValues(row.status)).length;
    counts.bytes += bytes.length;
  }
  console.log(`400 records: ${counts.rows} rows, ${counts.failedRows} of them failed, ${counts.bytes} bytes`);
  assert.ok(counts.failedRows > 100, `${counts.failedRows}`);
});

test("a failed row has differences of zero, and the next row goes on from the last values", () => {
  const failed = (i: number): Row => ({ timeS: noonS + 60 * i, status: statuses.timeout, values: [] });
  const rows = [good(noonS, [400, 1_000]), failed(1), failed(2), good(noonS + 180, [380, 1_020])];
  const payload = decodeCbor(encodeRecordPayload(readingOf({ slotS: 60, codes: [1, 2], rows }))) as CborMap;
  assert.deepEqual(payload.get(10), [400, 1_000, 0, 0, 0, 0, -20, 20]);
  assert.deepEqual(
    payload.get(12),
    new Map([
      [1, 2],
      [2, 2],
    ]),
  );
  assert.equal(payload.has(11), false);
});

test("silence is never zero: a failed reading has no values, a reading of zero has", () => {
  const silent = decodeRecordPayload(
    encodeRecordPayload(readingOf({ codes: [2], rows: [{ timeS: noonS, status: statuses.timeout, values: [] }] })),
  );
  const zero = decodeRecordPayload(encodeRecordPayload(readingOf({ codes: [2], rows: [good(noonS, [0])] })));
  assert.deepEqual((silent as ReadingContent).rows[0]?.values, []);
  assert.deepEqual((zero as ReadingContent).rows[0]?.values, [0]);
});

test("the limits themselves pass, one beyond does not", () => {
  const most = readingOf({
    slotS: 1,
    codes: [2],
    rows: Array.from({ length: rowsMax }, (_, i) => good(noonS + i, [i])),
  });
  assert.deepEqual(decodeRecordPayload(encodeRecordPayload(most)), most);
  assert.throws(
    () => encodeRecordPayload({ ...most, rows: [...most.rows, good(noonS + rowsMax, [0])] }),
    reason("bad-rows"),
  );
  const codes = Array.from({ length: codesMax }, (_, i) => i + 1);
  const wide = readingOf({ codes, rows: [good(noonS, codes)] });
  assert.deepEqual(decodeRecordPayload(encodeRecordPayload(wide)), wide);
  const wider = [...codes, codesMax + 1];
  assert.throws(
    () => encodeRecordPayload(readingOf({ codes: wider, rows: [good(noonS, wider)] })),
    reason("bad-field"),
  );
  assert.throws(() => encodeRecordPayload(readingOf({ codes: [2], rows: [good(noonS, [valueMax + 1])] })), Refusal);
});

test("content that no decoder would take is never signed", () => {
  let signatures = 0;
  const sign = (message: Uint8Array): Uint8Array => {
    signatures++;
    return wallet.sign(message);
  };
  const wrong: readonly RecordContent[] = [
    readingOf({ codes: [2], rows: [] }),
    readingOf({ codes: [4, 2], rows: [good(noonS, [1, 2])] }),
    readingOf({ codes: [2], rows: [good(noonS, [1, 2])] }),
    readingOf({ codes: [2], rows: [{ timeS: noonS, status: statuses.timeout, values: [1] }] }),
    readingOf({ codes: [2], rows: [{ timeS: noonS, status: 12, values: [] }] }),
    readingOf({ slotS: 60, codes: [2], rows: [good(noonS, [1]), good(noonS + 61, [1])] }),
    readingOf({ sequence: 0, codes: [2], rows: [good(noonS, [1])] }),
    readingOf({ sequence: 2 ** 32, codes: [2], rows: [good(noonS, [1])] }),
    readingOf({ meter: 256, codes: [2], rows: [good(noonS, [1])] }),
    {
      kind: "event",
      epoch,
      sequence: 1,
      previous: new Uint8Array(16),
      clockState: 0,
      generation: 0,
      timeS: noonS,
      events: [],
    },
  ];
  for (const content of wrong) assert.throws(() => signRecord(content, sign, kid), Refusal);
  const receipt: Receipt = { device: kid, epoch, through: 5, ranges: [], held: false, refused: [], timeS: noonS };
  assert.throws(() => signReceipt(receipt, sign, kid), reason("bad-field"));
  const keys = { publicKey: wallet.publicKey, share: new Uint8Array(32), timeS: noonS };
  const request = { ...keys, epoch, softwareId: "ä".repeat(33), meters: [] };
  assert.throws(() => signEnrolmentRequest(request, sign, sha256), reason("bad-field"));
  const answer = { ...keys, device: kid, request: new Uint8Array(31), nodeName: "node" };
  assert.throws(() => signEnrolmentAnswer(answer, sign, sha256), reason("bad-field"));
  assert.equal(signatures, 0);
  signRecord(readingOf({ codes: [2], rows: [good(noonS, [1])] }), sign, kid);
  assert.equal(signatures, 1, "control: what is right is signed");
});

test("the digest is of what was signed: tag and kid change nothing, any signed byte does", () => {
  const content = readingOf({ codes: [2], rows: [good(noonS, [1])] });
  const tagged = decodeRecord(signRecord(content, wallet.sign, kid), sha256);
  const bare = decodeRecord(signRecord(content, wallet.sign), sha256);
  assert.equal(hexOf(tagged.digest), hexOf(bare.digest));
  const { kid: _hint, ...withoutKid } = tagged.cose;
  assert.equal(hexOf(sha256(encodeCose(withoutKid))), hexOf(tagged.digest));
  const other = decodeCose(
    encodeCose({ ...tagged.cose, signature: tagged.cose.signature.map((byte, i) => (i ? byte : byte ^ 1)) }),
  );
  assert.notEqual(hexOf(digestOf(other, sha256)), hexOf(tagged.digest));
});

test("decoded content does not change with the buffer it came in", () => {
  const bytes = signRecord(
    readingOf({ previous: random.bytes(16), codes: [2], rows: [good(noonS, [1])] }),
    wallet.sign,
    kid,
  );
  const record = decodeRecord(bytes, sha256);
  const before = hexOf(record.content.previous) + hexOf(record.cose.payload) + hexOf(record.cose.signature);
  bytes.fill(0);
  assert.equal(hexOf(record.content.previous) + hexOf(record.cose.payload) + hexOf(record.cose.signature), before);
});

test("receipts come back equal", () => {
  const receipt: Receipt = {
    device: kid,
    epoch,
    through: 10,
    digest: random.bytes(32),
    ranges: [{ first: 12, last: 12, digest: random.bytes(32) }],
    held: true,
    refused: [[3, "fork"]],
    timeS: noonS,
    treeSize: 2 ** 40,
  };
  const { cose, content } = decodeReceipt(signReceipt(receipt, wallet.sign, kid));
  verifyCose(cose, wallet.publicKey, nodeVerify);
  assert.deepEqual(content, receipt);
});

test("a topic names its device by the multibase part alone", () => {
  const device = multibaseOf(wallet.publicKey);
  for (const kind of topicKinds) {
    assert.deepEqual(parseTopic(topicOf(device, kind)), { device, kind });
    assert.equal(topicFilter(kind), `ecp/1/+/${kind}`);
  }
  for (const topic of [
    "",
    "ecp/1",
    `ecp/1/${device}`,
    `ecp/2/${device}/record`,
    `ecp/1/${device}/other`,
    `ecp/1/${device}/record/`,
    `/ecp/1/${device}/record`,
    `ecp/1/did:key:${device}/record`,
    `ecp/1/${device.slice(0, -1)}/record`,
    "ecp/1/+/record",
    "ecp/1//record",
    "ecp/1/__proto__/record",
  ])
    assert.equal(parseTopic(topic), undefined, topic);
});

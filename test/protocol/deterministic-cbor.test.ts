import assert from "node:assert/strict";
import { test } from "node:test";
import { cdeDecodeOptions, decode as oracleDecode, encode as oracleEncode } from "cbor2";
import {
  type CborKey,
  type CborValue,
  decodeCbor,
  depthMax,
  encodeCbor,
  equalBytes,
  messageBytesMax,
} from "../../protocol/deterministic-cbor.ts";
import { openEnrolmentAnswer, openEnrolmentRequest } from "../../protocol/enrolment.ts";
import { decodeReceipt } from "../../protocol/receipt.ts";
import { decodeRecord } from "../../protocol/record.ts";
import { Refusal } from "../../protocol/refusal.ts";
import { vectorFiles } from "../vectors/generate.ts";
import { bytesOf, hexOf, nodeVerify, sha256 } from "../vectors/signature-suite.ts";
import { randomOfRun, type SeededRandom } from "./seeded-random.ts";

const random = randomOfRun();
console.log(`seed ${random.seed} (ECP_TEST_SEED=${random.seed} repeats this run)`);

/** Integers around every change of width, where encoders go wrong. */
const edges = [0n, 23n, 24n, 255n, 256n, 65_535n, 65_536n, 2n ** 31n, 2n ** 32n, 2n ** 52n, 2n ** 53n, 2n ** 63n];

function randomInteger(from: SeededRandom): number | bigint {
  let value: bigint;
  if (from.chance(50)) value = from.pick(edges) + BigInt(from.integer(-2, 2));
  else value = (BigInt(from.uint32()) << 32n) | BigInt(from.uint32());
  if (from.chance(50)) value >>= BigInt(from.integer(0, 63));
  if (from.chance(40)) value = -value;
  if (value < -(2n ** 63n)) value = -(2n ** 63n);
  if (value > 2n ** 64n - 1n) value = 2n ** 64n - 1n;
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

function randomText(from: SeededRandom): string {
  const alphabet = [
    "a",
    "Z",
    "0",
    " ",
    "\n",
    '"',
    "\0",
    "ä",
    "ß",
    "€",
    "漢",
    "💡",
    "\ud7ff",
    "\ue000",
    "\uffff",
    "\u{10ffff}",
  ];
  const length = from.chance(80) ? from.integer(0, 20) : from.integer(0, 400);
  return Array.from({ length }, () => from.pick(alphabet)).join("");
}

function randomValue(from: SeededRandom, depth: number): CborValue {
  const kind = from.integer(1, depth < depthMax ? 9 : 6);
  if (kind <= 2) return randomInteger(from);
  if (kind === 3) return randomText(from);
  if (kind === 4) return from.bytes(from.chance(90) ? from.integer(0, 40) : from.integer(0, 700));
  if (kind === 5) return from.pick([true, false]);
  if (kind === 6) return null;
  const size = from.chance(90) ? from.integer(0, 5) : from.integer(0, 40);
  if (kind === 7) return Array.from({ length: size }, () => randomValue(from, depth + 1));
  const keys = (): CborKey => {
    const integer = randomInteger(from);
    return from.chance(60) && typeof integer === "number" ? integer : randomText(from);
  };
  return new Map(Array.from({ length: size }, () => [keys(), randomValue(from, depth + 1)]));
}

test("random values come back equal, in the bytes that cbor2's deterministic encoding gives", () => {
  let bytesTotal = 0;
  for (let i = 0; i < 3_000; i++) {
    const value = randomValue(random, 1);
    const bytes = encodeCbor(value);
    if (bytes.length > messageBytesMax) continue;
    bytesTotal += bytes.length;
    assert.ok(equalBytes(bytes, oracleEncode(value, { cde: true })), `value ${i}: ${hexOf(bytes)}`);
    const decoded = decodeCbor(bytes);
    assert.ok(equalBytes(encodeCbor(decoded), bytes), `value ${i}: ${hexOf(bytes)}`);
    assertSame(decoded, value, `value ${i}: ${hexOf(bytes)}`);
  }
  console.log(`3000 values of ${bytesTotal} bytes`);
  assert.ok(bytesTotal > 100_000, `${bytesTotal} bytes`);
});

/** Deep equality in which the order of a map's keys does not count. */
function assertSame(actual: CborValue, expected: CborValue, message: string): void {
  if (!(expected instanceof Map)) {
    if (!Array.isArray(expected)) {
      assert.deepEqual(actual, expected, message);
      return;
    }
    assert.ok(Array.isArray(actual) && actual.length === expected.length, message);
    for (const [i, item] of expected.entries()) assertSame(actual[i] as CborValue, item, message);
    return;
  }
  assert.ok(actual instanceof Map && actual.size === expected.size, message);
  for (const [key, item] of expected) {
    assert.ok(actual.has(key), message);
    assertSame(actual.get(key) as CborValue, item, message);
  }
}

test("what the oracle takes as deterministic is taken, what it refuses is refused", () => {
  let taken = 0;
  let refused = 0;
  for (const vector of vectorFiles().get("cbor.json")?.vectors ?? []) {
    const bytes = bytesOf(vector.hex as string);
    let oracle: boolean;
    try {
      oracleDecode(bytes, cdeDecodeOptions);
      oracle = true;
    } catch {
      oracle = false;
    }
    if (vector.expect === "ok") {
      assert.ok(oracle, `cbor2 refuses ${vector.name}`);
      taken++;
    } else if (!oracle) refused++;
  }
  console.log(
    `cbor2 agrees on ${taken} accepted vectors and ${refused} refused ones (it takes floats, tags, depth and any text)`,
  );
  assert.ok(taken > 20 && refused > 20);
});

test("the encoder throws TypeError on what must not be sent, so that it never leaves", () => {
  const wrong: readonly unknown[] = [
    0.5,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    2 ** 53,
    2n ** 64n,
    -(2n ** 63n) - 1n,
    "\ud800",
    "\ufeffx",
    undefined,
    new Date(0),
    { a: 1 },
    new Map([[0.5, 1]]),
    new Map([[2 ** 53, 1]]),
    [[[[[[[[0]]]]]]]],
  ];
  for (const value of wrong) assert.throws(() => encodeCbor(value as CborValue), TypeError, String(value));
});

test("minus zero is zero", () => assert.equal(hexOf(encodeCbor([-0, new Map([[-0, -0]])])), "8200a10000"));

test("64 KiB are read and one byte more is refused", () => {
  const header = 3; // of a byte string of 256 to 65,535 bytes
  const most = encodeCbor(new Uint8Array(messageBytesMax - header));
  assert.equal(most.length, messageBytesMax);
  assert.ok(decodeCbor(most) instanceof Uint8Array);
  assert.throws(() => decodeCbor(encodeCbor(new Uint8Array(messageBytesMax - header + 1))), reason("too-large"));
  assert.throws(() => decodeCbor(Uint8Array.of(0x18, 0x20), 1), reason("too-large"));
});

function reason(expected: string): (error: unknown) => boolean {
  return (error) => error instanceof Refusal && error.reason === expected;
}

test("a depth bomb of 64 KiB is refused, in arrays, maps and both", () => {
  for (const bomb of ["81", "a100", "81a100", "a10081"]) {
    const bytes = bytesOf(bomb.repeat(Math.floor(messageBytesMax / (bomb.length / 2))));
    assert.throws(() => decodeCbor(bytes), reason("too-deep"), bomb);
  }
});

test("counts and lengths that promise more than there is are refused before anything is made", () => {
  for (const major of [0x40, 0x60, 0x80, 0xa0])
    for (const length of ["18ff", "19ffff", "1affffffff", "1bffffffffffffffff", "1b001fffffffffffff"]) {
      const bytes = bytesOf(length);
      bytes[0] = (bytes[0] as number) | major;
      assert.throws(() => decodeCbor(bytes), reason("truncated"), hexOf(bytes));
    }
});

test("random garbage is refused with a reason, by every decoder, and nothing else is ever thrown", () => {
  const decoders: readonly ((bytes: Uint8Array) => unknown)[] = [
    decodeCbor,
    (bytes) => decodeRecord(bytes, sha256),
    decodeReceipt,
    (bytes) => openEnrolmentRequest(bytes, nodeVerify, sha256),
    (bytes) => openEnrolmentAnswer(bytes, nodeVerify),
  ];
  const messages = [...vectorFiles().values()].flatMap((file) =>
    file.vectors.map((vector) => bytesOf(vector.hex ?? "")),
  );
  const counts = { taken: 0, refused: 0 };
  const reasons = new Set<string>();
  for (let i = 0; i < 4_000; i++) {
    const bytes = random.chance(50) ? random.bytes(random.integer(0, 200)) : mutated(random.pick(messages));
    for (const decode of decoders) {
      try {
        decode(bytes);
        counts.taken++;
      } catch (error) {
        assert.ok(error instanceof Refusal, `${error} for ${hexOf(bytes)}`);
        reasons.add(error.reason);
        counts.refused++;
      }
    }
  }
  console.log(`garbage: ${counts.refused} refused for ${reasons.size} reasons, ${counts.taken} taken`);
  assert.equal(counts.refused + counts.taken, 20_000);
  assert.ok(reasons.size > 12, [...reasons].join(", "));
});

test("whatever is taken encodes to the same bytes again, by our encoder and by another one", () => {
  const seeds = [...vectorFiles().values()].flatMap((file) => file.vectors.map((vector) => bytesOf(vector.hex ?? "")));
  const items = Array.from({ length: 300 }, () => encodeCbor(randomValue(random, 1))).filter(
    ({ length }) => length < 500,
  );
  let taken = 0;
  for (let i = 0; i < 20_000; i++) {
    const bytes = mutated(random.pick(random.chance(50) ? seeds : items));
    let value: CborValue;
    try {
      value = decodeCbor(bytes);
    } catch (error) {
      assert.ok(error instanceof Refusal, `${error} for ${hexOf(bytes)}`);
      continue;
    }
    taken++;
    assert.ok(equalBytes(encodeCbor(value), bytes), hexOf(bytes));
    assert.ok(equalBytes(oracleEncode(value, { cde: true }), bytes), hexOf(bytes));
  }
  console.log(`${taken} of 20000 taken`);
  assert.ok(taken > 1_000, `${taken}`);
});

/** A message with a few bytes overwritten, removed or put in. */
function mutated(message: Uint8Array): Uint8Array {
  let bytes = [...message];
  for (let i = random.integer(1, 4); i > 0; i--) {
    const at = random.integer(0, bytes.length);
    const removed = random.integer(0, 2);
    bytes = [...bytes.slice(0, at), ...random.bytes(random.integer(0, 2)), ...bytes.slice(at + removed)];
  }
  return Uint8Array.from(bytes);
}

test("control: cbor-x alone takes what this codec refuses", async () => {
  const { decode } = await import("cbor-x");
  for (const hex of ["1817", "a201000101", "9f01ff", "f93c00"]) {
    assert.doesNotThrow(() => decode(bytesOf(hex)), hex);
    assert.throws(() => decodeCbor(bytesOf(hex)), Refusal, hex);
  }
});

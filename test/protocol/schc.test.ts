import assert from "node:assert/strict";
import { test } from "node:test";
import { crc32 as zlibCrc32 } from "node:zlib";
import { contentTypes, signCose } from "../../protocol/cose-sign1.ts";
import { crc32 } from "../../protocol/crc-32.ts";
import { packetBytesMax, packetOf, recordOfPacket } from "../../protocol/lorawan.ts";
import { Refusal } from "../../protocol/refusal.ts";
import { decodeAnswer, decodeFragment, encodeAnswer, encodeFragment, windowTiles } from "../../protocol/schc.ts";
import { hexOf, keyOfLabel } from "../vectors/signature-suite.ts";
import { randomOfRun } from "./seeded-random.ts";

const random = randomOfRun();
console.log(`seed ${random.seed} (ECP_TEST_SEED=${random.seed} repeats this run)`);

test("CRC-32 is zlib's, of pieces too", () => {
  assert.equal(crc32(new TextEncoder().encode("123456789")), 0xcbf4_3926);
  for (let i = 0; i < 200; i++) {
    const bytes = random.bytes(random.integer(0, 300));
    const cut = random.integer(0, bytes.length);
    assert.equal(crc32(bytes), zlibCrc32(bytes));
    assert.equal(crc32(bytes.subarray(cut), crc32(bytes.subarray(0, cut))), zlibCrc32(bytes));
  }
});

test("whatever a record's bytes are, they come out of its packet as they went in; records lose 13 to 15 bytes", () => {
  const { sign } = keyOfLabel("wallet key");
  for (let length = 1; length < 300; length++) {
    const record = signCose(contentTypes.record, random.bytes(length), sign);
    const packet = packetOf(record);
    assert.equal(packet.length, 1 + length + 64);
    assert.equal(hexOf(recordOfPacket(packet)), hexOf(record));
    const other = random.bytes(length);
    assert.equal(packetOf(other).length, 1 + length, "no record: as it is");
    assert.equal(hexOf(recordOfPacket(packetOf(other))), hexOf(other));
    const cut = record.subarray(0, random.integer(1, record.length - 1));
    assert.equal(hexOf(recordOfPacket(packetOf(cut))), hexOf(cut));
  }
  const longest = signCose(contentTypes.record, random.bytes(packetBytesMax - 65), sign);
  assert.equal(packetOf(longest).length, packetBytesMax);
  assert.equal(hexOf(recordOfPacket(packetOf(longest))), hexOf(longest));
});

test("random bitmaps come back from the bytes of an answer, in as few as the rule gives", () => {
  for (let i = 0; i < 2_000; i++) {
    const zeros = new Set(Array.from({ length: random.integer(1, 8) }, () => random.integer(0, windowTiles - 1)));
    const bitmap = Array.from({ length: windowTiles }, (_, bit) => !zeros.has(bit));
    const answer = { kind: "ack", window: random.integer(0, 3), complete: false, bitmap } as const;
    const bytes = encodeAnswer(answer);
    assert.deepEqual(decodeAnswer(bytes), answer);
    const significant = Math.max(...zeros) + 1;
    assert.equal(bytes.length, Math.ceil((3 + significant) / 8), `${significant} bits`);
  }
});

test("what decodes as a fragment is encoded to the same bytes; everything else is refused", () => {
  const counts = { accepted: 0, refused: 0 };
  for (let i = 0; i < 20_000; i++) {
    const bytes = random.bytes(random.pick([0, 1, 2, 5, 11, 15, 16, random.integer(0, 260)]));
    try {
      assert.equal(hexOf(encodeFragment(decodeFragment(bytes))), hexOf(bytes));
      counts.accepted++;
    } catch (error) {
      assert.ok(error instanceof Refusal && error.reason === "bad-fragment", `${error}`);
      counts.refused++;
    }
  }
  console.log(`fragments: ${counts.accepted} accepted, ${counts.refused} refused`);
  assert.ok(counts.accepted > 5_000 && counts.refused > 1_000);
});

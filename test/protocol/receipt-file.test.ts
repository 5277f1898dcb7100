import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeCbor } from "../../protocol/deterministic-cbor.ts";
import { receiptBytesMax } from "../../protocol/receipt.ts";
import { decodeReceiptFile, encodeReceiptFile, receiptFileReceiptsMax } from "../../protocol/receipt-file.ts";
import { Refusal, type RefusalReason } from "../../protocol/refusal.ts";

const receipts = [1, 23, 24, 255, 256, receiptBytesMax].map((length, i) => new Uint8Array(length).fill(i));

function reasonOf(bytes: Uint8Array): RefusalReason | "ok" {
  try {
    decodeReceiptFile(bytes);
    return "ok";
  } catch (error) {
    if (error instanceof Refusal) return error.reason;
    throw error;
  }
}

test("a file of receipts comes back as it was written", () => {
  assert.deepEqual(decodeReceiptFile(encodeReceiptFile(receipts)), receipts);
});

test("a file cut off anywhere but between two receipts is refused", () => {
  const file = encodeReceiptFile(receipts);
  const whole = new Set<number>();
  let at = 0;
  for (const receipt of receipts) {
    at += encodeCbor(receipt).length;
    whole.add(at);
  }
  let cuts = 0;
  for (let length = 0; length < file.length; length++) {
    assert.equal(reasonOf(file.subarray(0, length)), whole.has(length) ? "ok" : "truncated", `${length}`);
    cuts++;
  }
  assert.ok(cuts > 2_000);
});

test("what is no receipt, too long or too much is refused", () => {
  assert.equal(reasonOf(encodeCbor("text")), "bad-field");
  assert.equal(reasonOf(encodeCbor(new Uint8Array(0))), "bad-field");
  assert.equal(reasonOf(encodeCbor(new Uint8Array(receiptBytesMax + 1))), "bad-field");
  assert.equal(reasonOf(Uint8Array.of(0x5a, 0, 1, 0, 0)), "too-large");
  assert.equal(reasonOf(Uint8Array.of(0x58, 1, 7)), "non-minimal-integer");
  assert.equal(reasonOf(Uint8Array.of(0x5f, 0x41, 1, 0xff)), "too-large");
  assert.equal(reasonOf(new Uint8Array(2 * (receiptFileReceiptsMax + 1)).fill(0x41)), "too-large");
});

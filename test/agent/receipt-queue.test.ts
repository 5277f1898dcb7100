import assert from "node:assert/strict";
import { test } from "node:test";
import { ReceiptQueue } from "../../agent/receipt-queue.ts";
import { digestBytes, kidBytes } from "../../protocol/cose-sign1.ts";
import { type Receipt, signReceipt } from "../../protocol/receipt.ts";

const digest = new Uint8Array(digestBytes);

function receipt(through: number, ranges: [number, number][] = [], more: Partial<Receipt> = {}, node = 1): Uint8Array {
  const content: Receipt = {
    ...{ device: new Uint8Array(kidBytes), epoch: 7, through, ...(through > 0 && { digest }) },
    ...{ ranges: ranges.map(([first, last]) => ({ first, last, digest })), held: false, refused: [], timeS: 1 },
    ...more,
  };
  return signReceipt(content, () => new Uint8Array(64), new Uint8Array(kidBytes).fill(node));
}

/** What is left of these, in this order. */
function left(...receipts: Uint8Array[]): number[] {
  const queue = new ReceiptQueue();
  for (const bytes of receipts) queue.push(bytes);
  const result: number[] = [];
  for (let bytes = queue.shift(); bytes; bytes = queue.shift()) result.push(receipts.indexOf(bytes));
  return result;
}

test("a receipt that says all that earlier ones say replaces them", () => {
  assert.deepEqual(left(receipt(1), receipt(2), receipt(5)), [2]);
  assert.deepEqual(left(receipt(1, [[4, 6]]), receipt(1, [[3, 9]])), [1]);
  assert.deepEqual(left(receipt(1, [[4, 6]]), receipt(6)), [1]);
});

test("one that says less, or of another epoch, node or device, or what was kept just then, replaces nothing", () => {
  assert.deepEqual(left(receipt(5), receipt(4)), [0, 1]);
  assert.deepEqual(left(receipt(1, [[4, 6]]), receipt(1, [[4, 5]])), [0, 1]);
  assert.deepEqual(left(receipt(1), receipt(2, [], { epoch: 8 })), [0, 1]);
  assert.deepEqual(left(receipt(1), receipt(2, [], { device: new Uint8Array(kidBytes).fill(9) })), [0, 1]);
  assert.deepEqual(left(receipt(1), receipt(2, [], {}, 2)), [0, 1]);
  assert.deepEqual(left(receipt(1, [], { kept: [{ first: 1, last: 1, digest }] }), receipt(2)), [0, 1]);
});

test("what cannot be read goes to the wallet as it is; of too many the oldest go", () => {
  assert.deepEqual(left(Uint8Array.of(1), receipt(1), Uint8Array.of(2)), [0, 1, 2]);
  const many = Array.from({ length: 70 }, (_, i) => receipt(1, [], { epoch: i + 1 }));
  assert.deepEqual(
    left(...many),
    Array.from({ length: 64 }, (_, i) => i + 6),
  );
});

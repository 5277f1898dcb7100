import assert from "node:assert/strict";
import { test } from "node:test";
import { planBlocks, type RegisterSpan } from "../../drivers/modbus/block-plan.ts";
import { eastronSdm630 } from "./sdm630-line.ts";

const limits = { maxRegistersPerRequest: 60, countStep: 2, requestCostRegisters: 7 };
const at = (address: number, count = 2, functionCode: 3 | 4 = 4): RegisterSpan => ({ functionCode, address, count });

test("neighbours are one request, and so is a gap that costs less than asking again", () => {
  assert.deepEqual(planBlocks([at(2), at(0), at(4)], limits), [at(0, 6)]);
  assert.deepEqual(planBlocks([at(0), at(8)], limits), [at(0, 10)]);
  assert.deepEqual(planBlocks([at(0), at(10)], limits), [at(0), at(10)]);
});

test("no request is longer than the meter allows, and address and count keep its step", () => {
  const spans = Array.from({ length: 70 }, (_, i) => at(2 * i));
  const blocks = planBlocks(spans, limits);
  assert.equal(blocks.length, 3);
  assert.ok(blocks.every(({ count }) => count <= 60));
  assert.equal(
    blocks.reduce((sum, { count }) => sum + count, 0),
    140,
  );
  assert.deepEqual(planBlocks([at(5, 1)], limits), [at(4, 2)]);
});

test("holding and input registers never share a request; the same register twice is read once", () => {
  assert.deepEqual(planBlocks([at(0), at(0, 2, 3), at(0)], limits), [at(0, 2, 3), at(0)]);
  assert.deepEqual(planBlocks([], limits), []);
});

test("no plan of any set of registers costs less (all partitions tried)", () => {
  const cost = (blocks: readonly RegisterSpan[]): number => blocks.reduce((sum, { count }) => sum + 7 + count, 0);
  const addresses = [0, 4, 6, 18, 24, 34, 36, 52];
  for (let pick = 1; pick < 2 ** addresses.length; pick++) {
    const spans = addresses.filter((_, i) => pick & (1 << i)).map((address) => at(address));
    let best = Number.POSITIVE_INFINITY;
    for (let cuts = 0; cuts < 2 ** (spans.length - 1); cuts++) {
      let total = 0;
      let start = spans[0]!.address;
      for (let i = 0; i < spans.length; i++) {
        if (i < spans.length - 1 && !(cuts & (1 << i))) continue;
        total += 7 + spans[i]!.address + 2 - start;
        start = spans[i + 1]?.address ?? 0;
      }
      best = Math.min(best, total);
    }
    assert.equal(cost(planBlocks(spans, limits)), best);
  }
});

test("the SDM630's twelve default values take two requests at 9600 baud", () => {
  const spans = eastronSdm630.registers
    .filter(({ code }) => eastronSdm630.defaultCodes.includes(code))
    .map(({ address }) => at(address));
  assert.deepEqual(planBlocks(spans, { ...eastronSdm630, requestCostRegisters: 65 }), [at(0, 12), at(52, 24)]);
});

test("no block of several registers covers a request that was refused; a register by itself is asked for all the same", () => {
  const spans = [at(0), at(2), at(4), at(8)];
  assert.deepEqual(planBlocks(spans, limits), [at(0, 10)]);
  const refused = [at(4, 6)];
  assert.deepEqual(planBlocks(spans, { ...limits, refused }), [at(0, 6), at(8)]);
  assert.deepEqual(planBlocks(spans, { ...limits, refused: [at(4, 6, 3)] }), [at(0, 10)], "of the other table");
  assert.deepEqual(planBlocks([at(4)], { ...limits, refused: [at(4)] }), [at(4)]);
  assert.deepEqual(planBlocks([at(2), at(4)], { ...limits, refused: [at(4)] }), [at(2), at(4)]);
});

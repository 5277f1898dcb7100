// Quarter hours are what their booked rows make: in any order, any batches, and however often a row comes.
import assert from "node:assert/strict";
import { test } from "node:test";
import { addRow, addSummary, emptySummary, quarterEndS } from "../../fullnode/aggregate.ts";
import { canonicalDump } from "../../fullnode/canonical-dump.ts";
import { enrolDevice } from "../../fullnode/registry.ts";
import { packSummary, packValues, unpackSummary, unpackValues } from "../../fullnode/row-packing.ts";
import type { CountedRow, Store } from "../../fullnode/store.ts";
import { checkSlots } from "./aggregate-fixture.ts";
import { DeviceFixture, firstTimeS } from "./device-fixture.ts";
import { deviceScope, NodeFixture } from "./node-fixture.ts";
import { shuffled } from "./shuffle.ts";

const seed = Number(process.env.ECP_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));

/** A small generator of numbers in [0, 1) (mulberry32). */
function random(start: number): () => number {
  let state = start >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function anyValue(next: () => number): number {
  const kind = next();
  if (kind < 0.05) return 2 ** 52 - 1;
  if (kind < 0.1) return -(2 ** 52 - 1);
  if (kind < 0.2) return 0;
  return Math.floor((next() - 0.3) * 2 ** Math.floor(next() * 50));
}

test("packed values and quarter hours come back as they were, up to the limits of a value", () => {
  const next = random(seed);
  console.log(`seed ${seed}`);
  for (let i = 0; i < 2_000; i++) {
    const codes = [1, 2, 4, 14, 29, 300, 65_535].filter(() => next() < 0.6);
    const values = codes.flatMap((code) => [code, anyValue(next)]);
    assert.deepEqual(unpackValues(packValues(values)), values);
    const endS = quarterEndS(firstTimeS + i * 450);
    const summary = emptySummary();
    for (let n = Math.floor(next() * 5); n >= 0; n--)
      addRow(
        summary,
        endS - n * 7,
        values.map((value, at) => (at % 2 === 0 ? value : anyValue(next) + value - value)),
      );
    assert.deepEqual(unpackSummary(packSummary(summary, endS), endS), summary);
  }
  assert.throws(() => unpackValues(packValues([2, 1_000_000]).subarray(0, 2)), /cut short/);
});

test("a time belongs to the quarter hour that it ends", () => {
  assert.equal(quarterEndS(1_800), 1_800);
  assert.equal(quarterEndS(1_801), 2_700);
  assert.equal(quarterEndS(0), 0);
});

test("summaries merge in any order to the same", () => {
  const next = random(seed);
  const rows = Array.from({ length: 200 }, (_, i) => ({
    timeS: 1 + i,
    values: [1, 2, 29].filter(() => next() < 0.7).flatMap((code) => [code, anyValue(next)]),
  }));
  const whole = emptySummary();
  for (const { timeS, values } of rows) addRow(whole, timeS, values);
  for (let round = 1; round <= 20; round++) {
    const parts = Array.from({ length: 7 }, emptySummary);
    for (const { timeS, values } of shuffled(rows, seed + round))
      addRow(parts[Math.floor(next() * 7)] ?? whole, timeS, values);
    const merged = emptySummary();
    for (const part of shuffled(parts, seed + round)) addSummary(merged, part);
    assert.deepEqual(merged, whole);
  }
});

/** Counts rows in batches of random size, as records of one row and of many. */
async function countAll(store: Store, records: readonly (readonly CountedRow[])[], next: () => number): Promise<void> {
  let at = 0;
  while (at < records.length) {
    const batch = records.slice(at, at + 1 + Math.floor(next() * 40));
    await store.transaction(deviceScope, async (tx) => {
      for (const [i, rows] of batch.entries()) await tx.countRows(1, 1, at + i + 1, rows);
    });
    at += batch.length;
  }
}

test("whatever order, duplicates and batches rows come in, quarter hours are those of the booked rows", async (t) => {
  console.log(`seed ${seed}`);
  for (let round = 0; round < 4; round++) {
    const next = random(seed + round);
    const node = new NodeFixture(t);
    await node.enrolled();
    const records = Array.from({ length: 400 }, () => {
      const first = firstTimeS + Math.floor(next() * 200) * 60;
      const [meter, generation] = [Math.floor(next() * 2), Math.floor(next() * 2)];
      return Array.from({ length: next() < 0.5 ? 1 : 60 }, (_, i): CountedRow => {
        const kind = next();
        const booked = kind < 0.8;
        const values =
          kind > 0.9
            ? []
            : [1, 2, 29].filter((code) => code === 2 || next() < 0.8).flatMap((code) => [code, anyValue(next)]);
        return { meter, generation, timeS: first + i * 60, slotS: 60, status: booked ? 0 : 5, booked, values };
      });
    });
    await countAll(node.store, records, next);
    assert.ok((await checkSlots(node.store, 1)) > 300);
    // Control: without the rule that only new rows enter, rows that came twice would be there twice.
    const given = records.flat().filter(({ booked }) => booked).length;
    assert.ok(given > 2 * (await checkSlots(node.store, 1)));
  }
});

test("a transaction that fails leaves no trace in the quarter hours of the next", async (t) => {
  const node = new NodeFixture(t);
  await node.enrolled();
  const row = (minute: number): CountedRow => ({
    ...{ meter: 0, generation: 0, slotS: 60, status: 0, booked: true },
    timeS: firstTimeS + minute * 60,
    values: [2, minute],
  });
  await node.store.transaction(deviceScope, async (tx) => tx.countRows(1, 1, 1, [row(1)]));
  await assert.rejects(
    node.store.transaction(deviceScope, async (tx) => {
      await tx.countRows(1, 1, 2, [row(2)]);
      throw new Error("on purpose");
    }),
  );
  await node.store.transaction(deviceScope, async (tx) => tx.countRows(1, 1, 3, [row(3)]));
  assert.equal(await checkSlots(node.store, 1), 2);
});

test("what changes more than an hour after a quarter hour's end is counted, and told of with what was known before", async (t) => {
  const node = new NodeFixture(t);
  await node.enrolled();
  const endS = quarterEndS(firstTimeS);
  const row = (timeS: number): CountedRow => ({
    ...{ meter: 0, generation: 0, slotS: 60, status: 0, booked: true },
    timeS,
    values: [2, timeS - endS],
  });
  const count = (sequence: number, timeS: number, nowS: number) =>
    node.store.transaction({ ...deviceScope, nowMs: nowS * 1_000 }, async (tx) =>
      tx.countRows(1, 1, sequence, [row(timeS)]),
    );
  const revisions = async () =>
    (await node.store.slots(1, { meter: 0, generation: 0 }, 0, 2 ** 33, 10)).map(({ revision }) => revision);
  await count(1, endS - 60, endS);
  await count(2, endS - 30, endS + 3_600); // at the very hour: in time
  assert.deepEqual(await revisions(), [0]);
  await count(2, endS - 30, endS + 9_000); // again: nothing new
  assert.deepEqual(await revisions(), [0]);
  await count(3, endS, endS + 3_601);
  await count(4, endS + 900, endS + 9_000); // the first row of its quarter hour: nothing was known before
  assert.deepEqual(await revisions(), [1, 1]);
  const corrections = await node.store.corrections(1, 10);
  assert.deepEqual(
    corrections.map(({ before, after, ...rest }) => [rest.endS, rest.revision, rest.atMs, before.rows, after.rows]),
    [[endS, 1, (endS + 3_601) * 1_000, 2, 3]],
  );
});

async function linesOf(store: Store): Promise<string[]> {
  const lines: string[] = [];
  for await (const line of canonicalDump(store)) lines.push(line);
  return lines;
}

test("the canonical dump is the same for every order of arrival, and differs where a record does", async (t) => {
  const node = new NodeFixture(t);
  const device = new DeviceFixture();
  const request = device.request();
  await enrolDevice(node.store, node.keys, request, 1);
  const records = [...device.readings(40), device.void(2), ...device.readings(1_200)];
  await node.deliver(device, ...records);
  const ordered = await linesOf(node.store);
  assert.ok(ordered.length > 2 * 1_241);

  const other = new NodeFixture(t);
  await enrolDevice(other.store, other.keys, request, 77);
  const mixed = shuffled([...records, ...records.slice(100, 300)], seed);
  for (let i = 0; i < mixed.length; i += 170) await other.deliver(device, ...mixed.slice(i, i + 170));
  const arrivals = "SELECT sequence, received_ms FROM records ORDER BY sequence";
  assert.notDeepEqual(other.query(arrivals), node.query(arrivals));
  assert.equal((await linesOf(other.store)).join("\n"), ordered.join("\n"));

  await other.deliver(device, device.reading());
  assert.notDeepEqual(await linesOf(other.store), ordered);
});

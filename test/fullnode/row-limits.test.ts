// Few bytes can hold many rows, each in a quarter hour of its own, and few records leave many gaps: one device cannot make the work of all grow.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { rowsPerBatchMax, spansMax } from "../../fullnode/chain.ts";
import type { Store } from "../../fullnode/store.ts";
import type { DeviceFixture, SealedRecord } from "./device-fixture.ts";
import { NodeFixture } from "./node-fixture.ts";

const rowsOfRecord = 1_440;
const dayS = 86_400;
const count = Math.ceil(rowsPerBatchMax / rowsOfRecord) + 60;

/** A node that notes how many rows each of its transactions counts. */
async function noting(t: TestContext) {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const counted: number[] = [];
  await node.useStore(
    (store) =>
      new Proxy(store, {
        get: (target, name) => {
          if (name === "transaction")
            return (...[scope, work]: Parameters<Store["transaction"]>) =>
              target.transaction(scope, (tx) => {
                const at = counted.push(0) - 1;
                return work({
                  ...tx,
                  countRows: (...row) => {
                    counted[at] = (counted[at] as number) + row[3].length;
                    return tx.countRows(...row);
                  },
                });
              });
          const value = Reflect.get(target, name, target);
          return typeof value === "function" ? value.bind(target) : value;
        },
      }),
  );
  return { node, device, counted };
}

/** Each row a day later: 1.5 KB with as many quarter hours as there are rows. */
function sparse(device: DeviceFixture): SealedRecord[] {
  return Array.from({ length: count }, (_, i) => {
    const rows = Array.from({ length: rowsOfRecord }, (_, day) => ({
      ...{ timeS: day * dayS + i, status: 0 },
      values: [1, 1],
    }));
    return device.reading({ timeS: i, slotS: dayS, rows });
  });
}

test("a flood of records with as many rows as fit is placed in parts", async (t) => {
  const { node, device, counted } = await noting(t);
  await node.deliver(device, ...sparse(device));
  assert.equal(node.lastReceipt().through, count);
  assert.equal(
    counted.reduce((sum, rows) => sum + rows, 0),
    count * rowsOfRecord,
  );
  assert.ok(Math.max(...counted) <= rowsPerBatchMax + rowsOfRecord, `${counted}`);
});

test("a gap that closes before such records is settled in parts", async (t) => {
  const { node, device, counted } = await noting(t);
  const first = device.reading();
  await node.deliver(device, ...sparse(device));
  assert.equal(Math.max(...counted), 0);
  await node.deliver(device, first);
  assert.equal(node.lastReceipt().through, count + 1);
  assert.equal(node.query("SELECT settled_through AS n FROM epochs")[0]?.n, count + 1);
  assert.equal(
    counted.reduce((sum, rows) => sum + rows, 0),
    count * rowsOfRecord + 1,
  );
  assert.ok(Math.max(...counted) <= rowsPerBatchMax + rowsOfRecord, `${counted}`);
});

test("a device that sends every second record only is stopped at so many gaps, and all is taken once it fills them", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const records = device.readings(2 * spansMax + 40);
  const [odd, even] = [records.filter((_, i) => i % 2 === 0), records.filter((_, i) => i % 2 === 1)];
  for (const part of [even, odd.slice(1)])
    for (let at = 0; at < part.length; at += 2_000) await node.deliver(device, ...part.slice(at, at + 2_000));
  assert.ok((node.path.counts.refused["too-many-gaps"] ?? 0) > 0);
  assert.ok(node.count("spans") <= spansMax);
  for (let at = 0; at < records.length; at += 2_000) await node.deliver(device, ...records.slice(at, at + 2_000));
  assert.equal(node.lastReceipt().through, records.length);
  assert.equal(node.count("records"), records.length);
  assert.deepEqual(node.counted(), { rows: records.length, booked: records.length });
});

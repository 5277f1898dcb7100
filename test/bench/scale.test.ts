// docs/scale.md says what the model calculates; the model's figures hang together.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { estimate, estimateTable, hubCounts, saturations, saturationTable, sizesOf } from "../../bench/scale-model.ts";
import { connectionsMax } from "../../fullnode/embedded-broker.ts";
import { alarmSubjectsMax } from "../../platform/alarm-board.ts";

const page = join(import.meta.dirname, "../../docs/scale.md");
const found = saturations({ embeddedConnections: connectionsMax, alarmSubjects: alarmSubjectsMax });
const tables = { minute: estimateTable("minute"), hour: estimateTable("hour"), saturation: saturationTable(found) };

for (const [name, table] of Object.entries(tables))
  test(`docs/scale.md has the table "${name}" as it is calculated`, () => {
    const [begin, end] = [`<!-- table: ${name} -->\n`, "<!-- end -->"];
    const text = readFileSync(page, "utf8");
    const from = text.indexOf(begin) + begin.length;
    assert.ok(from >= begin.length, `no place for the table ${name}`);
    const to = text.indexOf(end, from);
    const expected = `\n${table}\n`;
    if (process.env.UPDATE_DOCS === "1") writeFileSync(page, text.slice(0, from) + expected + text.slice(to));
    else assert.equal(text.slice(from, to), expected, "UPDATE_DOCS=1 writes it anew");
  });

test("the sizes are those that the protocol gives, within its goals", () => {
  const [minute, hour] = [sizesOf("minute"), sizesOf("hour")];
  assert.ok(minute.recordBytes > 150 && minute.recordBytes < 220, `${minute.recordBytes}`);
  assert.ok(hour.recordBytes > minute.recordBytes && hour.recordBytes < 10 * minute.recordBytes, `${hour.recordBytes}`);
  assert.ok(hour.linkBytes / 60 < minute.linkBytes / 10, "an hour in one record costs a fraction of the link");
});

test("twice the hubs need twice of all that grows, and never less than one core and one broker", () => {
  for (const plan of ["minute", "hour"] as const)
    for (const hubs of hubCounts) {
      const [one, two] = [estimate(hubs, plan), estimate(2 * hubs, plan)];
      assert.ok(Math.abs(two.storedGigabytesPerYear / one.storedGigabytesPerYear - 2) < 1e-9);
      assert.ok(Math.abs(two.linkMegabytesPerHubMonth - one.linkMegabytesPerHubMonth) < 1e-9);
      assert.ok(two.cores >= one.cores && two.cores <= 2 * one.cores && one.cores >= 1 && one.brokers >= 1);
    }
});

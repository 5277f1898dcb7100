import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openSqliteStore } from "../../fullnode/store-sqlite.ts";
import { DeviceFixture } from "../fullnode/device-fixture.ts";
import { NodeFixture, temporaryFolder } from "../fullnode/node-fixture.ts";
import { ecpNode } from "./node-process-fixture.ts";

const midnight = Date.parse("2026-03-28T23:00:00Z") / 1_000; // of 2026-03-29 in Berlin, a day of 23 hours

test("energy shows days of the zone, gaps, exchanges and corrections, as table, JSON and CSV", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const hours = (from: number, count: number) =>
    Array.from({ length: count }, (_, i) => ({
      timeS: midnight + (from + i) * 3_600,
      status: 0,
      values: [500, 10_000 + (from + i) * 100],
    }));
  await node.deliver(
    device,
    device.reading({ slotS: 3_600, rows: hours(-1, 20) }),
    device.reading({ slotS: 3_600, rows: hours(60, 3) }),
    // Late, into a quarter hour that has a reading.
    device.reading({ rows: [{ timeS: midnight + 17 * 3_600 + 60, status: 0, values: [500, 11_702] }] }),
    device.reading({ rows: [{ timeS: midnight + 17 * 3_600 + 120, status: 0, values: [500, 11_705] }] }),
  );
  await node.deliver(
    device,
    device.reading({ rows: [{ timeS: midnight + 17 * 3_600 + 180, status: 0, values: [1, 11_706] }] }),
  );
  const energy = (...args: string[]) => {
    const { status, stdout, stderr } = ecpNode("energy", device.name, "--data", node.data, ...args);
    assert.equal(status, 0, stderr);
    return stdout;
  };
  const lines = energy("--time-zone", "Europe/Berlin", "--json")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    lines.map(({ start, end, counted }) => [start, end, counted["active-energy-import"].value]),
    [
      ["2026-03-27T23:00:00.000Z", "2026-03-28T23:00:00.000Z", 100],
      ["2026-03-28T23:00:00.000Z", "2026-03-29T22:00:00.000Z", 1_800],
      ["2026-03-30T22:00:00.000Z", "2026-03-31T22:00:00.000Z", 4_400],
    ],
  );
  assert.deepEqual(lines[1].levels["active-power-import"], {
    unit: "W",
    min: 1,
    max: 500,
    mean: 10_001 / 21,
    count: 21,
  });

  const table = energy("--time-zone", "Europe/Berlin");
  assert.match(table, /^house of did:key:z6Mk\w+, by day, Europe\/Berlin\n/);
  assert.match(table, /^2026-03-29T00:00:00\+01:00 +21 +1\.800 +changed late 20×$/m);
  assert.match(table, /^2026-03-31T00:00:00\+02:00 +3 +4\.400 +since 2026-03-29T19:00:00\+02:00, changed late 3×$/m);
  assert.match(energy(), /by day, UTC\n/);
  assert.match(energy("--by", "month"), /^2026-03-01T00:00:00\+00:00 .* 6\.300 /m);

  const csv = energy("--csv", "--by", "hour", "--from", "2026-03-29T15:00Z", "--to", "2026-03-29T19:00+02:00").split(
    "\n",
  );
  assert.deepEqual(csv, [
    "start,end,readings,active-energy-import_kWh,since,exchanged,fell,late_changes",
    "2026-03-29T15:00:00+00:00,2026-03-29T16:00:00+00:00,1,0.100,,0,0,1",
    "2026-03-29T16:00:00+00:00,2026-03-29T17:00:00+00:00,4,0.100,,0,0,3",
    "",
  ]);

  const corrections = energy("--corrections");
  assert.match(corrections, /2026-03-29T16:00:00\+00:00 +0 +\S+ +2 → 3 +active-energy-import 11705 → 11706 Wh/);
  const [correction] = energy("--corrections", "--json")
    .split("\n")
    .map((line) => line && JSON.parse(line));
  assert.deepEqual([correction.revision, correction.before.rows, correction.after.rows], [2, 2, 3]);

  await node.deliver(device, device.reading({ meter: 1, timeS: midnight }));
  assert.equal(
    energy("--meter", "7"),
    `meter 7 of ${device.did}, by day, UTC\nNo settled good reading in this time.\n`,
  );
  assert.match(energy("--meter", "1"), /2026-03-28T00:00:00\+00:00 +1 +0\.000/);
});

test("energy refuses what it cannot read, by name", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  await node.deliver(device, device.reading());
  for (const [args, words] of [
    [["--by", "week"], /--by week/],
    [["--meter", "x"], /--meter x/],
    [["--from", "yesterday"], /--from yesterday/],
    [["--from", "2026-03-01+01:00"], /--from 2026-03-01/],
    [["--from", "2026-03-02", "--to", "2026-03-01"], /not before/],
    [["--time-zone", "Europe/Atlantis"], /Europe\/Atlantis/],
    [["--json", "--csv"], /together/],
  ] as const) {
    const { status, stderr } = ecpNode("energy", device.name, "--data", node.data, ...args);
    assert.equal(status, 64, args.join(" "));
    assert.match(stderr, words);
  }
});

test("init keeps the time zone; one that does not exist makes nothing", (t) => {
  const folder = temporaryFolder(t);
  const refused = ecpNode("init", "--data", join(folder, "a"), "--time-zone", "Mars/Olympus");
  assert.equal(refused.status, 64);
  assert.equal(ecpNode("init", "--data", join(folder, "a"), "--time-zone", "Europe/Berlin").status, 0);
  const store = openSqliteStore(join(folder, "a"));
  assert.equal(store.timeZone, "Europe/Berlin");
  store.close();
});

test("dump writes the same lines for two nodes that took the same in another order", async (t) => {
  const [one, other] = [new NodeFixture(t), new NodeFixture(t)];
  const device = new DeviceFixture();
  const request = join(temporaryFolder(t), "request");
  writeFileSync(request, device.request());
  for (const node of [one, other]) assert.equal(ecpNode("enrol", request, "--data", node.data).status, 0);
  const records = device.readings(20);
  await one.deliver(device, ...records);
  for (const record of records.toReversed()) await other.deliver(device, record);
  const dumps = [one, other].map((node) => ecpNode("dump", "--canonical", "--data", node.data).stdout);
  assert.equal(dumps[0], dumps[1]);
  assert.ok((dumps[0] ?? "").split("\n").length > 40);
  assert.equal(ecpNode("dump", "--data", one.data).status, 64);
});

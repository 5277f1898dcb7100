// A serial adapter is pulled out and put back: it has another device name then, and only its by-id link tells that it is the same.
import assert from "node:assert/strict";
import { readlinkSync, rmSync } from "node:fs";
import { test } from "node:test";
import { statuses, statusLetters } from "../../protocol/reading-status.ts";
import { Community, startSimulator } from "./community-fixture.ts";
import { eventually } from "./running-program-fixture.ts";
import { Scene } from "./scene-fixture.ts";
import { type StoredRow, storedRows } from "./stored-chain-fixture.ts";

test("put back under another device name, the meter is read in the next slot or the one after, and each slot between has its status", async (t) => {
  const scene = new Scene(t);
  const community = await Community.setUp(scene, { intervalS: 2 });
  const plugged = await community.startMeter();
  const before = readlinkSync(community.meterLink);
  await community.startNode();
  const hub = await community.startHub();
  const rows = (): StoredRow[] => storedRows(community.nodeFolder).filter(({ meter }) => meter === 0);
  const letters = (): string =>
    rows()
      .map(({ status }) => statusLetters[status])
      .join("");
  await eventually("it is read", () => letters().endsWith("GG"));

  plugged.signal("SIGKILL");
  await plugged.ending();
  rmSync(community.meterLink); // as udev does
  // Another device takes the name that is free now, as another adapter would.
  const other = await startSimulator(scene, "--link", scene.path("other.tty"));
  await eventually("that it is gone is sealed, slot for slot", () => /G[DT]{3,}$/.test(letters()));
  await startSimulator(scene, "--link", community.meterLink);
  const backS = Date.now() / 1_000;
  assert.notEqual(readlinkSync(community.meterLink), before, "it came back under another name");
  await eventually("it is read again", () => /[DT]GG+$/.test(letters()));
  await other.stop();

  const all = rows();
  const after = all.find(({ timeS, status }) => timeS >= backS && status === statuses.good) as StoredRow;
  const slotsLate = Math.ceil((after.timeS - backS) / 2);
  t.diagnostic(`rows ${letters()}; first good slot ends ${(after.timeS - backS).toFixed(1)} s after the plug`);
  assert.ok(slotsLate <= 2, `${slotsLate} slots from the plug to the first good reading`);
  for (const [i, row] of all.slice(1).entries())
    assert.equal(row.timeS - (all[i] as StoredRow).timeS, 2, "no slot is left out");
  assert.match(letters(), /^G+[DT]+G+$/);
  await hub.stop();
});

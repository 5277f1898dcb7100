// Commands that write keys, on a disk without a free block: each says so, and what was there is there still.
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { Scene } from "./scene-fixture.ts";
import { SmallDisk, smallDiskMissing } from "./small-disk-fixture.ts";

if (smallDiskMissing) console.log(`skipped: ${smallDiskMissing}`);

test("rotate and restore on a full disk change nothing; a retirement that finds no room for its file is finished by the next start", {
  skip: smallDiskMissing,
}, async (t) => {
  const scene = new Scene(t);
  const disk = new SmallDisk(scene, "disk", 12);
  const data = `${disk.folder}/wallet`;
  const insecure = ["--data", data, "--insecure"];
  await scene.succeed("ecp-wallet", "init", ...insecure, "--segments", "3");
  const shown = await scene.succeed("ecp-wallet", "show", "--data", data, "--json");
  const key = readFileSync(`${data}/device.key`);
  disk.fill();
  const rotated = await scene.run("ecp-wallet", "rotate", ...insecure);
  assert.equal(rotated.code, 74, rotated.stderr);
  assert.match(rotated.stderr, /ENOSPC: no space left on device/);
  const { code, stderr } = await scene.run(
    "ecp-wallet",
    "restore",
    "--from",
    `${data}/device.key`,
    "--data",
    `${disk.folder}/new`,
    "--insecure",
    "--segments",
    "3",
  );
  assert.equal(code, 74, stderr);
  assert.ok(!existsSync(`${disk.folder}/new`));
  assert.deepEqual(readdirSync(disk.folder).sort(), ["filler", "wallet"]);
  assert.deepEqual(readFileSync(`${data}/device.key`), key);
  assert.deepEqual(
    readdirSync(data).filter((name) => name.startsWith("device.key")),
    ["device.key"],
  );
  assert.equal(await scene.succeed("ecp-wallet", "show", "--data", data, "--json"), shown);
  disk.empty();
  await scene.succeed("ecp-wallet", "rotate", ...insecure);
  disk.fill();
  // The journal takes the last record, which was made for it; the file that holds the seed goes at the next start with room.
  const cut = await scene.run("ecp-wallet", "retire", ...insecure, "--yes");
  assert.equal(cut.code, 74, cut.stderr);
  disk.empty();
  const wallet = scene.start("ecp-wallet", "run", "--data", data, "--socket", scene.path("w.sock"), "--insecure");
  await wallet.event(({ message }) => message === "the key is retired: nothing more is sealed");
  await wallet.stop();
  assert.match(await scene.succeed("ecp-wallet", "show", "--data", data, "--verbose"), /retired: there is no seed/);
});

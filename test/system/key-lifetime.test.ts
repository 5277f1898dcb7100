// A device's key from enrolment over rotation and restore to its end, with hub and full node as their operators run them.
import assert from "node:assert/strict";
import { copyFileSync, renameSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { Community } from "./community-fixture.ts";
import { eventually, type RunningProgram } from "./running-program-fixture.ts";
import { Scene } from "./scene-fixture.ts";

interface EpochLine {
  readonly epoch: number;
  readonly held: boolean;
}

test("rotated, the full node follows without being asked; restored, it holds the epoch until its owner agrees; retired, it ends", async (t) => {
  const scene = new Scene(t);
  const community = await Community.setUp(scene);
  const node = await community.startNode();
  await community.startMeter();
  const wallet = scene.path("wallet");
  const key = ["--data", wallet, "--passphrase-file", scene.path("passphrase")];
  let hub: RunningProgram = await community.startHub();

  const acknowledged = (): Promise<void> =>
    eventually("all is acknowledged, and new readings with it", async () => {
      const { wallet: status } = await community.status();
      return status !== null && status.nextSequence > 4 && status.through >= status.nextSequence - 2;
    });
  const epochs = async (): Promise<EpochLine[]> => {
    const said = await scene.succeed(
      "ecp-node",
      "epoch",
      "list",
      community.device,
      "--data",
      community.nodeFolder,
      "--json",
    );
    return said
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as EpochLine);
  };
  const epochNow = async (): Promise<number> => {
    const shown = await scene.succeed("ecp-wallet", "show", "--data", wallet, "--json");
    return (JSON.parse(shown) as { epoch: number }).epoch;
  };

  await acknowledged();
  const first = await epochNow();
  await hub.stop();
  await scene.succeed("ecp-wallet", "rotate", ...key);
  hub = await community.startHub();
  await acknowledged();
  const second = await epochNow();
  assert.notEqual(second, first);
  assert.equal((await community.status()).wallet?.device, community.device, "the name stays");
  const rotated = await epochs();
  assert.deepEqual(rotated.map(({ epoch }) => epoch).sort(), [first, second].sort());
  assert.ok(
    rotated.every(({ held }) => !held),
    "neither is held",
  );

  const backup = scene.path("backup");
  const of = ["--backup-passphrase-file", scene.path("backup.passphrase")];
  writeFileSync(scene.path("backup.passphrase"), "of the backup\n", { mode: 0o600 });
  await scene.succeed("ecp-wallet", "backup", ...key, "--output", backup, ...of);
  await hub.stop();
  renameSync(wallet, scene.path("lost-wallet"));
  await scene.succeed("ecp-wallet", "restore", "--from", backup, ...key, ...of, "--segments", "4");
  copyFileSync(scene.path("lost-wallet", "policy.cbor"), `${wallet}/policy.cbor`);
  hub = await community.startHub();
  await acknowledged();
  const third = await epochNow();
  const restored = (await epochs()).find(({ epoch }) => epoch === third);
  assert.equal(restored?.held, true, "nobody announced this epoch");
  await scene.succeed("ecp-node", "epoch", "accept", community.device, `${third}`, "--data", community.nodeFolder);
  assert.ok((await epochs()).every(({ held }) => !held));

  await hub.stop();
  const said = await scene.succeed("ecp-wallet", "retire", ...key, "--yes");
  const last = Number(/record (\d+) of epoch/.exec(said)?.[1]);
  hub = await community.startHub();
  await eventually("the last record is acknowledged", async () => (await community.status()).wallet?.through === last);
  assert.equal((await community.status()).wallet?.nextSequence, last + 1, "and nothing comes after it");
  await hub.stop();
  await node.stop();
});

// Full disks, real ones: what is acknowledged is stored, what is not stored is not acknowledged, and it goes on by itself.
import assert from "node:assert/strict";
import { test } from "node:test";
import { publicKeyOfDid } from "../../protocol/public-key.ts";
import { Community } from "./community-fixture.ts";
import { eventually } from "./running-program-fixture.ts";
import { Scene } from "./scene-fixture.ts";
import { SmallDisk, smallDiskMissing } from "./small-disk-fixture.ts";
import { assertWholeChain, storedRecords } from "./stored-chain-fixture.ts";

if (smallDiskMissing) console.log(`skipped: ${smallDiskMissing}`);

test("the hub's disk is full: sealing goes on, since the journal has its place already", {
  skip: smallDiskMissing,
}, async (t) => {
  const scene = new Scene(t);
  const disk = new SmallDisk(scene, "hub-disk", 8);
  const community = await Community.setUp(scene, { walletFolder: `${disk.folder}/wallet` });
  disk.fill();
  assert.equal(disk.freeBlocks, 0, "control: nothing can be written any more");
  await community.startMeter();
  const node = await community.startNode();
  const hub = await community.startHub();
  await hub.line(/meter answers/);
  let seen = 0;
  await node.event(({ event }) => event === "stored" && ++seen === 6);
  assert.equal(disk.freeBlocks, 0, "and still nothing could");
  await eventually("all is acknowledged", async () => {
    const { wallet } = await community.status();
    return wallet !== null && wallet.through > 5 && wallet.through >= wallet.nextSequence - 2;
  });
  // A restart recovers from the journal without needing room either.
  await hub.stop();
  const again = await community.startHub();
  await again.event(({ part, message }) => part === "wallet" && message === "ready");
  const position = node.position;
  await node.event(({ event }) => event === "stored", position);
  assert.equal((await again.stop()).code, 0);
  assertWholeChain(storedRecords(community.nodeFolder), publicKeyOfDid(community.device));

  // What does need room says so, and leaves what was there.
  const apply = await scene.run("ecp", "config", "apply", "--config", community.config);
  assert.equal(apply.code, 74, apply.stderr);
  assert.match(apply.stderr, /expected: room on the disk\n +got: .*ENOSPC.*\n +where: .*\n +to do: free some space/);
  const other = ["--data", `${disk.folder}/other`, "--passphrase-file", scene.path("passphrase")];
  const init = await scene.run("ecp-wallet", "init", ...other);
  assert.equal(init.code, 74, init.stderr);
  assert.match(init.stderr, /ENOSPC|no space/i);
  disk.empty();
  await scene.succeed("ecp", "config", "apply", "--config", community.config);
});

test("the full node's disk is full: nothing is acknowledged that is not stored, and it goes on when there is room", {
  skip: smallDiskMissing,
}, async (t) => {
  const scene = new Scene(t);
  const disk = new SmallDisk(scene, "node-disk", 8);
  const community = await Community.setUp(scene, { nodeFolder: `${disk.folder}/node` });
  await community.startMeter();
  const node = await community.startNode();
  const hub = await community.startHub();
  await node.event(({ event }) => event === "stored");
  disk.fill();
  // The database's log may have a little room of its own left: it fails when that is used up.
  const full = (event: Record<string, unknown>): boolean => event.message === "the store could not take a batch";
  const failed = await node.event(full);
  assert.equal(failed.level, "error");
  assert.equal(failed.got, "database or disk is full");
  assert.match(String(failed.todo), /free space on the store's disk/);
  const stored = storedRecords(community.nodeFolder).at(-1)?.sequence ?? 0;
  const before = (await community.status()).wallet;
  assert.ok(before && before.through <= stored, "the wallet released only what is in the store");
  await node.event(full, node.position);
  await eventually("the hub seals on", async () => {
    const { wallet } = await community.status();
    return wallet !== null && wallet.nextSequence > before.nextSequence + 2;
  });
  assert.equal((await community.status()).wallet?.through, before.through, "nothing is acknowledged meanwhile");
  assert.equal(storedRecords(community.nodeFolder).at(-1)?.sequence, stored, "control: nothing is stored meanwhile");

  disk.empty();
  await eventually("all that waited is acknowledged, without a restart", async () => {
    const { wallet } = await community.status();
    return wallet !== null && wallet.through > before.nextSequence + 2 && wallet.through >= wallet.nextSequence - 2;
  });
  const last = assertWholeChain(storedRecords(community.nodeFolder), publicKeyOfDid(community.device));
  assert.ok(last > before.nextSequence + 2, "nothing is missing of what was sealed while the disk was full");
  assert.equal((await hub.stop()).code, 0);
});

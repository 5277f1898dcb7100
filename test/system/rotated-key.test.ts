// A key is rotated on a hub that works: the full node follows, the name stays; the card as it was copied before books nothing more.
import assert from "node:assert/strict";
import { cpSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { startSimulator } from "./community-fixture.ts";
import { eventually } from "./running-program-fixture.ts";
import { freePort, Scene } from "./scene-fixture.ts";

interface Status {
  readonly wallet: {
    readonly device: string;
    readonly key: string;
    readonly epoch: number;
    readonly through: number;
    readonly nextSequence: number;
    readonly earlierEpochs: readonly unknown[];
  } | null;
}

test("a key is rotated: the node follows under the old name, and a copy of the card books nothing more", async (t) => {
  const scene = new Scene(t);
  const [hub, copy, node, link] = [scene.path("hub"), scene.path("copy"), scene.path("node"), scene.path("meter.tty")];
  const config = path.join(hub, "hub.yaml");
  const port = await freePort();
  await startSimulator(scene, "--link", link);
  const meter = ["--serial", link, "--profile", "eastron-sdm630", "--unit", "1", "--interval", "1"];
  await scene.succeed(
    "ecp",
    "init",
    "--folder",
    hub,
    "--mqtt",
    `mqtt://127.0.0.1:${port}`,
    "--segments",
    "4",
    ...meter,
  );
  writeFileSync(config, readFileSync(config, "utf8").replace("seal_every_s: 60", "seal_every_s: 0"));
  await scene.succeed("ecp", "config", "apply", "--config", config);
  await scene.succeed("ecp-node", "init", "--data", node);
  const request = scene.path("request.cose");
  await scene.succeed("ecp", "enrol", "--config", config, "--out", request);
  await scene.succeed("ecp-node", "enrol", request, "--data", node);
  await scene.succeed("ecp", "pin", `${request}.answer`, "--config", config, "--yes");
  const fullNode = scene.start("ecp-node", "run", "--data", node, "--listen", `127.0.0.1:${port}`, "--json");
  await fullNode.event(({ event }) => event === "started");

  const status = async (file = config): Promise<Status> =>
    JSON.parse((await scene.run("ecp", "status", "--config", file, "--json")).stdout) as Status;
  const query = (sql: string): Record<string, unknown>[] => {
    const database = new DatabaseSync(path.join(node, "node.db"), { readOnly: true });
    try {
      return database.prepare(sql).all();
    } finally {
      database.close();
    }
  };
  const readingsOf = (epoch: number) =>
    query(`SELECT count(*) AS n FROM rows WHERE booked = 1 AND epoch = ${epoch}`)[0]?.n as number;

  const running = scene.start("ecp", "run", "--config", config);
  await eventually("readings are booked", async () => {
    const { wallet } = await status();
    return wallet !== null && readingsOf(wallet.epoch) >= 3;
  });
  const before = (await status()).wallet;
  assert.ok(before);
  assert.equal(before.key, before.device);
  assert.deepEqual(await running.stop(), { code: 0, signal: null });
  cpSync(hub, copy, { recursive: true });

  const passphrase = ["--passphrase-file", path.join(hub, "wallet.passphrase")];
  await scene.succeed("ecp-wallet", "rotate", "--data", path.join(hub, "wallet"), ...passphrase);
  const again = scene.start("ecp", "run", "--config", config);
  await eventually("the new key's readings are booked, and all of the old epoch is acknowledged", async () => {
    const { wallet } = await status();
    return wallet !== null && wallet.earlierEpochs.length === 0 && readingsOf(wallet.epoch) >= 3;
  });
  const after = (await status()).wallet;
  assert.ok(after);
  assert.equal(after.device, before.device, "the name stays");
  assert.notEqual(after.key, before.key);
  assert.notEqual(after.epoch, before.epoch);
  assert.deepEqual(await again.stop(), { code: 0, signal: null });
  assert.deepEqual(
    query("SELECT epoch, held FROM epochs").filter(({ held }) => held === 1),
    [],
  );
  assert.equal(query("SELECT count(*) AS n FROM records WHERE settled = 0")[0]?.n, 0);
  assert.equal(query("SELECT count(*) AS n FROM evidence")[0]?.n, 0);

  // What was sealed by either key is exported, and verified by the device's name.
  const records = scene.path("records");
  await scene.succeed("ecp", "export", "--config", config, "--out", records);
  for (const file of [`${before.epoch}-1.cose`, "1.cose"]) {
    const said = await scene.succeed("ecp", "verify", path.join(records, file));
    assert.ok(said.startsWith(`GOOD: signed by ${before.device}\n`), said);
    assert.equal(said.includes(`rotated key ${after.key}`), file === "1.cose");
  }
  const rotation = path.join(records, "rotation-1.cose");
  const other = scene.path("rotation.cose");
  renameSync(rotation, other);
  const first = path.join(records, "1.cose");
  const alone = await scene.run("ecp", "verify", first);
  assert.equal(alone.code, 1, "control: without the rotation record");
  assert.match(alone.stdout, new RegExp(`rotation record is missing, the last of the epoch before ${after.epoch}`));
  await scene.succeed("ecp", "verify", first, "--rotation", other);
  const chosen = scene.path("chosen");
  await scene.succeed("ecp", "export", "--config", config, "--out", chosen, "--epoch", `${before.epoch}`, "--to", "1");
  assert.deepEqual(readdirSync(chosen).sort(), [`${before.epoch}-1.cose`, "device.did", "rotation-1.cose"].sort());

  // The card as it was before: it seals on in the epoch that has ended, with the old key.
  const booked = query("SELECT * FROM rows");
  const copyConfig = path.join(copy, "hub.yaml");
  writeFileSync(copyConfig, readFileSync(copyConfig, "utf8").replaceAll(hub, copy));
  scene.start("ecp", "run", "--config", copyConfig);
  await eventually(
    "its records are evidence",
    async () => (query("SELECT count(*) AS n FROM evidence")[0]?.n as number) >= 2,
  );
  await eventually("it has learnt that it is old, and began an epoch", async () => {
    const { wallet } = await status(copyConfig);
    return wallet !== null && wallet.epoch !== before.epoch;
  });
  await fullNode.event(({ event, reason }) => event === "refused" && reason === "old-key");
  assert.deepEqual(query("SELECT * FROM rows"), booked, "nothing of it is booked");
  assert.equal(query("SELECT count(*) AS n FROM epochs")[0]?.n, 2, "the old key begins no epoch");
  const devices = await scene.succeed("ecp-node", "devices", "--data", node);
  assert.match(devices, new RegExp(`FORK: \\d+ records of ${before.device}`));
});

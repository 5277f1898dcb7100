// A first hub as README.md describes it: set up, read, make hub and node know each other, run, look. By a new user, with flags.
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { test } from "node:test";
import { startSimulator } from "./community-fixture.ts";
import { eventually, type RunningProgram } from "./running-program-fixture.ts";
import { freePort, Scene } from "./scene-fixture.ts";

test("a first hub: init, check, read, enrol, pin, run, status, export, verify", async (t) => {
  const scene = new Scene(t);
  const [hub, node, link] = [scene.path("hub"), scene.path("node"), scene.path("meter.tty")];
  const config = `${hub}/hub.yaml`;
  const port = await freePort();
  await startSimulator(scene, "--link", link);

  await t.test("ecp init makes configuration, passphrase and wallet, each for whom it is", async () => {
    const flags = ["--serial", link, "--profile", "eastron-sdm630", "--unit", "1", "--interval", "1"];
    const init = ["--folder", hub, "--mqtt", `mqtt://127.0.0.1:${port}`, "--segments", "4"];
    const said = await scene.succeed("ecp", "init", ...init, ...flags);
    assert.match(said, /its name {4}did:key:z6Mk\w{44}\n/);
    assert.match(said, /Next:\n {2}ecp read/);
    assert.equal(statSync(`${hub}/wallet.passphrase`).mode & 0o777, 0o600);
    assert.equal(statSync(`${hub}/wallet`).mode & 0o777, 0o700);
    assert.equal(statSync(`${hub}/wallet/device.key`).mode & 0o777, 0o600);
    const secret = readFileSync(`${hub}/wallet.passphrase`, "utf8").trim();
    assert.ok(secret.length >= 32, "the passphrase is random and long");
    assert.ok(!said.includes(secret), "and is not shown");
    assert.match(readFileSync(config, "utf8"), /^ +# .*/m, "the configuration explains itself");
    assert.match(await scene.succeed("ecp", "config", "check", "--config", config), /is right: 1 line, 1 meter/);
  });

  await t.test("ecp init again refuses and changes nothing", async () => {
    const before = readFileSync(`${hub}/wallet/device.key`);
    const { code, stderr } = await scene.run("ecp", "init", "--folder", hub, "--tcp", "127.0.0.1:502");
    assert.equal(code, 73);
    assert.match(stderr, /expected: .*\n +got: one is there already.*\n +where: .*hub\.yaml\n +to do: /);
    assert.deepEqual(readFileSync(`${hub}/wallet/device.key`), before);
    assert.match(readFileSync(config, "utf8"), /meter\.tty/);
  });

  await t.test("ecp read shows what the meter says", async () => {
    const table = await scene.succeed("ecp", "read", "--config", config);
    assert.match(table, /^house: Eastron SDM630-Modbus V2, unit 1 on .*meter\.tty at 9600 8N1/);
    assert.match(table, /active-energy-import +\d+\.\d{3} +kWh +1-0:1\.8\.0/);
  });

  await t.test("before anything runs, ecp status says so and what to do", async () => {
    const { code, stdout } = await scene.run("ecp", "status", "--config", config);
    assert.equal(code, 1);
    assert.match(stdout, /Wallet +does not answer at .*start it: ecp run/);
  });

  const request = scene.path("request.cose");
  let did = "";
  let nodeDid = "";
  let fullNode: RunningProgram | undefined;
  await t.test("a full node is made and left running", async () => {
    const made = await scene.succeed("ecp-node", "init", "--data", node, "--name", "village");
    nodeDid = /did:key:\S+/.exec(made)?.[0] ?? "";
    fullNode = scene.start("ecp-node", "run", "--data", node, "--listen", `127.0.0.1:${port}`, "--json");
    assert.equal((await fullNode.event(({ event }) => event === "started")).node, nodeDid);
  });

  await t.test("hub and node learn each other's key from two files", async () => {
    const asked = await scene.succeed("ecp", "enrol", "--config", config, "--out", request);
    did = /did:key:\S+/.exec(asked)?.[0] ?? "";
    const enrolled = await scene.succeed("ecp-node", "enrol", request, "--data", node);
    assert.match(enrolled, /0: house \(eastron-sdm630\)/);
    assert.ok(enrolled.includes(did) && enrolled.includes(nodeDid), "both names are shown, to be compared");
    const wrong = await scene.run("ecp", "pin", `${request}.answer`, "--config", config, "--node", did);
    assert.equal(wrong.code, 1, "control: another node's name is refused");
    const unasked = await scene.run("ecp", "pin", `${request}.answer`, "--config", config);
    assert.equal(unasked.code, 64, "nobody is there to be asked");
    const pinned = await scene.succeed("ecp", "pin", `${request}.answer`, "--config", config, "--node", nodeDid);
    assert.match(pinned, /Full node "village"\n {2}did:key:.*\nPinned\./);
  });

  await t.test("ecp run seals each minute's readings, and all of them are acknowledged", async () => {
    assert.ok(fullNode);
    const running = scene.start("ecp", "run", "--config", config);
    await fullNode.event(({ event }) => event === "stored");
    await eventually("ecp status finds all well", async () => {
      const { code, stdout } = await scene.run("ecp", "status", "--config", config);
      return code === 0 && /meter +status[\s\S]*house +G /.test(stdout) && /1 pinned/.test(stdout);
    });
    const { stdout } = await scene.run("ecp", "status", "--config", config, "--json");
    const status = JSON.parse(stdout) as { wallet: { device: string }; agent: { uplink: { connected: boolean } } };
    assert.equal(status.wallet.device, did);
    assert.equal(status.agent.uplink.connected, true);
    await eventually("it has read a few times", async () => {
      const { stdout: json } = await scene.run("ecp", "status", "--config", config, "--json");
      const { agent } = JSON.parse(json) as { agent: { meters: { unsealedRows: number }[] } };
      return (agent.meters[0]?.unsealedRows ?? 0) >= 2;
    });
    const position = fullNode.position;
    running.signal("SIGINT");
    // What the agent had read in this minute is sealed before it ends, though the minute is not over.
    assert.deepEqual(await running.ending(), { code: 0, signal: null });
    const again = scene.start("ecp", "run", "--config", config);
    await fullNode.event(({ event }) => event === "stored", position);
    await eventually("it reads on, and everything is acknowledged", async () => {
      const { stdout: json } = await scene.run("ecp", "status", "--config", config, "--json");
      const { wallet, agent } = JSON.parse(json) as {
        wallet: { through: number; nextSequence: number } | null;
        agent: { meters: { lastStatus: string }[] } | null;
      };
      return wallet?.through === (wallet?.nextSequence ?? 0) - 1 && agent?.meters[0]?.lastStatus === "G";
    });
    assert.deepEqual(await again.stop(), { code: 0, signal: null });
    assert.deepEqual(await fullNode.stop(), { code: 0, signal: null });
    const devices = await scene.succeed("ecp-node", "devices", "--data", node, "--json");
    assert.equal((JSON.parse(devices) as { device: string }).device, did);
    const readings = await scene.succeed("ecp-node", "readings", did, "--data", node);
    assert.match(readings, /^house of did:key:/);
    assert.match(readings, /active-energy-import +\d+\.\d{3} +kWh/);
  });

  await t.test("ecp export writes records that ecp verify finds good", async () => {
    const records = scene.path("records");
    await scene.succeed("ecp", "export", "--config", config, "--out", records);
    const files = readdirSync(records).filter((name) => name.endsWith(".cose"));
    assert.ok(files.length >= 3);
    const said = await scene.succeed("ecp", "verify", `${records}/${files.at(-1)}`);
    assert.ok(said.startsWith(`GOOD: signed by ${did}\nrecord `), said);
    const rows = await scene.succeed("ecp", "export", "--config", config, "--format", "json");
    const readings = rows
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { kind: string; rows?: { status: string }[] })
      .filter(({ kind }) => kind === "reading");
    assert.ok(readings.flatMap((reading) => reading.rows ?? []).filter(({ status }) => status === "G").length >= 2);
    const packets = await scene.succeed("ecp", "export", "--config", config, "--format", "packet");
    assert.equal(Object.keys(JSON.parse(packets.split("\n")[0] as string) as object).length, 27);
  });

  assert.deepEqual(readdirSync(scene.temporary), [], "no command left a file behind");
  assert.ok(!existsSync(`${hub}/agent.sock`), "nor the agent its socket");
});

// ecp-node with its store in PostgreSQL: every command finds it by the data folder.
import assert from "node:assert/strict";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { DeviceFixture } from "../fullnode/device-fixture.ts";
import { temporaryFolder } from "../fullnode/node-fixture.ts";
import { PostgresServer, postgresMissing } from "../fullnode/postgres-fixture.ts";
import { ecpNode } from "./node-process-fixture.ts";

if (postgresMissing) console.log(`skipped: ${postgresMissing}`);

test("two data folders on one database: the first makes the tables, each command finds them, keys are shared", {
  skip: postgresMissing,
}, async (t) => {
  const server = await PostgresServer.start();
  after(() => server.stop());
  server.createDatabase("shared");
  const folder = temporaryFolder(t);
  const [first, second] = [join(folder, "first"), join(folder, "second")];
  const store = `postgres://ecp@127.0.0.1:${server.port}/shared`;
  const passwordFile = join(folder, "db.password");
  writeFileSync(passwordFile, `${server.password}\n`, { mode: 0o600 });
  const credentials = ["--store", store, "--store-password-file", passwordFile];
  const made = ecpNode("init", "--data", first, "--name", "Hill", ...credentials, "--json");
  assert.equal(made.status, 0, made.stderr);
  assert.ok(!existsSync(join(first, "node.db")));
  assert.equal(statSync(join(first, "store.json")).mode & 0o777, 0o600);
  assert.ok(!readFileSync(join(first, "store.json"), "utf8").includes(server.password));
  assert.equal(ecpNode("init", "--data", first, ...credentials).status, 73);
  const joined = ecpNode("init", "--data", second, ...credentials, "--keys-from", first, "--json");
  assert.equal(joined.status, 0, joined.stderr);
  assert.equal(JSON.parse(joined.stdout).node, JSON.parse(made.stdout).node);

  const device = new DeviceFixture();
  const request = join(folder, "hub.request");
  writeFileSync(request, device.request());
  const enrolled = ecpNode("enrol", request, "--data", first);
  assert.equal(enrolled.status, 0, enrolled.stderr);
  for (const args of [
    ["devices"],
    ["epoch", "list"],
    ["readings", device.name],
    ["dump", "--canonical"],
    ["energy", device.name, "--by", "day"],
  ]) {
    const { status, stdout, stderr } = ecpNode(...args, "--data", second);
    assert.equal(status, 0, `${args.join(" ")}: ${stderr}`);
    assert.ok(!`${stdout}${stderr}`.includes(server.password));
  }
  assert.match(ecpNode("devices", "--data", second, "--json").stdout, new RegExp(device.name));

  writeFileSync(passwordFile, "another\n");
  const refused = ecpNode("devices", "--data", first);
  assert.equal(refused.status, 77, refused.stderr);
  await server.halt();
  const away = ecpNode("devices", "--data", first);
  assert.equal(away.status, 69, away.stderr);
  assert.match(away.stderr, /check that the server runs/);
});

test("a store's address with a password, of another kind, or shares without a broker are wrong usage", (t) => {
  const data = join(temporaryFolder(t), "node");
  for (const store of ["postgres://a:secret@h/d", "mysql://a@h/d", "node.db"]) {
    const { status, stderr } = ecpNode("init", "--data", data, "--store", store);
    assert.equal(status, 64, store);
    assert.ok(!stderr.includes("secret"));
  }
  assert.equal(ecpNode("init", "--data", data, "--store-password-file", "x").status, 64);
  assert.ok(!existsSync(data));
  assert.equal(ecpNode("init", "--data", data).status, 0);
  assert.equal(ecpNode("run", "--data", data, "--share", "nodes").status, 64);
  assert.equal(ecpNode("run", "--data", data, "--broker", "mqtt://127.0.0.1:1", "--share", "a/b").status, 64);
});

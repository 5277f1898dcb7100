import assert from "node:assert/strict";
import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { localTime } from "../../cli/table.ts";
import { DeviceFixture, firstTimeS } from "../fullnode/device-fixture.ts";
import { NodeFixture, temporaryFolder } from "../fullnode/node-fixture.ts";
import { ecpNode } from "./node-process-fixture.ts";

test("init makes a data folder once; its key is the owner's alone", (t) => {
  const data = join(temporaryFolder(t), "deep", "node");
  const made = ecpNode("init", "--data", data, "--name", "Hill");
  assert.equal(made.status, 0, made.stderr);
  assert.match(made.stdout, /did:key:z6Mk\w{44}/);
  assert.equal(statSync(data).mode & 0o777, 0o700);
  const key = readFileSync(join(data, "node.key"));
  const again = ecpNode("init", "--data", data);
  assert.equal(again.status, 73);
  assert.match(again.stderr, /expected: .*\n {5}got: .*\n {3}where: .*\n {3}to do: /);
  assert.deepEqual(readFileSync(join(data, "node.key")), key);
});

test("enrol writes the answer and shows both names; other files are refused and leave nothing", (t) => {
  const folder = temporaryFolder(t);
  const data = join(folder, "node");
  const node = JSON.parse(ecpNode("init", "--data", data, "--json").stdout).node as string;
  const device = new DeviceFixture();
  const request = join(folder, "hub.request");
  writeFileSync(request, device.request());
  const enrolled = ecpNode("enrol", request, "--data", data);
  assert.equal(enrolled.status, 0, enrolled.stderr);
  assert.ok(enrolled.stdout.includes(device.did) && enrolled.stdout.includes(node));
  assert.match(enrolled.stdout, /ecp pin/);
  assert.ok(existsSync(`${request}.answer`));
  assert.match(ecpNode("enrol", request, "--data", data, "--out", join(folder, "a")).stdout, /renewed/);

  writeFileSync(join(folder, "bad"), "not a request");
  const refused = ecpNode("enrol", join(folder, "bad"), "--data", data);
  assert.equal(refused.status, 1);
  assert.ok(!existsSync(join(folder, "bad.answer")));
  assert.equal(ecpNode("enrol", join(folder, "missing"), "--data", data).status, 66);
  assert.equal(ecpNode("enrol", request, "--data", data, "--out", join(folder, "no", "such")).status, 73);
  assert.equal(ecpNode("enrol", request, "--data", join(folder, "nowhere")).status, 66);
});

test("devices and readings show what is stored, as tables with units and as JSON", async (t) => {
  const node = new NodeFixture(t);
  const device = await node.enrolled();
  const other = await node.enrolled();
  assert.match(ecpNode("readings", other.name, "--data", node.data).stdout, /No reading has come/);
  const timeS = firstTimeS + 600;
  await node.deliver(
    device,
    device.reading(),
    device.reading({ rows: [{ timeS, status: 0, values: [4_858, 53_727_001] }] }),
    device.reading({ rows: [{ timeS: timeS + 60, status: 2, values: [] }] }),
  );
  const devices = ecpNode("devices", "--data", node.data);
  assert.equal(devices.status, 0, devices.stderr);
  const lines = devices.stdout.trimEnd().split("\n");
  assert.equal(lines.length, 4);
  assert.match(lines[2] ?? "", new RegExp(`^${device.did}  house .* 3 +3 +0 +0  ok$`));
  assert.match(lines[3] ?? "", /never/);

  const table = ecpNode("readings", device.did, "--data", node.data, "--last", "2").stdout.split("\n");
  assert.ok(
    table.some((line) => line.startsWith(localTime(timeS * 1_000)) && /4\.858 +53727\.001$/.test(line)),
    table.join("\n"),
  );
  assert.ok(
    table.some((line) => /settled +T +– +–$/.test(line)),
    table.join("\n"),
  );
  const widths = new Set(table.filter((line) => /^(\d|─)/.test(line)).map((line) => line.length));
  assert.equal(widths.size, 1, "columns are aligned");

  const last = ecpNode("readings", device.name, "--data", node.data).stdout;
  assert.match(last, /status T: the meter did not answer in time/);
  const [newest, before] = ecpNode("readings", device.name.slice(0, 20), "--data", node.data, "--last", "2", "--json")
    .stdout.trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.deepEqual(newest.values, {});
  assert.equal(newest.status, "T");
  assert.deepEqual(before.values["active-energy-import"], { value: 53_727_001, unit: "Wh" });
  assert.equal(before.time, new Date(timeS * 1_000).toISOString());

  assert.equal(ecpNode("readings", "z6Mk", "--data", node.data).status, 2);
  assert.equal(ecpNode("readings", new DeviceFixture().did, "--data", node.data).status, 2);
});

test("wrong usage ends with 64 and points to help; help and version are there for all", (t) => {
  for (const args of [
    [],
    ["frob"],
    ["init"],
    ["run", "--frob"],
    ["enrol"],
    ["readings", "a", "b"],
    ["run", "--data", "x", "--broker", "http://x"],
  ]) {
    const { status, stderr } = ecpNode(...args);
    assert.equal(status, 64, args.join(" "));
    assert.match(stderr, /ecp-node help/);
  }
  for (const args of [["--help"], ["help"], ["help", "run"], ["init", "--help"], ["--version"]])
    assert.equal(ecpNode(...args).status, 0);
  assert.match(ecpNode("help", "devices").stdout, /Exit status/);
  const data = temporaryFolder(t);
  assert.equal(ecpNode("run", "--data", data, "--broker", "mqtt://u:secret@localhost").status, 64);
});

test("a key that others may read, or that is spoilt, stops every command that needs it", (t) => {
  const data = join(temporaryFolder(t), "node");
  assert.equal(ecpNode("init", "--data", data).status, 0);
  const key = join(data, "node.key");
  chmodSync(key, 0o644);
  const open = ecpNode("run", "--data", data, "--listen", "127.0.0.1:0");
  assert.equal(open.status, 77);
  assert.match(open.stderr, /chmod 600/);
  chmodSync(key, 0o600);
  const bytes = readFileSync(key);
  bytes[40] = (bytes[40] as number) ^ 1;
  writeFileSync(key, bytes);
  const spoilt = ecpNode("run", "--data", data, "--listen", "127.0.0.1:0");
  assert.equal(spoilt.status, 1);
  assert.match(spoilt.stderr, /does not fit/);
});

test("enrol --out overwrites no key, and enrols nothing then", (t) => {
  const folder = temporaryFolder(t);
  const data = join(folder, "node");
  assert.equal(ecpNode("init", "--data", data).status, 0);
  const key = readFileSync(join(data, "node.key"));
  const request = join(folder, "request.cose");
  writeFileSync(request, new DeviceFixture().request());
  for (const out of [join(data, "node.key"), request]) {
    const { status, stderr } = ecpNode("enrol", request, "--data", data, "--out", out);
    assert.equal(status, 73, stderr);
  }
  assert.deepEqual(readFileSync(join(data, "node.key")), key);
  assert.match(ecpNode("enrol", request, "--data", data).stdout, /^Enrolled: /, "for the first time");
});

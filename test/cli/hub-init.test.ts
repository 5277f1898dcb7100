import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import { readHubFile } from "../../cli/hub-configuration.ts";
import { shellWord } from "../../cli/shell-word.ts";

/** Short: sockets lie in it. */
function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync("/tmp/ecp-i-");
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

const program = join(import.meta.dirname, "../../cli/ecp.ts");

async function init(...args: readonly string[]): Promise<{ status: number; out: string; error: string }> {
  const child = spawn(process.execPath, [program, "init", ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 30_000,
  });
  const [[status], out, error] = await Promise.all([once(child, "close"), text(child.stdout), text(child.stderr)]);
  return { status, out, error };
}

test("a wrong flag is named, and nothing is made", async (t) => {
  const folder = temporaryFolder(t);
  const open = join(folder, "open.passphrase");
  writeFileSync(open, "secret\n", { mode: 0o644 });
  const missing = join(folder, "missing");
  const hub = join(folder, "hub");
  for (const [args, status, says] of [
    [["--segments", "abc"], 64, "--segments abc: an integer from 3 to 4096 was expected"],
    [["--interval", "7"], 64, "--interval 7: a number of seconds that divides a day was expected"],
    [["--mqtt", "mqtt://h:0"], 64, "--mqtt mqtt://h:0: mqtt://host:port or mqtts://host:port was expected"],
    [["--passphrase-file", open], 77, "chmod 600"],
    [["--passphrase-file", missing], 66, `where: ${missing}\n`],
  ] as const) {
    const { status: got, error } = await init("--folder", hub, "--tcp", "127.0.0.1:502", ...args);
    assert.equal(got, status, error);
    assert.ok(error.includes(says), error);
  }
  for (const [line, says] of [
    [["--serial", "/dev/x", "--baud", "1300"], "--baud 1300: one of 1200, "],
    [["--tcp", "h:70000"], "--tcp h:70000: HOST:PORT"],
  ] as const) {
    const { status, error } = await init("--folder", hub, ...line);
    assert.equal(status, 64, error);
    assert.ok(error.includes(says), error);
  }
  const long = join(folder, "x".repeat(100));
  const { status, error } = await init("--folder", long, "--tcp", "h:502");
  assert.equal(status, 64);
  assert.ok(error.includes(`where: --folder ${long}`), error);
  assert.deepEqual(readdirSync(folder), ["open.passphrase"]);
});

test("a failure later on leaves what was there and nothing else; then it can be run again", async (t) => {
  const folder = join(temporaryFolder(t), "hub");
  mkdirSync(join(folder, "wallet"), { recursive: true });
  // The wallet's program makes its key; a policy cannot be written over a folder.
  mkdirSync(join(folder, "wallet", "policy.cbor"));
  const flags = ["--folder", folder, "--tcp", "127.0.0.1:502", "--segments", "3"];
  const failed = await init(...flags);
  assert.notEqual(failed.status, 0);
  assert.match(failed.error, /^expected: /);
  assert.deepEqual(readdirSync(folder), ["wallet"]);
  assert.ok(!readdirSync(join(folder, "wallet")).includes("device.key"));
  rmSync(join(folder, "wallet", "policy.cbor"), { recursive: true });
  assert.equal((await init(...flags)).status, 0);
});

test("a relative serial port is written as an absolute path; paths with spaces are quoted in what comes next", async (t) => {
  const folder = join(temporaryFolder(t), "my hub");
  const { status, out, error } = await init("--folder", folder, "--serial", "some/tty", "--segments", "3");
  assert.equal(status, 0, error);
  const file = join(folder, "hub.yaml");
  const [line] = readHubFile(file).configuration.lines;
  assert.equal(line && "serial" in line && line.serial?.path, join(process.cwd(), "some/tty"));
  assert.ok(out.includes(`ecp read --config '${file}'`), out);
  assert.ok(out.includes("ecp-node enrol request.cose --data DIR --out answer.cose"), out);
  assert.match(readFileSync(file, "utf8"), /some\/tty/);
});

test("a profile's file: hub.yaml names it, and its factory settings are the presets", async (t) => {
  const root = temporaryFolder(t);
  const [folder, own, taken, broken] = ["hub", "own.yaml", "taken.yaml", "broken.yaml"].map((name) => join(root, name));
  const shown = spawnSync(process.execPath, [program, "profile", "show", "schneider-iem3155"], { encoding: "utf8" });
  writeFileSync(taken!, shown.stdout);
  writeFileSync(own!, shown.stdout.replace("schneider-iem3155", "my-meter"));
  writeFileSync(broken!, shown.stdout.replace("schneider-iem3155", "my-meter").replace("registers:", "rows:"));
  const flags = ["--folder", folder!, "--serial", "/dev/x", "--segments", "3", "--profile"];
  const refused = await init(...flags, taken!);
  assert.equal(refused.status, 64);
  assert.match(refused.error, /an id of its own, not schneider-iem3155/);
  const wrong = await init(...flags, broken!);
  assert.notEqual(wrong.status, 0);
  assert.match(wrong.error, /broken\.yaml:\d+:\d+/);
  assert.equal((await init(...flags, join(root, "missing.yaml"))).status, 66);
  assert.deepEqual(readdirSync(root).sort(), ["broken.yaml", "own.yaml", "taken.yaml"], "nothing was made");
  const { status, error } = await init(...flags, own!);
  assert.equal(status, 0, error);
  const { configuration, profileOf } = readHubFile(join(folder!, "hub.yaml"));
  assert.deepEqual(
    configuration.meters.map(({ profile }) => profile),
    ["my-meter"],
  );
  const { factory } = profileOf("my-meter");
  const [line] = configuration.lines;
  assert.ok(line && "serial" in line);
  assert.deepEqual([line.serial?.baud, line.serial?.parity], [factory.bauds[0], factory.parities[0]]);
});

test("a word for the shell is quoted only where it must be", () => {
  assert.equal(shellWord("/a/b-c.d"), "/a/b-c.d");
  assert.equal(shellWord("it's $x"), "'it'\\''s $x'");
  assert.equal(shellWord(""), "''");
});

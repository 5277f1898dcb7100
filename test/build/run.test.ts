// The launcher against a stand-in for npm, which installs nothing but writes what npm would leave behind.
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { temporaryTree } from "./temporary-tree.ts";

const project = path.resolve(import.meta.dirname, "../..");
const launcher = readFileSync(path.join(project, "build/run.cjs"), "utf8");
const lock = (version: string) =>
  JSON.stringify({
    packages: {
      "": { name: "a" },
      "node_modules/b": { version, integrity: "sha512-x" },
      "node_modules/c-darwin": { version: "1.0.0", optional: true },
    },
  });

const npm = `
const fs = require("fs");
fs.appendFileSync("npm.log", process.argv.slice(2).join(" ") + "\\n");
console.log("added 1 package");
if (fs.existsSync("offline")) { console.error("npm error ENOTFOUND"); process.exit(1); }
Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
fs.mkdirSync("node_modules", { recursive: true });
const lock = JSON.parse(fs.readFileSync("package-lock.json", "utf8"));
delete lock.packages["node_modules/c-darwin"];
fs.writeFileSync("node_modules/.package-lock.json", JSON.stringify(lock));
`;

function installable(t: TestContext, files: Readonly<Record<string, string>> = {}): string {
  return temporaryTree(t, {
    "build/run.cjs": launcher,
    "package-lock.json": lock("1.0.0"),
    "npm-cli.js": npm,
    "script.cjs": "console.log(JSON.stringify({ args: process.argv.slice(2), version: process.version }));\n",
    ...files,
  });
}

interface Ended {
  readonly status: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

function start(root: string, ...args: string[]): { child: ChildProcess; ended: Promise<Ended> } {
  const child = spawn(process.execPath, [path.join(root, "build/run.cjs"), ...args], {
    env: { ...process.env, npm_execpath: path.join(root, "npm-cli.js") },
    stdio: ["ignore", "pipe", "pipe"],
    // Out of the terminal's foreground process group: there the terminal sends Ctrl-C to both, and the launcher does not pass it on.
    detached: true,
  });
  const text = { stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (data: string) => (text.stdout += data));
  child.stderr.setEncoding("utf8").on("data", (data: string) => (text.stderr += data));
  const ended = once(child, "close").then(([status, signal]): Ended => ({ status, signal, ...text }));
  return { child, ended };
}

const installs = (root: string): number =>
  existsSync(path.join(root, "npm.log")) ? readFileSync(path.join(root, "npm.log"), "utf8").split("\n").length - 1 : 0;

test("the first run installs, the second does not, and stdout is the script's alone", async (t) => {
  const root = installable(t);
  const first = await start(root, "script.cjs", "--json", "x").ended;
  assert.equal(first.status, 0, first.stderr);
  assert.deepEqual(JSON.parse(first.stdout), { args: ["--json", "x"], version: process.version });
  assert.match(first.stderr, /first run: npm ci[\s\S]*added 1 package/);
  assert.match(readFileSync(path.join(root, "npm.log"), "utf8"), /^ci --include=dev --include=optional/);
  const second = await start(root, "script.cjs").ended;
  assert.equal(second.stderr, "");
  assert.equal(installs(root), 1);
});

test("a changed lock file is installed anew, whatever the times of the files", async (t) => {
  const root = installable(t);
  await start(root, "script.cjs").ended;
  writeFileSync(path.join(root, "package-lock.json"), lock("1.0.1"));
  writeFileSync(
    path.join(root, "node_modules/.package-lock.json"),
    readFileSync(path.join(root, "node_modules/.package-lock.json")),
  );
  const { stderr } = await start(root, "script.cjs").ended;
  assert.match(stderr, /package-lock\.json has changed/);
  assert.equal(installs(root), 2);
});

test("two at once install once", async (t) => {
  const root = installable(t);
  const both = await Promise.all([start(root, "script.cjs").ended, start(root, "script.cjs").ended]);
  assert.deepEqual(
    both.map(({ status }) => status),
    [0, 0],
  );
  assert.equal(installs(root), 1);
});

test("the lock of a launcher that died is taken over", async (t) => {
  const root = installable(t);
  const dead = spawn(process.execPath, ["-e", "0"]);
  await once(dead, "exit");
  mkdirSync(path.join(root, "dist"));
  writeFileSync(path.join(root, "dist/.install-lock"), String(dead.pid));
  const { status, stderr } = await start(root, "script.cjs").ended;
  assert.equal(status, 0, stderr);
  assert.equal(existsSync(path.join(root, "dist/.install-lock")), false);
});

test("without network it says what to do and ends with 69", async (t) => {
  const root = installable(t, { offline: "" });
  const { status, stdout, stderr } = await start(root, "script.cjs").ended;
  assert.equal(status, 69);
  assert.equal(stdout, "");
  assert.match(stderr, /ENOTFOUND[\s\S]*expected: `npm ci`[\s\S]*what to do: connect to the network/);
});

test("without a Node that is new enough it says what was expected and ends with 69", async (t) => {
  const root = installable(t, { "build/run.cjs": launcher.replace("NODE_MIN = [24, 7]", "NODE_MIN = [99, 0]") });
  const { status, stderr } = await start(root, "script.cjs").ended;
  assert.equal(status, 69);
  assert.match(stderr, /expected: Node 99\.0 or newer\n +got: Node \d+\./);
});

test("the packaged Node is preferred to the one it was started with", async (t) => {
  const root = installable(t);
  await start(root, "script.cjs").ended;
  const folder = path.join(root, "node_modules", `node-linux-${process.arch}`, "bin");
  mkdirSync(folder, { recursive: true });
  symlinkSync(process.execPath, path.join(folder, "node"));
  writeFileSync(
    path.join(root, "script.cjs"),
    "console.log(process.argv0, require('child_process').execSync('command -v node').toString().trim());",
  );
  const { stdout } = await start(root, "script.cjs").ended;
  assert.equal(stdout.trim(), `${path.join(folder, "node")} ${path.join(folder, "node")}`);
});

test("the exit status and the signal are those of the script", async (t) => {
  const root = installable(t, {
    "script.cjs":
      'if (process.argv[2] === "7") process.exit(7); process.kill(process.pid, process.argv[2]); setInterval(() => {}, 1000);',
  });
  assert.equal((await start(root, "script.cjs", "7").ended).status, 7);
  assert.equal((await start(root, "script.cjs", "SIGTERM").ended).signal, "SIGTERM");
  assert.equal((await start(root, "script.cjs", "SIGUSR2").ended).status, 128 + 12);
});

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  test(`${signal} reaches the script, which ends in its own way`, async (t) => {
    const script = `process.on("${signal}", () => process.exit(3)); setInterval(() => {}, 1000); console.log("ready");`;
    const root = installable(t, { "script.cjs": script });
    const { child, ended } = start(root, "script.cjs");
    await once(child.stdout!, "data");
    child.kill(signal);
    assert.equal((await ended).status, 3);
  });
}

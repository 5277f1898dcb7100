// The bundler's settings against small programs that stand in for the four entries.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import esbuild from "esbuild";
import { bundleHeader } from "../../build/bundle-header.ts";
import { temporaryTree } from "./temporary-tree.ts";

const project = path.resolve(import.meta.dirname, "../..");
const small =
  "console.log(JSON.stringify({ name: process.argv[1], args: process.argv.slice(2), flags: process.execArgv }));\n";
const demo = `
import { SerialPort } from "serialport";
import mqtt from "mqtt";
async function main() {
  const { Aedes } = await import("aedes");
  const { encode } = await import("cbor-x");
  const closed = new SerialPort({ path: "/dev/ecp-none", baudRate: 9600, autoOpen: false });
  closed.open((error) => {
    const { version } = process;
    console.log(JSON.stringify({ error: error?.message, types: [typeof mqtt.connect, typeof Aedes, typeof encode], bundled: process.env.ECP_BUNDLED, url: import.meta.url, version }));
  });
}
void main();
`;

function build(t: TestContext, files: Readonly<Record<string, string>>, ...args: string[]) {
  const entries = {
    "cli/ecp.ts": small,
    "cli/ecp-node.ts": small,
    "cli/ecp-demo.ts": demo,
    "cli/ecp-wallet.ts": small,
  };
  const root = temporaryTree(t, { "package.json": '{"type":"module"}', ...entries, ...files });
  cpSync(path.join(project, "esbuild.config.mjs"), path.join(root, "esbuild.config.mjs"));
  cpSync(path.join(project, "build"), path.join(root, "build"), { recursive: true });
  symlinkSync(path.join(project, "node_modules"), path.join(root, "node_modules"));
  const result = spawnSync(process.execPath, ["esbuild.config.mjs", ...args], { cwd: root, encoding: "utf8" });
  return { ...result, dist: path.join(root, "dist") };
}

test("the bundles run alone in an empty folder, with the .node files beside them", (t) => {
  const { status, stdout, stderr, dist } = build(t, {});
  assert.equal(status, 0, stderr);
  assert.equal(stdout, "", "stdout is not the build's");
  assert.match(stderr, /ecp-demo\.cjs +\d+ kB/);
  const names = ["ecp", "ecp-wallet", "ecp-node", "ecp-demo"];
  const natives = ["pty.node", `serialport-${process.arch}-glibc.node`, `serialport-${process.arch}-musl.node`];
  assert.deepEqual(
    readdirSync(dist).sort(),
    [...names, ...names.map((name) => `${name}.cjs`), ...natives, "LICENSES.txt", "node.path"].sort(),
  );
  const alone = mkdtempSync(path.join(tmpdir(), "ecp-alone-"));
  t.after(() => rmSync(alone, { recursive: true, force: true }));
  cpSync(dist, alone, { recursive: true });
  rmSync(dist, { recursive: true });
  const ran = spawnSync(path.join(alone, "ecp-demo"), [], {
    cwd: alone,
    env: { PATH: "/usr/bin:/bin" },
    encoding: "utf8",
  });
  const said = JSON.parse(ran.stdout);
  assert.match(said.error, /cannot open \/dev\/ecp-none/);
  assert.deepEqual(said.types, ["function", "function", "function"]);
  assert.equal(said.bundled, "true");
  assert.equal(said.url, new URL(`file://${alone}/ecp-demo.cjs`).href);
  assert.equal(said.version, process.version);
  assert.match(readFileSync(path.join(alone, "LICENSES.txt"), "utf8"), /^serialport \d/m);
});

test("a launcher follows links, passes its arguments and starts the wallet without JIT", (t) => {
  const { dist } = build(t, {}, "--only", "ecp-wallet");
  const link = path.join(dist, "..", "link");
  symlinkSync("dist/ecp-wallet", link);
  const { stdout } = spawnSync(link, ["run", "a b"], { encoding: "utf8" });
  const { name, args, flags } = JSON.parse(stdout);
  assert.equal(path.basename(name), "ecp-wallet.cjs");
  assert.deepEqual(args, ["run", "a b"]);
  assert.ok(flags.includes("--jitless"));
});

test("a bundle is the same wherever it is built: its digest names the software in each record", (t) => {
  const [one, other] = [build(t, {}).dist, build(t, {}).dist];
  for (const name of ["ecp.cjs", "ecp-wallet.cjs", "ecp-demo.cjs", "ecp-wallet"]) {
    assert.deepEqual(readFileSync(path.join(one, name)), readFileSync(path.join(other, name)), name);
  }
});

test("refused: a wallet's bundle with anything that is not the wallet's", (t) => {
  const { status, stderr, dist } = build(
    t,
    { "cli/ecp-wallet.ts": 'import "../agent/poll.ts";\n', "agent/poll.ts": "export {};\n" },
    "--only",
    "ecp-wallet",
  );
  assert.equal(status, 1);
  assert.match(stderr, /got: agent\/poll\.ts/);
  assert.throws(() => statSync(path.join(dist, "ecp-wallet.cjs")));
  const withPackage = build(t, { "cli/ecp-wallet.ts": 'import ws from "ws";\nvoid ws;\n' }, "--only", "ecp-wallet");
  assert.equal(withPackage.status, 1);
  assert.match(withPackage.stderr, /node_modules\/ws\//);
});

test("a name that is no bundle's is refused", (t) => {
  const { status, stderr } = build(t, {}, "--only", "ecp-walet");
  assert.equal(status, 64);
  assert.match(stderr, /expected one of ecp, ecp-wallet/);
});

test("an old Node can parse the header and what the bundler lowers", async () => {
  // Transforming to ES5 fails on all syntax that ES5 lacks and esbuild cannot lower (let, const, classes …).
  const header = bundleHeader.replace("if (isTooOld) return;", "");
  await esbuild.transform(header, { target: "es5", logLevel: "silent" });
  await assert.rejects(esbuild.transform(`${header}\nlet a = 1;`, { target: "es5", logLevel: "silent" }));
});

const old = (header: string, handedOver: string) =>
  header.replace(
    "process.versions.node.split",
    `(process.env.ECP_NODE_HANDED_OVER ? "${handedOver}" : "20.0.0").split`,
  );
const program =
  'console.log(process.argv.slice(2).join()); process.on("SIGTERM", () => process.exit(4)); process.kill(process.pid, "SIGTERM"); setInterval(() => {}, 1000);\n';

for (const place of ["ECP_NODE", "beside", "node.path"] as const) {
  test(`a bundle started by an old Node hands over to a newer one: ${place}`, (t) => {
    const header = old(bundleHeader, "24.7.0");
    const pathFile = place === "node.path" ? process.execPath : "/nonexistent/node";
    const root = temporaryTree(t, { "ecp.cjs": header + program, "node.path": `${pathFile}\n` });
    if (place === "beside") symlinkSync(process.execPath, path.join(root, "node"));
    const env = { ...process.env, ECP_NODE: place === "ECP_NODE" ? process.execPath : "" };
    const ran = spawnSync(process.execPath, [path.join(root, "ecp.cjs"), "a", "b"], { env, encoding: "utf8" });
    assert.equal(ran.stdout, "a,b\n", ran.stderr);
    assert.equal(ran.status, 4);
  });
}

test("a bundle that finds no Node that is new enough says so and ends with 69", (t) => {
  for (const [pathFile, handedOver] of [
    ["/nonexistent/node", "24.7.0"],
    [process.execPath, "22.0.0"],
  ] as const) {
    const root = temporaryTree(t, { "ecp.cjs": old(bundleHeader, handedOver) + program, "node.path": pathFile });
    const env = { ...process.env, ECP_NODE: "" };
    const ran = spawnSync(process.execPath, [path.join(root, "ecp.cjs")], { env, encoding: "utf8" });
    assert.equal(ran.status, 69);
    assert.equal(ran.stdout, "");
    assert.match(ran.stderr, /expected: Node 24\.7 or newer\n +got: Node/);
  }
});

// Builds the bundles: `node esbuild.config.mjs [--only NAME] [--out FOLDER] [--arch x64|arm64] [--quiet]`. Prints to stderr only.
//
// dist/ gets four programs, each in one file (ecp.cjs, ecp-wallet.cjs, ecp-node.cjs, ecp-demo.cjs), a launcher of the same name without
// extension beside each, the .node files that they load from their own folder, the path of this Node, and the licences of what was bundled. The folder can be
// copied anywhere as it is. A file is written under another name and renamed, so a program that starts meanwhile never reads half of one.
import { copyFileSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import esbuild from "esbuild";
import { bundleHeader, launcher, nodePathFile } from "./build/bundle-header.ts";
import { foreignInputs, licenceTexts } from "./build/bundle-inputs.ts";

const root = import.meta.dirname;

/** V8 makes no executable memory under --jitless, so the wallet's unit can forbid it; --disable-sigusr1 closes the debugger's door. */
const walletFlags = ["--jitless", "--disable-sigusr1", "--disable-warning=ExperimentalWarning"];

/** No core file may hold the key, and nobody may change by the environment what the wallet's Node does. */
const walletFirstLines = [
  "ulimit -c 0",
  "unset NODE_OPTIONS NODE_PATH NODE_DEBUG NODE_V8_COVERAGE LD_PRELOAD LD_LIBRARY_PATH",
];

/**
 * The agent runs for years on small machines: with V8's young generation as small as it goes and one heap of malloc it has 34 MiB of
 * anonymous memory instead of 49 (npm run bench -- agent), at no more CPU. It wakes a few times a second: to wake V8's helper threads for
 * each small collection costs more than they save.
 */
const agentFlags = ["--max-semi-space-size=1", "--single-threaded"];
const agentFirstLines = ["export MALLOC_ARENA_MAX=1"];

const bundles = [
  { name: "ecp", nodeFlags: agentFlags, firstLines: agentFirstLines },
  { name: "ecp-wallet", nodeFlags: walletFlags, firstLines: walletFirstLines },
  { name: "ecp-node", nodeFlags: [] },
  { name: "ecp-demo", nodeFlags: [] },
];

const { values: options } = parseArgs({
  options: {
    only: { type: "string" },
    out: { type: "string", default: path.join(root, "dist") },
    arch: { type: "string", default: process.arch },
    quiet: { type: "boolean", default: false },
  },
});

/** Optional native parts of cbor-x, ws and mqtt; each has a fallback in JavaScript that is taken when loading throws. */
const leftOut = ["cbor-extract", "bufferutil", "utf-8-validate"];

const nativeParts = {
  name: "native-parts",
  setup(build) {
    build.onResolve({ filter: /^node-gyp-build$/ }, () => ({ path: path.join(root, "build/serialport-native.cjs") }));
    build.onResolve({ filter: new RegExp(`^(${leftOut.join("|")})$`) }, ({ path: name }) => ({
      path: name,
      namespace: "left-out",
    }));
    build.onLoad({ filter: /.*/, namespace: "left-out" }, ({ path: name }) => ({
      contents: `throw new Error("${name} is left out on purpose");`,
    }));
  },
};

function writeAtomically(name, contents, mode) {
  const file = path.join(options.out, name);
  const temporary = `${file}.${process.pid}`;
  writeFileSync(temporary, contents, { mode });
  renameSync(temporary, file);
}

function copyAtomically(source, name) {
  const file = path.join(options.out, name);
  copyFileSync(source, `${file}.${process.pid}`);
  renameSync(`${file}.${process.pid}`, file);
}

async function buildBundle({ name, nodeFlags, firstLines }) {
  const result = await esbuild.build({
    absWorkingDir: root,
    entryPoints: [`cli/${name}.ts`],
    outfile: path.join(options.out, `${name}.cjs`),
    bundle: true,
    write: false,
    metafile: true,
    platform: "node",
    format: "cjs",
    // It runs on Node 24 only, but an old Node must be able to parse it to reach the message of the header: this lowers what 14 cannot
    // read (static blocks, ||=, #x in y), which costs nothing measurable.
    target: "node14.21",
    charset: "utf8",
    legalComments: "none",
    logLevel: "warning",
    // A name or an import.meta that CJS cannot have would be `undefined` at run time: an error is better.
    logOverride: { "empty-import-meta": "error" },
    plugins: [nativeParts],
    define: {
      "process.env.ECP_BUNDLED": '"true"',
      "import.meta.url": "importMetaUrl",
      "import.meta.dirname": "__dirname",
      "import.meta.filename": "__filename",
    },
  });
  const inputs = Object.keys(result.metafile.inputs);
  if (name === "ecp-wallet") {
    const foreign = foreignInputs(inputs);
    if (foreign.length > 0)
      throw new Error(
        `ecp-wallet.cjs may hold only the wallet, platform/, protocol/, cbor-x and @noble/*; got: ${foreign.join(", ")}`,
      );
  }
  // The entry's own first line (#!) is replaced by the header's.
  const program = result.outputFiles[0].text.replace(/^#!.*\n/, "");
  writeAtomically(`${name}.cjs`, bundleHeader + program, 0o755);
  writeAtomically(name, launcher(name, nodeFlags, firstLines), 0o755);
  if (!options.quiet) console.error(`${`${name}.cjs`.padEnd(28)} ${kilobytes(path.join(options.out, `${name}.cjs`))}`);
  return inputs;
}

function kilobytes(file) {
  return `${(readFileSync(file).length / 1000).toFixed(0).padStart(6)} kB`;
}

function copyNatives() {
  const prebuilds = path.join(root, "node_modules/@serialport/bindings-cpp/prebuilds", `linux-${options.arch}`);
  const variant = options.arch === "arm64" ? "armv8." : "";
  const natives = [
    [path.join(prebuilds, `@serialport+bindings-cpp.${variant}glibc.node`), `serialport-${options.arch}-glibc.node`],
    [path.join(prebuilds, `@serialport+bindings-cpp.${variant}musl.node`), `serialport-${options.arch}-musl.node`],
    [path.join(root, `node_modules/@lydell/node-pty-linux-${options.arch}/pty.node`), "pty.node"],
  ];
  for (const [source, name] of natives) {
    copyAtomically(source, name);
    if (!options.quiet) console.error(`${name.padEnd(28)} ${kilobytes(source)}`);
  }
}

const wanted = bundles.filter(({ name }) => options.only === undefined || options.only === name);
if (wanted.length === 0) {
  console.error(
    `esbuild.config.mjs: --only ${options.only}: expected one of ${bundles.map(({ name }) => name).join(", ")}`,
  );
  process.exit(64);
}
try {
  mkdirSync(options.out, { recursive: true });
  writeAtomically(nodePathFile, `${process.execPath}\n`, 0o644);
  const inputs = await Promise.all(wanted.map(buildBundle));
  if (wanted.some(({ name }) => name !== "ecp-wallet")) copyNatives();
  if (options.only === undefined) writeAtomically("LICENSES.txt", licenceTexts(root, inputs.flat()), 0o644);
} catch (error) {
  // esbuild has printed its own messages with file and line.
  console.error(`esbuild.config.mjs: ${error instanceof Error ? error.message : error}`);
  process.exit(1);
}

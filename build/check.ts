// Everything that must hold before a change is handed on, quickest first: `npm run check [-- --without-tests]`. All steps run, so that
// one run shows all there is to mend; only the tests wait for the others to pass.
import { spawnSync } from "node:child_process";
import path from "node:path";

const root = path.resolve(import.meta.dirname, "..");
const tool = (name: string): string => path.join(root, "node_modules", name);

const steps: readonly [name: string, args: readonly string[]][] = [
  ["boundaries", ["build/check-boundaries.ts"]],
  ["repository lint", ["build/repository-lint.ts"]],
  ["exposure of the units", ["build/unit-exposure.ts"]],
  ["format and lint", [tool("@biomejs/biome/bin/biome"), "check", "--error-on-warnings", "."]],
  ["dead code", [tool("knip/bin/knip.js"), "--no-progress"]],
  ["types of protocol/, without Node's", [tool("typescript/bin/tsc"), "-p", "protocol"]],
  ["types", [tool("typescript/bin/tsc"), "-p", "."]],
];

function run(name: string, args: readonly string[]): boolean {
  const startedAtMs = performance.now();
  const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: "inherit" });
  const seconds = ((performance.now() - startedAtMs) / 1000).toFixed(1);
  console.log(`${status === 0 ? "passed" : "FAILED"}: ${name} (${seconds} s)`);
  return status === 0;
}

const failed = steps.filter(([name, args]) => !run(name, args)).map(([name]) => name);
if (failed.length === 0 && !process.argv.includes("--without-tests")) {
  // Through the launcher, which builds the wallet's bundle first.
  if (!run("tests", ["build/run.cjs", "--wallet", "build/test-run.ts"])) failed.push("tests");
}
if (failed.length > 0) {
  console.error(`check failed: ${failed.join(", ")}`);
  process.exitCode = 1;
} else console.log("check passed");

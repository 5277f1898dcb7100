// Runs the tests: `npm test [-- PART_OF_A_PATH… --NODE_OPTION…]`. It lists the files itself, since `node --test FOLDER` that finds no
// test exits with 0; it ends with the parts that were skipped and why. ECP_SKIPPED_FILE names a file that gets them as JSON lines.
import { spawn } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import path from "node:path";
import { filesKnownToGit, filesOnDisk } from "./repository-files.ts";
import type { TestNote } from "./test-events.ts";

/** The longest of the system tests starts real processes and waits for them; a file that takes longer hangs. */
const fileTimeoutMs = 300_000;
/** Half of the time the system's tests wait for a line, a clock or a process: twice as many files as there are processors keep these busy. */
const concurrency = Math.min(2 * availableParallelism(), 16);

/** The files under `root`/test that `patterns` (parts of their paths; none means all) select; throws when that tests nothing. */
export function selectTestFiles(root: string, patterns: readonly string[]): string[] {
  const isTest = (file: string): boolean => /^test\/.*\.test\.ts$/.test(file);
  const files = filesOnDisk(root).filter(isTest);
  if (files.length === 0) throw new Error(`expected test files test/**/*.test.ts, got none, in ${root}`);
  const known = filesKnownToGit(root)?.filter(isTest) ?? [];
  const unseen = known.filter((file) => !files.includes(file));
  if (unseen.length > 0) throw new Error(`git knows test files that were not found: ${unseen.join(", ")}`);
  if (patterns.length === 0) return files;
  for (const pattern of patterns) {
    if (!files.some((file) => file.includes(pattern))) {
      throw new Error(
        `expected a part of the path of a test file, got ${pattern}; the files are:\n  ${files.join("\n  ")}`,
      );
    }
  }
  return files.filter((file) => patterns.some((pattern) => file.includes(pattern)));
}

/** Runs the files and returns the exit status of node:test, or 1 when a file held no test. */
async function runTests(root: string, files: readonly string[], nodeOptions: readonly string[]): Promise<number> {
  const folder = mkdtempSync(path.join(tmpdir(), "ecp-tests-"));
  const notesFile = path.join(folder, "notes.jsonl");
  try {
    const reporters = [
      ["--test-reporter=spec", "--test-reporter-destination=stdout"],
      [
        `--test-reporter=${path.join(import.meta.dirname, "test-events.ts")}`,
        `--test-reporter-destination=${notesFile}`,
      ],
    ].flat();
    const limits = [`--test-concurrency=${concurrency}`, `--test-timeout=${fileTimeoutMs}`];
    const args = ["--test", ...limits, ...reporters, ...nodeOptions, ...files];
    // The programs that the tests start a thousand times are the project's own sources: compiled once, they start in half the time.
    const env = { NODE_COMPILE_CACHE: path.join(folder, "compile-cache"), ...process.env };
    const child = spawn(process.execPath, args, { cwd: root, env, stdio: "inherit" });
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
    const status = await new Promise<number>((resolve, reject) => {
      child.once("error", reject);
      child.once("exit", (code) => resolve(code ?? 1));
    });
    const notes = readNotes(notesFile);
    const skipped = notes.filter(({ kind }) => kind === "skipped");
    const empty = notes.filter(({ kind }) => kind === "empty");
    for (const { name, reason, file } of skipped)
      console.log(`skipped: ${name}: ${reason} (${path.relative(root, file)})`);
    for (const { file } of empty) console.error(`no test in ${path.relative(root, file)}`);
    console.log(`${files.length} test files, ${skipped.length} skipped tests`);
    if (process.env.ECP_SKIPPED_FILE !== undefined) copyFileSync(notesFile, process.env.ECP_SKIPPED_FILE);
    return empty.length > 0 && status === 0 ? 1 : status;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function readNotes(file: string): TestNote[] {
  const lines = readFileSync(file, "utf8").split("\n");
  return lines.filter((line) => line !== "").map((line): TestNote => JSON.parse(line));
}

if (import.meta.main) {
  const args = process.argv.slice(2);
  const root = path.resolve(import.meta.dirname, "..");
  try {
    const patterns = args.filter((arg) => !arg.startsWith("-"));
    const files = selectTestFiles(root, patterns);
    process.exitCode = await runTests(
      root,
      files,
      args.filter((arg) => arg.startsWith("-")),
    );
  } catch (error) {
    console.error(`npm test: ${error instanceof Error ? error.message : error}`);
    process.exitCode = 1;
  }
}

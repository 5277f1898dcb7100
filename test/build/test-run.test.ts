import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, readFileSync } from "node:fs";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { temporaryTree } from "./temporary-tree.ts";

const project = path.resolve(import.meta.dirname, "../..");
const passing = 'import { test } from "node:test";\ntest("adds", () => {});\n';

function run(t: TestContext, files: Readonly<Record<string, string>>, ...args: string[]) {
  const root = temporaryTree(t, { "package.json": '{"type":"module"}', ...files });
  for (const file of ["test-run.ts", "test-events.ts", "repository-files.ts"]) {
    cpSync(path.join(project, "build", file), path.join(root, "build", file), { recursive: true });
  }
  const { NODE_TEST_CONTEXT: _, ...env } = process.env; // else the inner run takes itself for a part of this one
  const skippedFile = path.join(root, "skipped.jsonl");
  const result = spawnSync(process.execPath, ["build/test-run.ts", ...args], {
    cwd: root,
    env: { ...env, ECP_SKIPPED_FILE: skippedFile },
    encoding: "utf8",
  });
  return { ...result, skippedFile };
}

test("all files run, and what was skipped is named with its reason", (t) => {
  const { status, stdout, skippedFile } = run(t, {
    "test/a.test.ts": passing,
    "test/deep/b.test.ts": 'import { test } from "node:test";\ntest("reads a port", { skip: "no socat" }, () => {});\n',
  });
  assert.equal(status, 0);
  assert.match(stdout, /adds/);
  assert.match(stdout, /^skipped: reads a port: no socat \(test\/deep\/b\.test\.ts\)$/m);
  assert.match(stdout, /2 test files, 1 skipped tests\n$/);
  const [note, rest] = readFileSync(skippedFile, "utf8").split("\n");
  assert.equal(rest, "");
  assert.equal(JSON.parse(note!).reason, "no socat");
});

test("a skip inside a test is named too", (t) => {
  const inner =
    'import { test } from "node:test";\ntest("a", async (t) => { await t.test("b", (u) => u.skip("no broker")); });\n';
  assert.match(run(t, { "test/a.test.ts": inner }).stdout, /^skipped: b: no broker/m);
});

test("a part of a path selects files, an option goes to node:test", (t) => {
  const files = {
    "test/a.test.ts": passing,
    "test/b.test.ts": 'import "node:test";\nthrow new Error("not selected");\n',
  };
  assert.equal(run(t, files, "a.test", "--test-name-pattern=adds").status, 0);
  assert.equal(run(t, files).status, 1);
});

const failing: Record<string, [files: Record<string, string>, args: string[], expected: RegExp]> = {
  "there is no test file": [{ "test/a.ts": passing }, [], /expected test files/],
  "nothing matches": [
    { "test/a.test.ts": passing },
    ["wallet"],
    /expected a part of the path of a test file, got wallet/,
  ],
  "a file holds no test": [
    { "test/a.test.ts": passing, "test/b.test.ts": "export {};\n" },
    [],
    /no test in test\/b\.test\.ts/,
  ],
};
for (const [name, [files, args, expected]] of Object.entries(failing)) {
  test(`it fails when ${name}`, (t) => {
    const { status, stderr } = run(t, files, ...args);
    assert.equal(status, 1);
    assert.match(stderr, expected);
  });
}

test("it fails when a test fails", (t) => {
  const { status } = run(t, {
    "test/a.test.ts": 'import { test } from "node:test";\ntest("a", () => { throw 1; });\n',
  });
  assert.equal(status, 1);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { lintRepository } from "../../build/repository-lint.ts";
import { temporaryTree } from "./temporary-tree.ts";

const clean = {
  "agent/reading-path.ts": 'import { a } from "./poll.ts";\nexport const only = { skip: true, a };\n',
  "test/agent/reading-path.test.ts":
    'import test from "node:test";\ntest("a", { skip: process.getuid?.() === 0 && "as root" }, (t) => { if (1) t.skip("no socat"); });\n',
  "simulator/pty.ts": "export const end = (p) => { p.master.destroy(); p.slave.destroy(); };\n",
  "README.md": "# Read me\n",
};

test("a clean tree has no problems", (t) => {
  assert.deepEqual(lintRepository(temporaryTree(t, clean), Object.keys(clean)), []);
});

const word = "TO" + "DO";
const refused: Record<string, [file: string, contents: string, expected: RegExp]> = {
  "a test marked as the only one": ["test/x.test.ts", 'test.only("a", () => {});', /x\.test\.ts:1: test\.only/],
  "a test always skipped": ["test/x.test.ts", '\ndescribe.skip("a", () => {});', /:2: describe\.skip/],
  "a test always skipped by an option": ["test/x.test.ts", 'test("a", { skip: true }, () => {});', /skip: true/],
  "a test marked as the only one by an option": ["test/x.test.ts", 'it("a", { only: true }, () => {});', /only: true/],
  "a reminder": ["agent/x.ts", `// ${word}: later`, /x\.ts:1:/],
  "a reminder in a page": ["docs/x.md", `\n${word}`, /x\.md:2:/],
  "a name that says nothing": ["agent/utils.ts", "", /"utils" says nothing/],
  "a folder that says nothing": ["agent/common/poll.ts", "", /"common" says nothing/],
  "a barrel": ["agent/index.ts", "", /"index" says nothing/],
  "a name in camel case": ["agent/readingPath.ts", "", /kebab-case/],
  "a long file": ["agent/x.ts", "//\n".repeat(451), /451 lines/],
  "an import without suffix": ["agent/x.ts", 'import "./poll";', /expected the suffix \.ts/],
  "an import with the suffix of the output": ["agent/x.ts", 'import "./poll.js";', /expected the suffix \.ts/],
  "destroying a pty": ["simulator/pty-line.ts", "pty.destroy();", /only master\.destroy\(\)/],
  "killing a pty": ["simulator/pty-line.ts", "this.#pty.kill();", /only master\.destroy\(\)/],
  "killing a pty in a file that imports it": ["agent/x.ts", 'import "@lydell/node-pty";\np.kill();', /:2: p\.kill/],
  "signalling every process": ["agent/x.ts", 'process.kill(-1, "SIGHUP");', /every process/],
  "a test that is not run": ["test/x.spec.ts", "", /is not run/],
};
for (const [name, [file, contents, expected]] of Object.entries(refused)) {
  test(`refused: ${name}`, (t) => {
    const files = { ...clean, [file]: contents };
    const problems = lintRepository(temporaryTree(t, files), Object.keys(files));
    assert.equal(problems.length, 1, JSON.stringify(problems));
    assert.match(problems[0]!, expected);
  });
}

test("450 lines are not too long", (t) => {
  const files = { ...clean, "agent/x.ts": "//\n".repeat(450) };
  assert.deepEqual(lintRepository(temporaryTree(t, files), Object.keys(files)), []);
});

test("refused: a tree without sources", (t) => {
  assert.equal(lintRepository(temporaryTree(t, { "README.md": "" }), ["README.md"]).length, 1);
});

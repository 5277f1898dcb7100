import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, symlinkSync } from "node:fs";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { checkBoundaries } from "../../build/check-boundaries.ts";
import { filesOnDisk } from "../../build/repository-files.ts";
import { temporaryTree } from "./temporary-tree.ts";

const project = path.resolve(import.meta.dirname, "../..");

const allowed = {
  "package.json": JSON.stringify({
    dependencies: { "cbor-x": "1", mqtt: "1", "@noble/hashes": "1", "@lydell/node-pty": "1" },
  }),
  "docs/decisions/packages.md": [
    "| `cbor-x` | protocol | encodes the records |",
    "| `mqtt` | agent | sends the records |",
    "| `@noble/hashes` | protocol, wallet | hashes the records |",
    "| `@lydell/node-pty` | simulator | makes a pseudo-terminal |",
  ].join("\n"),
  "protocol/record.ts": 'import { encode } from "cbor-x/encode";\nexport const a = [encode, Date.UTC(2026, 0)];\n',
  "platform/clock.ts": 'import { hrtime } from "node:process";\nexport const b = hrtime;\n',
  "drivers/line.ts": 'import type { a } from "../protocol/record.ts";\nexport type Line = typeof a;\n',
  "drivers/modbus/port.ts": 'import type { Line } from "../line.ts";\nexport type Port = Line;\n',
  "drivers/lora/modem.ts": "export const modem = 1;\n",
  "agent/path.ts":
    'import mqtt from "mqtt";\nimport type { Port } from "../drivers/modbus/port.ts";\nexport type P = [Port, typeof mqtt];\n',
  "wallet/journal.ts":
    'import net from "node:net";\nimport { b } from "../platform/clock.ts";\nexport const c = [net, b];\n',
  "simulator/pty.ts": 'import { open } from "@lydell/node-pty";\nexport const d = open;\n',
  "cli/ecp-wallet.ts": 'import { c } from "../wallet/journal.ts";\nvoid c;\n',
  "cli/ecp.ts": 'const { c } = await import("../wallet/journal.ts");\nvoid c;\n',
  "test/a.test.ts": 'import mqtt from "mqtt";\nimport { c } from "../wallet/journal.ts";\nvoid [mqtt, c];\n',
};

function check(t: TestContext, changes: Readonly<Record<string, string>>) {
  const root = temporaryTree(t, { ...allowed, ...changes });
  return checkBoundaries(root, filesOnDisk(root));
}

test("the allowed imports pass, and each module is counted", (t) => {
  assert.deepEqual(check(t, {}), { modules: 11, imports: 13, problems: [] });
});

const refused: Record<string, [file: string, contents: string, expected: RegExp]> = {
  "agent imports wallet": ["agent/x.ts", 'import "../wallet/journal.ts";', /agent\/ may not import wallet\//],
  "agent imports wallet's type only": [
    "agent/x.ts",
    'import type { c } from "../wallet/journal.ts";',
    /may not import wallet/,
  ],
  "agent imports wallet in a type": [
    "agent/x.ts",
    'export type C = typeof import("../wallet/journal.ts");',
    /may not import wallet/,
  ],
  "agent imports wallet dynamically": ["agent/x.ts", 'void import("../wallet/journal.ts");', /may not import wallet/],
  "agent exports from wallet": ["agent/x.ts", 'export * from "../wallet/journal.ts";', /may not import wallet/],
  "a computed import": [
    "agent/x.ts",
    "const name = process.argv[2]!;\nvoid import(name);",
    /x\.ts:2: import\(\) of something/,
  ],
  createRequire: ["agent/x.ts", 'import { createRequire } from "node:module";', /createRequire/],
  "one driver imports another": [
    "drivers/modbus/x.ts",
    'import "../lora/modem.ts";',
    /drivers\/modbus\/ may not import drivers\/lora/,
  ],
  "shared driver code imports a driver": ["drivers/x.ts", 'import "./lora/modem.ts";', /may not depend on one of them/],
  "platform imports protocol": [
    "platform/x.ts",
    'import "../protocol/record.ts";',
    /platform\/ may not import protocol/,
  ],
  "protocol imports a Node module": ["protocol/x.ts", 'import fs from "node:fs";', /protocol\/ is pure/],
  "protocol imports a Node module without prefix": ["protocol/x.ts", 'import fs from "fs";', /protocol\/ is pure/],
  "protocol reads the clock": [
    "protocol/x.ts",
    "// Date.now() in a comment is no use\nexport const n = Date.now();",
    /x\.ts:2: Date/,
  ],
  "protocol makes a date": ["protocol/x.ts", "export const n = new Date();", /x\.ts:1: Date/],
  "protocol throws dice": ["protocol/x.ts", "export const n = Math.random();", /Math\.random/],
  "wallet has a network": ["wallet/x.ts", 'import "node:https";', /no network but its Unix socket/],
  "wallet imports a package": ["wallet/x.ts", 'import "mqtt";', /lists mqtt for agent, not for wallet/],
  "the wallet's entry imports a package": ["cli/ecp-wallet.ts", 'import "mqtt";', /not for the wallet's entry/],
  "the wallet's entry imports another command": [
    "cli/ecp-wallet.ts",
    'import "./ecp.ts";',
    /may not import other commands/,
  ],
  "the wallet's entry imports the agent": ["cli/ecp-wallet.ts", 'import "../agent/path.ts";', /may not import agent/],
  "a package without a line": ["agent/x.ts", 'import "left-pad";', /a package with no line/],
  "node-pty outside its wrapper": ["simulator/x.ts", 'import "@lydell/node-pty";', /only simulator\/pty/],
  "node-pty in a test": ["test/x.test.ts", 'import "@lydell/node-pty-linux-x64/pty.node";', /only simulator\/pty/],
  "a file that is not there": ["agent/x.ts", 'import "./y.ts";', /there is no file agent\/y\.ts/],
  "a file outside": ["agent/x.ts", 'import "../../y.ts";', /outside the project/],
  "a new folder": ["cloud/x.ts", "export {};", /cloud\/ is not on the list/],
  "a package without a reason": ["docs/decisions/packages.md", "| `mqtt` | agent | |", /expected a reason/],
  "a package not in the list": [
    "docs/decisions/packages.md",
    "| `cbor-x` | protocol | encodes the records |",
    /mqtt: expected a line/,
  ],
  "a listed package that is gone": ["package.json", "{}", /mqtt is not in package\.json/],
};
for (const [name, [file, contents, expected]] of Object.entries(refused)) {
  test(`refused: ${name}`, (t) => {
    const { problems } = check(t, { [file]: contents });
    assert.ok(
      problems.some((problem) => expected.test(problem)),
      `expected ${expected}, got ${JSON.stringify(problems)}`,
    );
  });
}

test("refused: packages in the table that a row may never have", (t) => {
  const row = (folder: string) => ({ "docs/decisions/packages.md": `| \`mqtt\` | ${folder} | sends the records |` });
  for (const folder of ["wallet", "platform", "protocol"]) {
    const { problems } = check(t, row(folder));
    assert.ok(
      problems.some((problem) => problem.includes("mqtt: ")),
      folder,
    );
  }
});

test("refused: a tree without modules", (t) => {
  const root = temporaryTree(t, { "package.json": "{}", "docs/decisions/packages.md": "" });
  assert.deepEqual(checkBoundaries(root, filesOnDisk(root)).problems, [
    "no .ts file was found: the check checked nothing",
  ]);
});

test("the program fails when git knows more modules than it read", (t) => {
  const root = temporaryTree(t, allowed);
  cpSync(path.join(project, "build/check-boundaries.ts"), path.join(root, "build/check-boundaries.ts"), {
    recursive: true,
  });
  cpSync(path.join(project, "build/repository-files.ts"), path.join(root, "build/repository-files.ts"));
  symlinkSync(path.join(project, "node_modules"), path.join(root, "node_modules"));
  execFileSync("git", ["init", "-q"], { cwd: root });
  const run = () => spawnSync(process.execPath, ["build/check-boundaries.ts"], { cwd: root, encoding: "utf8" });
  const manifest = JSON.stringify({
    dependencies: { ...JSON.parse(allowed["package.json"]).dependencies, typescript: "6" },
  });
  const table = `${allowed["docs/decisions/packages.md"]}\n| \`typescript\` | build | reads the imports |\n`;
  const files = temporaryTree(t, { "package.json": manifest, "docs/decisions/packages.md": table });
  cpSync(files, root, { recursive: true });
  const passed = run();
  assert.equal(passed.status, 0, passed.stderr);
  assert.match(passed.stdout, /boundaries: 13 modules, .*git knows 13/);
  // A folder that the walk leaves out but git tracks: the walk read fewer.
  cpSync(path.join(root, "agent"), path.join(root, "dist"), { recursive: true });
  const failed = run();
  assert.equal(failed.status, 1);
  assert.match(failed.stderr, /read 13 modules, but git knows 14/);
});

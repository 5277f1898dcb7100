import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { CommandError, exit, parseCommand } from "../../cli/command.ts";
import { program } from "./sample-program.ts";

const file = join(import.meta.dirname, "sample-program.ts");

/** In a process of its own: what a program writes must not mix with what the test runner writes. */
function run(...args: readonly string[]): { status: number | null; out: string; error: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [file, ...args], {
    encoding: "utf8",
    timeout: 30_000,
  });
  return { status, out: stdout, error: stderr };
}

test("runs a command with its arguments, and ends with its status", () => {
  assert.deepEqual(run("plain", "--flag", "x"), { status: 5, out: 'plain: ["--flag","x"]\n', error: "" });
});

test("a command of two words goes before one of one", () => {
  assert.equal(run("config", "check", "a").out, 'two words: ["a"]\n');
  assert.equal(run("config", "apply").out, 'one word of two: ["apply"]\n');
});

test("help lists every command; help COMMAND and --help give its usage, and run nothing", () => {
  for (const args of [["help"], ["--help"], ["-h"]]) {
    const { out, status } = run(...args);
    assert.equal(status, 0);
    for (const name of Object.keys(program.commands)) assert.match(out, new RegExp(`^ {2}${name} `, "m"));
    assert.match(out, /Exit status/);
  }
  for (const args of ["help config check", "config check --help", "config check -h"])
    assert.equal(run(...args.split(" ")).out, "Usage: prog two words\n\nExit status\n   0  done\n");
});

test("the first word of several commands: help lists them, and alone it is wrong usage that names them", () => {
  assert.equal(
    run("help", "line").out,
    "Usage: prog COMMAND …\n\n  line open   opens\n  line close  closes\n\nprog help COMMAND says more\n",
  );
  assert.match(run("line").error, /got: the command line alone; there are line open, line close\n/);
  assert.match(run("line", "--json").error, /got: the command line alone; there are/);
});

test("the second word misspelt: said as it was typed, beside what there is", () => {
  assert.match(run("line", "opne").error, /got: the command line opne; there are line open, line close\n/);
});

test("--version tells it", () => {
  assert.equal(run("--version").out, "prog 1.2.3\n");
});

for (const [name, args, says] of [
  ["no command", [], /no command/],
  ["an unknown command", ["plane"], /the command plane/],
  ["help on an unknown command", ["help", "plane"], /the command plane/],
  ["a name of every object", ["constructor"], /the command constructor/],
] as const)
  test(`${name}: wrong usage, on stderr, with what to do`, () => {
    const { status, out, error } = run(...args);
    assert.equal(status, exit.usage);
    assert.equal(out, "");
    assert.match(error, says);
    assert.match(error, /^expected: .*\n {5}got: .*\n {3}where: .*\n {3}to do: prog help/);
  });

for (const [name, status] of [
  ["denied", exit.notPermitted],
  ["full", exit.ioError],
  ["gone", exit.noInput],
  ["folder", exit.noInput],
  ["there", exit.cannotCreate],
  ["taken", exit.unavailable],
  ["own", exit.badData],
] as const)
  test(`an error that can be explained (${name}) ends with ${status} and four lines`, () => {
    const result = run(name);
    assert.equal(result.status, status);
    assert.equal(result.error.split("\n").length, 5);
  });

test("Ctrl-C at a question ends quietly, as a shell's status has it", () => {
  assert.deepEqual(run("interrupted"), { status: exit.interrupted, out: "", error: "\n" });
});

test("an error of the programmer is shown whole, with where it happened", () => {
  const { status, error } = run("bug");
  assert.equal(status, 1);
  assert.match(error, /TypeError: bug\n +at .*sample-program\.ts/);
});

test("options and positional arguments are taken exactly", () => {
  const options = { out: { type: "string", default: "o" }, json: { type: "boolean", default: false } } as const;
  const parse = (...args: string[]) => parseCommand("prog do", args, options, ["FILE"]);
  assert.deepEqual({ ...parse("f", "--json").values }, { out: "o", json: true });
  assert.deepEqual(parse("--", "--json").positionals, ["--json"]);
  const refused = (args: string[], says: RegExp): void => {
    assert.throws(
      () => parse(...args),
      (error) => error instanceof CommandError && error.status === exit.usage && says.test(error.text.got),
    );
  };
  refused([], /FILE is missing/);
  for (const given of [[], ["f"]])
    assert.deepEqual(
      parseCommand("prog do", given, options, ["[FILE]"]).positionals,
      given,
      "in brackets: may be missing",
    );
  refused(["a", "b"], /one argument too many: b/);
  refused(["a", "--nope"], /^the option --nope; known are --\w+, --\w+$/);
  refused(["a", "--out"], /--out/);
  refused(["a", "--out", "-1"], /^--out without a value \(write --out=VALUE for one that begins with -\)$/);
  refused(["a", "--json=yes"], /--json/);
});

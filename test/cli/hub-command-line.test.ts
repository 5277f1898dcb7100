import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { type Command, CommandError, exit, type Program, parseCommand, runProgram } from "../../cli/command.ts";

const received: string[][] = [];
const command = (summary: string, status: number = exit.ok): Command => ({
  summary,
  usage: `Usage: prog ${summary}`,
  run: async (args) => {
    received.push([...args]);
    return status;
  },
});
const failing = (error: Error): Command => ({ ...command("fails"), run: () => Promise.reject(error) });

const program: Program = {
  name: "prog",
  version: "1.2.3",
  intro: "does things",
  exitHelp: "Exit status\n   0  done",
  commands: {
    plain: async () => command("plain", 5),
    "config check": async () => command("two words"),
    config: async () => command("one word of two"),
    denied: async () => failing(Object.assign(new Error("EACCES: no"), { code: "EACCES" })),
    full: async () => failing(Object.assign(new Error("ENOSPC: no room"), { code: "ENOSPC" })),
    gone: async () => failing(Object.assign(new Error("ENOENT: nothing"), { code: "ENOENT" })),
    own: async () => failing(new RangeError("ours")),
    bug: async () => failing(new TypeError("bug")),
  },
  explain: (error) =>
    error instanceof RangeError
      ? new CommandError(exit.badData, { expected: "e", got: error.message, where: "w", todo: "t" })
      : undefined,
};

async function run(t: TestContext, ...args: string[]): Promise<{ status: unknown; out: string; error: string }> {
  let [out, error] = ["", ""];
  const stdout = t.mock.method(process.stdout, "write", (text: string) => {
    out += text;
    return true;
  });
  const stderr = t.mock.method(process.stderr, "write", (text: string) => {
    error += text;
    return true;
  });
  try {
    await runProgram(program, args);
    return { status: process.exitCode, out, error };
  } finally {
    process.exitCode = undefined; // else this test's process would end with it
    stdout.mock.restore();
    stderr.mock.restore();
  }
}

test("runs a command with its arguments, and ends with its status", async (t) => {
  received.length = 0;
  assert.equal((await run(t, "plain", "--flag", "x")).status, 5);
  assert.deepEqual(received, [["--flag", "x"]]);
});

test("a command of two words goes before one of one", async (t) => {
  received.length = 0;
  await run(t, "config", "check", "a");
  await run(t, "config", "apply");
  assert.deepEqual(received, [["a"], ["apply"]]);
});

test("help lists every command; help COMMAND and --help give its usage, and run nothing", async (t) => {
  received.length = 0;
  for (const args of [["help"], ["--help"], ["-h"]]) {
    const { out, status } = await run(t, ...args);
    assert.equal(status, 0);
    for (const name of Object.keys(program.commands)) assert.match(out, new RegExp(`^ {2}${name} `, "m"));
    assert.match(out, /Exit status/);
  }
  for (const args of [
    ["help", "config", "check"],
    ["config", "check", "--help"],
    ["config", "check", "-h"],
  ])
    assert.match((await run(t, ...args)).out, /^Usage: prog two words/);
  assert.deepEqual(received, []);
});

test("--version tells it", async (t) => {
  assert.equal((await run(t, "--version")).out, "prog 1.2.3\n");
});

for (const [name, args, says] of [
  ["no command", [], /no command/],
  ["an unknown command", ["plane"], /the command plane/],
  ["help on an unknown command", ["help", "plane"], /the command plane/],
  ["a name of every object", ["constructor"], /the command constructor/],
] as const)
  test(`${name}: wrong usage, on stderr, with what to do`, async (t) => {
    const { status, out, error } = await run(t, ...args);
    assert.equal(status, exit.usage);
    assert.equal(out, "");
    assert.match(error, says);
    assert.match(error, /^expected: .*\n {5}got: .*\n {3}where: .*\n {3}to do: prog help/);
  });

for (const [name, status] of [
  ["denied", exit.notPermitted],
  ["full", exit.ioError],
  ["gone", exit.noInput],
  ["own", exit.badData],
] as const)
  test(`an error that can be explained (${name}) ends with ${status} and four lines`, async (t) => {
    const result = await run(t, name);
    assert.equal(result.status, status);
    assert.equal(result.error.split("\n").length, 5);
  });

test("an error of the programmer is not made pretty", async (t) => {
  await assert.rejects(run(t, "bug"), { name: "TypeError", message: "bug" });
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
  refused(["a", "b"], /one argument too many: b/);
  refused(["a", "--nope"], /--nope/);
  refused(["a", "--out"], /--out/);
  refused(["a", "--json=yes"], /--json/);
});

/** A program of commands that do nothing, for the tests of the command line: `plain` and `config` print their arguments. */
import { type Command, CommandError, exit, type Program, runProgram } from "../../cli/command.ts";

const command = (summary: string, status: number = exit.ok): Command => ({
  summary,
  usage: `Usage: prog ${summary}`,
  run: async (args) => {
    process.stdout.write(`${summary}: ${JSON.stringify(args)}\n`);
    return status;
  },
});
const failing = (error: Error): Command => ({ ...command("fails"), run: () => Promise.reject(error) });

export const program: Program = {
  name: "prog",
  version: "1.2.3",
  intro: "does things",
  exitHelp: "Exit status\n   0  done",
  commands: {
    plain: async () => command("plain", 5),
    "config check": async () => command("two words"),
    config: async () => command("one word of two"),
    "line open": async () => command("opens"),
    "line close": async () => command("closes"),
    denied: async () => failing(Object.assign(new Error("EACCES: no"), { code: "EACCES" })),
    full: async () => failing(Object.assign(new Error("ENOSPC: no room"), { code: "ENOSPC" })),
    gone: async () => failing(Object.assign(new Error("ENOENT: nothing"), { code: "ENOENT" })),
    folder: async () => failing(Object.assign(new Error("EISDIR: read"), { code: "EISDIR" })),
    there: async () => failing(Object.assign(new Error("EEXIST: there"), { code: "EEXIST" })),
    taken: async () => failing(Object.assign(new Error("EADDRINUSE: taken"), { code: "EADDRINUSE" })),
    interrupted: async () => failing(Object.assign(new Error("Aborted with Ctrl+C"), { code: "ABORT_ERR" })),
    own: async () => failing(new RangeError("ours")),
    bug: async () => failing(new TypeError("bug")),
  },
  explain: (error) =>
    error instanceof RangeError
      ? new CommandError(exit.badData, { expected: "e", got: error.message, where: "w", todo: "t" })
      : undefined,
};

if (import.meta.main) void runProgram(program, process.argv.slice(2));

/** What the commands of all programs have in common: exit statuses, options, errors as a person wants them. */
import { type ParseArgsConfig, parseArgs } from "node:util";

/** Some of sysexits.h. */
export const exit = {
  ok: 0,
  failed: 1,
  unknown: 2,
  usage: 64,
  badData: 65,
  noInput: 66,
  unavailable: 69,
  cannotCreate: 73,
  ioError: 74,
  notPermitted: 77,
  badConfiguration: 78,
  /** As shells have it for SIGINT. */
  interrupted: 130,
} as const;

export interface ErrorText {
  readonly expected: string;
  readonly got: string;
  readonly where: string;
  readonly todo: string;
}

/** Ends a command with a message for people and an exit status. */
export class CommandError extends Error {
  readonly status: number;
  readonly text: ErrorText;

  constructor(status: number, text: ErrorText) {
    super(text.got);
    this.name = "CommandError";
    this.status = status;
    this.text = text;
  }
}

export interface Command {
  readonly summary: string;
  readonly usage: string;
  /** The exit status. Throws {@link CommandError}. */
  run(args: readonly string[]): Promise<number>;
}

export interface Program {
  readonly name: string;
  readonly version: string;
  readonly intro: string;
  /** Loaded when used. A key may have a second word: "config check". */
  readonly commands: Readonly<Record<string, () => Promise<Command>>>;
  readonly exitHelp: string;
  /** What to print and with which status to end, for errors of the program's own; undefined for a programmer's error. */
  readonly explain?: (error: unknown) => CommandError | undefined;
}

export function usageError(program: string, got: string): CommandError {
  return new CommandError(exit.usage, {
    expected: `the usage of ${program}`,
    got,
    where: "the command line",
    todo: program.replace(/^(\S+)/, "$1 help"),
  });
}

/**
 * parseArgs, strict, with errors that name the command (`ecp read`) and exactly these positional arguments; those in brackets
 * may be missing.
 */
export function parseCommand<T extends NonNullable<ParseArgsConfig["options"]>>(
  command: string,
  args: readonly string[],
  options: T,
  positionals: readonly string[],
) {
  let parsed: ReturnType<typeof parseArgs<{ args: string[]; options: T; allowPositionals: true; strict: true }>>;
  try {
    parsed = parseArgs({ args: [...args], options, allowPositionals: true, strict: true });
  } catch (error) {
    throw usageError(command, optionProblem(error as Error, Object.keys(options)));
  }
  const given = parsed.positionals.length;
  const needed = positionals.filter((name) => !name.startsWith("[")).length;
  if (given < needed || given > positionals.length)
    throw usageError(
      command,
      given > positionals.length
        ? `one argument too many: ${parsed.positionals[positionals.length]}`
        : `${positionals[given]} is missing`,
    );
  return parsed;
}

/** Node's words; where a value begins with a dash they are three lines of advice, of which the first has the flag. */
function optionProblem(error: Error, options: readonly string[]): string {
  const unknown = /^Unknown option '([^']*)'/.exec(error.message)?.[1];
  if (unknown !== undefined) return `the option ${unknown}; known are ${options.map((name) => `--${name}`).join(", ")}`;
  const flag = /^Option '(?:-\w, )?(--[\w-]+)[^']*' argument is ambiguous/.exec(error.message)?.[1];
  return flag === undefined
    ? error.message
    : `${flag} without a value (write ${flag}=VALUE for one that begins with -)`;
}

export function formatError({ expected, got, where, todo }: ErrorText): string {
  return `expected: ${expected}\n     got: ${got}\n   where: ${where}\n   to do: ${todo}\n`;
}

/** The code of an operating system's error (`ENOENT`); undefined for any other error. */
export function systemCode(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}

/** Errors of the file system that every command can meet. */
function explainSystem(error: unknown): CommandError | undefined {
  const code = systemCode(error);
  const got = error instanceof Error ? error.message : `${error}`;
  const text = (expected: string, todo: string): ErrorText => ({ expected, got, where: "the file system", todo });
  if (code === "EACCES" || code === "EPERM" || code === "EROFS")
    return new CommandError(
      exit.notPermitted,
      text("a place that this user may use", "run as the user that owns it, or choose another place"),
    );
  if (code === "ENOENT")
    return new CommandError(exit.noInput, text("a file or folder that is there", "check the path"));
  if (code === "EISDIR") return new CommandError(exit.noInput, text("a file", "name a file, not a folder"));
  if (code === "EEXIST" || code === "ENOTDIR" || code === "EBUSY" || code === "ENOTEMPTY")
    return new CommandError(
      exit.cannotCreate,
      text("a path that is free, in a folder", "choose another path; what is there was left as it is"),
    );
  if (code === "ENAMETOOLONG" || code === "ELOOP")
    return new CommandError(exit.noInput, text("a path that the system can follow", "check the path"));
  if (code === "EMFILE" || code === "ENFILE")
    return new CommandError(exit.ioError, text("a file to open", "end other programs, or raise 'ulimit -n'"));
  if (code === "EADDRINUSE" || code === "EADDRNOTAVAIL")
    return new CommandError(
      exit.unavailable,
      text("an address that is free on this machine", "choose another address or port, or end what has it"),
    );
  if (code === "ENOSPC") return new CommandError(exit.ioError, text("room on the disk", "free some space, try again"));
  return undefined;
}

/** Runs a program with its arguments; sets the exit status. After an error nothing that is still open keeps it alive. */
export async function runProgram(program: Program, args: readonly string[]): Promise<void> {
  try {
    process.exitCode = await dispatch(program, args);
  } catch (error) {
    // readline's, at Ctrl-C in a question.
    if (systemCode(error) === "ABORT_ERR") {
      process.stderr.write("\n");
      process.exit(exit.interrupted);
    }
    const explained = error instanceof CommandError ? error : (program.explain?.(error) ?? explainSystem(error));
    // A programmer's error: nothing that its user could mend, so all of it is shown.
    if (explained === undefined) throw error;
    process.stderr.write(formatError(explained.text));
    process.exit(explained.status);
  }
}

async function dispatch(program: Program, args: readonly string[]): Promise<number> {
  const [first] = args;
  if (first === "--version") return print(`${program.name} ${program.version}\n`);
  if (first === undefined) throw usageError(program.name, "no command");
  if (first === "help" || first === "--help" || first === "-h") return print(await help(program, args.slice(1)));
  const found = find(program, args);
  if (!found) throw unknownCommand(program, first, args[1]);
  const command = await found.load();
  if (found.rest.includes("--help") || found.rest.includes("-h"))
    return print(`${command.usage}\n\n${program.exitHelp}\n`);
  return await command.run(found.rest);
}

function find(program: Program, args: readonly string[]) {
  for (const words of [2, 1]) {
    const name = args.slice(0, words).join(" ");
    const load = Object.hasOwn(program.commands, name) ? program.commands[name] : undefined;
    if (load && args.length >= words) return { load, rest: args.slice(words) };
  }
  return undefined;
}

async function help(program: Program, words: readonly string[]): Promise<string> {
  if (words.length > 0) {
    const found = find(program, words);
    if (found) return `${(await found.load()).usage}\n\n${program.exitHelp}\n`;
    const group = commandsBelow(program, words.join(" "));
    if (group.length === 0) throw unknownCommand(program, words.join(" "));
    const below = await summaries(program, group, longestOf(group) + 2);
    return `Usage: ${program.name} COMMAND …\n\n${below}\n${program.name} help COMMAND says more\n`;
  }
  const names = Object.keys(program.commands);
  const width = longestOf(names) + 2;
  return (
    `${program.name}: ${program.intro}\n\nUsage: ${program.name} COMMAND …\n\n${await summaries(program, names, width)}` +
    `  ${"help".padEnd(width)}${program.name} help COMMAND says more\n` +
    `  ${"--version".padEnd(width)}the version of this program\n\n${program.exitHelp}\n`
  );
}

async function summaries(program: Program, names: readonly string[], width: number): Promise<string> {
  const lines = await Promise.all(
    names.map(async (name) => `  ${name.padEnd(width)}${(await program.commands[name]?.())?.summary}\n`),
  );
  return lines.join("");
}

function longestOf(names: readonly string[]): number {
  return Math.max(...names.map((name) => name.length));
}

/** The commands of two words that begin with this one. */
function commandsBelow(program: Program, word: string): string[] {
  return Object.keys(program.commands).filter((name) => name.startsWith(`${word} `));
}

/** @param next what was typed after it: one of a group's commands that is misspelt, most likely */
function unknownCommand(program: Program, word: string, next?: string): CommandError {
  const group = commandsBelow(program, word);
  const isAlone = next === undefined || next.startsWith("-");
  const got = group.length === 0 ? word : isAlone ? `${word} alone` : `${word} ${next}`;
  return usageError(program.name, `the command ${got}${group.length > 0 ? `; there are ${group.join(", ")}` : ""}`);
}

function print(text: string): number {
  process.stdout.write(text);
  return exit.ok;
}

/** What the commands of ecp-node have in common: exit statuses, options, errors as a person wants them. */
import { type ParseArgsConfig, parseArgs } from "node:util";
import { NodeError, type NodeErrorCode, type NodeErrorText, systemCode } from "../fullnode/node-error.ts";

/** Some of sysexits.h. */
export const exit = {
  ok: 0,
  failed: 1,
  unknown: 2,
  usage: 64,
  noInput: 66,
  unavailable: 69,
  cannotCreate: 73,
  notPermitted: 77,
} as const;

export const exitHelp = `Exit status
   0  done
   1  refused, or failed
   2  the device or key is not known
  64  wrong usage
  66  an input file is missing
  69  a service or port is not available
  73  an output file cannot be made, or is there already
  77  permission denied`;

/** Ends a command with a message for people and an exit status. */
export class CommandError extends Error {
  readonly status: number;
  readonly text: NodeErrorText;

  constructor(status: number, text: NodeErrorText) {
    super(text.got);
    this.name = "CommandError";
    this.status = status;
    this.text = text;
  }
}

export interface NodeCommand {
  readonly summary: string;
  readonly usage: string;
  run(args: readonly string[]): Promise<number>;
}

export const dataOption = { data: { type: "string" } } as const;

/** parseArgs, strict, with errors that name the command. */
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
    throw usageError(command, (error as Error).message);
  }
  const given = parsed.positionals.length;
  if (given !== positionals.length)
    throw usageError(
      command,
      given > positionals.length
        ? `one argument too many: ${parsed.positionals[positionals.length]}`
        : `${positionals[given]} is missing`,
    );
  return parsed;
}

export function usageError(command: string, got: string): CommandError {
  return new CommandError(exit.usage, {
    expected: `the usage of ecp-node ${command}`,
    got,
    where: "the command line",
    todo: `ecp-node help ${command}`.trimEnd(),
  });
}

/** The data folder, which every command must be told: guessing one could mix two nodes up. */
export function requireData(command: string, data: string | undefined): string {
  if (data === undefined || data === "") throw usageError(command, "--data DIR is missing");
  return data;
}

const statusOfCode: Record<NodeErrorCode, number> = {
  "data-missing": exit.noInput,
  "data-exists": exit.cannotCreate,
  "data-in-use": exit.unavailable,
  "data-not-writable": exit.notPermitted,
  "key-missing": exit.noInput,
  "key-permissions": exit.notPermitted,
  "key-damaged": exit.failed,
  "store-damaged": exit.failed,
  "store-newer": exit.failed,
  "address-in-use": exit.unavailable,
  "address-not-available": exit.unavailable,
  "address-not-permitted": exit.notPermitted,
};

/** What to print and with which status to end, for an error that a person can mend; undefined for a programmer's error. */
export function explain(error: unknown): { status: number; text: NodeErrorText } | undefined {
  if (error instanceof CommandError) return { status: error.status, text: error.text };
  if (error instanceof NodeError) return { status: statusOfCode[error.code], text: error.text };
  const code = systemCode(error);
  const message = error instanceof Error ? error.message : `${error}`;
  if (code === "EACCES" || code === "EPERM" || code === "EROFS")
    return {
      status: exit.notPermitted,
      text: {
        expected: "a place that this user may use",
        got: message,
        where: "the file system",
        todo: "run as the user that owns it, or choose another place",
      },
    };
  if (code === "ENOSPC")
    return {
      status: exit.failed,
      text: {
        expected: "room on the disk",
        got: message,
        where: "the file system",
        todo: "free some space and try again",
      },
    };
  return undefined;
}

export function formatError({ expected, got, where, todo }: NodeErrorText): string {
  return `expected: ${expected}\n     got: ${got}\n   where: ${where}\n   to do: ${todo}\n`;
}

/** What the commands of ecp-wallet have in common: options, exit codes, the wallet's files, errors as a person wants them. */
import { readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { type ParseArgsConfig, parseArgs } from "node:util";
import { Refusal } from "../protocol/refusal.ts";
import { JournalError, JournalWriteError } from "../wallet/journal-ring.ts";
import { WrongPassphrase } from "../wallet/keystore.ts";
import { SocketError } from "../wallet/server.ts";
import { TpmError } from "../wallet/tpm-counter.ts";
import { PassphraseError, PassphrasesDiffer } from "./ecp-wallet-passphrase.ts";

export const exitCodes = {
  usage: 64,
  data: 65,
  missing: 66,
  unavailable: 69,
  exists: 73,
  io: 74,
  permission: 77,
} as const;

/** An error that a person can mend: printed without a stack, with its exit code. */
export class CommandError extends Error {
  readonly exitCode: number;
  constructor(exitCode: number, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** One command: takes what stands behind its name. */
export type WalletCommand = (args: readonly string[]) => Promise<void>;

/** parseArgs, strict, with `--data`, which every command needs, as an absolute path. */
export function parseOptions<T extends NonNullable<ParseArgsConfig["options"]>>(
  command: string,
  args: readonly string[],
  options: T,
) {
  const all = { data: { type: "string" }, ...options } as const;
  let parsed: ReturnType<
    typeof parseArgs<{ args: string[]; options: typeof all; allowPositionals: true; strict: true }>
  >;
  try {
    parsed = parseArgs({ args: [...args], options: all, allowPositionals: true, strict: true });
  } catch (error) {
    throw new CommandError(exitCodes.usage, `${(error as Error).message}\nSee: ecp-wallet --help`);
  }
  const [tooMany] = parsed.positionals;
  if (tooMany !== undefined)
    throw new CommandError(exitCodes.usage, `'${tooMany}' is one argument too many for ${command}`);
  const { data } = parsed.values as { data?: string };
  if (data === undefined)
    throw new CommandError(exitCodes.usage, `${command} needs --data DIR, the wallet's own folder`);
  return { ...parsed.values, data: resolve(data) };
}

export interface WalletFiles {
  readonly key: string;
  /** The key that a rotation makes, until the journal says that it is the device's. */
  readonly nextKey: string;
  readonly tries: string;
  readonly journal: string;
  readonly policy: string;
  readonly lock: string;
}

/** The wallet's files in its own folder. */
export function walletFiles(data: string): WalletFiles {
  return {
    key: join(data, "device.key"),
    nextKey: join(data, "device.key.next"),
    tries: join(data, "passphrase.tries"),
    journal: join(data, "journal"),
    policy: join(data, "policy.cbor"),
    lock: "wallet.lock", // relative to the folder, so that the folder's path may be longer than a socket's can be
  };
}

/** A file that must be there. */
export function readNeeded(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT")
      throw new CommandError(
        exitCodes.missing,
        `${path} is not there; 'ecp-wallet init --data ${dirname(path)}' makes a wallet`,
      );
    throw new CommandError(exitCodes.permission, `cannot read ${path}: ${message}`);
  }
}

/** A file of the wallet's is not what it should be; the message says which. */
export class DamagedFile extends Error {
  constructor(path: string, reason: string, todo: string) {
    super(`${path} cannot be used: ${reason}; ${todo}`);
    this.name = "DamagedFile";
  }
}

/** What `read` makes of a file; its refusal becomes a {@link DamagedFile}. */
export function understood<T>(path: string, todo: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof Refusal) throw new DamagedFile(path, error.message, todo);
    throw error;
  }
}

export const keyTodo = "put its backup back";
export const journalTodo = "its commits are whole, so other software wrote them: run the version that did";
export const policyTodo = "'ecp config apply' writes it anew, 'ecp pin' pins the full node again";

export function exitCodeOf(error: unknown): number {
  if (error instanceof CommandError) return error.exitCode;
  if (error instanceof PassphraseError || error instanceof WrongPassphrase) return exitCodes.permission;
  if (error instanceof PassphrasesDiffer) return exitCodes.usage;
  if (error instanceof TpmError) return exitCodes.unavailable;
  if (error instanceof SocketError) return exitCodes.unavailable;
  if (error instanceof JournalWriteError) return exitCodes.io;
  if (error instanceof JournalError || error instanceof DamagedFile) return exitCodes.data;
  const { code } = error as NodeJS.ErrnoException;
  if (code === "EACCES" || code === "EPERM" || code === "ERR_ACCESS_DENIED") return exitCodes.permission;
  return exitCodes.io;
}

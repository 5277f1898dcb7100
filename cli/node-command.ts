/** What the commands of ecp-node have in common: its exit statuses, the data folder, the node's errors. */
import { NodeError, type NodeErrorCode } from "../fullnode/node-error.ts";
import { CommandError, exit, usageError } from "./command.ts";

export const nodeExitHelp = `Exit status
   0  done
   1  refused, or failed
   2  the device or key is not known
  64  wrong usage
  65  damaged data
  66  an input file is missing
  69  a service or port is not available
  73  an output file cannot be made, or is there already
  74  the disk is full
  77  permission denied`;

export const dataOption = { data: { type: "string" } } as const;

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
  "store-away": exit.unavailable,
  "backup-damaged": exit.badData,
  "store-refused": exit.notPermitted,
  "store-not-durable": exit.failed,
  "address-in-use": exit.unavailable,
  "address-not-available": exit.unavailable,
  "address-not-permitted": exit.notPermitted,
};

export function explainNodeError(error: unknown): CommandError | undefined {
  return error instanceof NodeError ? new CommandError(statusOfCode[error.code], error.text) : undefined;
}

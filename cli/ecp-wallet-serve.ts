/** Serving: opens key and journal, answers at the socket, ends when a write has failed. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "../platform/clock.ts";
import { createLog } from "../platform/log.ts";
import { version } from "../platform/version.ts";
import { didKeyOf } from "../protocol/public-key.ts";
import { Refusal } from "../protocol/refusal.ts";
import { timesyncMark } from "../wallet/clock-state.ts";
import { Journal } from "../wallet/journal.ts";
import { deviceKeyOf, unlockSeed } from "../wallet/keystore.ts";
import { decodePolicy } from "../wallet/policy.ts";
import { lockFolder, serveWallet } from "../wallet/server.ts";
import { Wallet } from "../wallet/wallet.ts";

/** The wallet's files in its own folder. */
export function walletFiles(data: string): { key: string; journal: string; policy: string; lock: string } {
  return {
    key: join(data, "device.key"),
    journal: join(data, "journal"),
    policy: join(data, "policy.cbor"),
    lock: "wallet.lock", // relative to the folder, so that the folder's path may be longer than a socket's can be
  };
}

/**
 * Node's flags for the wallet: no file but its own, no child process, worker, addon or inspector, no JIT (so that the unit
 * can forbid writable executable memory), a small heap.
 */
export function walletNodeFlags(paths: {
  program: string;
  data: string;
  socket: string;
  readable: readonly string[];
}): string[] {
  const readable = [paths.program, paths.data, timesyncMark, paths.socket, ...paths.readable];
  return [
    "--permission",
    ...readable.map((path) => `--allow-fs-read=${path}`),
    `--allow-fs-write=${paths.data}`,
    `--allow-fs-write=${paths.socket}`,
    "--jitless",
    "--disable-sigusr1",
    "--frozen-intrinsics",
    "--no-experimental-sqlite",
    "--disable-warning=ExperimentalWarning",
    "--max-old-space-size=32",
    "--max-semi-space-size=1",
  ];
}

export interface ServeOptions {
  readonly data: string;
  /** Content of the key file. */
  readonly key: Uint8Array;
  /** Wiped once the key is open. */
  readonly passphrase: Buffer;
  readonly socket: string;
  readonly socketMode: number;
  readonly exitWithParent: boolean;
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
const journalTodo = "its commits are whole, so other software wrote them: run the version that did";
const policyTodo = "'ecp config apply' writes it anew, 'ecp pin' pins the full node again";

const writeFailedExitCode = 74;
/** Between two steps of the check of the ring, so that it delays no request by more than one step. */
const checkEveryMs = 100;

export async function serve(options: ServeOptions): Promise<void> {
  const log = createLog("wallet");
  const files = walletFiles(options.data);
  const fail = (error: unknown): void => {
    // After a failed write nobody knows what is on disk: only a new start, which reads it, may go on.
    log.error("cannot go on; ending, a new start recovers", { reason: (error as Error).message });
    process.exit(writeFailedExitCode);
  };
  const lock = await lockFolder(files.lock);
  const seed = understood(files.key, keyTodo, () => unlockSeed(options.key, options.passphrase, files.key));
  options.passphrase.fill(0);
  const program = readFileSync(process.argv[1] as string);
  const softwareId = `ecp-wallet/${version}+${createHash("sha256").update(program).digest("hex").slice(0, 8)}`;
  const wallet = new Wallet({
    journal: understood(files.journal, journalTodo, () => new Journal(files.journal)),
    policy: understood(files.policy, policyTodo, () => decodePolicy(readFileSync(files.policy))),
    key: deviceKeyOf(seed),
    clock: systemClock,
    softwareId,
    isolation: {
      permission: process.permission !== undefined,
      jitless: process.execArgv.includes("--jitless"),
      uid: process.getuid?.() ?? 0,
    },
  });
  const server = await serveWallet(options.socket, options.socketMode, (message) => wallet.answer(message), log, fail);
  const { publicKey, epoch, nextSequence, through } = wallet.hello();
  log.info("ready", { device: didKeyOf(publicKey), epoch, nextSequence, through, softwareId, socket: options.socket });
  const end = (): void => {
    seed.fill(0);
    Promise.all([server.close(), lock.close()]).then(
      () => process.exit(0),
      () => process.exit(0),
    );
  };
  const checking = setInterval(() => {
    try {
      const holes = wallet.checkNext();
      if (holes === undefined) clearInterval(checking);
      for (const { segment, firstCommit, lastCommit } of holes ?? [])
        log.error("records of the journal are damaged", { segment, firstCommit, lastCommit });
    } catch (error) {
      fail(error);
    }
  }, checkEveryMs).unref();
  process.once("SIGTERM", end);
  process.once("SIGINT", end);
  if (options.exitWithParent) process.stdin.resume().once("end", end).once("close", end);
}

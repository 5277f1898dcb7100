/** Serving: opens key and journal, answers at the socket, ends when a write has failed. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { systemClock } from "../platform/clock.ts";
import { createLog } from "../platform/log.ts";
import { version } from "../platform/version.ts";
import { didKeyOf } from "../protocol/public-key.ts";
import { Journal } from "../wallet/journal.ts";
import { deviceKeyOf, unlockSeed } from "../wallet/keystore.ts";
import { decodePolicy } from "../wallet/policy.ts";
import { lockFolder, serveWallet } from "../wallet/server.ts";
import { Wallet } from "../wallet/wallet.ts";
import { exitCodes, keyTodo, understood, walletFiles } from "./ecp-wallet-command.ts";

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

const journalTodo = "its commits are whole, so other software wrote them: run the version that did";
const policyTodo = "'ecp config apply' writes it anew, 'ecp pin' pins the full node again";

/** Between two steps of the check of the ring, so that it delays no request by more than one step. */
const checkEveryMs = 100;

export async function serve(options: ServeOptions): Promise<void> {
  const log = createLog("wallet");
  const files = walletFiles(options.data);
  const fail = (error: unknown): void => {
    // After a failed write nobody knows what is on disk: only a new start, which reads it, may go on.
    log.error("cannot go on; ending, a new start recovers", { reason: (error as Error).message });
    process.exit(exitCodes.io);
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

/** Serving: opens key and journal, answers at the socket, ends when a write has failed. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { systemClock } from "../platform/clock.ts";
import { createLog } from "../platform/log.ts";
import { version } from "../platform/version.ts";
import { didKeyOf } from "../protocol/public-key.ts";
import { Journal } from "../wallet/journal.ts";
import { deviceKeyOf } from "../wallet/keystore.ts";
import { decodePolicy } from "../wallet/policy.ts";
import { type ListenAt, lockFolder, serveWallet } from "../wallet/server.ts";
import { Wallet } from "../wallet/wallet.ts";
import { exitCodes, understood, walletFiles } from "./ecp-wallet-command.ts";
import { type KeyConsent, openKey } from "./ecp-wallet-key.ts";

export interface ServeOptions {
  readonly data: string;
  readonly consent: KeyConsent;
  readonly listenAt: ListenAt;
  readonly exitWithParent: boolean;
  /** Names this boot of the machine, 16 bytes. */
  readonly bootId?: Uint8Array;
  /** Folder that the time daemons' marks lie under instead of "/". */
  readonly timeMarks?: string;
}

const journalTodo = "its commits are whole, so other software wrote them: run the version that did";
const policyTodo = "'ecp config apply' writes it anew, 'ecp pin' pins the full node again";

/** Between two steps of the check of the ring, so that it delays no request by more than one step. */
const checkEveryMs = 100;
/** Between two looks at the clock where nobody asks for anything. */
const tickEveryMs = 5_000;

export async function serve(options: ServeOptions): Promise<void> {
  const log = createLog("wallet");
  const files = walletFiles(options.data);
  const fail = (error: unknown): void => {
    // After a failed write nobody knows what is on disk: only a new start, which reads it, may go on.
    log.error("cannot go on; ending, a new start recovers", { reason: (error as Error).message });
    process.exit(exitCodes.io);
  };
  const lock = await lockFolder(files.lock);
  const stopping = new AbortController();
  /** In order: first what answers, then the lock. */
  const endings: (() => unknown)[] = [() => lock.close()];
  const end = (): void => {
    stopping.abort();
    (async () => {
      for (const ending of endings.reverse()) await ending();
    })().then(
      () => process.exit(0),
      () => process.exit(0),
    );
  };
  process.once("SIGTERM", end);
  process.once("SIGINT", end);
  if (options.exitWithParent) process.stdin.resume().once("end", end).once("close", end);
  const opened = await openKey(files.key, files.tries, options.consent, stopping.signal).catch((error: unknown) => {
    if (!stopping.signal.aborted) throw error;
    return undefined;
  });
  if (opened === undefined) return;
  const { seed, file } = opened;
  opened.passphrase?.fill(0);
  endings.push(() => seed.fill(0));
  const program = readFileSync(process.argv[1] as string);
  const softwareId = `ecp-wallet/${version}+${createHash("sha256").update(program).digest("hex").slice(0, 8)}`;
  const wallet = new Wallet({
    journal: understood(files.journal, journalTodo, () => new Journal(files.journal)),
    policy: understood(files.policy, policyTodo, () => decodePolicy(readFileSync(files.policy))),
    key: deviceKeyOf(seed),
    ...(file.rotations.length > 0 && { rotated: { nameKey: file.nameKey, records: file.rotations } }),
    keyProtection: file.protection === "none" ? "none" : "passphrase",
    clock: systemClock,
    softwareId,
    ...(options.bootId && { bootId: options.bootId }),
    ...(options.timeMarks !== undefined && { timeMarks: options.timeMarks }),
    isolation: {
      permission: process.permission !== undefined,
      jitless: process.execArgv.includes("--jitless"),
      uid: process.getuid?.() ?? 0,
    },
  });
  const unlessFailing = (step: () => void) => (): void => {
    try {
      step();
    } catch (error) {
      fail(error);
    }
  };
  endings.push(unlessFailing(() => wallet.stop()));
  const server = await serveWallet(options.listenAt, (message) => wallet.answer(message), log, fail);
  endings.push(() => server.close());
  const { nameKey, epoch, nextSequence, through } = wallet.hello();
  const socket = "path" in options.listenAt ? options.listenAt.path : `descriptor ${options.listenAt.descriptor}`;
  log.info("ready", { device: didKeyOf(nameKey), epoch, nextSequence, through, softwareId, socket });
  if (file.protection === "none") log.warn("the key is not protected: whoever reads device.key has it (--insecure)");
  const check = unlessFailing(() => {
    const holes = wallet.checkNext();
    if (holes === undefined) clearInterval(checking);
    for (const { segment, firstCommit, lastCommit } of holes ?? [])
      log.error("records of the journal are damaged", { segment, firstCommit, lastCommit });
  });
  const checking = setInterval(check, checkEveryMs).unref();
  setInterval(
    unlessFailing(() => wallet.tick()),
    tickEveryMs,
  ).unref();
}

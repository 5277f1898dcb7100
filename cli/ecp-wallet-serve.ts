/** Serving: opens key and journal, answers at the socket, ends when a write has failed. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { systemClock } from "../platform/clock.ts";
import { replaceFileSynced } from "../platform/durable-file.ts";
import { createLog } from "../platform/log.ts";
import { version } from "../platform/version.ts";
import { didKeyOf } from "../protocol/public-key.ts";
import { epochReasons, eventCodes, type RecordEvent } from "../protocol/record.ts";
import { ClockState } from "../wallet/clock-state.ts";
import type { Journal } from "../wallet/journal.ts";
import { nextEventRecord } from "../wallet/key-succession.ts";
import { type DeviceKey, deviceKeyOf, retiredDeviceKey, retiredKey } from "../wallet/keystore.ts";
import { decodePolicy } from "../wallet/policy.ts";
import { type ListenAt, lockFolder, serveWallet } from "../wallet/server.ts";
import { TpmCounter, TpmError } from "../wallet/tpm-counter.ts";
import { Wallet } from "../wallet/wallet.ts";
import { type ChosenKey, chooseKey, newEpoch, openJournal, settleKey } from "./ecp-wallet-chain.ts";
import {
  CommandError,
  exitCodes,
  policyTodo,
  understood,
  type WalletFiles,
  walletFiles,
} from "./ecp-wallet-command.ts";
import { type KeyConsent, openKey } from "./ecp-wallet-key.ts";
import { raiseCounter, startCounter, type TpmPlace } from "./ecp-wallet-tpm.ts";

export interface ServeOptions {
  readonly data: string;
  readonly consent: KeyConsent;
  readonly listenAt: ListenAt;
  readonly exitWithParent: boolean;
  readonly tpm: TpmPlace | undefined;
  /** Go on in a new epoch where the journal is older than the TPM has seen. */
  readonly acceptOlderCard: boolean;
  /** Names this boot of the machine, 16 bytes. */
  readonly bootId?: Uint8Array;
  /** Folder that the time daemons' marks lie under instead of "/". */
  readonly timeMarks?: string;
}

/** Between two steps of the check of the ring, so that it delays no request by more than one step. */
const checkEveryMs = 100;
/** Between two looks at the clock where nobody asks for anything. */
const tickEveryMs = 5_000;

/** Between two raises of the TPM's counter: so much of a card's newest records an image of it may lack unseen. */
const raiseEveryMs = 3_600_000;

export async function serve(options: ServeOptions): Promise<void> {
  // Each request would take a little of a common piece of 8 KiB, which outlives the collector's first rounds by that and lies about.
  Buffer.poolSize = 0;
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
  const journal = openJournal(files);
  const chosen = settleKey(files, chooseKey(files, journal));
  const retired = chosen.retired || chosen.file.protection === "retired";
  const opened = await openForServing(files, chosen, retired, options.consent, stopping.signal);
  if (opened === undefined) return;
  const { file } = chosen;
  const { key } = opened;
  endings.push(opened.wipe);
  const tpm = options.tpm && !retired ? new TpmCounter(options.tpm.path, options.tpm.index) : undefined;
  const counter = retired ? {} : await startCounter(journal, tpm);
  if (counter.refused !== undefined && !options.acceptOlderCard)
    throw new CommandError(exitCodes.data, counter.refused);
  if (chosen.rotated) journal.beginEpoch(chosen.rotated.nextEpoch);
  if (counter.refused !== undefined) {
    log.warn("going on in a new epoch, which full nodes hold until their operator agrees", { reason: counter.refused });
    beginAfterOlderCard(journal, key, counter.next === undefined);
  }
  const program = readFileSync(process.argv[1] as string);
  const softwareId = `ecp-wallet/${version}+${createHash("sha256").update(program).digest("hex").slice(0, 8)}`;
  const wallet = new Wallet({
    journal,
    policy: understood(files.policy, policyTodo, () => decodePolicy(readFileSync(files.policy))),
    key,
    retired,
    ...(file.rotations.length > 0 && { rotated: { nameKey: file.nameKey, records: file.rotations } }),
    keyProtection: file.protection === "none" ? "none" : "passphrase",
    clock: systemClock,
    softwareId,
    ...(counter.next !== undefined && { counter: counter.next }),
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
  if (tpm) {
    // What the start has sealed, if the ring had room for it.
    if (journal.counter === counter.next) await tpm.increment();
    const raise = (): Promise<void> =>
      raiseCounter(journal, tpm, (value) => wallet.sealCounter(value)).catch((error: unknown) => {
        if (!(error instanceof TpmError)) fail(error);
        log.error("the TPM does not count; a card that is put back from an image may not show", {
          reason: (error as Error).message,
        });
      });
    // An image that was taken while the wallet ran is older than this, too.
    endings.push(raise);
    setInterval(raise, raiseEveryMs).unref();
  }
  const server = await serveWallet(options.listenAt, (message) => wallet.answer(message), log, fail);
  endings.push(() => server.close());
  const { nameKey, epoch, nextSequence, through } = wallet.hello();
  const socket = "path" in options.listenAt ? options.listenAt.path : `descriptor ${options.listenAt.descriptor}`;
  log.info("ready", { device: didKeyOf(nameKey), epoch, nextSequence, through, softwareId, socket });
  if (retired) log.warn("the key is retired: nothing more is sealed");
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

/** Nothing is sealed in the epoch of an older card: its sequences were used by the newer one. */
function beginAfterOlderCard(journal: Journal, key: DeviceKey, withoutTpm: boolean): void {
  const { epoch: before, nextSequence, lastDigest } = journal;
  const last = nextSequence - 1;
  journal.beginEpoch(newEpoch(journal.epochs.map(({ epoch }) => epoch)));
  const { lost } = journal;
  if (lost) journal.skipTo(lost.last + 1);
  const now = { clock: systemClock, clockState: new ClockState({ clock: systemClock }).state() };
  const events: RecordEvent[] = [[eventCodes.epochBegun, epochReasons.olderCard, before, last, lastDigest]];
  if (lost) events.push([eventCodes.void, lost.first, lost.last]);
  if (withoutTpm) events.push([eventCodes.counterRaised, 0]);
  journal.append([nextEventRecord(journal, key, now, () => events)]); // point of no return
}

interface ServingKey {
  readonly key: DeviceKey;
  readonly wipe: () => void;
}

/** The key to serve with; undefined where the wallet was told to stop meanwhile. */
async function openForServing(
  files: WalletFiles,
  { file, path }: ChosenKey,
  retired: boolean,
  consent: KeyConsent,
  signal: AbortSignal,
): Promise<ServingKey | undefined> {
  if (retired) {
    // A retirement that was cut short behind its record.
    if (file.protection !== "retired") replaceFileSynced(path, retiredKey(file.publicKey, file), 0o600);
    return { key: retiredDeviceKey(file.publicKey), wipe: () => undefined };
  }
  try {
    const { seed, passphrase } = await openKey(path, files.tries, consent, signal);
    passphrase?.fill(0);
    return { key: deviceKeyOf(seed), wipe: () => seed.fill(0) };
  } catch (error) {
    if (signal.aborted) return undefined;
    throw error;
  }
}

/** ecp-wallet backup and restore: the key and what is known of its chain, under a passphrase of the backup's own. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { systemClock } from "../platform/clock.ts";
import { makeFolders, syncFolder, writeFileDurably } from "../platform/durable-file.ts";
import { didKeyOf } from "../protocol/public-key.ts";
import { epochReasons, eventCodes } from "../protocol/record.ts";
import { ClockState } from "../wallet/clock-state.ts";
import { Journal } from "../wallet/journal.ts";
import { nextEventRecord } from "../wallet/key-succession.ts";
import {
  calibrateCost,
  deviceKeyOf,
  type KeyFile,
  type KeyHistory,
  lockSeed,
  plainSeed,
  readKeyFile,
  unlockSeed,
} from "../wallet/keystore.ts";
import { PassphraseTries } from "../wallet/passphrase-tries.ts";
import { emptyPolicy, encodePolicy } from "../wallet/policy.ts";
import { chooseKey, newEpoch, openJournal, prepareTries } from "./ecp-wallet-chain.ts";
import {
  CommandError,
  exitCodes,
  parseOptions,
  readNeeded,
  understood,
  type WalletCommand,
  walletFiles,
} from "./ecp-wallet-command.ts";
import { segmentsOf } from "./ecp-wallet-init.ts";
import { consentOf, keyOptions, openKey } from "./ecp-wallet-key.ts";
import { type PassphraseSource, readNewPassphrase, readPassphrase, sourceOf } from "./ecp-wallet-passphrase.ts";
import { originOf, tpmOptions } from "./ecp-wallet-tpm.ts";

const backupOptions = {
  ...keyOptions,
  "backup-passphrase-file": { type: "string" },
  "backup-passphrase-fd": { type: "string" },
} as const;

/** Reads the journal without its lock: a wallet that runs goes on meanwhile. */
export const backup: WalletCommand = async (args) => {
  const values = parseOptions("backup", args, { ...backupOptions, output: { type: "string" } });
  const output = neededPath("backup", "--output FILE, where the backup goes", values.output);
  const files = walletFiles(values.data);
  const consent = consentOf(values);
  readNeeded(files.key);
  if (existsSync(output))
    throw new CommandError(exitCodes.exists, `${output} is there already; it was left as it is: name another file`);
  if (!statSync(dirname(output), { throwIfNoEntry: false })?.isDirectory())
    throw new CommandError(exitCodes.missing, `${dirname(output)} is no folder; make it, or name another --output`);
  prepareTries(files);
  const journal = openJournal(files);
  const { path, file } = chooseKey(files, journal);
  const history = historyOf(journal);
  journal.close();
  const opened = await openKey(path, files.tries, consent);
  opened.passphrase?.fill(0);
  try {
    const source = sourceOf(values["backup-passphrase-file"], values["backup-passphrase-fd"]);
    const passphrase = await readNewPassphrase(source, "Passphrase for the backup: ");
    const bytes = lockSeed(opened.seed, passphrase, calibrateCost(), { lineage: file, history });
    passphrase.fill(0);
    writeFileDurably(output, bytes, 0o600);
  } finally {
    opened.seed.fill(0);
  }
  process.stdout.write(`${didKeyOf(file.nameKey)}
  backup   ${output}, as of record ${history.lastSequence} of epoch ${history.epoch}
  keep it  on another medium, away from its passphrase; the policy is not in it: hub.yaml and 'ecp pin' make that anew
`);
};

function historyOf(journal: Journal): KeyHistory {
  const { epoch, lastDigest, generation, receipt } = journal;
  const lastSequence = journal.nextSequence - 1;
  return { epoch, lastSequence, lastDigest, generation, ...(receipt && { receipt }) };
}

export const restore: WalletCommand = async (args) => {
  const values = parseOptions("restore", args, {
    ...backupOptions,
    ...tpmOptions,
    from: { type: "string" },
    segments: { type: "string" },
  });
  const from = neededPath("restore", "--from FILE, a backup", values.from);
  const { data } = values;
  const segments = segmentsOf(values.segments);
  const { source, insecure } = consentOf(values);
  checkNew(data);
  const bytes = readBackup(from);
  const file = understood(from, "take another copy of it", () => readKeyFile(bytes));
  if (file.protection === "retired") throw new CommandError(exitCodes.usage, `the key in ${from} is retired`);
  const seed = await openBackup(
    bytes,
    file,
    from,
    sourceOf(values["backup-passphrase-file"], values["backup-passphrase-fd"]),
  );
  try {
    const passphrase = insecure ? undefined : await readNewPassphrase(source, "New passphrase for the device key: ");
    const key = passphrase
      ? lockSeed(seed, passphrase, calibrateCost(), { lineage: file })
      : plainSeed(seed, { lineage: file });
    passphrase?.fill(0);
    const epoch = makeRestored(data, { key, seed, segments }, file.history, await originOf(values));
    process.stdout.write(`${didKeyOf(file.nameKey)}
  restored in ${data}, from ${from}
  epoch    ${epoch}: full nodes store it and book nothing of it until their operator agrees:
           ecp-node epoch accept ${didKeyOf(file.nameKey)} ${epoch} --data DIR
  next     'ecp config apply' and 'ecp pin' make its policy anew; never run it beside the wallet that it was taken from
`);
  } finally {
    seed.fill(0);
  }
};

function neededPath(command: string, what: string, path: string | undefined): string {
  if (path === undefined) throw new CommandError(exitCodes.usage, `${command} needs ${what}`);
  return resolve(path);
}

/** A restore never touches what is there: not a wallet that may run, nor a journal that may hold what nobody else has. */
function checkNew(data: string): void {
  const there = statSync(data, { throwIfNoEntry: false });
  if (there === undefined || (there.isDirectory() && readdirSync(data).length === 0)) return;
  throw new CommandError(
    exitCodes.exists,
    `${data} is there already and was left as it is; restore into a new folder, and keep the old one until all of it is acknowledged`,
  );
}

function readBackup(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") throw new CommandError(exitCodes.missing, `${path} is not there; name a backup`);
    throw new CommandError(
      code === "EISDIR" ? exitCodes.missing : exitCodes.permission,
      `cannot read ${path}: ${message}`,
    );
  }
}

async function openBackup(bytes: Uint8Array, file: KeyFile, path: string, source: PassphraseSource): Promise<Buffer> {
  const passphrase =
    file.protection === "none" ? undefined : await readPassphrase(source, "Passphrase of the backup: ");
  try {
    return understood(path, "take another copy of it", () => unlockSeed(bytes, passphrase, path));
  } finally {
    passphrase?.fill(0);
  }
}

/** Everything is made beside the folder and comes into its place whole. Gives the epoch. */
function makeRestored(
  data: string,
  { key, seed, segments }: { readonly key: Uint8Array; readonly seed: Uint8Array; readonly segments: number },
  history: KeyHistory | undefined,
  origin: { readonly counter?: number },
): number {
  const parent = dirname(data);
  try {
    makeFolders(parent, 0o755);
  } catch (error) {
    throw new CommandError(
      exitCodes.exists,
      `${parent} cannot be made: ${(error as Error).message}; choose another --data`,
    );
  }
  const aside = mkdtempSync(join(parent, `${basename(data)}.restore-`));
  try {
    const files = walletFiles(aside);
    // A copy of device.key tells of no history: then the epoch before is not known.
    const { epoch: before = 0, lastSequence = 0, lastDigest = new Uint8Array(32), generation = 0 } = history ?? {};
    const epoch = newEpoch([before]);
    Journal.create(files.journal, epoch, segments, undefined, { generation, lastDigest, ...origin });
    const journal = new Journal(files.journal);
    const now = { clock: systemClock, clockState: new ClockState({ clock: systemClock }).state() };
    const record = nextEventRecord(journal, deviceKeyOf(seed), now, () => [
      [eventCodes.epochBegun, epochReasons.restored, before, lastSequence, lastDigest],
    ]);
    journal.append([record]);
    journal.close();
    writeFileDurably(files.policy, encodePolicy(emptyPolicy), 0o600);
    PassphraseTries.prepare(files.tries);
    writeFileDurably(files.key, key, 0o600);
    renameSync(aside, data);
    syncFolder(parent);
    return epoch;
  } catch (error) {
    rmSync(aside, { recursive: true, force: true });
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOTEMPTY" || code === "EEXIST" || code === "ENOTDIR")
      throw new CommandError(exitCodes.exists, `${data} is there already and was left as it is`);
    throw error;
  }
}

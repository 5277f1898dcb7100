/** A wallet's key and journal for a command that seals by itself, while no wallet runs on them. */
import { randomBytes, randomInt } from "node:crypto";
import { chownSync, existsSync, readFileSync, renameSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { systemClock } from "../platform/clock.ts";
import { syncFolder, writeFileDurably } from "../platform/durable-file.ts";
import { uint32Max } from "../protocol/field.ts";
import { kidOf } from "../protocol/public-key.ts";
import type { RecordEvent } from "../protocol/record.ts";
import { WalletRefusal } from "../protocol/wallet-message.ts";
import { Journal, type NewRecord } from "../wallet/journal.ts";
import { sha256 } from "../wallet/journal-segments.ts";
import { type KeyEnd, keyOfJournal, type NextPlace, nextEventRecord } from "../wallet/key-succession.ts";
import { type DeviceKey, deviceKeyOf, type KeyFile, readKeyFile } from "../wallet/keystore.ts";
import { PassphraseTries } from "../wallet/passphrase-tries.ts";
import { decodePolicy } from "../wallet/policy.ts";
import { Sealer } from "../wallet/sealing.ts";
import { lockFolder } from "../wallet/server.ts";
import { TpmCounter } from "../wallet/tpm-counter.ts";
import {
  CommandError,
  exitCodes,
  journalTodo,
  keyTodo,
  policyTodo,
  readNeeded,
  understood,
  type WalletFiles,
  walletFiles,
} from "./ecp-wallet-command.ts";
import { type KeyConsent, type OpenKey, openKey } from "./ecp-wallet-key.ts";
import { startCounter, type TpmPlace } from "./ecp-wallet-tpm.ts";

export function openJournal(files: WalletFiles): Journal {
  return understood(files.journal, journalTodo, () => new Journal(files.journal));
}

export interface ChosenKey extends KeyEnd {
  readonly path: string;
  readonly file: KeyFile;
}

/** The key file that the journal says is the device's: device.key, or the one of a rotation that was cut short behind its record. */
export function chooseKey(files: WalletFiles, journal: Journal): ChosenKey {
  const paths = [files.key, ...(existsSync(files.nextKey) ? [files.nextKey] : [])];
  const keys = paths.flatMap((path) => {
    const bytes = readNeeded(path);
    // What a rotation that was cut short left half written is none.
    if (path === files.nextKey) return readNext(bytes, path);
    return [{ path, ...understood(path, keyTodo, () => readKeyFile(bytes)) }];
  });
  const { key, ...end } = keyOfJournal(journal, keys);
  const { path, ...file } = key;
  return { path, file, ...end };
}

function readNext(bytes: Uint8Array, path: string): (KeyFile & { path: string })[] {
  try {
    return [{ path, ...readKeyFile(bytes) }];
  } catch {
    return [];
  }
}

/** Finishes a rotation that was cut short: the key that the journal chose takes its place. Its durability is not waited for: a start does it again. */
export function settleKey(files: WalletFiles, chosen: ChosenKey): ChosenKey {
  if (chosen.path === files.key) return chosen;
  renameSync(chosen.path, files.key);
  return { ...chosen, path: files.key };
}

/** Writes a file of the wallet's folder durably and leaves it to the folder's owner, whoever calls the command. */
export function writeOwned(path: string, bytes: Uint8Array): void {
  writeFileDurably(path, bytes, 0o600);
  giveToOwner(path);
}

function giveToOwner(path: string): void {
  const { uid, gid } = statSync(dirname(path));
  if (process.getuid?.() === 0 && uid !== 0) chownSync(path, uid, gid);
}

/** Makes the count of tries where it is missing, for the folder's owner. */
export function prepareTries(files: WalletFiles): void {
  if (existsSync(files.tries)) return;
  PassphraseTries.prepare(files.tries);
  giveToOwner(files.tries);
}

/** An epoch that this journal does not know. */
export function newEpoch(known: readonly number[]): number {
  for (;;) {
    const epoch = randomInt(1, uint32Max);
    if (!known.includes(epoch)) return epoch;
  }
}

export interface OpenChain extends OpenKey {
  readonly data: string;
  readonly files: WalletFiles;
  readonly journal: Journal;
  readonly key: DeviceKey;
  /** The next link of the chain, signed and not appended. */
  next(eventsAt: (place: NextPlace) => readonly RecordEvent[]): NewRecord;
  /** Appends it: point of no return. */
  append(record: NewRecord): void;
  /** Wipes what is secret and lets the folder go. */
  close(): Promise<void>;
}

/**
 * Takes the folder's lock, finishes what a rotation left, opens the key and seals what recovery asks for, so that the next
 * record is the last that this key needs to sign.
 */
export async function openChain(data: string, consent: KeyConsent, tpm?: TpmPlace): Promise<OpenChain> {
  const files = walletFiles(data);
  readNeeded(files.key);
  process.chdir(data);
  const lock = await lockFolder(files.lock);
  try {
    prepareTries(files);
    const journal = openJournal(files);
    const chosen = settleKey(files, chooseKey(files, journal));
    syncFolder(data);
    const { file } = chosen;
    if (chosen.retired || file.protection === "retired")
      throw new CommandError(exitCodes.usage, `the key in ${files.key} is retired: it signs nothing any more`);
    const opened = await openKey(files.key, files.tries, consent);
    const key = deviceKeyOf(opened.seed);
    const { refused } = await startCounter(journal, tpm && new TpmCounter(tpm.path, tpm.index));
    if (refused !== undefined) throw new CommandError(exitCodes.data, refused);
    if (chosen.rotated) journal.beginEpoch(chosen.rotated.nextEpoch);
    const policy = understood(files.policy, policyTodo, () => decodePolicy(readFileSync(files.policy)));
    const kid = kidOf(key.publicKey, sha256);
    // Nothing relative to the boot is sealed here: any name of it will do.
    const sealer = new Sealer({
      journal,
      policy,
      key,
      kid,
      clock: systemClock,
      bootId: new Uint8Array(randomBytes(16)),
    });
    sealer.begin([]);
    if (journal.lost || journal.pendingRows.length > 0) throw ringFull();
    const place = { clock: systemClock, clockState: sealer.clockState };
    return {
      ...opened,
      data,
      files,
      journal,
      key,
      next: (eventsAt) => nextEventRecord(journal, key, place, eventsAt),
      append: (record) => appendTo(journal, record),
      close: async () => {
        opened.seed.fill(0);
        opened.passphrase?.fill(0);
        journal.close();
        await lock.close();
      },
    };
  } catch (error) {
    await lock.close();
    throw error;
  }
}

function appendTo(journal: Journal, record: NewRecord): void {
  try {
    journal.append([record]); // point of no return
  } catch (error) {
    if (error instanceof WalletRefusal) throw ringFull();
    throw error;
  }
}

function ringFull(): CommandError {
  return new CommandError(
    exitCodes.unavailable,
    "the journal is full of records that no full node has acknowledged, and takes no more: nothing was changed; run the wallet until it has receipts, then try again",
  );
}

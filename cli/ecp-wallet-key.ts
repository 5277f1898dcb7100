/** From a key file to its seed: the passphrase, the wait after wrong ones, and the consent that a key without one needs. */
import { setTimeout as wait } from "node:timers/promises";
import { Refusal } from "../protocol/refusal.ts";
import { type KeyFile, readKeyFile } from "../wallet/keystore.ts";
import { PassphraseTries, type Pause, unlockWithDelay } from "../wallet/passphrase-tries.ts";
import { CommandError, DamagedFile, exitCodes, keyTodo, readNeeded, understood } from "./ecp-wallet-command.ts";
import { type PassphraseSource, passphraseOptions, readPassphrase, sourceOf } from "./ecp-wallet-passphrase.ts";

/** The options of every command that opens the key. */
export const keyOptions = { ...passphraseOptions, insecure: { type: "boolean" } } as const;

export interface KeyConsent {
  readonly source: PassphraseSource;
  /** The key may lie there without a passphrase. */
  readonly insecure: boolean;
}

export function consentOf(values: {
  readonly "passphrase-file"?: string | undefined;
  readonly "passphrase-fd"?: string | undefined;
  readonly insecure?: boolean | undefined;
}): KeyConsent {
  const source = sourceOf(values["passphrase-file"], values["passphrase-fd"]);
  const insecure = values.insecure === true;
  if (insecure && (source.file ?? source.descriptor) !== undefined)
    throw new CommandError(exitCodes.usage, "--insecure is for a key without a passphrase; give one of the two");
  return { source, insecure };
}

/** What the key file says of itself; one that is open to everybody needs `--insecure`, and one that is not must not have it. */
export function readKey(path: string, bytes: Uint8Array, consent: KeyConsent): KeyFile {
  const file = understood(path, keyTodo, () => readKeyFile(bytes));
  if (file.history !== undefined)
    throw new CommandError(
      exitCodes.data,
      `${path} is a backup, not a key; 'ecp-wallet restore --from' makes a wallet of it`,
    );
  if (file.protection === "none" && !consent.insecure)
    throw new CommandError(
      exitCodes.usage,
      `${path} has no passphrase, whoever reads it has the key; say --insecure if that is meant, or give it one: 'ecp-wallet rotate'`,
    );
  if (file.protection === "passphrase" && consent.insecure)
    throw new CommandError(exitCodes.usage, `${path} has a passphrase; leave --insecure away and give it`);
  return file;
}

/** Waits on the monotonic clock, and says so. */
function pauseAloud(signal?: AbortSignal): Pause {
  return async (seconds, why) => {
    process.stderr.write(`ecp-wallet: ${why}; the next try is in ${seconds} s\n`);
    await wait(seconds * 1_000, undefined, signal && { signal });
  };
}

export interface OpenKey {
  readonly file: KeyFile;
  /** Wiped by the caller. */
  readonly seed: Buffer;
  /** What opened it, wiped by the caller; absent where nothing was needed. */
  readonly passphrase: Buffer | undefined;
}

/** Asks for the passphrase, waits as wrong ones before it have earned, and opens the key. `signal` ends the wait. */
export async function openKey(
  path: string,
  triesPath: string,
  consent: KeyConsent,
  signal?: AbortSignal,
): Promise<OpenKey> {
  const bytes = readNeeded(path);
  const file = readKey(path, bytes, consent);
  if (file.protection === "retired")
    throw new CommandError(exitCodes.usage, `the key in ${path} is retired: there is nothing left that could sign`);
  const passphrase =
    file.protection === "none" ? undefined : await readPassphrase(consent.source, "Passphrase of the device key: ");
  try {
    const tries = new PassphraseTries(triesPath);
    return { file, passphrase, seed: await unlockWithDelay(bytes, passphrase, path, tries, pauseAloud(signal)) };
  } catch (error) {
    passphrase?.fill(0);
    if (error instanceof Refusal) throw new DamagedFile(path, error.message, keyTodo);
    throw error;
  }
}

/** ecp-wallet init: a new wallet's folder. */
import { chmodSync, existsSync } from "node:fs";
import { makeFolders, writeFileDurably } from "../platform/durable-file.ts";
import { didKeyOf } from "../protocol/public-key.ts";
import { Journal } from "../wallet/journal.ts";
import { segmentsDefault, segmentsMax, segmentsMin } from "../wallet/journal-ring.ts";
import { calibrateCost, lockSeed, newSeed, plainSeed, readKeyFile } from "../wallet/keystore.ts";
import { PassphraseTries } from "../wallet/passphrase-tries.ts";
import { emptyPolicy, encodePolicy } from "../wallet/policy.ts";
import { newEpoch } from "./ecp-wallet-chain.ts";
import { CommandError, exitCodes, parseOptions, type WalletCommand, walletFiles } from "./ecp-wallet-command.ts";
import { consentOf, keyOptions } from "./ecp-wallet-key.ts";
import { readNewPassphrase } from "./ecp-wallet-passphrase.ts";
import { originOf, tpmOptions } from "./ecp-wallet-tpm.ts";

export const init: WalletCommand = async (args) => {
  const values = parseOptions("init", args, { ...keyOptions, ...tpmOptions, segments: { type: "string" } });
  const { data } = values;
  const files = walletFiles(data);
  const segments = segmentsOf(values.segments);
  const { source, insecure } = consentOf(values);
  if (existsSync(files.key))
    throw new CommandError(exitCodes.exists, `${files.key} is there already; a device key is never overwritten`);
  const origin = await originOf(values);
  makeWalletFolder(data);
  const passphrase = insecure ? undefined : await readNewPassphrase(source, "New passphrase for the device key: ");
  if (!existsSync(files.journal)) Journal.create(files.journal, newEpoch([]), segments, undefined, origin);
  const seed = newSeed();
  const key = passphrase ? lockSeed(seed, passphrase, calibrateCost()) : plainSeed(seed);
  passphrase?.fill(0);
  PassphraseTries.prepare(files.tries);
  if (!existsSync(files.policy)) writeFileDurably(files.policy, encodePolicy(emptyPolicy), 0o600);
  // The key comes last: while it is missing, init can be run again.
  writeFileDurably(files.key, key, 0o600);
  seed.fill(0);
  if (insecure) process.stderr.write(`ecp-wallet: the key has no passphrase: whoever reads ${files.key} has it\n`);
  process.stdout.write(`${didKeyOf(readKeyFile(key).publicKey)}\n`);
};

function makeWalletFolder(data: string): void {
  try {
    makeFolders(data, 0o700);
    chmodSync(data, 0o700);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "EACCES" || code === "EPERM" || code === "EROFS" || code === "ENOSPC") throw error;
    throw new CommandError(
      exitCodes.exists,
      `a folder was expected at ${data}, and cannot be made: ${message}; choose another --data`,
    );
  }
}

export function segmentsOf(text: string | undefined): number {
  const segments = Number(text ?? segmentsDefault);
  if (Number.isInteger(segments) && segments >= segmentsMin && segments <= segmentsMax) return segments;
  throw new CommandError(
    exitCodes.usage,
    `--segments ${text}: an integer from ${segmentsMin} to ${segmentsMax} was expected`,
  );
}

/** ecp-wallet init: a new wallet's folder. */
import { randomInt } from "node:crypto";
import { chmodSync, existsSync, mkdirSync } from "node:fs";
import { writeFileDurably } from "../platform/durable-file.ts";
import { didKeyOf } from "../protocol/public-key.ts";
import { Journal } from "../wallet/journal.ts";
import { segmentsDefault, segmentsMax, segmentsMin } from "../wallet/journal-ring.ts";
import { calibrateCost, deviceKeyOf, lockSeed, newSeed } from "../wallet/keystore.ts";
import { emptyPolicy, encodePolicy } from "../wallet/policy.ts";
import { CommandError, exitCodes, parseOptions, type WalletCommand, walletFiles } from "./ecp-wallet-command.ts";
import { passphraseOptions, readNewPassphrase } from "./ecp-wallet-passphrase.ts";

export const init: WalletCommand = async (args) => {
  const values = parseOptions("init", args, { ...passphraseOptions, segments: { type: "string" } });
  const { data } = values;
  const files = walletFiles(data);
  const segments = segmentsOf(values.segments);
  if (existsSync(files.key))
    throw new CommandError(exitCodes.exists, `${files.key} is there already; a device key is never overwritten`);
  mkdirSync(data, { recursive: true, mode: 0o700 });
  chmodSync(data, 0o700);
  const source = { file: values["passphrase-file"], descriptor: values["passphrase-fd"] };
  const passphrase = await readNewPassphrase(source, "New passphrase for the device key: ");
  if (!existsSync(files.journal)) Journal.create(files.journal, randomInt(1, 0xffff_ffff), segments);
  const seed = newSeed();
  const locked = lockSeed(seed, passphrase, calibrateCost());
  passphrase.fill(0);
  const { publicKey } = deviceKeyOf(seed);
  if (!existsSync(files.policy)) writeFileDurably(files.policy, encodePolicy(emptyPolicy), 0o600);
  // The key comes last: while it is missing, init can be run again.
  writeFileDurably(files.key, locked, 0o600);
  seed.fill(0);
  process.stdout.write(`${didKeyOf(publicKey)}\n`);
};

function segmentsOf(text: string | undefined): number {
  const segments = Number(text ?? segmentsDefault);
  if (Number.isInteger(segments) && segments >= segmentsMin && segments <= segmentsMax) return segments;
  throw new CommandError(
    exitCodes.usage,
    `--segments ${text}: an integer from ${segmentsMin} to ${segmentsMax} was expected`,
  );
}

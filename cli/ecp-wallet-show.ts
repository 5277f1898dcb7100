/** ecp-wallet show: what a wallet's folder says of itself without its passphrase. */
import { didKeyOf } from "../protocol/public-key.ts";
import { rotationsMax } from "../protocol/rotation.ts";
import { readKeyFile } from "../wallet/keystore.ts";
import { chooseKey, openJournal } from "./ecp-wallet-chain.ts";
import {
  keyTodo,
  parseOptions,
  readNeeded,
  understood,
  type WalletCommand,
  type WalletFiles,
  walletFiles,
} from "./ecp-wallet-command.ts";

export const show: WalletCommand = async (args) => {
  const options = { verbose: { type: "boolean" }, json: { type: "boolean" } } as const;
  const { data, verbose, json } = parseOptions("show", args, options);
  const files = walletFiles(data);
  const bytes = readNeeded(files.key);
  const name = didKeyOf(understood(files.key, keyTodo, () => readKeyFile(bytes)).nameKey);
  if (!verbose && !json) {
    process.stdout.write(`${name}\n`);
    return;
  }
  const shown = { device: name, ...stateOf(files) };
  if (json) process.stdout.write(`${JSON.stringify(shown)}\n`);
  else
    process.stdout.write(`${name}
  key         ${shown.key}${shown.rotations > 0 ? `, after ${shown.rotations} of at most ${rotationsMax} rotations` : ""}
  protection  ${protectionTexts[shown.protection]}
  chain       epoch ${shown.epoch}, last record ${shown.lastSequence}${shown.ended ? " (the last of its epoch)" : ""}
`);
};

const protectionTexts = {
  passphrase: "a passphrase (argon2id)",
  none: "NONE: whoever reads device.key has the key",
  retired: "retired: there is no seed, nothing is signed any more",
} as const;

/** Reads the journal without its lock: a wallet may run meanwhile. */
function stateOf(files: WalletFiles) {
  const journal = openJournal(files);
  const { file, retired, rotated } = chooseKey(files, journal);
  const { epoch, epochs, nextSequence } = journal;
  journal.close();
  return {
    key: didKeyOf(file.publicKey),
    rotations: file.rotations.length,
    rotationRecords: file.rotations.map((record) => Buffer.from(record).toString("base64")),
    epochs: epochs.map((held) => ({ epoch: held.epoch, first: held.first, last: held.last })),
    protection: retired ? "retired" : file.protection,
    epoch,
    lastSequence: nextSequence - 1,
    /** The next record is of another epoch, or there is none. */
    ended: retired || rotated !== undefined,
  } as const;
}

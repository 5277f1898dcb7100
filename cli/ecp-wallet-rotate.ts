/** ecp-wallet rotate: a new key, which the old one's last record introduces. The device keeps its name. */
import { renameSync, rmSync } from "node:fs";
import { syncFolder } from "../platform/durable-file.ts";
import { didKeyOf } from "../protocol/public-key.ts";
import { rotationsMax } from "../protocol/rotation.ts";
import { rotationEvent } from "../wallet/key-succession.ts";
import { calibrateCost, deviceKeyOf, lockSeed, newSeed, plainSeed } from "../wallet/keystore.ts";
import { newEpoch, type OpenChain, openChain, writeOwned } from "./ecp-wallet-chain.ts";
import { CommandError, exitCodes, parseOptions, type WalletCommand } from "./ecp-wallet-command.ts";
import { consentOf, keyOptions } from "./ecp-wallet-key.ts";
import { type PassphraseSource, readNewPassphrase, sourceOf } from "./ecp-wallet-passphrase.ts";
import { tpmOf, tpmOptions } from "./ecp-wallet-tpm.ts";

export const rotate: WalletCommand = async (args) => {
  const values = parseOptions("rotate", args, {
    ...keyOptions,
    ...tpmOptions,
    "new-passphrase": { type: "boolean" },
    "new-passphrase-file": { type: "string" },
    "new-passphrase-fd": { type: "string" },
  });
  const source = sourceOf(values["new-passphrase-file"], values["new-passphrase-fd"]);
  const asks = values["new-passphrase"] === true || (source.file ?? source.descriptor) !== undefined;
  const chain = await openChain(values.data, consentOf(values), tpmOf(values));
  try {
    await rotateKey(chain, asks ? source : undefined);
  } finally {
    await chain.close();
  }
};

async function rotateKey(chain: OpenChain, source: PassphraseSource | undefined): Promise<void> {
  const { file, files, journal } = chain;
  if (file.rotations.length >= rotationsMax)
    throw new CommandError(
      exitCodes.usage,
      `the key was rotated ${rotationsMax} times, the most that a name can carry; make a new wallet and enrol it`,
    );
  if (!journal.canBeginEpoch)
    throw new CommandError(
      exitCodes.unavailable,
      "the journal has records of as many epochs as it can tell apart; run the wallet until the oldest have receipts",
    );
  const passphrase = source
    ? await readNewPassphrase(source, "New passphrase for the device key: ")
    : chain.passphrase && Buffer.from(chain.passphrase);
  const seed = newSeed();
  const next = deviceKeyOf(seed);
  const nextEpoch = newEpoch(journal.epochs.map(({ epoch }) => epoch));
  const record = chain.next((place) => [rotationEvent(file.nameKey, next, nextEpoch, place)]);
  const lineage = { nameKey: file.nameKey, rotations: [...file.rotations, record.bytes] };
  const bytes = passphrase ? lockSeed(seed, passphrase, calibrateCost(), { lineage }) : plainSeed(seed, { lineage });
  seed.fill(0);
  passphrase?.fill(0);
  // The new key is on disk before the record that makes it the device's; until then it is nothing.
  writeOwned(files.nextKey, bytes);
  try {
    chain.append(record);
  } catch (error) {
    // Refused with nothing written; after any other error only the next start can tell which key it is.
    if (error instanceof CommandError) rmSync(files.nextKey, { force: true });
    throw error;
  }
  renameSync(files.nextKey, files.key);
  syncFolder(chain.data);
  const { epoch, sequence } = record.decoded.content;
  process.stdout.write(`${didKeyOf(file.nameKey)}
  key      ${didKeyOf(next.publicKey)}, after ${lineage.rotations.length} of at most ${rotationsMax} rotations
  epoch    ${epoch} ended with record ${sequence}; epoch ${nextEpoch} begins at the next start of the wallet
  backup   make a new one now: older ones hold a key that is not the device's any more
`);
}

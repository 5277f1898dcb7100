/** ecp-wallet retire: the key's last record says that it is the last, then the seed goes. What is sealed can still be read. */

import { rmSync } from "node:fs";
import { createInterface } from "node:readline/promises";
import { didKeyOf } from "../protocol/public-key.ts";
import { eventCodes } from "../protocol/record.ts";
import { retiredKey } from "../wallet/keystore.ts";
import { openChain, writeOwned } from "./ecp-wallet-chain.ts";
import { CommandError, exitCodes, parseOptions, type WalletCommand } from "./ecp-wallet-command.ts";
import { consentOf, keyOptions } from "./ecp-wallet-key.ts";
import { tpmOf, tpmOptions } from "./ecp-wallet-tpm.ts";

export const retire: WalletCommand = async (args) => {
  const values = parseOptions("retire", args, { ...keyOptions, ...tpmOptions, yes: { type: "boolean" } });
  const chain = await openChain(values.data, consentOf(values), tpmOf(values));
  try {
    const { file, files } = chain;
    const name = didKeyOf(file.nameKey);
    if (!values.yes) await confirmName(name);
    const record = chain.next(() => [[eventCodes.stopped], [eventCodes.keyRetired]]);
    chain.append(record);
    // Cut short here, the next start finds that record and does this.
    writeOwned(files.key, retiredKey(file.publicKey, file));
    rmSync(files.nextKey, { force: true });
    const { epoch, sequence } = record.decoded.content;
    process.stdout.write(`${name}
  retired  record ${sequence} of epoch ${epoch} is the last; the seed is gone from ${files.key}
  next     run the wallet until all of it is acknowledged; destroy the backups of this key
`);
  } finally {
    await chain.close();
  }
};

async function confirmName(name: string): Promise<void> {
  if (!process.stdin.isTTY)
    throw new CommandError(exitCodes.usage, "retire cannot be undone: say --yes, or run it in a terminal");
  process.stderr.write(`This ends ${name} for good: it will never seal again, and no backup brings it back.\n`);
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const typed = (await terminal.question("Type the device's name to go on: ")).trim();
    if (typed !== name) throw new CommandError(exitCodes.usage, "that is not its name; nothing was changed");
  } finally {
    terminal.close();
  }
}

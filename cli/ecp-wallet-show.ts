/** ecp-wallet show: what a wallet's folder says of itself without its passphrase. */
import { didKeyOf } from "../protocol/public-key.ts";
import { readKeyFile } from "../wallet/keystore.ts";
import {
  keyTodo,
  parseOptions,
  readNeeded,
  understood,
  type WalletCommand,
  walletFiles,
} from "./ecp-wallet-command.ts";

export const show: WalletCommand = async (args) => {
  const { data } = parseOptions("show", args, {});
  const { key } = walletFiles(data);
  const bytes = readNeeded(key);
  process.stdout.write(`${didKeyOf(understood(key, keyTodo, () => readKeyFile(bytes)).nameKey)}\n`);
};

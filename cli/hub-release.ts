/** ecp release: receipts that were carried back from a full node, handed to the wallet. */
import { decodeReceipt } from "../protocol/receipt.ts";
import { decodeReceiptFile } from "../protocol/receipt-file.ts";
import { Refusal } from "../protocol/refusal.ts";
import { WalletRefusal } from "../protocol/wallet-message.ts";
import { type Command, CommandError, exit, parseCommand } from "./command.ts";
import { readHubFile } from "./hub-configuration.ts";
import { configOption, jsonOption } from "./hub-options.ts";
import { withWallet } from "./hub-wallet.ts";
import { readInput } from "./input-file.ts";

interface Outcome {
  /** Of the receipt. */
  readonly epoch: number;
  /** Up to where the wallet has released that epoch; absent where it refused. */
  readonly through?: number;
  readonly refused?: string;
  readonly detail?: string;
}

export const hubRelease: Command = {
  summary: "hand a full node's receipts, carried here as a file, to the wallet",
  usage: `Usage: ecp release FILE [--config hub.yaml] [--json]

FILE is what 'ecp-node import --receipts FILE' wrote. The wallet (the running one, or one that is started for it) verifies each receipt
by the full nodes' keys that it pinned, and releases what they name. The same file again does no harm.
Exit status 1: the wallet refused a receipt; 65: the file is damaged.`,

  async run(args) {
    const { values, positionals } = parseCommand("ecp release", args, { ...configOption, ...jsonOption }, ["FILE"]);
    const file = positionals[0] as string;
    const hub = readHubFile(values.config);
    const receipts = openFile(file);
    const outcomes = await withWallet(hub, async (wallet) => {
      const all: Outcome[] = [];
      for (const { bytes, epoch } of receipts) {
        try {
          const answer = await wallet.release(bytes);
          all.push({ epoch: answer.epoch, through: answer.through });
        } catch (error) {
          if (!(error instanceof WalletRefusal)) throw error;
          all.push({ epoch, refused: error.reason, detail: error.message });
        }
      }
      return all;
    });
    const refused = outcomes.filter((outcome) => outcome.refused !== undefined);
    if (values.json) process.stdout.write(outcomes.map((outcome) => `${JSON.stringify(outcome)}\n`).join(""));
    else {
      const released = new Map(
        outcomes.flatMap(({ epoch, through }) => (through === undefined ? [] : [[epoch, through]])),
      );
      const lines = [...released].map(([epoch, through]) => `  epoch ${epoch}: released up to record ${through}\n`);
      const others = refused.map(
        ({ epoch, refused: reason, detail }) => `  epoch ${epoch}: REFUSED [${reason}]: ${detail}\n`,
      );
      process.stdout.write(
        `${file}: ${receipts.length} ${receipts.length === 1 ? "receipt" : "receipts"}\n${[...lines, ...others].join("")}`,
      );
    }
    return refused.length > 0 ? exit.failed : exit.ok;
  },
};

function openFile(file: string): { bytes: Uint8Array; epoch: number }[] {
  const content = readInput(file, "a file of receipts", "'ecp-node import --receipts FILE' on the full node writes it");
  try {
    return decodeReceiptFile(content).map((bytes) => ({ bytes, epoch: decodeReceipt(bytes).content.epoch }));
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    throw new CommandError(exit.badData, {
      expected: "a file of receipts, as 'ecp-node import --receipts' writes it",
      got: `${error.message} [${error.reason}]`,
      where: file,
      todo: "nothing was handed over; copy the file again",
    });
  }
}

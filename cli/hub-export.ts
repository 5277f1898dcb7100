/** ecp export: records out of the journal, signatures intact. */
import { join } from "node:path";
import type { WalletClient } from "../agent/wallet-client.ts";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { uint32Max } from "../protocol/field.ts";
import { meteringPacketText } from "../protocol/metering-packet.ts";
import { didKeyOf } from "../protocol/public-key.ts";
import { hasValues } from "../protocol/reading-status.ts";
import { decodeRecord } from "../protocol/record.ts";
import { readBytesMax } from "../protocol/wallet-message.ts";
import { Journal } from "../wallet/journal.ts";
import { type Command, CommandError, exit, parseCommand, systemCode, usageError } from "./command.ts";
import { readHubFile } from "./hub-configuration.ts";
import { configOption } from "./hub-options.ts";
import { deviceFileName, rotationFileName } from "./hub-verify.ts";
import { walletHistory, withWallet } from "./hub-wallet.ts";
import { makeFolder, writeOutput } from "./output-file.ts";
import { recordJson } from "./record-json.ts";
import { shellWord } from "./shell-word.ts";
import { sha256 } from "./verification.ts";

const formats = ["cose", "json", "packet"] as const;

export const hubExport: Command = {
  summary: "write sealed records out of the journal, as .cose files or JSON",
  usage: `Usage: ecp export [--config hub.yaml] [--epoch N] [--from N] [--to N] [--out DIR] [--format cose|json|packet]

cose    one file a record in DIR (default: ecp-records), SEQUENCE.cose, those of earlier epochs EPOCH-SEQUENCE.cose; with them
        ${deviceFileName}, and where the key was rotated rotation-1.cose …, by which 'ecp verify' finds the key
json    one JSON object a line on stdout: what each record says, and its bytes in base64
packet  one ECP metering packet (27 keys) a line on stdout for each row of readings that has values

Nothing is overwritten: a record that is there must be the same one. All records of the running epoch that the journal still holds,
unless --from and --to name sequences. 'ecp-wallet journal export --all' writes those of all epochs, as one file for a full node.`,

  async run(args) {
    const { values } = parseCommand(
      "ecp export",
      args,
      {
        ...configOption,
        epoch: { type: "string" },
        from: { type: "string" },
        to: { type: "string" },
        out: { type: "string", default: "ecp-records" },
        format: { type: "string", default: "cose" },
      },
      [],
    );
    const format = formats.find((item) => item === values.format);
    if (!format) throw usageError("ecp export", `--format ${values.format}; one of ${formats.join(", ")} was expected`);
    const numbers = [values.epoch, values.from, values.to].map((text, i) =>
      text === undefined ? undefined : numberOf(["epoch", "from", "to"][i] as string, text),
    );
    const [chosen, from, to] = numbers;
    const hub = readHubFile(values.config);
    const count = await withWallet(hub, async (wallet) => {
      const hello = await wallet.hello();
      const history = walletHistory(hub.configuration.walletFolder);
      if (format === "cose") writeLineage(values.out, hello.nameKey, history?.rotationRecords ?? []);
      const earlier = (history?.epochs ?? hello.earlierEpochs).filter(({ epoch }) => epoch !== hello.epoch);
      const lasts = new Map(
        [...earlier, { epoch: hello.epoch, last: hello.nextSequence - 1 }].map((it) => [it.epoch, it.last]),
      );
      const one = chosen ?? (from === undefined && to === undefined ? undefined : hello.epoch);
      const read = hello.recordForm === "plain" ? wallet : journalOf(hub.configuration.walletFolder);
      let written = 0;
      for (const epoch of one === undefined ? lasts.keys() : [one]) {
        const name = (number: number): string => (epoch === hello.epoch ? `${number}` : `${epoch}-${number}`);
        written += await exportRecords(
          read,
          epoch,
          [from ?? 1, Math.min(to ?? uint32Max, lasts.get(epoch) ?? uint32Max)],
          (number, bytes) => write(format, join(values.out, `${name(number)}.cose`), bytes),
        );
      }
      return written;
    });
    if (count === 0)
      throw new CommandError(exit.failed, {
        expected: "records to export",
        got: "none of these sequences is in the journal",
        where: `${chosen === undefined ? "" : `--epoch ${chosen} `}--from ${from ?? 1}${to === undefined ? "" : ` --to ${to}`}`,
        todo: "'ecp status' tells which sequences there are, 'ecp-wallet journal list' all epochs",
      });
    if (format === "cose")
      process.stdout.write(
        `${count} records are in ${values.out}; check one: ecp verify ${shellWord(`${values.out}/SEQUENCE.cose`)}\n`,
      );
    return exit.ok;
  },
};

/** The device's name, and what leads from it to the keys that signed; another device's belong to the records beside them. */
function writeLineage(folder: string, nameKey: Uint8Array, rotationRecords: readonly string[]): void {
  makeFolder(folder);
  const did = `${didKeyOf(nameKey)}\n`;
  writeOutput(join(folder, deviceFileName), did, (existing) => Buffer.from(existing).toString() === did);
  for (const [i, record] of rotationRecords.entries()) {
    const bytes = Buffer.from(record, "base64");
    writeOutput(join(folder, rotationFileName(i + 1)), bytes, (existing) => equalBytes(existing, bytes));
  }
}

function numberOf(flag: string, text: string): number {
  if (/^[1-9]\d{0,9}$/.test(text) && Number(text) <= uint32Max) return Number(text);
  throw usageError("ecp export", `--${flag} ${text}; a number from 1 to ${uint32Max} was expected`);
}

/** The journal itself: through its socket the wallet gives records only encrypted to a full node. */
function journalOf(walletFolder: string): Pick<WalletClient, "read"> {
  const folder = join(walletFolder, "journal");
  try {
    const journal = new Journal(folder, "read");
    return {
      read: (from, to, epoch) => Promise.resolve({ records: journal.records(from, to, readBytesMax, epoch) }),
    };
  } catch (error) {
    throw new CommandError(systemCode(error) === "EACCES" ? exit.notPermitted : exit.noInput, {
      expected: "the wallet's journal, since its socket gives records only encrypted",
      got: (error as Error).message,
      where: folder,
      todo: "run this as the wallet's user, or as root",
    });
  }
}

async function exportRecords(
  source: Pick<WalletClient, "read">,
  epoch: number,
  [from, to]: readonly [number, number],
  take: (sequence: number, bytes: Uint8Array) => void,
): Promise<number> {
  let count = 0;
  let next = from;
  while (next <= to) {
    const { records } = await source.read(next, to, epoch);
    if (records.length === 0) break;
    for (const [number, bytes] of records) take(number, bytes);
    count += records.length;
    next = (records.at(-1)?.[0] ?? to) + 1;
  }
  return count;
}

function write(format: (typeof formats)[number], file: string, bytes: Uint8Array): void {
  if (format === "cose") {
    // Another epoch begins at sequence 1 again, and so does an older card: what was written stays evidence.
    writeOutput(file, bytes, (existing) => equalBytes(existing, bytes));
    return;
  }
  const record = decodeRecord(bytes, sha256);
  if (format === "json") {
    process.stdout.write(`${JSON.stringify(recordJson(record, bytes))}\n`);
    return;
  }
  const { content } = record;
  if (content.kind !== "reading") return;
  for (const row of content.rows)
    if (hasValues(row.status))
      process.stdout.write(
        `${meteringPacketText(new Map(content.codes.map((code, i) => [code, row.values[i] ?? 0])))}\n`,
      );
}

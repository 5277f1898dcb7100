/** ecp export: records out of the journal, signatures intact. */
import { join } from "node:path";
import type { WalletClient } from "../agent/wallet-client.ts";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { meteringPacketText } from "../protocol/metering-packet.ts";
import { didKeyOf } from "../protocol/public-key.ts";
import { hasValues } from "../protocol/reading-status.ts";
import { decodeRecord } from "../protocol/record.ts";
import { type Command, CommandError, exit, parseCommand, usageError } from "./command.ts";
import { readHubFile } from "./hub-configuration.ts";
import { configOption } from "./hub-options.ts";
import { deviceFileName } from "./hub-verify.ts";
import { withWallet } from "./hub-wallet.ts";
import { makeFolder, writeOutput } from "./output-file.ts";
import { recordJson } from "./record-json.ts";
import { shellWord } from "./shell-word.ts";
import { sha256 } from "./verification.ts";

const formats = ["cose", "json", "packet"] as const;

export const hubExport: Command = {
  summary: "write sealed records out of the journal, as .cose files or JSON",
  usage: `Usage: ecp export [--config hub.yaml] [--from N] [--to N] [--out DIR] [--format cose|json|packet]

cose    one file a record in DIR (default: ecp-records), SEQUENCE.cose, with ${deviceFileName} beside them
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
        from: { type: "string", default: "1" },
        to: { type: "string" },
        out: { type: "string", default: "ecp-records" },
        format: { type: "string", default: "cose" },
      },
      [],
    );
    const format = formats.find((item) => item === values.format);
    if (!format) throw usageError("ecp export", `--format ${values.format}; one of ${formats.join(", ")} was expected`);
    const [from, to] = [sequence("from", values.from), values.to === undefined ? undefined : sequence("to", values.to)];
    const count = await withWallet(readHubFile(values.config), async (wallet) => {
      const hello = await wallet.hello();
      const last = Math.min(to ?? hello.nextSequence - 1, hello.nextSequence - 1);
      if (format === "cose") {
        makeFolder(values.out);
        const did = `${didKeyOf(hello.publicKey)}\n`;
        // Another device's name belongs to the records beside it.
        writeOutput(join(values.out, deviceFileName), did, (existing) => Buffer.from(existing).toString() === did);
      }
      return exportRecords(wallet, from, last, (number, bytes) => write(format, values.out, number, bytes));
    });
    if (count === 0)
      throw new CommandError(exit.failed, {
        expected: "records to export",
        got: "none of these sequences is in the journal",
        where: `--from ${from}${to === undefined ? "" : ` --to ${to}`}`,
        todo: "'ecp status' tells which sequences there are",
      });
    if (format === "cose")
      process.stdout.write(
        `${count} records are in ${values.out}; check one: ecp verify ${shellWord(`${values.out}/SEQUENCE.cose`)}\n`,
      );
    return exit.ok;
  },
};

function sequence(flag: string, text: string): number {
  if (/^[1-9]\d{0,9}$/.test(text)) return Number(text);
  throw usageError("ecp export", `--${flag} ${text}; a sequence from 1 was expected`);
}

async function exportRecords(
  wallet: WalletClient,
  from: number,
  to: number,
  take: (sequence: number, bytes: Uint8Array) => void,
): Promise<number> {
  let count = 0;
  let next = from;
  while (next <= to) {
    const { records } = await wallet.read(next, to);
    if (records.length === 0) break;
    for (const [number, bytes] of records) take(number, bytes);
    count += records.length;
    next = (records.at(-1)?.[0] ?? to) + 1;
  }
  return count;
}

function write(format: (typeof formats)[number], folder: string, number: number, bytes: Uint8Array): void {
  if (format === "cose") {
    // Another epoch begins at sequence 1 again, and so does an older card: what was written stays evidence.
    writeOutput(join(folder, `${number}.cose`), bytes, (existing) => equalBytes(existing, bytes));
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

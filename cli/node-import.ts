/** ecp-node import: records that were carried here as a file take the same path as those that come over MQTT. */
import { createReadStream } from "node:fs";
import { withRecordPath } from "../fullnode/offline-path.ts";
import type { OutgoingReceipt } from "../fullnode/record-event.ts";
import { batchRecordsMax, type RecordPath } from "../fullnode/record-path.ts";
import { type VerdictReason, verdictSentences } from "../fullnode/verdict.ts";
import { createLog } from "../platform/log.ts";
import { contentTypes, decodeCose } from "../protocol/cose-sign1.ts";
import { HandOverReader } from "../protocol/hand-over.ts";
import { topicOf } from "../protocol/mqtt-topic.ts";
import { didKeyOf, multibaseOf } from "../protocol/public-key.ts";
import { decodeReceipt } from "../protocol/receipt.ts";
import { decodeReceiptFile, encodeReceiptFile } from "../protocol/receipt-file.ts";
import { decodeRecordPayload } from "../protocol/record.ts";
import { Refusal } from "../protocol/refusal.ts";
import { type Command, CommandError, exit, parseCommand, systemCode } from "./command.ts";
import { dataOption, requireData } from "./node-command.ts";
import { checkOutput, writeOutput } from "./output-file.ts";
import { shellWord } from "./shell-word.ts";

const chunkBytes = 65_536;
const keptReceiptsMax = 1_024;

export const nodeImport: Command = {
  summary: "take records from a hand-over file, as 'ecp-wallet journal export' writes it",
  usage: `Usage: ecp-node import FILE --data DIR [--receipts OUT] [--json]

Each record of FILE is verified and stored as if it had come over MQTT; what is there already is a duplicate, so the same file may be
imported again. The node may run meanwhile. --receipts writes the receipts for what is stored: take them to the hub, where
'ecp release OUT' hands them to the wallet; it overwrites nothing but receipts.

Exit status 0: all of the file is stored; 1: something was refused, kept as evidence or put in quarantine; 65: the file is damaged or
cut off: what came before the damage is stored.`,

  async run(args) {
    const options = { ...dataOption, receipts: { type: "string" }, json: { type: "boolean" } } as const;
    const { values, positionals } = parseCommand("ecp-node import", args, options, ["FILE"]);
    const data = requireData("ecp-node import", values.data);
    const file = positionals[0] as string;
    if (values.receipts !== undefined) checkOutput(values.receipts, isReceiptFile);
    const receipts = new ReceiptCollection();
    const states = { settled: 0, provisional: 0, held: 0 };
    const parts = {
      publish: (given: readonly OutgoingReceipt[]) => receipts.add(given),
      report: (event: Parameters<Parameters<typeof withRecordPath>[1]["report"]>[0]) => {
        if (event.event === "stored") states[event.state]++;
      },
      log: createLog("node"),
    };
    const { read, counts } = await withRecordPath(data, parts, async (path) => {
      const outcome = await readInto(path, file);
      return { read: outcome, counts: path.counts };
    });
    const given = receipts.all();
    if (values.receipts !== undefined && given.length > 0)
      writeOutput(values.receipts, encodeReceiptFile(given), isReceiptFile);

    const refused = Object.entries(counts.refused) as [VerdictReason, number][];
    const { stored, duplicates } = counts;
    const device = read.nameKey && didKeyOf(read.nameKey);
    if (values.json) {
      const json = { file, device, records: read.records, stored, duplicates, ...states, refused: counts.refused };
      process.stdout.write(`${JSON.stringify({ ...json, receipts: given.length })}\n`);
    } else {
      const held = states.held > 0 ? `; ${states.held} of an epoch that is held: ecp-node devices says what to do` : "";
      process.stdout.write(
        `${file}: ${read.records} records${device ? ` of ${device}` : ""}\n` +
          `  stored      ${stored}${held}\n  duplicates  ${duplicates}\n` +
          refused.map(([reason, count]) => `  ${reason}  ${count}: ${verdictSentences[reason]}\n`).join("") +
          (values.receipts !== undefined && given.length > 0
            ? `  receipts    ${values.receipts}; on the hub: ecp release ${shellWord(values.receipts)}\n`
            : ""),
      );
    }
    if (read.damage) throw damagedFile(file, read.damage, read.records);
    const taken = stored + duplicates + refused.reduce((sum, [, count]) => sum + count, 0);
    if (taken < read.records) throw notTaken(data, read.records - taken);
    return refused.length > 0 ? exit.failed : exit.ok;
  },
};

interface Read {
  readonly nameKey: Uint8Array | undefined;
  readonly records: number;
  readonly damage?: Refusal;
}

/** Pushes what the file holds, a batch at a time; a file that is damaged gives what comes before the damage. */
async function readInto(path: RecordPath, file: string): Promise<Read> {
  const reader = new HandOverReader();
  let epoch: number | undefined;
  let waiting = 0;
  try {
    for await (const chunk of createReadStream(file, { highWaterMark: chunkBytes }) as AsyncIterable<Buffer>)
      for (const record of reader.push(chunk)) {
        const next = epochOf(record) ?? epoch;
        // The key of an epoch may stand in the last record of the one before.
        if (next !== epoch || waiting === batchRecordsMax) {
          await path.idle();
          waiting = 0;
        }
        epoch = next;
        waiting++;
        path.push(topicOf(multibaseOf(reader.header?.nameKey as Uint8Array), "record"), record);
      }
    reader.end();
    return { nameKey: reader.header?.nameKey, records: reader.count };
  } catch (error) {
    if (error instanceof Refusal) return { nameKey: reader.header?.nameKey, records: reader.count, damage: error };
    if (systemCode(error) !== "ENOENT" && systemCode(error) !== "EISDIR") throw error;
    throw new CommandError(exit.noInput, {
      expected: "a hand-over file",
      got: systemCode(error) === "EISDIR" ? "a folder" : "no such file",
      where: file,
      todo: "'ecp-wallet journal export' on the hub writes it",
    });
  } finally {
    await path.idle();
  }
}

/** The epoch of a record, read ahead; what is no record is left to the record path to refuse. */
function epochOf(record: Uint8Array): number | undefined {
  try {
    return decodeRecordPayload(decodeCose(record, contentTypes.record).payload).epoch;
  } catch (error) {
    if (error instanceof Refusal) return undefined;
    throw error;
  }
}

/** Of each epoch the newest receipt, and the newest of those that name what is kept beside the chain. */
class ReceiptCollection {
  readonly #newest = new Map<number, Uint8Array>();
  #kept: Uint8Array[] = [];

  add(receipts: readonly OutgoingReceipt[]): void {
    for (const { epoch, bytes } of receipts) {
      this.#newest.set(epoch, bytes);
      if (decodeReceipt(bytes).content.kept) this.#kept.push(bytes);
    }
    this.#kept = this.#kept.slice(-keptReceiptsMax);
  }

  all(): Uint8Array[] {
    return [...new Set([...this.#kept, ...this.#newest.values()])];
  }
}

function isReceiptFile(existing: Uint8Array): boolean {
  try {
    for (const receipt of decodeReceiptFile(existing)) decodeReceipt(receipt);
    return true;
  } catch (error) {
    if (error instanceof Refusal) return false;
    throw error;
  }
}

function damagedFile(file: string, damage: Refusal, records: number): CommandError {
  return new CommandError(exit.badData, {
    expected: "a whole hand-over file",
    got: `${damage.message} [${damage.reason}]`,
    where: file,
    todo:
      records > 0
        ? "copy the file again, or make a new one, and import that: what is stored by now does no harm"
        : "check that it is the file that 'ecp-wallet journal export' wrote",
  });
}

function notTaken(data: string, records: number): CommandError {
  return new CommandError(exit.ioError, {
    expected: "a store that takes all records",
    got: `${records} that it did not take: see the log above`,
    where: data,
    todo: "free space on the data folder's disk, and import the file again",
  });
}

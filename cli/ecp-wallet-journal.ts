/**
 * ecp-wallet journal: what the journal holds, and whether it is whole. Reads only, needs no passphrase, and takes no lock: it
 * works beside a wallet that runs.
 */
import { closeSync, existsSync, openSync, readSync } from "node:fs";
import { resolve } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { writePiecesDurably } from "../platform/durable-file.ts";
import { encodeHandOverHeader, encodeHandOverRecord, HandOverReader } from "../protocol/hand-over.ts";
import { clockStates } from "../protocol/reading-status.ts";
import { decodeRecord, eventCodes, type RecordContent } from "../protocol/record.ts";
import { Refusal } from "../protocol/refusal.ts";
import { followRotations } from "../protocol/rotation.ts";
import { Journal } from "../wallet/journal.ts";
import { checkJournal, contentOf, type HeldRecord, type JournalKeys } from "../wallet/journal-inspection.ts";
import { JournalRing } from "../wallet/journal-ring.ts";
import { sha256 } from "../wallet/journal-segments.ts";
import { readKeyFile } from "../wallet/keystore.ts";
import { decodePolicy } from "../wallet/policy.ts";
import { verifyEd25519 } from "../wallet/verification.ts";
import {
  CommandError,
  exitCodes,
  keyTodo,
  parseOptions,
  readNeeded,
  understood,
  type WalletCommand,
  walletFiles,
} from "./ecp-wallet-command.ts";

const journalTodo = "run the version of ecp-wallet that wrote it";
/** What a running wallet writes while it is read looks damaged for a moment: what is not there at each look is none. */
const looks = 3;
const betweenLooksMs = 250;
const daySeconds = 86_400;

export const journal: WalletCommand = async ([name, ...args]) => {
  const commands: Readonly<Record<string, WalletCommand>> = { check, list, stats, export: exportBacklog };
  const command = name !== undefined && Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command === undefined)
    throw new CommandError(
      exitCodes.usage,
      `journal needs one of check, list, stats, export${name === undefined ? "" : `; '${name}' is none`}; see: ecp-wallet --help`,
    );
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0); // whoever reads has seen enough, as `head` does
    throw error;
  });
  await command(args);
};

const check: WalletCommand = async (args) => {
  const { data } = parseOptions("journal check", args, {});
  const keys = keysOf(data);
  let findings: string[] | undefined;
  let read = { commits: 0, records: 0 };
  for (let look = 0; look < looks; look++) {
    if (look > 0) await pause(betweenLooksMs);
    const now: string[] = [];
    read = withRing(data, (ring) => checkJournal(ring, keys, (finding) => now.push(finding)));
    findings = findings === undefined ? now : findings.filter((finding) => now.includes(finding));
    if (findings.length === 0) break;
  }
  for (const finding of findings ?? []) process.stdout.write(`${finding}\n`);
  const count = findings?.length ?? 0;
  const found = count === 0 ? "whole" : `${count} finding${count === 1 ? "" : "s"}`;
  process.stdout.write(`${read.records} records in ${read.commits} commits: ${found}\n`);
  if (count > 0) process.exitCode = exitCodes.data;
};

const list: WalletCommand = async (args) => {
  const options = parseOptions("journal list", args, {
    from: { type: "string" },
    to: { type: "string" },
    epoch: { type: "string" },
    json: { type: "boolean" },
  });
  const from = integerOption("--from", options.from) ?? 0;
  const to = integerOption("--to", options.to) ?? Number.POSITIVE_INFINITY;
  const epoch = integerOption("--epoch", options.epoch);
  const { isReleased, journal } = positionsOf(options.data);
  let listed = 0;
  withRing(options.data, (ring) => {
    for (const record of recordsOf(ring)) {
      if (record.sequence < from || record.sequence > to || (epoch ?? record.epoch) !== record.epoch) continue;
      const line = lineOf(record, isReleased(record));
      process.stdout.write(options.json ? `${JSON.stringify(line)}\n` : `${textOf(line)}\n`);
      listed++;
    }
  });
  const held = journal.epochs.map((item) => item.epoch).join(", ");
  if (listed === 0) process.stderr.write(`ecp-wallet: no such record is in the journal; its epochs are ${held}\n`);
};

const stats: WalletCommand = async (args) => {
  const { data, json } = parseOptions("journal stats", args, { json: { type: "boolean" } });
  const { isReleased, journal: held } = positionsOf(data);
  const { policy: policyFile } = walletFiles(data);
  const counts = { records: 0, unreleased: 0, unreleasedBytes: 0, rows: 0, blocks: 0 };
  const times: number[] = [];
  const ring = withRing(data, (open) => {
    for (const { commit, records } of contentOf(open)) {
      counts.blocks += commit.header.blocks;
      for (const record of records) {
        counts.records++;
        if (!isReleased(record)) {
          counts.unreleased++;
          counts.unreleasedBytes += record.bytes.length;
        }
        const content = contentOfRecord(record);
        if (content?.kind === "reading") counts.rows += content.rows.length;
        const timeS = content && timeOf(content);
        if (content && timeS !== undefined && content.clockState !== clockStates.relative) {
          times[0] = Math.min(times[0] ?? timeS, timeS);
          times[1] = Math.max(times[1] ?? timeS, timeS);
        }
      }
    }
    return { segments: open.segments, blocks: open.segmentBlocks };
  });
  const [oldestS, newestS] = times;
  const days = oldestS === undefined || newestS === undefined ? 0 : (newestS - oldestS) / daySeconds;
  // One segment is being written, and the last block of each is kept for the released position.
  const capacity = (ring.segments - 1) * (ring.blocks - 1);
  // From less than an hour nothing follows for days.
  const daysHeld = days > 1 / 24 && counts.blocks > 0 ? (capacity / counts.blocks) * days : undefined;
  const retentionDays = existsSync(policyFile)
    ? understood(policyFile, "'ecp config apply' writes it anew", () => decodePolicy(readNeeded(policyFile)))
        .retentionDays
    : undefined;
  const result = {
    segments: ring.segments,
    segmentBlocks: ring.blocks,
    segmentsInUse: held.segmentsInUse,
    records: counts.records,
    unreleasedRecords: counts.unreleased,
    unreleasedBytes: counts.unreleasedBytes,
    rows: counts.rows,
    pendingRows: held.pendingRows,
    epochs: held.epochs,
    ...(oldestS !== undefined && { oldest: isoTime(oldestS), newest: isoTime(newestS ?? oldestS) }),
    ...(daysHeld !== undefined && { daysHeld: Math.round(daysHeld * 10) / 10 }),
    ...(retentionDays !== undefined && { retentionDays }),
  };
  process.stdout.write(json ? `${JSON.stringify(result)}\n` : statsText(result));
  if (daysHeld !== undefined && retentionDays !== undefined && daysHeld < retentionDays)
    process.stderr.write(
      `ecp-wallet: at the present rate the journal holds ${daysHeld.toFixed(1)} days, and the policy asks for ${retentionDays}: what is older goes when its segment is wanted; a new journal may have more segments ('ecp-wallet init --segments')\n`,
    );
};

interface Stats {
  readonly segments: number;
  readonly segmentsInUse: number;
  readonly records: number;
  readonly unreleasedRecords: number;
  readonly unreleasedBytes: number;
  readonly rows: number;
  readonly pendingRows: number;
  readonly epochs: readonly { epoch: number; first: number; through: number; last: number }[];
  readonly oldest?: string;
  readonly newest?: string;
  readonly daysHeld?: number;
  readonly retentionDays?: number;
}

function statsText(stats: Stats): string {
  const percent = Math.round((stats.segmentsInUse / stats.segments) * 100);
  const lines = [
    `segments    ${stats.segmentsInUse} of ${stats.segments} in use (${percent} %)`,
    `records     ${stats.records}, of them ${stats.unreleasedRecords} not released (${stats.unreleasedBytes} bytes)`,
    `rows        ${stats.rows}, and ${stats.pendingRows} pending`,
    ...stats.epochs.map(
      ({ epoch, first, through, last }) => `epoch       ${epoch}: ${first} to ${last}, released through ${through}`,
    ),
    ...(stats.oldest === undefined ? [] : [`time        ${stats.oldest} to ${stats.newest}`]),
    `holds       ${stats.daysHeld === undefined ? "not known before there are records of an hour" : `${stats.daysHeld} days at the present rate`}${stats.retentionDays === undefined ? "" : `; the policy asks for ${stats.retentionDays}`}`,
  ];
  return `${lines.join("\n")}\n`;
}

const exportBacklog: WalletCommand = async (args) => {
  const options = parseOptions("journal export", args, {
    output: { type: "string" },
    all: { type: "boolean" },
    waiting: { type: "boolean" },
  });
  if (options.output === undefined) throw new CommandError(exitCodes.usage, "journal export needs --output FILE");
  if (options.all && options.waiting) throw new CommandError(exitCodes.usage, "either --all or --waiting");
  const output = resolve(options.output);
  mayBeReplaced(output);
  const { nameKey } = keysOf(options.data);
  let findings: string[] | undefined;
  let written: number | undefined;
  for (let look = 0; look < looks && (written === undefined || findings?.length !== 0); look++) {
    if (look > 0) await pause(betweenLooksMs);
    const { isReleased } = positionsOf(options.data);
    const isChosen = (record: HeldRecord): boolean => options.all === true || !isReleased(record);
    const now: string[] = [];
    written = withRing(options.data, (ring) => {
      let last: HeldRecord | undefined;
      let records = 0;
      for (const record of recordsOf(ring, (finding) => now.push(finding))) {
        if (!isChosen(record)) continue;
        records++;
        last = record;
      }
      return writeHandOver(output, nameKey, records, chosenOf(ring, isChosen, last)) ? records : undefined;
    });
    findings = findings === undefined ? now : findings.filter((finding) => now.includes(finding));
  }
  if (written === undefined) throw new CommandError(exitCodes.unavailable, "the journal changes too fast; try again");
  for (const finding of findings ?? []) process.stderr.write(`ecp-wallet: ${finding}\n`);
  if (findings !== undefined && findings.length > 0)
    process.stderr.write("ecp-wallet: what is damaged is not in the file; see 'ecp-wallet journal check'\n");
  process.stdout.write(`${written} records in ${output}\n`);
};

/** The journal went on between two readings. */
class JournalMoved extends Error {}

function* chosenOf(
  ring: JournalRing,
  isChosen: (record: HeldRecord) => boolean,
  last: HeldRecord | undefined,
): Generator<HeldRecord> {
  if (last === undefined) return;
  for (const record of recordsOf(ring)) {
    if (isChosen(record)) yield record;
    if (record.epoch === last.epoch && record.sequence === last.sequence) return;
  }
  throw new JournalMoved();
}

/** Writes the file; false where there were not as many records as counted before, and then nothing was written. */
function writeHandOver(output: string, nameKey: Uint8Array, records: number, chosen: Iterable<HeldRecord>): boolean {
  function* pieces(): Generator<Uint8Array> {
    yield encodeHandOverHeader({ nameKey, records });
    let count = 0;
    for (const { bytes } of chosen) {
      count++;
      yield encodeHandOverRecord(bytes);
    }
    if (count !== records) throw new JournalMoved();
  }
  try {
    writePiecesDurably(output, pieces(), 0o600);
    return true;
  } catch (error) {
    if (error instanceof JournalMoved) return false;
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT")
      throw new CommandError(exitCodes.exists, `cannot write ${output}: its folder is not there; choose another path`);
    if (code === "EACCES" || code === "EPERM" || code === "EROFS")
      throw new CommandError(exitCodes.permission, `cannot write ${output}: ${message}`);
    throw error;
  }
}

/** Only a hand-over file may be replaced by another one. */
function mayBeReplaced(output: string): void {
  let head: Buffer;
  try {
    const descriptor = openSync(output, "r");
    const buffer = Buffer.alloc(64);
    try {
      head = buffer.subarray(0, readSync(descriptor, buffer, 0, buffer.length, 0));
    } finally {
      closeSync(descriptor);
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw new CommandError(exitCodes.exists, `cannot write ${output}: ${(error as Error).message}`);
  }
  try {
    const reader = new HandOverReader();
    reader.push(head);
    if (head.length === 0 || reader.header) return;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
  }
  throw new CommandError(exitCodes.exists, `${output} is there and is no hand-over file; it was left as it is`);
}

function withRing<T>(data: string, use: (ring: JournalRing) => T): T {
  const { journal: folder } = walletFiles(data);
  const ring = JournalRing.open(folder, "read");
  try {
    return use(ring);
  } finally {
    ring.close();
  }
}

function* recordsOf(ring: JournalRing, report?: (finding: string) => void): Generator<HeldRecord> {
  for (const { records } of contentOf(ring, report)) yield* records;
}

/** What is released, and what is in use, as a start would find it. */
function positionsOf(data: string) {
  const { journal: folder } = walletFiles(data);
  const journal = understood(folder, journalTodo, () => new Journal(folder, "read"));
  const { epochs, segmentsInUse, pendingRows } = journal;
  journal.close();
  const isReleased = ({ epoch, sequence }: HeldRecord): boolean =>
    sequence <= (epochs.find((item) => item.epoch === epoch)?.through ?? 0);
  return { isReleased, journal: { epochs, segmentsInUse, pendingRows: pendingRows.length } };
}

/** The key of the device's name, and those that its rotations led to, oldest first. */
function keysOf(data: string): JournalKeys {
  const path = walletFiles(data).key;
  const bytes = readNeeded(path);
  return understood(path, keyTodo, () => {
    const { nameKey, rotations, publicKey } = readKeyFile(bytes);
    const publicKeys = [
      nameKey,
      ...rotations.map((_, i) => followRotations(nameKey, rotations.slice(0, i + 1), verifyEd25519, sha256)),
    ];
    return { nameKey, publicKeys: rotations.length === 0 ? [publicKey] : publicKeys };
  });
}

function integerOption(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^\d{1,10}$/.test(text)) throw new CommandError(exitCodes.usage, `${name} ${text}: a whole number was expected`);
  return Number(text);
}

const eventNames = new Map<number, string>(Object.entries(eventCodes).map(([name, code]) => [code, name]));

function contentOfRecord({ bytes }: HeldRecord): RecordContent | undefined {
  try {
    return decodeRecord(bytes, sha256).content;
  } catch (error) {
    if (error instanceof Refusal) return undefined;
    throw error;
  }
}

/** Time of a record's newest row, or of its events. */
function timeOf(content: RecordContent): number | undefined {
  return content.kind === "event" ? content.timeS : content.rows.at(-1)?.timeS;
}

function lineOf(record: HeldRecord, isReleased: boolean) {
  const { epoch, sequence, bytes } = record;
  const content = contentOfRecord(record);
  const timeS = content && timeOf(content);
  const isRelative = content?.clockState === clockStates.relative;
  return {
    epoch,
    sequence,
    ...(isRelative && { secondsSinceBoot: timeS }),
    ...(!isRelative && timeS !== undefined && { time: isoTime(timeS) }),
    ...(content?.kind === "reading" && {
      kind: "reading",
      meter: content.meter,
      plan: content.plan,
      rows: content.rows.length,
    }),
    ...(content?.kind === "event" && {
      kind: "event",
      events: content.events.map(([code]) => eventNames.get(code) ?? `event-${code}`),
    }),
    ...(content === undefined && { kind: "damaged" }),
    bytes: bytes.length,
    released: isReleased,
  };
}

function textOf(line: ReturnType<typeof lineOf>): string {
  const what =
    line.meter !== undefined
      ? `meter ${line.meter}${line.plan ? `, plan ${line.plan}` : ""}: ${line.rows} row${line.rows === 1 ? "" : "s"}`
      : (line.events?.join(", ") ?? "damaged");
  const time = line.time ?? (line.secondsSinceBoot === undefined ? "-" : `${line.secondsSinceBoot} s after the boot`);
  return `${line.epoch} ${line.sequence}  ${time}  ${what}  ${line.bytes} bytes  ${line.released ? "released" : "waiting"}`;
}

function isoTime(timeS: number): string {
  return new Date(timeS * 1_000).toISOString().replace(".000Z", "Z");
}

/** ecp verify: who signed a record, what it says, and whether the signature holds. */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { type CoseSign1, contentTypes, decodeCose, verifyCose } from "../protocol/cose-sign1.ts";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { didKeyOf, kidOf, publicKeyOfDid, vetPublicKey } from "../protocol/public-key.ts";
import { decodeRecord } from "../protocol/record.ts";
import { Refusal } from "../protocol/refusal.ts";
import { followRotations, rotationsMax } from "../protocol/rotation.ts";
import { decodeStatement } from "../protocol/statement.ts";
import { type Command, CommandError, exit, parseCommand } from "./command.ts";
import { jsonOption } from "./hub-options.ts";
import { readInput } from "./input-file.ts";
import { recordJson, recordText } from "./record-json.ts";
import { statementJson, statementText } from "./statement-json.ts";
import { sha256, verifyEd25519 } from "./verification.ts";

/** The file beside exported records that names their device. */
export const deviceFileName = "device.did";

/** The files beside exported records that lead from the device's name to its later keys, from 1. */
export function rotationFileName(number: number): string {
  return `rotation-${number}.cose`;
}

const deviceTodo = "'ecp status' on the hub, or 'ecp-node devices', tells the device's did:key";

export const hubVerify: Command = {
  summary: "who, what, when: does the signature of a sealed record or a statement hold?",
  usage: `Usage: ecp verify FILE [--device did:key:… | --device FILE] [--rotation FILE]… [--json]

FILE is a record as 'ecp export' writes it, or a statement of 'ecp statement' (COSE_Sign1). The device's key is given by --device, or taken from the file
${deviceFileName} beside FILE. Where the key was rotated, the records of its rotations lead from that key to the one that signed: each --rotation FILE, or
${rotationFileName(1)} … beside FILE. Exit status 0: the signature holds; 1: it does not, or the file is neither; 2: the key is not known.`,

  async run(args) {
    const options = {
      ...jsonOption,
      device: { type: "string" },
      rotation: { type: "string", multiple: true },
    } as const;
    const { values, positionals } = parseCommand("ecp verify", args, options, ["FILE"]);
    const [file = ""] = positionals;
    const bytes = readInput(
      file,
      "a sealed record or a statement",
      "'ecp export' or 'ecp statement' on the hub writes it",
    );
    const record = decode(bytes);
    if (record instanceof Refusal)
      return report(
        values.json,
        { file, valid: false, reason: record.reason },
        `NOT a valid record or statement: ${record.message}`,
      );
    const publicKey = deviceKey(file, values.device);
    if (!publicKey) return unknownKey(values.json, file, record);
    const did = didKeyOf(publicKey);
    const keys = keysOf(publicKey, rotationFiles(file, values.rotation));
    const { kid } = record.cose;
    const mine = kid ? keys.filter((key) => equalBytes(kid, kidOf(key, sha256))) : keys;
    if (mine.length === 0)
      return report(
        values.json,
        { file, valid: false, reason: "other-device", device: did },
        `NOT signed by ${did}: its kid ${Buffer.from(kid ?? []).toString("hex")} is another key's. If the device's key was rotated to that one, the rotation ` +
          `record is missing, the last of the epoch before${record.epoch === undefined ? "" : ` ${record.epoch}`}: give it as --rotation FILE ('ecp export' writes ${rotationFileName(1)} …)`,
      );
    const refusals = mine.map((key) => refusalUnder(record.cose, key));
    const signer = mine[refusals.indexOf(undefined)];
    if (signer === undefined) {
      const { reason, message } = refusals[0] as Refusal;
      return report(
        values.json,
        { file, valid: false, reason, device: did },
        `BAD: ${message}; not what ${did} signed`,
      );
    }
    const key = equalBytes(signer, publicKey) ? undefined : didKeyOf(signer);
    if (values.json)
      process.stdout.write(
        `${JSON.stringify({ file, valid: true, device: did, ...(key && { key }), ...record.json })}\n`,
      );
    else process.stdout.write(`GOOD: signed by ${did}${key ? `\nby its rotated key ${key}` : ""}\n${record.text}`);
    return exit.ok;
  },
};

/** Undefined where the signature holds. */
function refusalUnder(cose: CoseSign1, publicKey: Uint8Array): Refusal | undefined {
  try {
    verifyCose(cose, publicKey, verifyEd25519);
    return undefined;
  } catch (error) {
    if (error instanceof Refusal) return error;
    throw error;
  }
}

function rotationFiles(file: string, given: readonly string[] | undefined): string[] {
  if (given) return [...given];
  const beside = Array.from({ length: rotationsMax }, (_, i) => join(dirname(file), rotationFileName(i + 1)));
  return beside.filter((path) => existsSync(path));
}

/** The device's keys, that of its name first, as far as these records lead; in whatever order they are given. */
function keysOf(nameKey: Uint8Array, files: readonly string[]): Uint8Array[] {
  let left = files.map((file) => readInput(file, "a record of a rotation", "'ecp export' on the hub writes it"));
  const followed: Uint8Array[] = [];
  const keys = [nameKey];
  while (followed.length < rotationsMax) {
    let next: Uint8Array | undefined;
    const found = left.find((bytes) => {
      next = keyAfter(nameKey, [...followed, bytes]);
      return next !== undefined;
    });
    if (found === undefined || next === undefined) break;
    left = left.filter((bytes) => bytes !== found);
    followed.push(found);
    keys.push(next);
  }
  return keys;
}

/** The key that these records lead to; undefined where the last one does not follow. */
function keyAfter(nameKey: Uint8Array, records: readonly Uint8Array[]): Uint8Array | undefined {
  try {
    return followRotations(nameKey, records, verifyEd25519, sha256);
  } catch (error) {
    if (error instanceof Refusal) return undefined;
    throw error;
  }
}

interface Signed {
  readonly cose: CoseSign1;
  readonly json: Record<string, unknown>;
  readonly text: string;
  /** A record's. */
  readonly epoch?: number;
}

function decode(bytes: Uint8Array): Signed | Refusal {
  try {
    if (decodeCose(bytes).contentType === contentTypes.statement) {
      const { cose, content } = decodeStatement(bytes, sha256);
      return { cose, json: { statement: statementJson(content) }, text: statementText(content) };
    }
    const record = decodeRecord(bytes, sha256);
    return {
      cose: record.cose,
      json: { record: recordJson(record, bytes) },
      text: recordText(record),
      epoch: record.content.epoch,
    };
  } catch (error) {
    if (error instanceof Refusal) return error;
    throw error;
  }
}

function report(json: boolean, result: Record<string, unknown>, text: string): number {
  process.stdout.write(json ? `${JSON.stringify(result)}\n` : `${text}\n`);
  return exit.failed;
}

function unknownKey(json: boolean, file: string, record: Signed): number {
  const kid = record.cose.kid ? Buffer.from(record.cose.kid).toString("hex") : "none";
  const text = `KEY UNKNOWN: nobody said whose record this is (kid ${kid}); give --device did:key:…, or put ${deviceFileName} beside it`;
  process.stdout.write(json ? `${JSON.stringify({ file, valid: null, reason: "key-unknown", kid })}\n` : `${text}\n`);
  return exit.unknown;
}

/** The key by the option, else by the device file beside the record; undefined where there is neither. */
function deviceKey(file: string, device: string | undefined): Uint8Array | undefined {
  const beside = join(dirname(file), deviceFileName);
  const source = device ?? (existsSync(beside) ? beside : undefined);
  if (source === undefined) return undefined;
  const text = source.startsWith("did:")
    ? source
    : readInput(source, "did:key:…, or a file that holds it", deviceTodo).toString("utf8").trim();
  try {
    const publicKey = publicKeyOfDid(text);
    vetPublicKey(publicKey);
    return publicKey;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    throw new CommandError(exit.unknown, {
      expected: "a did:key of an Ed25519 key, or a file that holds one",
      got: error.message,
      where: device === undefined ? beside : `--device ${device.slice(0, 80)}`,
      todo: deviceTodo,
    });
  }
}

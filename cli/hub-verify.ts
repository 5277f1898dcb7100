/** ecp verify: who signed a record, what it says, and whether the signature holds. */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { type CoseSign1, contentTypes, decodeCose, verifyCose } from "../protocol/cose-sign1.ts";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { didKeyOf, kidOf, publicKeyOfDid, vetPublicKey } from "../protocol/public-key.ts";
import { decodeRecord } from "../protocol/record.ts";
import { Refusal } from "../protocol/refusal.ts";
import { decodeStatement } from "../protocol/statement.ts";
import { type Command, CommandError, exit, parseCommand } from "./command.ts";
import { jsonOption } from "./hub-options.ts";
import { readInput } from "./input-file.ts";
import { recordJson, recordText } from "./record-json.ts";
import { statementJson, statementText } from "./statement-json.ts";
import { sha256, verifyEd25519 } from "./verification.ts";

/** The file beside exported records that names their device. */
export const deviceFileName = "device.did";

const deviceTodo = "'ecp status' on the hub, or 'ecp-node devices', tells the device's did:key";

export const hubVerify: Command = {
  summary: "who, what, when: does the signature of a sealed record or a statement hold?",
  usage: `Usage: ecp verify FILE [--device did:key:… | --device FILE] [--json]

FILE is a record as 'ecp export' writes it, or a statement of 'ecp statement' (COSE_Sign1). The device's key is given by --device, or taken from the file
${deviceFileName} beside FILE. Exit status 0: the signature holds; 1: it does not, or the file is neither; 2: the key is not known.`,

  async run(args) {
    const options = { ...jsonOption, device: { type: "string" } } as const;
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
    const { kid } = record.cose;
    if (kid && !equalBytes(kid, kidOf(publicKey, sha256)))
      return report(
        values.json,
        { file, valid: false, reason: "other-device", device: did },
        `NOT signed by ${did}: its kid is another key's. Where a key was rotated, --device takes the did:key of the key that signed ('ecp status' on the hub shows it)`,
      );
    try {
      verifyCose(record.cose, publicKey, verifyEd25519);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return report(
        values.json,
        { file, valid: false, reason: error.reason, device: did },
        `BAD: ${error.message}; not what ${did} signed`,
      );
    }
    if (values.json) process.stdout.write(`${JSON.stringify({ file, valid: true, device: did, ...record.json })}\n`);
    else process.stdout.write(`GOOD: signed by ${did}\n${record.text}`);
    return exit.ok;
  },
};

interface Signed {
  readonly cose: CoseSign1;
  readonly json: Record<string, unknown>;
  readonly text: string;
}

function decode(bytes: Uint8Array): Signed | Refusal {
  try {
    if (decodeCose(bytes).contentType === contentTypes.statement) {
      const { cose, content } = decodeStatement(bytes, sha256);
      return { cose, json: { statement: statementJson(content) }, text: statementText(content) };
    }
    const record = decodeRecord(bytes, sha256);
    return { cose: record.cose, json: { record: recordJson(record, bytes) }, text: recordText(record) };
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

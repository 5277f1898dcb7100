// The specification's tables are those of the code; `UPDATE_DOCS=1` writes them anew.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { contentTypes } from "../../protocol/cose-sign1.ts";
import { encryptedRecordBytesMax } from "../../protocol/encrypted-record.ts";
import { enrolmentBytesMax } from "../../protocol/enrolment.ts";
import { packetOf } from "../../protocol/lorawan.ts";
import { kidOf } from "../../protocol/public-key.ts";
import { quantities } from "../../protocol/quantity.ts";
import { clockStateLetters, hasValues, statusLetters, statusSentences } from "../../protocol/reading-status.ts";
import { receiptBytesMax } from "../../protocol/receipt.ts";
import { eventCodes, type ReadingContent, recordBytesMax, signRecord } from "../../protocol/record.ts";
import { refusalSentences } from "../../protocol/refusal.ts";
import { certificateBytesMax } from "../../protocol/rotation.ts";
import { statementBytesMax } from "../../protocol/statement.ts";
import {
  energyRows,
  exportWh,
  good,
  importWh,
  noonS,
  readingOf,
  sequence,
  twelveCodes,
  twelveValues,
} from "../vectors/sample-content.ts";
import { keyOfLabel, sha256 } from "../vectors/signature-suite.ts";

const file = path.join(import.meta.dirname, "../../protocol/README.md");

/** What stands between `<!-- name -->` and `<!-- /name -->`. */
function section(name: string): string {
  const text = readFileSync(file, "utf8");
  const found = text.split(`<!-- ${name} -->\n`)[1]?.split(`<!-- /${name} -->`)[0];
  assert.ok(found !== undefined, `protocol/README.md has no section <!-- ${name} -->`);
  return found;
}

function table(heads: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const lines = [heads, heads.map(() => "---"), ...rows];
  return `${lines.map((cells, i) => (i === 1 ? `|${cells.join("|")}|` : `| ${cells.join(" | ")} |`)).join("\n")}\n`;
}

/** Compares a section with what the code says, or writes it where the run is asked to. */
function compare(name: string, expected: string): void {
  if (process.env.UPDATE_DOCS === "1") {
    const text = readFileSync(file, "utf8");
    writeFileSync(
      file,
      text.replace(`<!-- ${name} -->\n${section(name)}`, () => `<!-- ${name} -->\n${expected}`),
    );
  }
  assert.equal(section(name), expected, `protocol/README.md, ${name}: UPDATE_DOCS=1 writes it anew`);
}

test("refusal reasons are those of refusal.ts", () => {
  compare(
    "refusals",
    table(
      ["reason", "sentence"],
      Object.entries(refusalSentences).map(([reason, sentence]) => [`\`${reason}\``, sentence]),
    ),
  );
});

test("quantities are those of quantity.ts", () => {
  compare(
    "quantities",
    table(
      ["code", "name", "OBIS", "unit", ""],
      quantities.map(({ code, name, obis, unit, cumulative }) => [
        code,
        name,
        obis ?? "–",
        unit,
        cumulative ? "↑" : "",
      ]),
    ),
  );
  assert.ok(quantities.length >= 44);
  assert.equal(new Set(quantities.map(({ code }) => code)).size, quantities.length);
  assert.equal(new Set(quantities.map(({ name }) => name)).size, quantities.length);
});

test("statuses are those of reading-status.ts", () => {
  compare(
    "statuses",
    table(
      ["number", "letter", "values", "meaning"],
      statusLetters.map((letter, i) => [i, letter, hasValues(i) ? "yes" : "no", statusSentences[letter]]),
    ),
  );
  assert.deepEqual(clockStateLetters, ["S", "U", "I", "R"]);
});

test("event codes are those of record.ts", () => {
  const stated = [...section("events").matchAll(/^\| (\d+) \| (\w+) \|/gm)].map(([, code, name]) => [
    name,
    Number(code),
  ]);
  assert.deepEqual(Object.fromEntries(stated), eventCodes);
});

test("content types and limits are those of the code", () => {
  const limits = [
    recordBytesMax,
    receiptBytesMax,
    enrolmentBytesMax,
    enrolmentBytesMax,
    statementBytesMax,
    certificateBytesMax,
    encryptedRecordBytesMax,
  ];
  const stated = [...section("content-types").matchAll(/^\| (\d+) \|.*\| ([\d,]+) bytes \|/gm)];
  assert.deepEqual(
    stated.map(([, type]) => Number(type)),
    Object.values(contentTypes),
  );
  assert.deepEqual(
    stated.map(([, , limit]) => Number(limit?.replace(",", ""))),
    limits,
  );
});

const wallet = keyOfLabel("wallet key");
const previous = sha256(new TextEncoder().encode("the record before")).slice(0, 16);

/** How a size is counted: with tag and kid, without, or as the packet of LoRaWAN. */
type Form = "tagged" | "bare" | "packet";

function sizeOf(content: ReadingContent, form: Form = "tagged"): number {
  if (form === "packet") return packetOf(signRecord(content, wallet.sign)).length;
  return signRecord(content, wallet.sign, form === "bare" ? undefined : kidOf(wallet.publicKey, sha256)).length;
}

test("sizes of sealed records are what the table says, and within their limits", () => {
  const two = { previous, sequence, codes: [2, 4] };
  const reading = readingOf({ ...two, rows: [good(noonS, [importWh, exportWh])] });
  const twelve = readingOf({ previous, sequence, codes: twelveCodes, rows: [good(noonS, twelveValues)] });
  const quarters = (feedInW: number) => readingOf({ ...two, slotS: 900, rows: energyRows(4, 900, feedInW) });
  const minutes = (feedInW: number) => readingOf({ ...two, slotS: 60, rows: energyRows(60, 60, feedInW) });
  const late = { sequence: 65_535 };
  const later = { sequence: 65_536 };
  const most = { sequence: 4_000_000, meter: 200, clockState: 2, generation: 300 };
  const measured: readonly (readonly [
    what: string,
    content: ReadingContent,
    limit: number | undefined,
    form?: Form,
  ])[] = [
    ["one reading of two energies, sequence 4,711", reading, 155],
    ["… sequence 65,535", { ...reading, ...late }, 155],
    ["… sequence 65,536 and above", { ...reading, ...later }, 155],
    ["… and meter 200, clock state I, clock generation 300", { ...reading, ...most }, undefined],
    ["one reading of 12 values, sequence 4,711", twelve, 200],
    ["… sequence 65,536 and above", { ...twelve, ...later }, 200],
    ["four 15-minute readings of two energies, no tag, no kid, no feed-in", quarters(0), 151, "bare"],
    ["… feeding in up to 2 kW, sequence 65,535", { ...quarters(2_000), ...late }, 151, "bare"],
    ["… and of plan 1", { ...quarters(2_000), ...late, plan: 1 }, 151, "bare"],
    ["… sequence 65,536 and above", { ...quarters(2_000), ...later, plan: 1 }, undefined, "bare"],
    ["… and as a LoRaWAN packet", { ...quarters(2_000), ...later, plan: 1 }, 152, "packet"],
    [
      "… registers above 4,294 MWh, plan 0, sequence 4,711",
      { ...quarters(2_000), rows: shifted(quarters(2_000)) },
      undefined,
      "bare",
    ],
    ["sixty 1-minute readings of two energies, no feed-in", minutes(0), 400],
    ["… feeding in up to 2 kW, sequence 65,535", { ...minutes(2_000), ...late }, 400],
    ["… feeding in up to 9 kW, sequence 65,535", { ...minutes(9_000), ...late }, 400],
  ];
  const rows = measured.map(([what, content, limit, form]) => [
    what,
    sizeOf(content, form),
    limit ? `≤ ${limit}` : "–",
  ]);
  const expected = table(["sealed record", "bytes", "limit"], rows);
  console.log(expected);
  for (const [what, content, limit, form] of measured)
    if (limit) assert.ok(sizeOf(content, form) <= limit, `${what}: ${sizeOf(content, form)} bytes, at most ${limit}`);
  compare("sizes", expected);
});

/** The same rows of registers that need eight bytes. */
function shifted(content: ReadingContent): ReadingContent["rows"] {
  return content.rows.map((row) => ({ ...row, values: row.values.map((value) => value + 2 ** 32) }));
}

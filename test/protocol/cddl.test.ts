// protocol/ecp.cddl says the same as the code: every accepted vector matches it, and what it can say, it refuses as well.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { Refusal } from "../../protocol/refusal.ts";
import { vectorFiles } from "../vectors/generate.ts";
import { bytesOf } from "../vectors/signature-suite.ts";
import type { Vector } from "../vectors/vector.ts";
import { decodeMessage, looseEnds, matches, parseCddl } from "./cddl.ts";

const rules = parseCddl(readFileSync(path.join(import.meta.dirname, "../../protocol/ecp.cddl"), "utf8"));
const ruleOfFile = {
  "record.json": "sealed-record",
  "receipt.json": "receipt",
  "enrolment-request.json": "enrolment-request",
  "enrolment-answer.json": "enrolment-answer",
  "record-epochs.json": "sealed-record",
  "rotation.json": "sealed-record",
  "enrolment-rotated.json": "enrolment-request",
  "receipt-kept.json": "receipt",
  "statement.json": "statement",
  "encrypted-record.json": "encrypted-record",
} as const;

function matchesRule(name: string, vector: Vector): boolean {
  const bytes = bytesOf(vector.hex as string);
  try {
    const type = rules.get(name);
    assert.ok(type);
    return matches(rules, type, decodeMessage(bytes));
  } catch (error) {
    if (error instanceof Refusal) return false;
    throw error;
  }
}

test("the file is whole: each name is defined, each rule is used", () => {
  assert.deepEqual(looseEnds(rules, "message"), []);
  assert.ok(rules.size > 40, `${rules.size} rules`);
});

test("every accepted message matches its rule, and no other message's", () => {
  let count = 0;
  for (const [file, rule] of Object.entries(ruleOfFile))
    for (const vector of vectorFiles()
      .get(file)
      ?.vectors.filter(({ expect }) => expect === "ok") ?? []) {
      assert.ok(matchesRule(rule, vector), `${file}: ${vector.name}`);
      assert.ok(matchesRule("message", vector), `${file}: ${vector.name}`);
      for (const other of Object.values(ruleOfFile))
        if (other !== rule) assert.ok(!matchesRule(other, vector), `${file}: ${vector.name} as ${other}`);
      count++;
    }
  console.log(`${count} messages match`);
  assert.ok(count >= 28, `${count}`);
});

/** What CDDL cannot say: one field depends on another, or the order within an array. README.md says it. */
const beyondCddl = new Set([
  "row statuses beside a status for all",
  "row statuses of a row that is not there",
  "row statuses that are all the same",
  "through without its digest",
  "through 0 with a digest",
  "a range that touches through",
  "a range below through",
  "a range that ends before it begins",
  "ranges that overlap",
  "two meters of one index",
  "rotations without the name's key",
  "a name's key without rotations",
  "the last rotation left out",
  "a record without a rotation",
  "for another device",
  "for another epoch",
  "for another sequence",
  "for a record with another one before it",
  "into the epoch that ends",
  "two certificates",
  "an end before the beginning",
  "a run that ends before it begins",
  "registers descending",
  "a register twice",
  "a rise from a stand below what there is",
]);

test("a message with a field missing or wrong is refused by the CDDL too, but for what CDDL cannot say", () => {
  let refused = 0;
  const taken = new Set<string>();
  for (const [file, rule] of Object.entries(ruleOfFile))
    for (const vector of vectorFiles().get(file)?.vectors ?? []) {
      if (!["missing-field", "bad-field", "wrong-content-type", "unsupported-version"].includes(vector.expect))
        continue;
      if (matchesRule(rule, vector)) taken.add(vector.name);
      else refused++;
    }
  assert.deepEqual(taken, beyondCddl);
  console.log(`${refused} wrong messages are refused by the CDDL as well`);
  assert.ok(refused > 50, `${refused}`);
});

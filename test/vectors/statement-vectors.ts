/** Period statements. */
import { contentTypes } from "../../protocol/cose-sign1.ts";
import { type CborValue } from "../../protocol/deterministic-cbor.ts";
import { valueMax } from "../../protocol/record.ts";
import { type RefusalReason } from "../../protocol/refusal.ts";
import { type Statement } from "../../protocol/statement.ts";
import { epoch, exportWh, importWh, noonS } from "./sample-content.ts";
import { hexOf, type TestKey } from "./signature-suite.ts";
import {
  type Changes,
  changed,
  device,
  digestOfWrapped,
  jsonOf,
  stranger,
  type Vector,
  wallet,
  wrap,
} from "./vector.ts";

const monthS = 31 * 86_400;

const month: Statement = {
  device,
  meter: 0,
  fromS: noonS - monthS,
  toS: noonS,
  registers: [
    { code: 2, stand: importWh, rise: 297_600 },
    { code: 4, stand: exportWh, rise: 0 },
  ],
  first: { epoch: 7, sequence: 4_711 },
  last: { epoch, sequence: 12 },
  timeS: noonS + 60,
  clockState: 0,
};

function payloadOf(statement: Statement, changes: Changes): Uint8Array {
  const payload = new Map<number, CborValue>([
    [1, 1],
    [2, statement.device],
    [3, statement.meter],
    [4, statement.fromS],
    [5, statement.toS],
    [6, statement.registers.map(({ code, stand, rise }) => [code, stand, rise])],
    [7, [statement.first.epoch, statement.first.sequence]],
    [8, [statement.last.epoch, statement.last.sequence]],
    [9, statement.timeS],
  ]);
  if (statement.clockState !== 0) payload.set(10, statement.clockState);
  return changed(payload, changes);
}

const refused: readonly (readonly [name: string, expect: RefusalReason, ...changes: Changes])[] = [
  ["version 2", "unsupported-version", [1, 2]],
  ["no device", "missing-field", [2, undefined]],
  ["no meter", "missing-field", [3, undefined]],
  ["no registers", "missing-field", [6, undefined]],
  ["no time", "missing-field", [9, undefined]],
  ["device of 32 bytes", "bad-field", [2, new Uint8Array(32)]],
  ["meter 256", "bad-field", [3, 256]],
  ["an end before the beginning", "bad-field", [5, noonS - monthS - 1]],
  ["no register in the list", "bad-field", [6, []]],
  ["registers descending", "bad-field", [6, [[4, 1, 0], [2, 1, 0]]]],
  ["a register twice", "bad-field", [6, [[2, 1, 0], [2, 1, 0]]]],
  ["a register that fell", "bad-field", [6, [[2, 1, -1]]]],
  ["a stand above 2^52-1", "bad-field", [6, [[2, valueMax + 1, 0]]]],
  ["a rise from a stand below what there is", "bad-field", [6, [[2, -valueMax, 1]]]],
  ["a register without its rise", "missing-field", [6, [[2, 1]]]],
  ["more than 64 registers", "bad-field", [6, Array.from({ length: 65 }, (_, i) => [i + 1, 1, 0])]],
  ["a record of sequence 0", "bad-field", [7, [epoch, 0]]],
  ["a record without its epoch", "missing-field", [8, []]],
  ["clock state 0 stated", "bad-field", [10, 0]],
  ["longer than 4 KiB", "too-large", [99, new Uint8Array(4_096)]],
];

export function statementVectors(): Vector[] {
  const type = contentTypes.statement;
  const key = hexOf(wallet.publicKey);
  const ok = (name: string, statement: Statement, changes: Changes = []): Vector => ({
    name,
    hex: hexOf(wrap(type, payloadOf(statement, changes), { key: wallet })),
    key,
    expect: "ok",
    meaning: {
      digest: hexOf(digestOfWrapped(type, payloadOf(statement, changes), { key: wallet })),
      content: jsonOf(statement),
    },
  });
  const bad = (name: string, expect: RefusalReason, changes: Changes, by: TestKey = wallet): Vector => ({
    name,
    hex: hexOf(wrap(type, payloadOf(month, changes), { key: by })),
    key,
    expect,
  });
  return [
    ok("a month of two registers, over a change of the epoch", month),
    ok("one row is both ends, clock informative", {
      ...month,
      meter: 255,
      fromS: noonS,
      registers: [{ code: 65_535, stand: -5, rise: 0 }],
      first: month.last,
      clockState: 2,
    }),
    ok("the greatest rise", { ...month, registers: [{ code: 2, stand: valueMax, rise: 2 * valueMax }] }),
    ok("fields that are not known are ignored", month, [[42, "later"]]),
    ...refused.map(([name, expect, ...changes]) => bad(name, expect, changes)),
    {
      name: "a record",
      hex: hexOf(wrap(contentTypes.record, payloadOf(month, []), { key: wallet })),
      key,
      expect: "wrong-content-type",
    },
    bad("signed by another key", "signature-invalid", [], stranger),
  ];
}

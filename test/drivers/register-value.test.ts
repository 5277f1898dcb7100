import assert from "node:assert/strict";
import { test } from "node:test";
import type { NumberType, ProfileRegister } from "../../drivers/modbus/profile.ts";
import { textOfWords, valueOfWords } from "../../drivers/modbus/register-value.ts";

const register = (type: NumberType, changes: Partial<ProfileRegister> = {}): ProfileRegister => ({
  ...{ code: 29, functionCode: 4, address: 0, type, wordOrder: "high-first", unitsPerValue: 1, sign: "signed" },
  ...{ isOptional: false, absentRaws: [], source: "test" },
  ...changes,
});
const words = (...list: number[]): Uint16Array => Uint16Array.from(list);

test("every type, high word first and low word first", () => {
  const cases: [NumberType, number[], number][] = [
    ["uint16", [0xfffe], 65_534],
    ["int16", [0xfffe], -2],
    ["uint32", [0x8000, 0x0001], 2_147_483_649],
    ["int32", [0x8000, 0x0001], -2_147_483_647],
    ["uint64", [0x001f, 0xffff, 0xffff, 0xffff], Number.MAX_SAFE_INTEGER],
    ["int64", [0xffe0, 0x0000, 0x0000, 0x0001], Number.MIN_SAFE_INTEGER],
    ["float32", [0xc49a, 0x5000], -1235],
    ["float64", [0x4073, 0x3c00, 0x0000, 0x0000], 308],
  ];
  for (const [type, high, value] of cases) {
    assert.equal(valueOfWords(register(type), words(...high)), value, `${type}, high word first`);
    const low = register(type, { wordOrder: "low-first" });
    assert.equal(valueOfWords(low, words(...high.toReversed())), value, `${type}, low word first`);
  }
});

test("integers of 64 bits keep every digit, also where no double holds the raw value", () => {
  // No double holds the raw value.
  const raw = words(0x013f, 0xffff, 0xffff, 0xfff1); // 90071992547409905
  assert.equal(valueOfWords(register("uint64", { unitsPerValue: 0.1 }), raw), Number.MAX_SAFE_INTEGER);
  assert.equal(valueOfWords(register("uint64", { unitsPerValue: 0.001 }), raw), 90_071_992_547_410);
});

test("tenths are rounded once, half away from zero, for both directions alike", () => {
  const tenths = (sign: ProfileRegister["sign"], raw: number): unknown =>
    valueOfWords(register("int16", { unitsPerValue: 0.1, sign }), words(raw & 0xffff));
  assert.deepEqual([tenths("signed", 5), tenths("signed", -5), tenths("signed", 4)], [1, -1, 0]);
  assert.ok(Object.is(tenths("signed", -4), 0));
  assert.equal(tenths("positive part", 15), tenths("negative part", -15));
});

test("a mark is 'not available' only in the very bits of the register's type", () => {
  const marked = register("int32", { absentRaws: [0x7fff_ffffn] });
  const value = valueOfWords(marked, words(0x7fff, 0xffff));
  assert.ok(typeof value !== "number" && value.isAbsent && value.problem.includes("0x7FFFFFFF"));
  assert.equal(valueOfWords(marked, words(0x7fff, 0xfffe)), 2_147_483_646);
  assert.equal(valueOfWords(register("int32"), words(0x7fff, 0xffff)), 2_147_483_647);
});

test("a wild value is out of range, whatever its bits; a counter may be as large as an integer can", () => {
  const status = (code: number, type: NumberType, list: number[]): unknown => {
    const value = valueOfWords(register(type, { code, unitsPerValue: 1000 }), words(...list));
    return typeof value === "number" ? value : value.status;
  };
  assert.equal(status(14, "float32", [0x43fa, 0x0000]), 8); // 500 Hz, as some meters give ten times the frequency
  assert.equal(status(14, "float32", [0x4248, 0x0000]), 50_000);
  assert.equal(status(13, "float32", [0x4000, 0x0000]), 8); // a power factor of 2
  assert.equal(status(2, "uint32", [0xffff, 0xffff]), 4_294_967_295_000);
});

test("texts lose what fills them up; bytes that are no text are none", () => {
  assert.equal(textOfWords({ type: "ascii", count: 3 }, words(0x4232, 0x3320, 0x0000)), "B23");
  assert.equal(textOfWords({ type: "ascii-low", count: 3 }, words(0x0041, 0x0042, 0x0020)), "AB");
  assert.equal(textOfWords({ type: "ascii", count: 2 }, words(0, 0)), undefined);
  assert.equal(textOfWords({ type: "ascii", count: 1 }, words(0xffff)), undefined);
});

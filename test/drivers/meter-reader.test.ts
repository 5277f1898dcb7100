import assert from "node:assert/strict";
import { test } from "node:test";
import { DriverError, driverErrorCodes } from "../../drivers/failure.ts";
import { statusOfError } from "../../drivers/modbus/meter-reader.ts";
import type { ProfileRegister } from "../../drivers/modbus/profile.ts";
import { findMeterProfile, meterProfiles } from "../../drivers/modbus/profile-catalogue.ts";
import { integerOfFloat } from "../../drivers/modbus/register-value.ts";
import { statuses } from "../../protocol/reading-status.ts";
import { eastronSdm630 } from "./sdm630-line.ts";

const register = (sign: ProfileRegister["sign"], unitsPerValue = 1): ProfileRegister => ({
  code: 1,
  functionCode: 4,
  address: 0,
  type: "float32",
  wordOrder: "high-first",
  unitsPerValue,
  sign,
  isOptional: false,
  absentRaws: [],
  source: "test",
});

test("a signed power is two codes: what is imported and what is exported", () => {
  assert.equal(integerOfFloat(register("positive part"), 1234.4), 1234);
  assert.equal(integerOfFloat(register("negative part"), 1234.4), 0);
  assert.equal(integerOfFloat(register("positive part"), -77.6), 0);
  assert.equal(integerOfFloat(register("negative part"), -77.6), 78);
  assert.equal(integerOfFloat(register("signed"), -77.6), -78);
});

test("no value is ever minus zero, which deterministic CBOR would write as a float", () => {
  for (const sign of ["signed", "unsigned", "positive part", "negative part"] as const) {
    for (const value of [-0, 0, -0.4, 0.4])
      assert.ok(Object.is(integerOfFloat(register(sign), value), 0), `${sign} ${value}`);
  }
});

test("kWh of a float32 become Wh", () => {
  assert.equal(integerOfFloat(register("unsigned", 1000), Math.fround(53.727)), 53_727);
  assert.equal(integerOfFloat(register("unsigned", 1000), Math.fround(16_000.001)), 16_000_001);
});

test("what is no number is a read error, what is too large or below zero is out of range", () => {
  const status = (sign: ProfileRegister["sign"], value: number): unknown => {
    const result = integerOfFloat(register(sign, 1000), value);
    return typeof result === "number" ? result : result.status;
  };
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    assert.equal(status("signed", value), statuses.readError);
  }
  assert.equal(status("signed", 3.4e38), statuses.outOfRange);
  assert.equal(status("signed", -3.4e38), statuses.outOfRange);
  assert.equal(status("unsigned", -1), statuses.outOfRange);
});

test("every error of the bus has a status, and only errors of the program have none", () => {
  const without = driverErrorCodes.filter((code) => statusOfError(new DriverError(code, "x")) === undefined);
  assert.deepEqual(without, ["function-refused", "invalid-argument"]);
  const ofException = (exceptionCode: number): number | undefined =>
    statusOfError(new DriverError("modbus-exception", "x", { exceptionCode }));
  assert.deepEqual([1, 2, 3, 4, 6, 10, 11].map(ofException), [7, 7, 7, 11, 11, 3, 2]);
});

test("busy and a silent gateway target may be tried again, an illegal address not", () => {
  const retryable = (exceptionCode: number): boolean =>
    new DriverError("modbus-exception", "x", { exceptionCode }).retryable;
  assert.deepEqual([5, 6, 11].map(retryable), [true, true, true]);
  assert.deepEqual([1, 2, 3, 4, 10].map(retryable), [false, false, false, false, false]);
});

test("the SDM630's table: codes once each and ascending, even addresses, defaults in the table", () => {
  const codes = eastronSdm630.registers.map(({ code }) => code);
  assert.deepEqual(
    codes,
    [...new Set(codes)].sort((a, b) => a - b),
  );
  assert.ok(eastronSdm630.registers.every(({ address }) => address % 2 === 0));
  assert.ok(eastronSdm630.defaultCodes.every((code) => codes.includes(code)));
});

test("profiles are found by their id, each id once", () => {
  assert.equal(findMeterProfile("eastron-sdm630"), eastronSdm630);
  assert.equal(findMeterProfile("unheard-of"), undefined);
  assert.equal(new Set(meterProfiles.map(({ id }) => id)).size, meterProfiles.length);
});

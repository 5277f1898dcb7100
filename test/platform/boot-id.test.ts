import assert from "node:assert/strict";
import { test } from "node:test";
import { readBootId } from "../../platform/boot-id.ts";

test("a boot has one name; where the kernel gives none, no two are taken for the same", () => {
  assert.equal(readBootId(), readBootId());
  assert.notEqual(readBootId("/proc/none"), readBootId("/proc/none"));
  assert.notEqual(readBootId("/dev/null"), "");
});

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { version } from "../../platform/version.ts";

test("the version that programs tell is package.json's, and package-lock.json's", () => {
  const read = (name: string): { version: string } =>
    JSON.parse(readFileSync(join(import.meta.dirname, "..", "..", name), "utf8"));
  assert.equal(version, read("package.json").version);
  assert.equal(version, read("package-lock.json").version);
});

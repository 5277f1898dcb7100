// Reading past the kernel's cache. That a failed write leaves the cache with what the disk does not have, and what that would do to the
// journal, is shown on a disk that fails: `npm run campaign -- disk`.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { readFromDevice } from "../../wallet/device-read.ts";

for (const [name, parent] of [
  ["the disk", tmpdir()],
  ["a file system in memory", "/dev/shm"],
] as const)
  test(`a file on ${name} comes back byte for byte, whole or its beginning, and a file that is too short is named`, (t) => {
    const folder = mkdtempSync(path.join(parent, "ecp-device-read-"));
    t.after(() => rmSync(folder, { recursive: true }));
    const file = path.join(folder, "segment");
    const bytes = Buffer.from(Array.from({ length: 33 * 4_096 }, (_, i) => (i * 31 + (i >> 12)) & 0xff));
    writeFileSync(file, bytes, { flush: true });
    assert.ok(readFromDevice(file, bytes.length).equals(bytes));
    assert.ok(readFromDevice(file, 4_096).equals(bytes.subarray(0, 4_096)));
    assert.ok(readFromDevice(file, 17 * 4_096).equals(bytes.subarray(0, 17 * 4_096)));
    truncateSync(file, 16 * 4_096);
    assert.throws(() => readFromDevice(file, bytes.length), /segment ends at 65536, expected \d+ bytes/);
    assert.throws(() => readFromDevice(path.join(folder, "missing"), 4_096), { code: "ENOENT" });
  });

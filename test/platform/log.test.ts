import assert from "node:assert/strict";
import { test } from "node:test";
import { createLog } from "../../platform/log.ts";

test("each entry is one line of JSON with time, level, part and message", () => {
  const lines: string[] = [];
  const log = createLog("agent", (line) => lines.push(line));
  log.info("started", { meters: 2, path: "/dev/ttyUSB0", absent: undefined });
  log.warn("two\nlines");
  log.error("three");
  const entries = lines.map((line) => JSON.parse(line));
  assert.deepEqual(
    entries.map(({ level, part, message }) => [level, part, message]),
    [
      ["info", "agent", "started"],
      ["warn", "agent", "two\nlines"],
      ["error", "agent", "three"],
    ],
  );
  assert.deepEqual(Object.keys(entries[0]), ["time", "level", "part", "message", "meters", "path"]);
  assert.match(entries[0].time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assert.ok(lines.every((line) => !line.includes("\n")));
});

test("a field cannot take the place of level or message", () => {
  const lines: string[] = [];
  createLog("wallet", (line) => lines.push(line)).warn("true message", { level: "info", message: "other", part: "x" });
  const { level, message, part } = JSON.parse(lines[0] ?? "");
  assert.deepEqual([level, message, part], ["warn", "true message", "wallet"]);
});

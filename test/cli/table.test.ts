import assert from "node:assert/strict";
import { test } from "node:test";
import { formatTable } from "../../cli/table.ts";

const columns = [{ title: "name" }, { title: "n", align: "right" }, { title: "why" }] as const;
const rows = [
  ["house", "1", "somebody said so"],
  ["garage", "22", ""],
];

test("a table is aligned, numbers to the right", () => {
  assert.equal(
    formatTable(columns, rows),
    `name     n  why
──────  ──  ────────────────
house    1  somebody said so
garage  22
`,
  );
});

test("on a terminal that is too narrow the columns that do not fit go on below, and no line is longer than the terminal", () => {
  const text = formatTable(columns, rows, 24);
  assert.equal(
    text,
    `name     n
    why
──────  ──
    ────────────────
house    1
    somebody said so
garage  22
`,
  );
  assert.ok(text.split("\n").every((line) => line.length <= 24));
  assert.equal(formatTable(columns, rows, 28), formatTable(columns, rows), "what just fits stays on one line");
});

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { type TestContext, test } from "node:test";

const program = join(import.meta.dirname, "../../cli/ecp-demo.ts");

function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "ecp-d-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** With a standard input that stays open: an error must end it all the same. */
async function simulate(...args: readonly string[]): Promise<{ status: number | null; error: string }> {
  const child = spawn(process.execPath, [program, "simulate", ...args], {
    stdio: ["pipe", "ignore", "pipe"],
    timeout: 20_000,
  });
  const [status, error] = await Promise.all([
    new Promise<number | null>((resolve) => child.once("close", resolve)),
    text(child.stderr),
  ]);
  return { status, error };
}

test("simulate --link replaces no file, and ends at once where no link can be made", async (t) => {
  const file = join(temporaryFolder(t), "letter.txt");
  writeFileSync(file, "dear reader");
  for (const link of [file, "/proc/x"]) {
    const { status, error } = await simulate("--link", link, "--exit-with-parent");
    assert.equal(status, 73, error);
    assert.ok(error.includes(`where: --link ${link}\n`), error);
  }
  assert.equal(readFileSync(file, "utf8"), "dear reader");
});

test("the demo starts nothing, and takes nothing away, where a file is in the place of the meter's link", async (t) => {
  const data = temporaryFolder(t);
  writeFileSync(join(data, "meter.tty"), "mine");
  const child = spawn(process.execPath, [program, "--data", data], {
    stdio: ["ignore", "ignore", "pipe"],
    timeout: 20_000,
  });
  const [status, error] = await Promise.all([
    new Promise<number | null>((resolve) => child.once("close", resolve)),
    text(child.stderr),
  ]);
  assert.equal(status, 73, error);
  assert.deepEqual(readdirSync(data), ["meter.tty"]);
});

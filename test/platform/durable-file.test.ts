import assert from "node:assert/strict";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { replaceFileDurably, replaceFileSynced, writeFileDurably } from "../../platform/durable-file.ts";

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "ecp-durable-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

const ways: [string, (path: string, content: Uint8Array, mode: number) => Promise<void>][] = [
  ["writeFileDurably", async (...file) => writeFileDurably(...file)],
  ["replaceFileDurably", replaceFileDurably],
  ["replaceFileSynced", async (...file) => replaceFileSynced(...file)],
];

for (const [name, write] of ways) {
  test(`${name}: makes a file with its mode, replaces it with another, leaves nothing beside it`, async (t) => {
    const path = join(folder(t), "secret");
    await write(path, Buffer.from("one"), 0o600);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    await write(path, Buffer.from("two"), 0o400);
    assert.equal(readFileSync(path, "utf8"), "two");
    assert.equal(statSync(path).mode & 0o777, 0o400);
    assert.deepEqual(readdirSync(join(path, "..")), ["secret"]);
  });

  test(`${name}: where the new file cannot take its place, the old one is there and nothing is left over`, async (t) => {
    const path = join(folder(t), "occupied");
    // A folder that is not empty cannot be replaced by a file, whoever tries (root too).
    const child = join(path, "child");
    mkdirSync(path);
    writeFileSync(child, "old");
    await assert.rejects(() => write(path, Buffer.from("new"), 0o600));
    assert.equal(readFileSync(child, "utf8"), "old");
    assert.deepEqual(readdirSync(join(path, "..")), ["occupied"]);
  });

  test(`${name}: what a crash left aside lends neither its mode nor its target`, async (t) => {
    const home = folder(t);
    const [path, victim] = [join(home, "secret"), join(home, "victim")];
    writeFileSync(victim, "untouched");
    const aside = name === "replaceFileSynced" ? `${path}.new` : `${path}.new-${process.pid}`;
    writeFileSync(aside, "left by a crash", { mode: 0o666 });
    await write(path, Buffer.from("one"), 0o600);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    symlinkSync(victim, aside);
    await write(path, Buffer.from("two"), 0o600);
    assert.equal(readFileSync(victim, "utf8"), "untouched");
    assert.equal(readFileSync(path, "utf8"), "two");
  });

  test(`${name}: into a folder that is not there it throws ENOENT`, async (t) => {
    await assert.rejects(() => write(join(folder(t), "none", "file"), Buffer.from("x"), 0o600), { code: "ENOENT" });
  });
}

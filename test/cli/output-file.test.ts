import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { CommandError } from "../../cli/command.ts";
import { makeFolder, signedMessage, writeOutput } from "../../cli/output-file.ts";
import { contentTypes, signCose } from "../../protocol/cose-sign1.ts";

function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "ecp-o-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

const refused =
  (where: string, status = 73) =>
  (error: unknown) =>
    error instanceof CommandError &&
    error.status === status &&
    error.text.where === where &&
    !/\.new-/.test(error.message);
const request = signedMessage(contentTypes.enrolmentRequest);
const message = (type: (typeof contentTypes)[keyof typeof contentTypes], byte: number): Uint8Array =>
  signCose(type, Uint8Array.of(byte), () => new Uint8Array(64));

test("an output replaces one of its own kind and nothing else", (t) => {
  const file = join(temporaryFolder(t), "request.cose");
  for (const byte of [1, 2]) {
    const bytes = message(contentTypes.enrolmentRequest, byte);
    writeOutput(file, bytes, request);
    assert.deepEqual(new Uint8Array(readFileSync(file)), bytes);
  }
  for (const other of [message(contentTypes.record, 1), Buffer.from("a key"), Buffer.alloc(1_000_000)]) {
    writeFileSync(file, other);
    assert.throws(() => writeOutput(file, message(contentTypes.enrolmentRequest, 3), request), refused(file));
    assert.deepEqual(readFileSync(file), Buffer.from(other));
  }
  writeFileSync(file, "");
  writeOutput(file, "x", request);
});

test("no output goes to a folder, a link, a device, or a folder that is not there; the path that was given is named", (t) => {
  const folder = temporaryFolder(t);
  const link = join(folder, "link");
  symlinkSync("/dev/null", link);
  for (const path of [folder, ".", "/dev/null", link, join(folder, "no", "x"), join(link, "x"), "/proc/x"])
    assert.throws(() => writeOutput(path, "x", () => true), refused(path));
  assert.deepEqual(readdirSync(folder), ["link"]);
});

test("folders are made step by step, and where they cannot be it ends", (t) => {
  const folder = temporaryFolder(t);
  const deep = join(folder, "a", "b", "c");
  makeFolder(deep, 0o700);
  makeFolder(deep);
  assert.equal(statSync(deep).mode & 0o777, 0o700);
  writeFileSync(join(folder, "file"), "");
  assert.throws(() => makeFolder(join(folder, "file")), refused(join(folder, "file")));
  assert.throws(() => makeFolder("/proc/x/y"), refused("/proc/x/y"));
});

// ecp-wallet journal: what people and scripts get, with the program as it is installed; also while the wallet runs.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, beforeEach, type TestContext, test } from "node:test";
import { verifyCose } from "../../protocol/cose-sign1.ts";
import { HandOverReader } from "../../protocol/hand-over.ts";
import { decodeRecord, eventCodes } from "../../protocol/record.ts";
import { blockBytes } from "../../wallet/journal-block.ts";
import { verifyEd25519 } from "../../wallet/verification.ts";
import { JournalFixture, stopped } from "../wallet/journal-fixture.ts";
import { epoch, meterOf, refusal, rowAt, sha256, startS } from "../wallet/wallet-fixture.ts";
import { WalletFolder } from "./wallet-process.ts";

const folder = new WalletFolder();
after(() => folder.remove());
beforeEach(() => {
  folder.make({ meters: [meterOf()], sealEveryS: 0 });
  rmSync(path.join(folder.root, "backlog.ecp"), { force: true });
});

const other = 0x0bad_cafe;
const journalFolder = path.join(folder.data, "journal");
const output = path.join(folder.root, "backlog.ecp");

function journal(command: string, ...args: string[]) {
  return folder.command(["journal", command, "--data", folder.data, ...args]);
}

/** Twenty records of two epochs, of which the first five are released. */
function withRecords(t: TestContext): JournalFixture {
  const fixture = new JournalFixture(t);
  for (let i = 0; i < 10; i++) fixture.append();
  fixture.journal.release(5, fixture.receipt("5"));
  fixture.journal.beginEpoch(other);
  for (let i = 0; i < 9; i++) fixture.append();
  fixture.append([stopped, [eventCodes.storageError, "none"]]);
  take(fixture);
  return fixture;
}

function take(fixture: JournalFixture): void {
  rmSync(journalFolder, { recursive: true, force: true });
  cpSync(fixture.folder, journalFolder, { recursive: true });
}

function image(): Buffer {
  return Buffer.concat(readdirSync(journalFolder).map((name) => readFileSync(path.join(journalFolder, name))));
}

function recordsIn(file: string): Uint8Array[] {
  const reader = new HandOverReader();
  const records = reader.push(readFileSync(file));
  assert.deepEqual(reader.end().nameKey, folder.key.publicKey);
  for (const bytes of records) verifyCose(decodeRecord(bytes, sha256).cose, folder.key.publicKey, verifyEd25519);
  return records;
}

test("check says that a journal is whole, and where it is damaged", (t) => {
  const fixture = withRecords(t);
  const before = image();
  const whole = journal("check");
  assert.deepEqual([whole.code, whole.stdout], [0, "20 records in 21 commits: whole\n"]);
  assert.deepEqual(image(), before, "nothing is written");
  const file = path.join(journalFolder, "segment-0000.ecpj");
  const bytes = readFileSync(file);
  bytes[3 * blockBytes + 1_000] = 1;
  writeFileSync(file, bytes);
  const damaged = journal("check");
  assert.equal(damaged.code, 65);
  assert.equal(
    damaged.stdout,
    `segment 0, blocks 3-3: commits 3-3 are missing, with sequences 3-3 of epoch ${epoch}\n19 records in 20 commits: 1 finding\n`,
  );
  take(fixture);
  folder.command(["init", "--data", path.join(folder.root, "else"), "--insecure", "--segments", "3"]);
  cpSync(path.join(folder.root, "else", "device.key"), path.join(folder.data, "device.key"));
  const foreign = journal("check");
  assert.equal(foreign.code, 65);
  assert.match(foreign.stdout, /record 1 of epoch 305419896: its signature is not by this device's key\n/);
});

test("list names each record, in lines and as JSON, of all epochs or one", (t) => {
  withRecords(t);
  const lines = journal("list").stdout.trimEnd().split("\n");
  assert.equal(lines.length, 20);
  assert.match(lines[4] as string, /^305419896 5 {2}2027-01-15T08:00:00Z {2}stopped {2}\d+ bytes {2}released$/);
  assert.match(lines[19] as string, /^195939070 10 {2}\S+ {2}stopped, storageError {2}\d+ bytes {2}waiting$/);
  const json = journal("list", "--json", "--epoch", `${other}`, "--from", "2", "--to", "3")
    .stdout.trimEnd()
    .split("\n");
  assert.deepEqual(
    json.map((line) => JSON.parse(line)),
    [2, 3].map((sequence) => ({
      ...{ epoch: other, sequence, time: "2027-01-15T08:00:00Z", kind: "event", events: ["stopped"] },
      ...{ bytes: JSON.parse(json[0] as string).bytes, released: false },
    })),
  );
  const none = journal("list", "--from", "9", "--to", "2");
  assert.equal(none.stdout, "");
  assert.match(none.stderr, new RegExp(`no such record is in the journal; its epochs are .*${other}`));
  const wrong = journal("list", "--from", "x");
  assert.deepEqual([wrong.code, wrong.stderr], [64, "ecp-wallet: --from x: a whole number was expected\n"]);
});

test("a reader that has seen enough ends the list without an error", async (t) => {
  const fixture = new JournalFixture(t, 3, 128);
  const most = Array.from({ length: 16 }, () => stopped);
  for (let i = 0; i < 250; i++) fixture.append(most);
  take(fixture); // some 70 KB of lines, more than a pipe holds
  const child = spawn(folder.program, ["journal", "list", "--data", folder.data, "--json"]);
  const listing = folder.started(child);
  child.stdout.once("data", () => child.stdout.destroy());
  assert.deepEqual([(await listing.ended).code, (await listing.ended).stderr], [0, ""]);
});

test("export writes what waits, or everything, as a hand-over file that proves itself", (t) => {
  const fixture = withRecords(t);
  rmSync(output, { force: true });
  const waiting = journal("export", "--output", output);
  assert.deepEqual([waiting.code, waiting.stdout], [0, `15 records in ${output}\n`]);
  assert.equal(statSync(output).mode & 0o777, 0o600);
  const places = recordsIn(output).map((bytes) => {
    const { content } = decodeRecord(bytes, sha256);
    return `${content.epoch}/${content.sequence}`;
  });
  assert.deepEqual(places, [...fixture.acknowledged.keys()].slice(5), "oldest first");
  assert.equal(journal("export", "--output", output, "--all").code, 0, "over another hand-over file");
  assert.equal(recordsIn(output).length, 20);
  for (const [name, content] of Object.entries({ letter: "Dear Sir", picture: "\x89PNG" })) {
    writeFileSync(output, content, "latin1");
    const refused = journal("export", "--output", output);
    assert.equal(refused.code, 73, name);
    assert.match(refused.stderr, /is there and is no hand-over file; it was left as it is/);
    assert.equal(readFileSync(output, "latin1"), content);
  }
  rmSync(output);
  assert.equal(journal("export", "--output", path.join(folder.root, "none", "x")).code, 73);
  assert.equal(journal("export").code, 64);
  assert.equal(journal("export", "--output", output, "--all", "--waiting").code, 64);
  const file = path.join(journalFolder, "segment-0000.ecpj");
  const bytes = readFileSync(file);
  bytes[9 * blockBytes + 1_000] = 1;
  writeFileSync(file, bytes);
  const holed = journal("export", "--output", output);
  assert.equal(holed.code, 0);
  assert.match(holed.stderr, /commits 9-9 are missing, .*\n.*what is damaged is not in the file/);
  assert.equal(recordsIn(output).length, 14);
  rmSync(output);
});

test("stats counts, and warns where the ring holds fewer days than the policy asks for", (t) => {
  withRecords(t);
  const json = JSON.parse(journal("stats", "--json").stdout);
  assert.deepEqual(json, {
    ...{ segments: 3, segmentBlocks: 16, segmentsInUse: 2, records: 20, unreleasedRecords: 15 },
    ...{ unreleasedBytes: json.unreleasedBytes, rows: 0, pendingRows: 0 },
    epochs: [
      { epoch, first: 1, through: 5, last: 10 },
      { epoch: other, first: 1, through: 0, last: 10 },
    ],
    ...{ oldest: "2027-01-15T08:00:00Z", newest: "2027-01-15T08:00:00Z", retentionDays: 30 },
  });
  const text = journal("stats");
  assert.match(text.stdout, /^segments {4}2 of 3 in use \(67 %\)\nrecords {5}20, of them 15 not released/);
  assert.equal(text.stderr, "", "nothing is said where too little is known");
  const fixture = new JournalFixture(t);
  for (let i = 0; i < 24; i++) {
    fixture.timeS += 3_600;
    fixture.append();
  }
  take(fixture);
  const short = journal("stats", "--json");
  const { daysHeld } = JSON.parse(short.stdout);
  assert.ok(daysHeld > 1 && daysHeld < 1.3, `${daysHeld}`);
  assert.match(short.stderr, /holds 1\.\d days, and the policy asks for 30/);
  folder.putPolicy({ retentionDays: 1 });
  assert.equal(journal("stats").stderr, "", "control");
});

test("all of it works while the wallet seals, and nothing that is being written is taken for damage", async () => {
  const wallet = folder.run();
  const client = await folder.client(wallet);
  let sealed = 0;
  let isSealing = true;
  const sealing = (async () => {
    while (isSealing && sealed < 500)
      try {
        await client.seal({ meter: 0, plan: 0, slotS: 1, codes: [2, 4], rows: [rowAt(startS + sealed)] });
        sealed++;
      } catch (error) {
        refusal("rate-exceeded")(error);
      }
  })();
  const running = (command: string, ...args: string[]) =>
    folder.started(spawn(folder.program, ["journal", command, "--data", folder.data, ...args])).ended;
  for (let round = 0; round < 3; round++) {
    const ended = await running("check");
    assert.equal(ended.code, 0, ended.stdout);
    const exported = await running("export", "--output", output);
    assert.equal(exported.code, 0, exported.stderr);
    assert.equal(exported.stderr, "");
    recordsIn(output);
    assert.equal((await running("stats")).code, 0);
    assert.equal((await running("list")).code, 0);
  }
  isSealing = false;
  await sealing;
  assert.ok(sealed > 10, `${sealed}`);
  client.close();
  assert.equal((await wallet.end("SIGTERM")).code, 0);
  assert.equal(journal("check").code, 0);
});

test("what is not there or not understood is said, with its exit code", () => {
  assert.equal(folder.command(["journal"]).code, 64);
  assert.match(folder.command(["journal", "mend", "--data", folder.data]).stderr, /'mend' is none/);
  assert.equal(folder.command(["journal", "check"]).code, 64);
  rmSync(path.join(folder.data, "device.key"));
  assert.equal(journal("check").code, 66);
  assert.equal(journal("export", "--output", output).code, 66);
  assert.ok(!existsSync(output));
  rmSync(journalFolder, { recursive: true });
  const gone = journal("stats");
  assert.equal(gone.code, 65);
  assert.match(gone.stderr, /no journal in/);
});

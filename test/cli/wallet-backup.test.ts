// Backup and restore as the real program does them.
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, beforeEach, test } from "node:test";
import { decodeCbor, encodeCbor } from "../../protocol/deterministic-cbor.ts";
import { didKeyOf } from "../../protocol/public-key.ts";
import { type DecodedRecord, decodeRecord, epochReasons, eventCodes } from "../../protocol/record.ts";
import { Journal } from "../../wallet/journal.ts";
import { sha256 } from "../../wallet/journal-segments.ts";
import { readKeyFile, unlockSeed } from "../../wallet/keystore.ts";
import { PassphraseTries } from "../../wallet/passphrase-tries.ts";
import { meterOf, rowAt, startS } from "../wallet/wallet-fixture.ts";
import { passphrase, WalletFolder } from "./wallet-process.ts";

const folder = new WalletFolder();
after(() => folder.remove());
const output = path.join(folder.root, "backup.key");
const restored = path.join(folder.root, "restored");
const backupPassphrase = "of the backup alone";
const backupFile = path.join(folder.root, "backup.passphrase");
const newFile = path.join(folder.root, "new.passphrase");
writeFileSync(backupFile, `${backupPassphrase}\n`, { mode: 0o600 });
writeFileSync(newFile, "new one\n", { mode: 0o600 });

beforeEach(() => {
  folder.make({ meters: [meterOf()] }, 3);
  rmSync(output, { force: true });
  rmSync(restored, { recursive: true, force: true });
});

const key = ["--data", folder.data, "--passphrase-file", folder.passphraseFile];
const backupArguments = ["backup", ...key, "--output", output, "--backup-passphrase-file", backupFile];
const restoreArguments = (from = output, to = restored) => [
  ...["restore", "--from", from, "--data", to, "--segments", "3"],
  ...["--passphrase-file", newFile, "--backup-passphrase-file", backupFile],
];

function recordsIn(data: string): DecodedRecord[] {
  const journal = new Journal(path.join(data, "journal"));
  const { epoch, first, last } = journal.epochs.at(-1) as { epoch: number; first: number; last: number };
  const all = journal.records(first, last, Number.POSITIVE_INFINITY, epoch);
  journal.close();
  return all.map(([, bytes]) => decodeRecord(bytes, sha256));
}

function assertNothingRestored(): void {
  assert.ok(!existsSync(restored));
  assert.deepEqual(
    readdirSync(folder.root).filter((name) => name.startsWith("restored")),
    [],
  );
}

test("a backup of a running wallet holds key and history under a passphrase of its own; the wallet goes on", async () => {
  const wallet = folder.run();
  const client = await folder.client(wallet);
  for (let i = 0; i < 5; i++)
    await client.seal({ meter: 0, plan: 0, slotS: 1, codes: [2, 4], rows: [rowAt(startS + i)] });
  const made = folder.command(backupArguments);
  assert.equal(made.code, 0, made.stderr);
  assert.equal(statSync(output).mode & 0o777, 0o600);
  const bytes = readFileSync(output);
  const { history, publicKey } = readKeyFile(bytes);
  assert.deepEqual(publicKey, folder.key.publicKey);
  const { epoch, nextSequence } = await client.hello();
  assert.equal(history?.epoch, epoch);
  assert.equal(history?.lastSequence, nextSequence - 1);
  const { records } = await client.read(nextSequence - 1, nextSequence - 1);
  assert.deepEqual(history?.lastDigest, decodeRecord(records[0]?.[1] as Uint8Array, sha256).digest);
  assert.throws(() => unlockSeed(bytes, Buffer.from(passphrase), ""), /does not open/);
  assert.deepEqual(new Uint8Array(unlockSeed(bytes, Buffer.from(backupPassphrase), "")), folder.seed);
  await client.seal({ meter: 0, plan: 0, slotS: 1, codes: [2, 4], rows: [rowAt(startS + 5)] });
  client.close();
  assert.equal((await wallet.end("SIGTERM")).code, 0);
  for (const secret of [passphrase, backupPassphrase, Buffer.from(folder.seed).toString("hex")])
    assert.ok(!`${made.stdout}${made.stderr}`.includes(secret));
  assert.ok(!bytes.includes(Buffer.from(folder.seed)));
});

test("restored in a new folder it is the same device in a new epoch, whose first record says what was known", async () => {
  const wallet = folder.run();
  const client = await folder.client(wallet);
  const { epoch } = await client.hello();
  client.close();
  assert.equal((await wallet.end("SIGTERM")).code, 0);
  const last = recordsIn(folder.data).at(-1) as DecodedRecord;
  assert.equal(folder.command(backupArguments).code, 0);
  const { code, stdout, stderr } = folder.command(restoreArguments());
  assert.equal(code, 0, stderr);
  const [first] = recordsIn(restored);
  assert.match(stdout, new RegExp(`ecp-node epoch accept ${didKeyOf(folder.key.publicKey)} ${first?.content.epoch}`));
  assert.notEqual(first?.content.epoch, epoch);
  assert.deepEqual(first?.content.previous, last.digest.slice(0, 16));
  const events = first?.content.kind === "event" ? first.content.events : [];
  assert.deepEqual(events, [[eventCodes.epochBegun, epochReasons.restored, epoch, last.content.sequence, last.digest]]);
  assert.equal(statSync(restored).mode & 0o777, 0o700);
  assert.deepEqual(readdirSync(restored).sort(), ["device.key", "journal", "passphrase.tries", "policy.cbor"]);
  const run = ["run", "--data", restored, "--socket", folder.socket, "--passphrase-file", newFile];
  const again = folder.started(folder.spawn(run));
  const other = await folder.client(again);
  const hello = await other.hello();
  assert.deepEqual(hello.publicKey, folder.key.publicKey);
  assert.equal(hello.epoch, first?.content.epoch);
  assert.equal(hello.nextSequence, 3, "the epoch's beginning and the start");
  other.close();
  assert.equal((await again.end("SIGTERM")).code, 0);
});

test("a rotated key is backed up and restored with what proves its name", async () => {
  assert.equal(folder.command(["rotate", ...key]).code, 0);
  assert.equal(folder.command(backupArguments).code, 0);
  assert.equal(folder.command(restoreArguments()).code, 0);
  const shown = JSON.parse(folder.command(["show", "--data", restored, "--json"]).stdout);
  assert.equal(shown.device, didKeyOf(folder.key.publicKey));
  assert.equal(shown.rotations, 1);
});

test("backup refuses a file that is there, a folder that is not, a wrong passphrase; restore what is no backup, is damaged, or of another version", () => {
  const fails = (args: readonly string[], code: number, message: RegExp): void => {
    const ended = folder.command(args);
    assert.equal(ended.code, code, `${args}: ${ended.stderr}`);
    assert.match(ended.stderr, message);
    assert.doesNotMatch(ended.stderr, / at .*\.(ts|cjs):/, "no stack");
  };
  const into = (file: string) => ["backup", ...key, "--output", file, "--backup-passphrase-file", backupFile];
  fails(["backup", ...key], 64, /backup needs --output FILE/);
  fails(into(folder.passphraseFile), 73, /is there already; it was left as it is/);
  fails(into(path.join(folder.root, "nowhere", "b")), 66, /is no folder/);
  fails(["backup", "--data", folder.data, "--passphrase-file", newFile, "--output", output], 77, /does not open/);
  assert.equal(new PassphraseTries(path.join(folder.data, "passphrase.tries")).count, 1, "and it counts");
  new PassphraseTries(path.join(folder.data, "passphrase.tries")).set(0);
  assert.ok(!existsSync(output));
  assert.equal(folder.command(backupArguments).code, 0);
  fails(backupArguments, 73, /is there already/);

  fails(["restore", "--data", restored], 64, /restore needs --from FILE/);
  fails(restoreArguments(path.join(folder.root, "none")), 66, /is not there; name a backup/);
  fails(restoreArguments(folder.root), 66, /cannot read/);
  const damaged = path.join(folder.root, "damaged");
  const bytes = readFileSync(output);
  writeFileSync(damaged, bytes.subarray(0, 60));
  fails(restoreArguments(damaged), 65, /damaged cannot be used: .*; take another copy of it/);
  writeFileSync(damaged, "x".repeat(100_000));
  fails(restoreArguments(damaged), 65, /cannot be used/);
  const [header, sealed] = decodeCbor(bytes) as [Uint8Array, Uint8Array];
  const next = new Map([...(decodeCbor(header) as Map<number, number>), [1, 3]]);
  writeFileSync(damaged, encodeCbor([encodeCbor(next), sealed]));
  fails(restoreArguments(damaged), 65, /key file 3, this program knows up to 2/);
  const flipped = Buffer.from(bytes);
  flipped[flipped.length - 1] = (flipped.at(-1) as number) ^ 1;
  writeFileSync(damaged, flipped);
  fails(restoreArguments(damaged), 77, /does not open/);
  assertNothingRestored();
});

test("restore never touches what is there: a wallet, a running one, any file; an empty folder it takes", async () => {
  assert.equal(folder.command(backupArguments).code, 0);
  const wallet = folder.run();
  const client = await folder.client(wallet);
  const before = readdirSync(folder.data).sort();
  const over = folder.command(restoreArguments(output, folder.data));
  assert.equal(over.code, 73);
  assert.match(over.stderr, /is there already and was left as it is; restore into a new folder/);
  assert.deepEqual(readdirSync(folder.data).sort(), before);
  await client.seal({ meter: 0, plan: 0, slotS: 1, codes: [2, 4], rows: [rowAt(startS)] });
  client.close();
  await wallet.end("SIGTERM");
  assert.equal(folder.command(restoreArguments(output, output)).code, 73);
  assert.equal(folder.command(restoreArguments(output, "/proc/x/y")).code, 73);
  mkdirSync(restored);
  assert.equal(folder.command(restoreArguments()).code, 0);
  assert.equal(folder.command(restoreArguments()).code, 73, "a second time");
});

test("a copy of device.key restores too, without a history; a backup put in its place is no key", () => {
  const args = restoreArguments(path.join(folder.data, "device.key"));
  args[args.indexOf(backupFile)] = folder.passphraseFile;
  assert.equal(folder.command(args).code, 0);
  const [first] = recordsIn(restored);
  const events = first?.content.kind === "event" ? first.content.events : [];
  assert.deepEqual(events, [[eventCodes.epochBegun, epochReasons.restored, 0, 0, new Uint8Array(32)]]);
  assert.equal(folder.command(backupArguments).code, 0);
  writeFileSync(path.join(folder.data, "device.key"), readFileSync(output));
  const run = folder.command(["run", ...key, "--socket", folder.socket]);
  assert.equal(run.code, 65);
  assert.match(run.stderr, /is a backup, not a key; 'ecp-wallet restore --from' makes a wallet of it/);
});

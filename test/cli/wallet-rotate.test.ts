// Rotation and retirement as the real program does them, cut short at each of its writes.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, beforeEach, test } from "node:test";
import { systemClock } from "../../platform/clock.ts";
import { verifyCose } from "../../protocol/cose-sign1.ts";
import { openEnrolmentRequest } from "../../protocol/enrolment.ts";
import { didKeyOf, kidOf } from "../../protocol/public-key.ts";
import { type DecodedRecord, decodeRecord, eventCodes } from "../../protocol/record.ts";
import { rotationIn, rotationsMax } from "../../protocol/rotation.ts";
import { WalletRefusal } from "../../protocol/wallet-message.ts";
import { Journal } from "../../wallet/journal.ts";
import { sha256 } from "../../wallet/journal-segments.ts";
import { nextEventRecord, rotationEvent } from "../../wallet/key-succession.ts";
import { type DeviceKey, deviceKeyOf, lockSeed, readKeyFile, unlockSeed } from "../../wallet/keystore.ts";
import { verifyEd25519 } from "../../wallet/verification.ts";
import { meterOf, rowAt, startS } from "../wallet/wallet-fixture.ts";
import { type Ended, passphrase, WalletFolder } from "./wallet-process.ts";

const folder = new WalletFolder();
after(() => folder.remove());
beforeEach(() => folder.make({ meters: [meterOf()] }, 3));

const keyFile = path.join(folder.data, "device.key");
const rotateArguments = ["rotate", "--data", folder.data, "--passphrase-file", folder.passphraseFile];
const retireArguments = ["retire", "--data", folder.data, "--passphrase-file", folder.passphraseFile, "--yes"];
const kid = kidOf(folder.key.publicKey, sha256);
const otherFile = path.join(folder.root, "other");
writeFileSync(otherFile, "another passphrase\n", { mode: 0o600 });

function succeeds(args: readonly string[]): Ended {
  const ended = folder.command(args);
  assert.equal(ended.code, 0, ended.stderr);
  return ended;
}

/** Starts the wallet, seals a row where that is possible, and ends it. */
async function runOnce(second: number) {
  const wallet = folder.run();
  const client = await folder.client(wallet);
  const hello = await client.hello();
  const sealed = await client
    .seal({ meter: 0, plan: 0, slotS: 1, codes: [2, 4], rows: [rowAt(startS + second)] })
    .catch((error: unknown) => (error as WalletRefusal).reason);
  client.close();
  assert.equal((await wallet.end("SIGTERM")).code, 0);
  return { hello, sealed };
}

/** All records of the journal in the folder, oldest first. */
function recordsIn(data = folder.data): DecodedRecord[] {
  const journal = new Journal(path.join(data, "journal"));
  const all = journal.epochs.flatMap(({ epoch, first, last }) =>
    journal.records(first, last, Number.POSITIVE_INFINITY, epoch),
  );
  journal.close();
  return all.map(([, bytes]) => decodeRecord(bytes, sha256));
}

const codesOf = ({ content }: DecodedRecord): number[] =>
  content.kind === "event" ? content.events.map(([code]) => code) : [];

/** Each record follows its predecessor, in its epoch or as the first of the next, and is signed by the key that it must be. */
function assertChain(records: readonly DecodedRecord[]): void {
  let publicKey = folder.key.publicKey;
  let next: { epoch: number; publicKey: Uint8Array } | undefined;
  records.forEach((record, i) => {
    const before = records[i - 1];
    const { content } = record;
    if (before) assert.deepEqual(content.previous, before.digest.slice(0, 16), `record ${i}`);
    if (before && before.content.epoch === content.epoch) {
      assert.equal(next, undefined, "nothing follows a rotation in its epoch");
      assert.ok(content.sequence > before.content.sequence);
    } else if (before) {
      assert.equal(content.epoch, next?.epoch, "an epoch begins as the rotation before it says");
      publicKey = next?.publicKey as Uint8Array;
    }
    verifyCose(record.cose, publicKey, verifyEd25519);
    const certificate = rotationIn(record, kid, verifyEd25519);
    next = certificate && { epoch: certificate.nextEpoch, publicKey: certificate.publicKey };
  });
}

test("rotated twice, the device keeps its name: records of three epochs in one chain, each signed by its key", async () => {
  const first = await runOnce(1);
  const said = succeeds(rotateArguments).stdout;
  assert.ok(said.startsWith(`${didKeyOf(folder.key.publicKey)}\n`), said);
  assert.match(said, /after 1 of at most 12 rotations[\s\S]*make a new one now/);
  const second = await runOnce(2);
  assert.deepEqual(second.hello.nameKey, folder.key.publicKey);
  assert.notDeepEqual(second.hello.publicKey, folder.key.publicKey);
  assert.notEqual(second.hello.epoch, first.hello.epoch);
  assert.equal(second.hello.earlierEpochs.length, 1, "what nobody acknowledged of the first epoch waits");
  succeeds([...rotateArguments, "--new-passphrase-file", otherFile]);
  assert.equal(folder.command(["show", "--data", folder.data]).stdout, `${didKeyOf(folder.key.publicKey)}\n`);
  assert.throws(() => unlockSeed(readFileSync(keyFile), Buffer.from(passphrase), ""), /does not open/);
  cpSync(otherFile, folder.passphraseFile);
  const wallet = folder.run();
  const client = await folder.client(wallet);
  const { request } = openEnrolmentRequest(await client.enrol(), verifyEd25519, sha256);
  assert.deepEqual(request.rotated?.nameKey, folder.key.publicKey);
  assert.equal(request.rotated?.records.length, 2);
  client.close();
  await wallet.end("SIGTERM");
  writeFileSync(folder.passphraseFile, `${passphrase}\n`);
  const records = recordsIn();
  assertChain(records);
  assert.equal(new Set(records.map(({ content }) => content.epoch)).size, 3);
  assert.equal(records.filter((record) => codesOf(record).includes(eventCodes.keyRotated)).length, 2);
  const begins = records.filter(({ content }) => content.sequence === 1).map((record) => codesOf(record)[0]);
  assert.deepEqual(begins, [eventCodes.started, eventCodes.started, eventCodes.started]);
});

test("rotated twice without a start between, the epoch between holds the second rotation alone", async () => {
  succeeds(rotateArguments);
  succeeds(rotateArguments);
  assert.equal(JSON.parse(succeeds(["show", "--data", folder.data, "--json"]).stdout).rotations, 2);
  await runOnce(1);
  const records = recordsIn();
  assertChain(records);
  assert.deepEqual(records.slice(0, 3).map(codesOf), [[12], [12], [1]]);
});

test("rows that wait for their batch are signed by the old key before it goes", async () => {
  folder.make({ meters: [meterOf({ slotS: 60 })], sealEveryS: 3_600 }, 3);
  const wallet = folder.run();
  const client = await folder.client(wallet);
  const row = { ...rowAt(startS), timeS: Math.floor(Date.now() / 60_000) * 60 - 60 };
  assert.deepEqual((await client.seal({ meter: 0, plan: 0, slotS: 60, codes: [2, 4], rows: [row] })).sequences, [0]);
  client.close();
  await wallet.end("SIGKILL");
  succeeds(rotateArguments);
  const records = recordsIn();
  assertChain(records);
  assert.deepEqual(records.map(({ content }) => content.kind).slice(-2), ["reading", "event"]);
});

test("it refuses while the wallet runs, and with a wrong passphrase", async () => {
  const wallet = folder.run();
  (await folder.client(wallet)).close();
  for (const args of [rotateArguments, retireArguments]) {
    const busy = folder.command(args);
    assert.equal(busy.code, 69);
    assert.match(busy.stderr, /another wallet runs on/);
  }
  await wallet.end("SIGTERM");
  const before = readFileSync(keyFile);
  const wrong = folder.command(["rotate", "--data", folder.data, "--passphrase-file", otherFile]);
  assert.equal(wrong.code, 77);
  assert.ok(!existsSync(path.join(folder.data, "wallet.lock")), "and lets the folder go");
  assert.deepEqual(readFileSync(keyFile), before);
  for (const args of [
    ["rotate", "--data", path.join(folder.root, "none")],
    ["retire", "--data", path.join(folder.root, "none")],
  ])
    assert.equal(folder.command(args).code, 66);
});

test("after as many rotations as a name can carry there is no other, and nothing is changed", () => {
  const keys = Array.from({ length: rotationsMax + 1 }, (_, i) => deviceKeyOf(new Uint8Array(32).fill(i + 7)));
  const journal = new Journal(path.join(folder.data, "journal"));
  const place = { clock: systemClock, clockState: 1 };
  const rotations = keys.slice(1).map((next, i) => {
    const nextEpoch = i + 1;
    const record = nextEventRecord(journal, keys[i] as DeviceKey, place, (at) => [
      rotationEvent(folder.key.publicKey, next, nextEpoch, at),
    ]);
    journal.append([record]);
    journal.beginEpoch(nextEpoch);
    return record.bytes;
  });
  journal.close();
  const seed = new Uint8Array(32).fill(rotationsMax + 7);
  const cost = { memoryKiB: 64, passes: 1, parallelism: 1 };
  const lineage = { nameKey: folder.key.publicKey, rotations };
  writeFileSync(keyFile, lockSeed(seed, Buffer.from(passphrase), cost, { lineage }), { mode: 0o600 });
  const before = recordsIn();
  assertChain(before);
  const { code, stderr } = folder.command(rotateArguments);
  assert.equal(code, 64);
  assert.match(stderr, /rotated 12 times, the most that a name can carry; make a new wallet/);
  assert.deepEqual(recordsIn().length, before.length);
});

test("a key without passphrase can be given one", async () => {
  rmSync(folder.data, { recursive: true });
  succeeds(["init", "--data", folder.data, "--insecure", "--segments", "3"]);
  const args = ["rotate", "--data", folder.data];
  assert.equal(folder.command(args).code, 64, "without --insecure not even that");
  succeeds([...args, "--insecure"]);
  assert.equal(readKeyFile(readFileSync(keyFile)).protection, "none");
  succeeds([...args, "--insecure", "--new-passphrase-file", folder.passphraseFile]);
  const file = readKeyFile(readFileSync(keyFile));
  assert.equal(file.protection, "passphrase");
  assert.equal(file.rotations.length, 2);
  const wallet = folder.run();
  (await folder.client(wallet)).close();
  await wallet.end("SIGTERM");
});

/** Runs a command with a copy of the folder after each of its writes. */
function imagesOf(args: readonly string[]): { name: string; what: string }[] {
  const images = path.join(folder.root, "images");
  rmSync(images, { recursive: true, force: true });
  mkdirSync(images);
  const hook = path.join(import.meta.dirname, "folder-images.cjs");
  const env = { ...process.env, ECP_IMAGE_OF: folder.data, ECP_IMAGES: images };
  const program = `${folder.program}.cjs`;
  const ended = spawnSync(process.execPath, ["--jitless", "--require", hook, program, ...args], {
    env,
    encoding: "utf8",
  });
  assert.equal(ended.status, 0, ended.stderr);
  const list = readFileSync(path.join(images, "list"), "utf8").trim().split("\n");
  return list.map((line) => ({ name: path.join(images, line.slice(0, 4)), what: line.slice(5) }));
}

function putBack(image: string): void {
  rmSync(folder.data, { recursive: true });
  cpSync(image, folder.data, { recursive: true, mode: 0 });
}

test("cut short at any of its writes, a rotation has happened or has not: one key, one epoch, no sequence used twice", async () => {
  await runOnce(1);
  const before = recordsIn();
  const images = imagesOf(rotateArguments);
  const oldEpoch = before[0]?.content.epoch as number;
  const rotation = recordsIn().at(-1) as DecodedRecord;
  assert.deepEqual(codesOf(rotation), [eventCodes.keyRotated]);
  const outcomes = new Set<string>();
  for (const { name, what } of images) {
    const isOnDisk = recordsIn(name).some(({ digest }) => Buffer.compare(digest, rotation.digest) === 0);
    putBack(name);
    const { hello } = await runOnce(2);
    const now = recordsIn();
    assertChain(now);
    assert.deepEqual(
      now.slice(0, before.length).map(({ digest }) => digest),
      before.map(({ digest }) => digest),
      what,
    );
    assert.equal(hello.epoch !== oldEpoch, isOnDisk, `${what}: the record alone decides`);
    assert.equal(Buffer.compare(hello.publicKey, folder.key.publicKey) !== 0, isOnDisk, what);
    assert.deepEqual(hello.nameKey, folder.key.publicKey);
    const other = now.find(
      ({ content, digest }) =>
        content.epoch === oldEpoch &&
        content.sequence === rotation.content.sequence &&
        Buffer.compare(digest, rotation.digest) !== 0,
    );
    const isTorn = what.startsWith("half journal");
    if (isTorn) assert.equal(other, undefined, "what may have been seen is never used again");
    assert.equal(
      readKeyFile(readFileSync(keyFile)).rotations.length,
      isOnDisk ? 1 : 0,
      `${what}: device.key has followed`,
    );
    if (what.includes("journal")) {
      succeeds(rotateArguments);
      assertChain(recordsIn());
    }
    outcomes.add(`${isOnDisk}${isTorn ? " torn" : ""}`);
  }
  console.log(`${images.length} images: ${images.map(({ what }) => what).join(", ")}`);
  assert.deepEqual([...outcomes].sort(), ["false", "false torn", "true"]);
});

test("control: had the new key replaced the old one before its record, a cut between would leave a wallet without its journal", async () => {
  await runOnce(1);
  const image = imagesOf(rotateArguments).find(({ what }) => what.startsWith("half journal"));
  putBack(image?.name as string);
  cpSync(path.join(folder.data, "device.key.next"), keyFile);
  rmSync(path.join(folder.data, "device.key.next"));
  const { code, stderr } = folder.command([
    "run",
    "--data",
    folder.data,
    "--socket",
    folder.socket,
    "--passphrase-file",
    folder.passphraseFile,
  ]);
  assert.equal(code, 65);
  assert.match(stderr, /newest record is not signed by the key at hand: key and journal are of different wallets/);
});

test("a key of another wallet beside the journal is refused before anything is sealed", async () => {
  await runOnce(1);
  const count = recordsIn().length;
  const other = path.join(folder.root, "other-wallet");
  rmSync(other, { recursive: true, force: true });
  succeeds(["init", "--data", other, "--passphrase-file", folder.passphraseFile, "--segments", "3"]);
  cpSync(path.join(other, "device.key"), keyFile);
  for (const args of [
    ["run", ...rotateArguments.slice(1), "--socket", folder.socket],
    rotateArguments,
    retireArguments,
  ]) {
    const { code, stderr } = folder.command(args);
    assert.equal(code, 65, stderr);
    assert.match(stderr, /of different wallets/);
  }
  assert.equal(recordsIn().length, count);
});

test("a retired key seals its last record, loses its seed, and is still read from; cut short anywhere it is retired or is not", async () => {
  await runOnce(1);
  const refused = folder.command(retireArguments.slice(0, -1));
  assert.equal(refused.code, 64);
  assert.match(refused.stderr, /cannot be undone: say --yes/);
  const images = imagesOf(retireArguments);
  const last = recordsIn().at(-1) as DecodedRecord;
  assert.deepEqual(codesOf(last), [eventCodes.stopped, eventCodes.keyRetired]);
  assert.equal(readKeyFile(readFileSync(keyFile)).protection, "retired");
  for (const [command, args] of [
    ["retire", retireArguments],
    ["rotate", rotateArguments],
    ["backup", ["backup", ...rotateArguments.slice(1), "--output", path.join(folder.root, "b")]],
  ] as const) {
    const { code, stderr } = folder.command(args);
    assert.equal(code, 64, `${command}: ${stderr}`);
    assert.match(stderr, /is retired/);
  }
  assert.match(succeeds(["show", "--data", folder.data, "--verbose"]).stdout, /retired: there is no seed/);
  for (const { name, what } of images) {
    const isOnDisk = recordsIn(name).some(({ digest }) => Buffer.compare(digest, last.digest) === 0);
    putBack(name);
    const { hello, sealed } = await runOnce(2);
    assert.equal(hello.retired, isOnDisk, what);
    if (isOnDisk) assert.equal(sealed, "key-retired", what);
    else assert.ok(typeof sealed === "object" && sealed.sequences[0], what);
    assert.equal(readKeyFile(readFileSync(keyFile)).protection, isOnDisk ? "retired" : "passphrase", what);
    assertChain(recordsIn());
  }
  const wallet = folder.started(folder.spawn(["run", "--data", folder.data, "--socket", folder.socket]));
  const client = await folder.client(wallet);
  const { records } = await client.read(1, last.content.sequence);
  assert.deepEqual(new Uint8Array(records.at(-1)?.[1] as Uint8Array).length > 0, true);
  await assert.rejects(client.enrol(), (error) => error instanceof WalletRefusal && error.reason === "key-retired");
  client.close();
  await wallet.end("SIGTERM");
});

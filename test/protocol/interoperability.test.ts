// A record is read and verified by implementations that are not ours, and theirs by us.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createPublicKey } from "node:crypto";
import path from "node:path";
import { test } from "node:test";
import { coseVerify } from "cose-kit";
import { agreedCipher, x25519PrivateKey } from "../../platform/agreed-cipher.ts";
import { type Verify, verifyCose } from "../../protocol/cose-sign1.ts";
import { encryptionInfo, encryptRecord } from "../../protocol/encrypted-record.ts";
import { kidOf } from "../../protocol/public-key.ts";
import { decodeRecord, type ReadingContent, signRecord } from "../../protocol/record.ts";
import { Refusal } from "../../protocol/refusal.ts";
import { deviceShare, nodeShare } from "../vectors/encryption-vectors.ts";
import { loraReceiptVectors } from "../vectors/lora-receipt-vectors.ts";
import { energyRows, epoch, readingOf, sequence } from "../vectors/sample-content.ts";
import { bytesOf, hexOf, keyOfLabel, nobleKey, nobleVerify, nodeVerify, sha256 } from "../vectors/signature-suite.ts";
import type { Vector } from "../vectors/vector.ts";

const python = "/usr/bin/python3"; // Debian's own, which sees Debian's packages
const peer = path.join(import.meta.dirname, "cose-peer.py");
const wallet = keyOfLabel("wallet key");
const content = readingOf({ slotS: 900, codes: [2, 4], rows: energyRows(4, 900, 2_000) });
const kid = kidOf(wallet.publicKey, sha256);
const tagged = signRecord(content, wallet.sign, kid);
const bare = signRecord(content, wallet.sign);
/** The last byte of the payload, or of the signature: both decode, and must not verify. */
const changed: readonly Uint8Array[] = [tagged.length - 1, tagged.length - 67].map((offset) =>
  tagged.map((byte, i) => (i === offset ? byte ^ 1 : byte)),
);

const missing = (() => {
  const { status, error } = spawnSync(python, ["-c", "import cbor2, cryptography"]);
  return status === 0 && !error
    ? false
    : `${python} has no cbor2 or cryptography: apt-get install python3-cbor2 python3-cryptography`;
})();
if (missing) console.log(`skipped: ${missing}`);

test("node:crypto and noble sign the same bytes", () => {
  assert.equal(hexOf(signRecord(content, nobleKey(wallet.seed).sign, kid)), hexOf(tagged));
});

test("cose-kit verifies a record of ours and refuses one changed bit", async () => {
  const key = createPublicKey({
    key: { kty: "OKP", crv: "Ed25519", x: Buffer.from(wallet.publicKey).toString("base64url") },
    format: "jwk",
  });
  for (const bytes of [tagged, bare]) assert.equal((await coseVerify(bytes, key as never)).isValid, true);
  for (const bytes of changed) assert.equal((await coseVerify(bytes, key as never)).isValid, false);
});

test("both of our verifiers refuse what is changed", () => {
  for (const verify of [nodeVerify, nobleVerify]) {
    assert.doesNotThrow(() => check(tagged, wallet.publicKey, verify));
    for (const bytes of changed) assert.throws(() => check(bytes, wallet.publicKey, verify), Refusal);
  }
});

function check(bytes: Uint8Array, publicKey: Uint8Array, verify: Verify): ReturnType<typeof decodeRecord> {
  const record = decodeRecord(bytes, sha256);
  verifyCose(record.cose, publicKey, verify);
  return record;
}

function peerVerify(bytes: Uint8Array): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(python, [peer, "verify", hexOf(wallet.publicKey)], { input: hexOf(bytes), encoding: "utf8" });
}

test("Python verifies a record of ours, reads the same from it, and refuses one changed bit", { skip: missing }, () => {
  for (const bytes of [tagged, bare]) {
    const { status, stdout, stderr } = peerVerify(bytes);
    assert.equal(status, 0, stderr);
    assert.deepEqual(JSON.parse(stdout), {
      algorithm: -8,
      contentType: 65_000,
      kid: bytes === tagged ? hexOf(kid) : null,
      epoch,
      sequence,
      codes: [2, 4],
      rows: content.rows.map((row) => [row.timeS, "G", [...row.values]]),
      digest: hexOf(decodeRecord(bytes, sha256).digest),
    });
  }
  for (const bytes of changed) {
    const { status, stderr } = peerVerify(bytes);
    assert.equal(status, 1, stderr);
    assert.equal(stderr, "the signature does not hold\n");
  }
});

test("a record that Python made is accepted by us, and refused with one changed bit", { skip: missing }, () => {
  const { status, stdout, stderr } = spawnSync(python, [peer, "sign", hexOf(wallet.seed)], { encoding: "utf8" });
  assert.equal(status, 0, stderr);
  const bytes = bytesOf(stdout.trim());
  for (const verify of [nodeVerify, nobleVerify]) {
    const record = check(bytes, wallet.publicKey, verify);
    assert.equal(hexOf(record.cose.kid as Uint8Array), hexOf(kid), "Python computes the same kid (RFC 9679)");
    const reading = record.content as ReadingContent;
    assert.equal(reading.sequence, 42);
    assert.deepEqual(
      reading.rows.map((row) => [row.status, ...row.values]),
      [[0, 41_237_512, 18_904_377], [0, 41_237_519, 18_904_377], [2], [0, 41_237_525, 18_904_376]],
    );
    // What was read is sealed again by us, to the very same bytes.
    assert.equal(hexOf(signRecord(reading, wallet.sign, kid)), hexOf(bytes));
    const last = bytes.length - 1;
    assert.throws(
      () =>
        check(
          bytes.map((byte, i) => (i === last ? byte ^ 1 : byte)),
          wallet.publicKey,
          verify,
        ),
      Refusal,
    );
  }
});

test("a record that we encrypt is opened by Python, and what Python encrypts is the same bytes", {
  skip: missing,
}, () => {
  const cipher = agreedCipher(
    x25519PrivateKey(deviceShare.secret),
    nodeShare.share,
    encryptionInfo(deviceShare.share, nodeShare.share),
  );
  for (const record of [tagged, bare, new Uint8Array(1_000).fill(0x80)]) {
    const encrypted = hexOf(encryptRecord(record, deviceShare.share, cipher));
    const opened = spawnSync(python, [peer, "decrypt", hexOf(nodeShare.secret)], {
      input: encrypted,
      encoding: "utf8",
    });
    assert.equal(opened.stdout.trim(), hexOf(record), opened.stderr);
    const args = [peer, "encrypt", hexOf(deviceShare.secret), hexOf(nodeShare.share)];
    const theirs = spawnSync(python, args, { input: hexOf(record), encoding: "utf8" });
    assert.equal(theirs.stdout.trim(), encrypted, theirs.stderr);
  }
});

test("Python reads the receipts of 41 bytes as we do, and makes the same ones", { skip: missing }, () => {
  const vectors = loraReceiptVectors().filter(({ expect }) => expect === "ok");
  const sides = { device: [hexOf(deviceShare.secret), hexOf(nodeShare.share)] as const };
  const checked = spawnSync(python, [peer, "check-receipt", ...sides.device], {
    input: vectors.map(({ hex }) => hex).join("\n"),
    encoding: "utf8",
  });
  const answers = checked.stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.equal(answers.length, vectors.length, checked.stderr);
  for (const [i, { name, meaning }] of vectors.entries()) {
    const said = meaning as Record<string, unknown> & { readonly sequence: number };
    // Of what lies below `through`, Python tells the last hundred.
    const lowest = said.type === 1 ? said.sequence - 99 : 1;
    const named = (said.stored as [number, number][]).flatMap(([first, last]) => {
      const from = Math.max(first, lowest);
      return Array.from({ length: last - from + 1 }, (_, k) => from + k);
    });
    const { type, epoch: of, timeS, digest, holds } = said;
    assert.deepEqual(answers[i], { type, epoch: of, time: timeS, digest, named, holds }, name);
  }
  const [{ meaning, hex }] = vectors.filter(({ name }) => name.startsWith("a run and the last")) as [Vector];
  const { type, epoch: of, sequence: at, bitmap, digest, timeS } = meaning as Record<string, string | number>;
  const fields = [type, of, at, bitmap, digest, timeS].map(String);
  const args = [peer, "receipt", hexOf(nodeShare.secret), hexOf(deviceShare.share), ...fields];
  const theirs = spawnSync(python, args, { encoding: "utf8" });
  assert.equal(theirs.stdout.trim(), hex, theirs.stderr);
});

// The vectors are the wire contract: each file is what the generator gives, and each vector behaves as its `expect` says.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { SealedEnvelopes } from "../../fullnode/sealed-envelope.ts";
import { agreedCipher, agreedMac, x25519PrivateKey, x25519Share } from "../../platform/agreed-cipher.ts";
import {
  type CoseSign1,
  contentTypes,
  decodeCose,
  digestOf,
  type Verify,
  verifyCose,
} from "../../protocol/cose-sign1.ts";
import { decodeCbor, encodeCbor, equalBytes } from "../../protocol/deterministic-cbor.ts";
import { decodeEncrypted, encryptionInfo, encryptRecord } from "../../protocol/encrypted-record.ts";
import { openEnrolmentAnswer, openEnrolmentRequest } from "../../protocol/enrolment.ts";
import {
  decodeLoraReceipt,
  encodeLoraReceipt,
  loraMacBytes,
  loraReceiptInfo,
  storedSequences,
} from "../../protocol/lora-receipt.ts";
import { packetOf, recordOfPacket } from "../../protocol/lorawan.ts";
import { didKeyOf, kidOf, multibaseOf, publicKeyOfDid, vetPublicKey } from "../../protocol/public-key.ts";
import { decodeReceipt } from "../../protocol/receipt.ts";
import { decodeRecord, encodeRecordPayload } from "../../protocol/record.ts";
import { Refusal, refusalSentences } from "../../protocol/refusal.ts";
import { rotationIn } from "../../protocol/rotation.ts";
import { decodeAnswer, decodeFragment, encodeAnswer, encodeFragment } from "../../protocol/schc.ts";
import { decodeStatement } from "../../protocol/statement.ts";
import { shareOfLabel } from "../vectors/encryption-vectors.ts";
import { fileText, vectorFiles, vectorsFolder } from "../vectors/generate.ts";
import { bytesOf, hexOf, nobleKey, nobleVerify, nodeKey, nodeVerify, sha256 } from "../vectors/signature-suite.ts";
import { cborJsonOf, jsonOf, type Vector, type VectorFile } from "../vectors/vector.ts";

function read(name: string): readonly Vector[] {
  return (JSON.parse(readFileSync(path.join(vectorsFolder, name), "utf8")) as VectorFile).vectors;
}

/** What a message means as the vectors state it; throws Refusal, also when its signature does not hold. */
type Open = (bytes: Uint8Array, key: Uint8Array, verify: Verify) => unknown;

const openRecord: Open = (bytes, key, verify) => {
  const { cose, content, digest } = decodeRecord(bytes, sha256);
  verifyCose(cose, key, verify);
  return { digest, content };
};
const openReceipt: Open = (bytes, key, verify) => {
  const { cose, content } = decodeReceipt(bytes);
  verifyCose(cose, key, verify);
  return { content };
};
const openRequest: Open = (bytes, _key, verify) => {
  const { request, digest } = openEnrolmentRequest(bytes, verify, sha256);
  return { digest, content: request };
};

const signed: { readonly [file: string]: Open } = {
  "cose-sign1.json": (bytes, key, verify) => {
    const cose = decodeCose(bytes, contentTypes.record);
    verifyCose(cose, key, verify);
    const { algorithm, contentType, payload, kid } = cose;
    return { contentType, payload, digest: digestOf(cose, sha256), algorithm, kid: kid ?? null };
  },
  "record.json": openRecord,
  "receipt.json": openReceipt,
  "enrolment-request.json": openRequest,
  "record-epochs.json": openRecord,
  "rotation.json": (bytes, key, verify) => {
    const record = decodeRecord(bytes, sha256);
    verifyCose(record.cose, key, verify);
    return { certificate: rotationIn(record, kidOf(key, sha256), verify) };
  },
  "enrolment-rotated.json": openRequest,
  "receipt-kept.json": openReceipt,
  "statement.json": (bytes, key, verify) => {
    const { cose, content, digest } = decodeStatement(bytes, sha256);
    verifyCose(cose, key, verify);
    return { digest, content };
  },
  "enrolment-answer.json": (bytes, _key, verify) => ({ content: openEnrolmentAnswer(bytes, verify) }),
};

function outcome(act: () => unknown): { expect: string; meaning?: unknown } {
  try {
    return { expect: "ok", meaning: act() };
  } catch (error) {
    if (error instanceof Refusal) return { expect: error.reason };
    throw error;
  }
}

function hexBytes(vector: Vector): Uint8Array {
  assert.ok(vector.hex !== undefined, `${vector.name}: no hex`);
  const bytes = bytesOf(vector.hex);
  assert.equal(bytes.length * 2, vector.hex.length, `${vector.name}: not hex`);
  return bytes;
}

function check(name: string, run: (vector: Vector) => unknown): void {
  const vectors = read(name);
  const names = new Set<string>();
  let passing = 0;
  for (const vector of vectors) {
    assert.ok(!names.has(vector.name), `${name}: two vectors named ${vector.name}`);
    names.add(vector.name);
    const { expect, meaning } = outcome(() => run(vector));
    assert.equal(expect, vector.expect, `${name}: ${vector.name}`);
    if (vector.meaning !== undefined) assert.deepEqual(meaning, vector.meaning, `${name}: ${vector.name}`);
    if (expect === "ok") passing++;
  }
  assert.ok(passing > 0 && passing < vectors.length, `${name}: passing and failing vectors`);
  console.log(`${name}: ${vectors.length} vectors, ${passing} accepted, ${vectors.length - passing} refused`);
}

test("the files are what the generator gives", () => {
  const files = vectorFiles();
  for (const [name, file] of files) {
    const stored = readFileSync(path.join(vectorsFolder, name), "utf8");
    assert.ok(
      stored === fileText(file),
      `test/vectors/${name} differs: run test/vectors/generate.ts and look at the diff`,
    );
  }
  const onDisk = readdirSync(vectorsFolder).filter((name) => name.endsWith(".json"));
  assert.deepEqual(onDisk.sort(), [...files.keys(), "rfc8032-section-7.1.json"].sort());
});

test("every refusal reason has a vector", () => {
  const expected = new Set([...vectorFiles().values()].flatMap((file) => file.vectors.map((vector) => vector.expect)));
  const missing = Object.keys(refusalSentences).filter((reason) => !expected.has(reason as Vector["expect"]));
  assert.deepEqual(missing, []);
});

test("CBOR vectors behave as they say, and what is accepted is encoded to the same bytes", () => {
  check("cbor.json", (vector) => {
    const value = decodeCbor(hexBytes(vector));
    assert.equal(hexOf(encodeCbor(value)), vector.hex, vector.name);
    return cborJsonOf(value);
  });
});

for (const [name, open] of Object.entries(signed))
  for (const [suite, verify] of [
    ["node:crypto", nodeVerify],
    ["@noble/ed25519", nobleVerify],
  ] as const)
    test(`${name} behaves as it says, verified with ${suite}`, () => {
      check(name, (vector) => jsonOf(open(hexBytes(vector), bytesOf(vector.key ?? ""), verify)));
    });

test("record vectors are encoded from their meaning to the same payload", () => {
  let count = 0;
  for (const vector of [...read("record.json"), ...read("record-epochs.json")].filter((item) => item.expect === "ok")) {
    const { cose, content } = decodeRecord(hexBytes(vector), sha256);
    if (vector.name.includes("not known")) continue;
    assert.equal(hexOf(encodeRecordPayload(content)), hexOf(cose.payload), vector.name);
    count++;
  }
  assert.ok(count > 15, `${count} records`);
});

/** Opens an encrypted record as the node does whose secret the vector names. */
function openEncrypted(vector: Vector, bytes = hexBytes(vector)): { deviceShare: Uint8Array; record: Uint8Array } {
  const privateKey = x25519PrivateKey(bytesOf(vector.nodeSecret as string));
  const envelope = decodeEncrypted(bytes);
  const { deviceShare } = envelope;
  const node = { share: x25519Share(privateKey), agree: agreedCipher.bind(undefined, privateKey) };
  return { deviceShare: Uint8Array.from(deviceShare), record: Uint8Array.from(new SealedEnvelopes(node).open(bytes)) };
}

test("encrypted records behave as they say, and what is opened is encrypted again to the same bytes", () => {
  check("encrypted-record.json", (vector) => jsonOf(openEncrypted(vector)));
  for (const vector of accepted("encrypted-record.json")) {
    const { record } = openEncrypted(vector);
    const nodeKey = x25519PrivateKey(bytesOf(vector.nodeSecret as string));
    const device = shareOfLabel("device share");
    const nodeShare = x25519Share(nodeKey);
    const cipher = agreedCipher(device.key, nodeShare, encryptionInfo(device.share, nodeShare));
    assert.equal(hexOf(encryptRecord(record, device.share, cipher)), vector.hex, vector.name);
  }
});

test("an encrypted record cut off anywhere, or with any one bit changed, is refused", () => {
  let refused = 0;
  const vectors = accepted("encrypted-record.json").filter(({ hex = "" }) => hex.length < 2_000);
  const shortest = vectors.toSorted((a, b) => hexBytes(a).length - hexBytes(b).length)[0];
  for (const vector of vectors) {
    const bytes = hexBytes(vector);
    for (let length = 1; length < bytes.length; length++) {
      assert.throws(() => openEncrypted(vector, bytes.slice(0, length)), Refusal);
      refused++;
    }
    for (const bit of bitsToChange(bytes, vector === shortest)) {
      const changed = withBitChanged(bytes, bit);
      // Though X25519 ignores the highest bit of a share (RFC 7748 §5): the keys are bound to the share as it was sent.
      assert.throws(() => openEncrypted(vector, changed), Refusal, `${vector.name}: bit ${bit}`);
      refused++;
    }
  }
  console.log(`encrypted records: ${refused} times refused`);
  assert.ok(refused > 3_000);
});

/** A short receipt as the device of the vector's secret takes it. */
function openLoraReceipt(vector: Vector, bytes = hexBytes(vector)) {
  const privateKey = x25519PrivateKey(bytesOf(vector.deviceSecret as string));
  const nodeShare = bytesOf(vector.nodeShare as string);
  const make = agreedMac(privateKey, nodeShare, loraReceiptInfo(x25519Share(privateKey), nodeShare));
  const { signed, mac, ...content } = decodeLoraReceipt(bytes);
  const holds = equalBytes(make(signed).subarray(0, loraMacBytes), mac);
  return { content, stored: storedSequences(content), holds, make };
}

test("receipts of 41 bytes behave as they say, and those that hold are encoded to the same bytes", () => {
  check("lora-receipt.json", (vector) => {
    const { content, stored, holds } = openLoraReceipt(vector);
    return jsonOf({ ...content, stored, holds });
  });
  let held = 0;
  for (const vector of accepted("lora-receipt.json")) {
    const { content, holds, make } = openLoraReceipt(vector);
    const again = hexOf(encodeLoraReceipt(content, make));
    if (holds) assert.equal(again, vector.hex, vector.name);
    else assert.notEqual(again, vector.hex, vector.name);
    if (holds) held++;
  }
  assert.ok(held > 5);
});

test("a receipt of 41 bytes with any one bit changed is refused, or its MAC does not hold", () => {
  for (const vector of accepted("lora-receipt.json").filter((one) => openLoraReceipt(one).holds)) {
    const bytes = hexBytes(vector);
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const changed = withBitChanged(bytes, bit);
      const { expect, meaning } = outcome(() => openLoraReceipt(vector, changed).holds);
      assert.ok(expect !== "ok" || meaning === false, `${vector.name}: bit ${bit}`);
    }
  }
});

test("LoRaWAN packets behave as they say, and what comes out of one gives the same packet", () => {
  check("lorawan-packet.json", (vector) => jsonOf({ record: recordOfPacket(hexBytes(vector)) }));
  for (const vector of accepted("lorawan-packet.json"))
    assert.equal(hexOf(packetOf(recordOfPacket(hexBytes(vector)))), vector.hex, vector.name);
});

test("SCHC messages behave as they say, and what is accepted is encoded to the same bytes", () => {
  check("schc-fragment.json", (vector) => {
    const fragment = decodeFragment(hexBytes(vector));
    assert.equal(hexOf(encodeFragment(fragment)), vector.hex, vector.name);
    return jsonOf(fragment);
  });
  check("schc-answer.json", (vector) => {
    const answer = decodeAnswer(hexBytes(vector));
    assert.equal(hexOf(encodeAnswer(answer)), vector.hex, vector.name);
    return jsonOf(answer);
  });
});

test("did:key vectors behave as they say, both ways", () => {
  check("did-key.json", (vector) => {
    const publicKey = publicKeyOfDid(vector.text as string);
    assert.ok(vector.text === didKeyOf(publicKey) || vector.text === multibaseOf(publicKey), vector.name);
    return { publicKey: hexOf(publicKey) };
  });
});

test("public key vectors behave as they say", () => {
  check("public-key.json", (vector) => {
    vetPublicKey(bytesOf(vector.hex as string));
    return undefined;
  });
});

test("RFC 8032 §7.1: noble and node:crypto sign and verify alike, and refuse what is broken", () => {
  let agreed = 0;
  for (const vector of read("signature.json")) {
    const [key, message, signature] = [vector.key, vector.message, vector.signature].map((hex) =>
      bytesOf(hex as string),
    );
    assert.ok(key && message && signature);
    assert.equal(nodeVerify(key, message, signature), vector.expect === "ok", `node:crypto: ${vector.name}`);
    const cofactored = vector.cofactored ?? vector.expect;
    assert.equal(nobleVerify(key, message, signature), cofactored === "ok", `noble: ${vector.name}`);
    if (vector.seed === undefined) continue;
    for (const pair of [nodeKey(bytesOf(vector.seed as string)), nobleKey(bytesOf(vector.seed as string))]) {
      assert.equal(hexOf(pair.publicKey), vector.key);
      assert.equal(hexOf(pair.sign(message)), vector.signature, vector.name);
    }
    agreed++;
  }
  assert.equal(agreed, 5);
});

test("an accepted vector cut off anywhere is refused", () => {
  let cuts = 0;
  const cut = (bytes: Uint8Array, open: (part: Uint8Array) => unknown): void => {
    for (let length = 0; length < bytes.length; length++) {
      assert.throws(() => open(bytes.slice(0, length)), Refusal);
      cuts++;
    }
  };
  for (const vector of accepted("cbor.json")) cut(hexBytes(vector), (part) => decodeCbor(part));
  for (const [name, open] of Object.entries(signed))
    for (const vector of accepted(name))
      cut(hexBytes(vector), (part) => open(part, bytesOf(vector.key ?? ""), nodeVerify));
  console.log(`cut off: ${cuts} times refused`);
  assert.ok(cuts > 5_000, `${cuts} cuts`);
});

function accepted(name: string): readonly Vector[] {
  const vectors = read(name).filter((vector) => vector.expect === "ok");
  assert.ok(vectors.length > 0);
  return vectors;
}

/** All bits, or one of each byte: the first of the first byte, the second of the second. */
function bitsToChange(bytes: Uint8Array, all: boolean): number[] {
  return Array.from({ length: bytes.length * (all ? 8 : 1) }, (_, i) => (all ? i : i * 8 + (i % 8)));
}

/** A copy with one bit the other way. */
function withBitChanged(bytes: Uint8Array, bit: number): Uint8Array {
  const changed = bytes.slice();
  changed[bit >> 3] = (bytes[bit >> 3] as number) ^ (1 << (bit & 7));
  return changed;
}

/** The same message but for its kid: what lies outside the signature, and changes neither meaning nor digest. */
function differsInKidOnly(before: Uint8Array, after: Uint8Array): boolean {
  const [a, b]: CoseSign1[] = [decodeCose(before), decodeCose(after)] as [CoseSign1, CoseSign1];
  if (a === undefined || b === undefined || a.kid === undefined || b.kid === undefined) return false;
  return !equalBytes(a.kid, b.kid) && hexOf(digestOf(a, sha256)) === hexOf(digestOf(b, sha256));
}

test("an accepted vector with any one bit changed is refused, or its signature fails, or the bit was the kid's", () => {
  const counts = { refused: 0, signatureFailed: 0, kid: 0 };
  for (const [name, open] of Object.entries(signed)) {
    const vectors = accepted(name);
    // Every bit of those with the shortest message, one with a kid and one without; of the others one bit of each byte, in turn.
    const shortest = [true, false].map((withKid) => {
      const of = vectors.filter((vector) => (decodeCose(hexBytes(vector)).kid !== undefined) === withKid);
      return of.toSorted((a, b) => hexBytes(a).length - hexBytes(b).length)[0];
    });
    for (const vector of vectors) {
      const bytes = hexBytes(vector);
      const key = bytesOf(vector.key ?? "");
      const isWhole = shortest.includes(vector);
      const kidBits = decodeCose(bytes).kid === undefined ? 0 : isWhole ? 64 : 8;
      let kidFlips = 0;
      for (const bit of bitsToChange(bytes, isWhole)) {
        const changed = withBitChanged(bytes, bit);
        const { expect } = outcome(() => open(changed, key, nodeVerify));
        if (expect === "signature-invalid") counts.signatureFailed++;
        else if (expect !== "ok") counts.refused++;
        else {
          assert.ok(differsInKidOnly(bytes, changed), `${name}: ${vector.name}: bit ${bit} changed and accepted`);
          kidFlips++;
        }
      }
      assert.equal(
        kidFlips,
        kidBits,
        `${name}: ${vector.name}: every bit of the kid, and no other, is outside the signature`,
      );
      counts.kid += kidFlips;
    }
  }
  console.log(
    `one bit changed: ${counts.refused} refused, ${counts.signatureFailed} signatures failed, ${counts.kid} in the kid`,
  );
  assert.ok(counts.refused > 0 && counts.signatureFailed > 5_000 && counts.kid > 0);
});

test("a CBOR vector with one bit changed is refused or means something else", () => {
  const counts = { refused: 0, other: 0 };
  for (const vector of accepted("cbor.json")) {
    const bytes = hexBytes(vector);
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const changed = withBitChanged(bytes, bit);
      const { expect, meaning } = outcome(() => cborJsonOf(decodeCbor(changed)));
      if (expect === "ok") {
        assert.notDeepEqual(meaning, vector.meaning, `${vector.name}: bit ${bit}`);
        counts.other++;
      } else counts.refused++;
    }
  }
  console.log(`CBOR, one bit changed: ${counts.refused} refused, ${counts.other} mean something else`);
  assert.ok(counts.refused > 0 && counts.other > 0);
});

test("control: a verifier that says yes to everything lets changed bits through", () => {
  const vector = accepted("record.json")[0] as Vector;
  const bytes = hexBytes(vector);
  const last = bytes.length - 1;
  const changed = bytes.map((byte, i) => (i === last ? byte ^ 1 : byte));
  const open = signed["record.json"] as Open;
  assert.equal(outcome(() => open(changed, new Uint8Array(32), () => true)).expect, "ok");
  assert.equal(outcome(() => open(changed, bytesOf(vector.key ?? ""), nodeVerify)).expect, "signature-invalid");
});

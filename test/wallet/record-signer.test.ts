// Our composition of noble's parts signs what RFC 8032 says: the same bytes as noble itself and node:crypto, and its vectors.
import assert from "node:assert/strict";
import { createPrivateKey, sign as nodeSign } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { getPublicKey, sign as nobleSign } from "@noble/ed25519";
import { deviceKeyOf } from "../../wallet/keystore.ts";
import { signerOf } from "../../wallet/record-signer.ts";
import { verifyEd25519 } from "../../wallet/verification.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";

test("signatures are byte for byte those of noble and of node:crypto, for random keys and messages of any length", () => {
  const random = randomOfRun();
  for (let i = 0; i < 300; i++) {
    const seed = random.bytes(32);
    const message = random.bytes(random.integer(0, 400));
    const der = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]);
    const signature = signerOf(seed)(message);
    assert.deepEqual(signature, nobleSign(message, seed), `seed ${random.seed}`);
    const key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
    assert.deepEqual(signature, new Uint8Array(nodeSign(null, message, key)));
    assert.ok(verifyEd25519(getPublicKey(seed), message, signature));
    signature[i % 64] = (signature[i % 64] as number) ^ 1;
    assert.ok(!verifyEd25519(getPublicKey(seed), message, signature), "control: changed it does not hold");
  }
});

test("the vectors of RFC 8032 §7.1", () => {
  const file = path.resolve(import.meta.dirname, "../vectors/rfc8032-section-7.1.json");
  const text = readFileSync(file, "utf8");
  const vectors = JSON.parse(text) as { seed: string; message: string; signature: string }[];
  assert.ok(vectors.length >= 3);
  for (const { seed, message, signature } of vectors) {
    const signed = signerOf(Buffer.from(seed, "hex"))(Buffer.from(message, "hex"));
    assert.equal(Buffer.from(signed).toString("hex"), signature);
  }
});

test("a device key signs on after its seed was wiped", () => {
  const seed = new Uint8Array(32).fill(7);
  const key = deviceKeyOf(seed);
  const message = Uint8Array.of(1, 2, 3);
  const before = key.sign(message);
  seed.fill(0);
  assert.deepEqual(key.sign(message), before);
});

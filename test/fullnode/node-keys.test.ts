import assert from "node:assert/strict";
import { verify } from "node:crypto";
import { chmodSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { NodeError } from "../../fullnode/node-error.ts";
import { createNodeKeys, ed25519PublicKey, loadNodeKeys } from "../../fullnode/node-keys.ts";
import { didKeyOf, vetPublicKey } from "../../protocol/public-key.ts";
import { temporaryFolder } from "./node-fixture.ts";

const failsWith = (code: string) => (error: unknown) => error instanceof NodeError && error.code === code;

test("keys are made once, kept with mode 600, and are the same when loaded", (t) => {
  const data = temporaryFolder(t);
  const made = createNodeKeys(data, 1);
  assert.equal(statSync(join(data, "node.key")).mode & 0o777, 0o600);
  const loaded = loadNodeKeys(data);
  assert.deepEqual(loaded.publicKey, made.publicKey);
  assert.deepEqual(loaded.share, made.share);
  assert.equal(loaded.did, didKeyOf(made.publicKey));
  vetPublicKey(made.publicKey);
  const message = Buffer.from("signed by the node");
  assert.ok(verify(null, message, ed25519PublicKey(made.publicKey), loaded.sign(message)));
  assert.throws(() => createNodeKeys(data, 1), failsWith("data-exists"));
});

test("a key file that others may read is refused, with what to do", (t) => {
  const data = temporaryFolder(t);
  createNodeKeys(data, 1);
  for (const mode of [0o640, 0o604, 0o622, 0o777]) {
    chmodSync(join(data, "node.key"), mode);
    assert.throws(() => loadNodeKeys(data), failsWith("key-permissions"), mode.toString(8));
  }
  assert.throws(() => loadNodeKeys(data), /mode/);
  chmodSync(join(data, "node.key"), 0o400);
  loadNodeKeys(data);
});

test("a key file with any bit changed never gives other keys", (t) => {
  const data = temporaryFolder(t);
  const made = createNodeKeys(data, 1);
  const path = join(data, "node.key");
  const good = readFileSync(path);
  let taken = 0;
  for (let offset = 0; offset < good.length; offset++) {
    const bad = Buffer.from(good);
    bad[offset] = (bad[offset] as number) ^ 0x10;
    writeFileSync(path, bad);
    try {
      const { publicKey, share } = loadNodeKeys(data);
      assert.deepEqual({ publicKey, share }, { publicKey: made.publicKey, share: made.share });
      taken++;
    } catch (error) {
      assert.ok(failsWith("key-damaged")(error), `${error}`);
    }
  }
  assert.ok(taken <= 2, `${taken} changed files were taken: only the time of making (key and value) is not covered`);
  writeFileSync(path, good.subarray(0, 60));
  assert.throws(() => loadNodeKeys(data), failsWith("key-damaged"));
  writeFileSync(path, "");
  assert.throws(() => loadNodeKeys(data), failsWith("key-damaged"));
});

test("a missing key file is named", (t) => {
  assert.throws(() => loadNodeKeys(temporaryFolder(t)), failsWith("key-missing"));
});

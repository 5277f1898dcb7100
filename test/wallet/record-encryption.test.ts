// What leaves the wallet where its policy says that records are encrypted: one full node opens it, and nobody else.
import assert from "node:assert/strict";
import { test } from "node:test";
import { SealedEnvelopes } from "../../fullnode/sealed-envelope.ts";
import { agreedCipher } from "../../platform/agreed-cipher.ts";
import { decodeEncrypted, isEncrypted } from "../../protocol/encrypted-record.ts";
import { decodeRecord } from "../../protocol/record.ts";
import { Refusal } from "../../protocol/refusal.ts";
import { readSealAnswer, type SealAnswer, WalletRefusal } from "../../protocol/wallet-message.ts";
import { deviceKeyOf } from "../../wallet/keystore.ts";
import type { PinnedNode, WalletPolicy } from "../../wallet/policy.ts";
import { recordEncryption } from "../../wallet/record-encryption.ts";
import { shareOfLabel, type TestShare } from "../vectors/encryption-vectors.ts";
import { hexOf } from "../vectors/signature-suite.ts";
import { NodeFixture, rowAt, rowsFrom, sha256, startS, WalletFixture } from "./wallet-fixture.ts";

const first = shareOfLabel("first node");
const second = shareOfLabel("second node");
const pinned = (name: string, { share }: TestShare): PinnedNode => {
  const { publicKey } = new NodeFixture(name);
  return { name, publicKey, share };
};
const nodes = [pinned("first", first), pinned("second", second)];
const envelopesOf = ({ key, share }: TestShare) =>
  new SealedEnvelopes({ share, agree: agreedCipher.bind(undefined, key) });

test("records leave as they are where the policy says so, and encrypted where it says so", (t) => {
  const wallet = new WalletFixture(t);
  wallet.seal([rowAt(startS)]);
  const plain = [...wallet.records()];
  assert.equal(wallet.hello().recordForm, "plain");
  wallet.policy = { ...wallet.policy, nodes, encryptTo: "first" };
  wallet.restart();
  assert.equal(wallet.hello().recordForm, "encrypted");
  const records = [...wallet.records()];
  const node = envelopesOf(first);
  for (const [sequence, bytes] of records) {
    assert.ok(isEncrypted(bytes));
    const { content } = decodeRecord(node.open(bytes), sha256);
    assert.equal(content.sequence, sequence);
    assert.throws(
      () => envelopesOf(second).open(bytes),
      (error) => error instanceof Refusal && error.reason === "cannot-decrypt",
    );
  }
  for (const [sequence, bytes] of plain) {
    const found = records.find(([other]) => other === sequence)?.[1] as Uint8Array;
    assert.equal(hexOf(node.open(found)), hexOf(bytes), "the record inside is the sealed one, to the byte");
  }
  assert.deepEqual([...wallet.records()], records, "read again, it is the same bytes: it shows nothing new");
});

test("the answer to a seal request has the records that it sealed, as a read gives them, once", (t) => {
  const wallet = new WalletFixture(t, { policy: { nodes, encryptTo: "first" } });
  const sealed = (...timesS: readonly number[]): SealAnswer => {
    const rows = timesS.map((timeS) => rowAt(timeS));
    return readSealAnswer(wallet.ask({ type: "seal", meter: 0, plan: 0, slotS: 1, codes: [2, 4], rows }));
  };
  const answer = sealed(startS, startS + 1);
  const last = answer.sequences.at(-1) as number;
  assert.deepEqual(answer.records?.at(-1), [last, wallet.records().get(last)]);
  for (const [sequence, bytes] of answer.records ?? []) assert.deepEqual(bytes, wallet.records().get(sequence));
  assert.equal(sealed(startS, startS + 1).records, undefined, "found, and not sealed again");
  wallet.policy = { ...wallet.policy, nodes: [] };
  wallet.restart();
  const withheld = sealed(startS + 2);
  assert.equal(withheld.sequences.length, 1);
  assert.equal(withheld.records, undefined, "nothing leaves, by this way neither");
});

test("they are encrypted to the node that the policy names, wherever it stands", (t) => {
  const wallet = new WalletFixture(t, { policy: { nodes, encryptTo: (nodes[1] as PinnedNode).publicKey } });
  wallet.seal([rowAt(startS)]);
  for (const bytes of wallet.records().values()) assert.ok(envelopesOf(second).open(bytes));
});

test("with nobody pinned, or none that a secret can be agreed with, nothing leaves", (t) => {
  const stranger = new NodeFixture("stranger").publicKey;
  const smallOrder = [{ ...(nodes[0] as PinnedNode), share: new Uint8Array(32) }];
  const policies: Partial<WalletPolicy>[] = [
    { nodes: [], encryptTo: "first" },
    { nodes, encryptTo: stranger },
    { nodes: smallOrder, encryptTo: "first" },
  ];
  for (const policy of policies) {
    const wallet = new WalletFixture(t, { policy });
    wallet.seal([rowAt(startS)]);
    assert.equal(wallet.hello().recordForm, "withheld");
    assert.throws(
      () => wallet.records(),
      (error) => error instanceof WalletRefusal && error.reason === "no-recipient",
    );
    assert.equal(wallet.seal([rowAt(startS + 1)]).length, 1, "it seals all the same");
  }
});

test("no two records share a nonce, not even those that two copies of a card seal at one place", (t) => {
  const policy: Partial<WalletPolicy> = { nodes, encryptTo: "first" };
  const wallet = new WalletFixture(t, { policy });
  const image = wallet.image();
  const nonces = new Set<string>();
  let records = 0;
  for (const values of [
    [1, 2],
    [3, 4],
  ]) {
    wallet.close();
    wallet.putImage(image);
    wallet.restart();
    wallet.seal([{ ...rowAt(startS), values }]);
    for (const [sequence, bytes] of wallet.records()) {
      if (sequence === 1) continue; // sealed before the copy was made
      nonces.add(hexOf(decodeEncrypted(bytes).nonce));
      records++;
    }
  }
  assert.ok(records >= 4, `${records}`);
  assert.equal(nonces.size, records);
});

test("an answer holds no more than it may, and the rest is asked for next", (t) => {
  const wallet = new WalletFixture(t, { policy: { nodes, encryptTo: "first" }, segments: 32 });
  for (let i = 0; i < 300; i++) wallet.seal([rowAt(startS + i)]);
  const records = wallet.records();
  assert.equal(records.size, wallet.hello().nextSequence - 1);
  const sizes = new Set([...records.values()].map(({ length }) => length));
  assert.deepEqual([...sizes], [271], "single readings and events are all of one size");
});

test("sixty rows and one differ in the step of their size, and in nothing else that shows", (t) => {
  const wallet = new WalletFixture(t, { policy: { nodes, encryptTo: "first", sealEveryS: 60 } });
  wallet.seal(rowsFrom(startS + 1, 60));
  wallet.clock.pass(120);
  wallet.wallet.tick();
  for (const bytes of wallet.records().values())
    assert.ok([192, 384].includes(decodeEncrypted(bytes).ciphertext.length - 16));
});

test("another device's key, or a rotated one, agrees on other keys; a retired one can still send what it has sealed", (t) => {
  const policy = { ...new WalletFixture(t).policy, nodes, encryptTo: "first" } as WalletPolicy;
  const record = new Uint8Array(150).fill(7);
  const forms = [1, 2].map((seed) => recordEncryption(deviceKeyOf(new Uint8Array(32).fill(seed)), policy).seal(record));
  assert.notDeepEqual(forms[0], forms[1]);
  for (const bytes of forms) assert.deepEqual(Uint8Array.from(envelopesOf(first).open(bytes)), record);
});

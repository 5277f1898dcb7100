import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { kidOf } from "../../protocol/public-key.ts";
import type { Receipt } from "../../protocol/receipt.ts";
import { readReleaseAnswer } from "../../protocol/wallet-message.ts";
import { blockBytes } from "../../wallet/journal-block.ts";
import { epoch, NodeFixture, refusal, rowAt, sha256, startS, WalletFixture } from "./wallet-fixture.ts";

function sealedFixture(t: TestContext): WalletFixture {
  const wallet = new WalletFixture(t);
  for (let i = 0; i < 10; i++) wallet.seal([rowAt(startS + i)]);
  return wallet;
}

function release(wallet: WalletFixture, receipt: Uint8Array): number {
  return readReleaseAnswer(wallet.ask({ type: "release", receipt })).through;
}

function upTo(wallet: WalletFixture, through: number, content: Partial<Receipt> = {}): Uint8Array {
  return wallet.node.receipt({ device: wallet.kid, through, digest: wallet.digestOf(through), ...content });
}

test("a receipt by a key that was not pinned releases nothing; control: the pinned one does", (t) => {
  const wallet = sealedFixture(t);
  const content = { device: wallet.kid, through: 5, digest: wallet.digestOf(5) };
  const forger = new NodeFixture("forger");
  assert.throws(() => release(wallet, forger.receipt(content)), refusal("receipt-not-pinned"));
  const pinnedKid = kidOf(wallet.node.publicKey, sha256); // no secret
  assert.throws(() => release(wallet, forger.receipt(content, pinnedKid)), refusal("receipt-invalid"));
  assert.equal(wallet.hello().through, 0);
  assert.equal(release(wallet, wallet.node.receipt(content)), 5);
});

test("a pinned node's receipt with any byte changed releases nothing", (t) => {
  const wallet = sealedFixture(t);
  const receipt = upTo(wallet, 5);
  const reasons = new Map<string, number>();
  for (let at = 0; at < receipt.length; at++)
    for (const mask of [0x01, 0x80]) {
      const changed = Uint8Array.from(receipt);
      changed[at] = (changed[at] as number) ^ mask;
      assert.throws(
        () => release(wallet, changed),
        ({ reason }: { reason: string }) => reasons.set(reason, (reasons.get(reason) ?? 0) + 1) !== undefined,
        `byte ${at}`,
      );
    }
  assert.deepEqual([...reasons.keys()].sort(), ["receipt-invalid", "receipt-not-pinned"]);
  assert.equal(wallet.hello().through, 0);
  assert.equal(release(wallet, receipt), 5, "control: unchanged it does");
});

test("a pinned node's receipt is held against what was sealed", (t) => {
  type Receipted = (wallet: WalletFixture) => Uint8Array;
  const range = (wallet: WalletFixture, last: number, of = last) => ({ first: 8, last, digest: wallet.digestOf(of) });
  const changed =
    (content: (wallet: WalletFixture) => Partial<Receipt>): Receipted =>
    (wallet) =>
      upTo(wallet, 5, content(wallet));
  const beyond = ({ journal }: WalletFixture): number => journal.nextSequence;
  const cases: [string, Receipted, Parameters<typeof refusal>[0]][] = [
    ["another device", changed(() => ({ device: new Uint8Array(8) })), "receipt-other-device"],
    ["another epoch", changed(() => ({ epoch: epoch + 1 })), "receipt-other-epoch"],
    ["beyond what was sealed", changed((wallet) => ({ through: beyond(wallet) })), "receipt-beyond-sealed"],
    ["the highest number", changed(() => ({ through: 0xffff_ffff })), "receipt-beyond-sealed"],
    [
      "another record's digest",
      changed((wallet) => ({ through: 6, digest: wallet.digestOf(5) })),
      "receipt-digest-mismatch",
    ],
    [
      "a range beyond",
      changed((wallet) => ({ ranges: [{ ...range(wallet, 9), last: beyond(wallet) }] })),
      "receipt-beyond-sealed",
    ],
    [
      "a range with another digest",
      changed((wallet) => ({ ranges: [range(wallet, 9, 8)] })),
      "receipt-digest-mismatch",
    ],
    ["a device's own record", (wallet) => wallet.records().get(5) as Uint8Array, "receipt-invalid"],
    ["noise", () => Uint8Array.from([1, 2, 3]), "receipt-invalid"],
  ];
  for (const [name, receipt, reason] of cases) {
    const wallet = sealedFixture(t);
    assert.throws(() => release(wallet, receipt(wallet)), refusal(reason), name);
    assert.deepEqual(
      wallet.journal.epochs.map(({ through }) => through),
      wallet.journal.epochs.map(() => 0),
      name,
    );
  }
  const wallet = sealedFixture(t);
  const good = upTo(wallet, 5, { ranges: [range(wallet, 9)] });
  assert.equal(release(wallet, good), 5, "control; ranges release nothing by themselves");
});

test("a stale receipt is harmless, a receipt of nothing too", (t) => {
  const wallet = sealedFixture(t);
  const old = upTo(wallet, 3);
  assert.equal(release(wallet, wallet.node.receipt({ device: wallet.kid })), 0);
  assert.equal(release(wallet, upTo(wallet, 7)), 7);
  assert.equal(release(wallet, old), 7);
  assert.equal(release(wallet, upTo(wallet, 7)), 7);
});

test("a receipt for records that were overwritten long since is taken", (t) => {
  const wallet = new WalletFixture(t, { segments: 3 });
  wallet.seal([rowAt(startS)]);
  const old = upTo(wallet, 2, { ranges: [] });
  for (let i = 1; i < 100; i++) {
    wallet.seal([rowAt(startS + i)]);
    wallet.releaseAll();
  }
  assert.ok(wallet.hello().firstSequence > 2);
  assert.equal(release(wallet, old), wallet.hello().through);
});

test("a release is on disk with the next commit, and the receipt it rests on with it", (t) => {
  const wallet = sealedFixture(t);
  release(wallet, upTo(wallet, 5));
  wallet.seal([rowAt(startS + 10)]);
  wallet.restart();
  assert.equal(wallet.hello().through, 5);
  const receipt = Buffer.from(upTo(wallet, 5)); // signing is deterministic
  assert.ok(wallet.image().some((bytes) => bytes.includes(receipt)));
});

test("a receipt may pass a void, and no receipt acknowledges a void sequence itself", (t) => {
  const wallet = sealedFixture(t);
  wallet.close();
  const image = wallet.image();
  image[0]?.fill(1, 11 * blockBytes, 12 * blockBytes); // the commit of the last of ten readings
  wallet.putImage(image);
  wallet.restart();
  const { nextSequence } = wallet.hello();
  const inVoid = wallet.node.receipt({ device: wallet.kid, through: 15, digest: new Uint8Array(32) });
  assert.throws(() => release(wallet, inVoid), refusal("receipt-digest-mismatch"));
  assert.equal(release(wallet, upTo(wallet, nextSequence - 1)), nextSequence - 1);
});

// Receipts of 41 bytes: a MAC that only a pinned node can make for this very key, held against what was sealed like a signed one.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { encodeLoraReceipt, type LoraReceipt, loraReceiptInfo, loraReceiptTypes } from "../../protocol/lora-receipt.ts";
import { decodeRecord, epochReasons, eventCodes } from "../../protocol/record.ts";
import { type ReleaseAnswer, readReleaseAnswer, WalletRefusal } from "../../protocol/wallet-message.ts";
import { Journal } from "../../wallet/journal.ts";
import { deviceKeyOf } from "../../wallet/keystore.ts";
import { epoch, eventsIn, NodeFixture, refusal, rowAt, sha256, startS, WalletFixture } from "./wallet-fixture.ts";

const { storedBehindGap: behindGap, evidence } = loraReceiptTypes;

/** Sequences 1 to 11. */
function sealedFixture(t: TestContext): WalletFixture {
  const wallet = new WalletFixture(t);
  for (let i = 0; i < 10; i++) wallet.seal([rowAt(startS + i)]);
  return wallet;
}

function made(wallet: WalletFixture, content: Partial<LoraReceipt>, node = wallet.node): Uint8Array {
  const { sequence = 0 } = content;
  const digest = sequence > 0 && sequence < wallet.journal.nextSequence ? wallet.digestOf(sequence) : undefined;
  return node.loraReceipt({ ...(digest && { digest }), ...content }, wallet.key.share);
}

function release(wallet: WalletFixture, receipt: Uint8Array): ReleaseAnswer {
  return readReleaseAnswer(wallet.ask({ type: "release", receipt }));
}

test("all up to a sequence is released, and what the bitmap names is known as stored", (t) => {
  const wallet = sealedFixture(t);
  const answer = release(wallet, made(wallet, { sequence: 5, bitmap: 0b0110_0100 * 2 ** 24 }));
  assert.deepEqual(answer, {
    epoch,
    through: 5,
    stored: [
      [1, 5],
      [7, 8],
      [11, 11],
    ],
  });
});

test("of what comes behind a gap nothing is released, and the agent learns that it is stored", (t) => {
  const wallet = sealedFixture(t);
  const answer = release(wallet, made(wallet, { type: behindGap, sequence: 9, bitmap: 0b1010_0000 * 2 ** 24 }));
  assert.deepEqual(answer, {
    epoch,
    through: 0,
    stored: [
      [6, 6],
      [8, 9],
    ],
  });
  assert.equal(wallet.hello().through, 0);
});

test("a MAC under any other key than that of a pinned node and this device releases nothing; control: that one does", (t) => {
  const wallet = sealedFixture(t);
  const other = deviceKeyOf(new Uint8Array(32).fill(8));
  const content = { sequence: 5, digest: wallet.digestOf(5) };
  const forger = new NodeFixture("forger");
  const { share, agreeMac } = wallet.node.agreement;
  const full: LoraReceipt = {
    ...{ type: loraReceiptTypes.stored, epoch, sequence: 5, bitmap: 0, timeS: startS },
    digest: content.digest.slice(0, 8),
  };
  const cases: [string, Uint8Array][] = [
    ["of a node that is not pinned", made(wallet, content, forger)],
    ["for another device", wallet.node.loraReceipt(content, other.share)],
    ["for another purpose", encodeLoraReceipt(full, agreeMac(wallet.key.share, new Uint8Array(85)))],
    [
      "shares in the other order",
      encodeLoraReceipt(full, agreeMac(wallet.key.share, loraReceiptInfo(share, wallet.key.share))),
    ],
    ["zeros", encodeLoraReceipt(full, () => new Uint8Array(32))],
  ];
  for (const [name, receipt] of cases) assert.throws(() => release(wallet, receipt), refusal("receipt-invalid"), name);
  assert.equal(wallet.hello().through, 0);
  assert.equal(release(wallet, made(wallet, content)).through, 5);
});

test("with any bit changed, cut short or longer it releases nothing", (t) => {
  const wallet = sealedFixture(t);
  const receipt = made(wallet, { sequence: 5 });
  for (let bit = 0; bit < receipt.length * 8; bit++) {
    const changed = receipt.with(bit >> 3, (receipt[bit >> 3] as number) ^ (1 << (bit & 7)));
    assert.throws(() => release(wallet, changed), refusal("receipt-invalid"), `bit ${bit}`);
  }
  for (const length of [1, 25, 40])
    assert.throws(() => release(wallet, receipt.slice(0, length)), refusal("receipt-invalid"));
  assert.throws(() => release(wallet, Uint8Array.of(...receipt, 0)), refusal("receipt-invalid"));
  assert.deepEqual([wallet.hello().through, wallet.journal.epochs.length], [0, 1]);
  assert.equal(release(wallet, receipt).through, 5, "control: unchanged it does");
});

test("what its maker says is held against what was sealed", (t) => {
  const cases: [string, (wallet: WalletFixture) => Partial<LoraReceipt>, Parameters<typeof refusal>[0]][] = [
    ["another epoch", () => ({ sequence: 5, epoch: epoch + 1 }), "receipt-other-epoch"],
    ["beyond what was sealed", () => ({ sequence: 12, digest: new Uint8Array(8).fill(1) }), "receipt-beyond-sealed"],
    ["a bit beyond", () => ({ sequence: 5, bitmap: 1 << 25 }), "receipt-beyond-sealed"],
    ["another record's digest", (wallet) => ({ sequence: 6, digest: wallet.digestOf(5) }), "receipt-digest-mismatch"],
    ["no digest", () => ({ sequence: 6, digest: new Uint8Array(8) }), "receipt-digest-mismatch"],
    [
      "behind a gap, beyond",
      () => ({ type: behindGap, sequence: 40, digest: new Uint8Array(8).fill(1) }),
      "receipt-beyond-sealed",
    ],
    [
      "behind a gap, another digest",
      (wallet) => ({ type: behindGap, sequence: 6, digest: wallet.digestOf(5) }),
      "receipt-digest-mismatch",
    ],
  ];
  for (const [name, content, reason] of cases) {
    const wallet = sealedFixture(t);
    const true5 = made(wallet, { sequence: 5 });
    assert.throws(() => release(wallet, made(wallet, content(wallet))), refusal(reason), name);
    assert.equal(wallet.journal.epochs[0]?.through, 0, name);
    assert.equal(release(wallet, true5).through, 5, `control: ${name}`);
  }
});

test("a digest of eight bytes that contradicts the chain begins a new epoch, as one of thirty-two does", (t) => {
  const wallet = sealedFixture(t);
  const digest = new Uint8Array(8).fill(9);
  assert.throws(() => release(wallet, made(wallet, { sequence: 40, digest })), refusal("receipt-beyond-sealed"));
  assert.notEqual(wallet.journal.epoch, epoch);
  assert.deepEqual(eventsIn(wallet.records(), eventCodes.epochBegun), [
    [eventCodes.epochBegun, epochReasons.contradicted, epoch, 40, digest],
  ]);
  const forger = new NodeFixture("forger");
  const other = sealedFixture(t);
  assert.throws(() => release(other, made(other, { sequence: 40, digest }, forger)), refusal("receipt-invalid"));
  assert.equal(other.journal.epoch, epoch, "control: a forger begins none");
});

/** A card that was copied after 5 readings, while the device went on to 10, and the receipt that tells it so. */
function olderCard(t: TestContext) {
  const wallet = new WalletFixture(t, { segments: 8 });
  for (let i = 0; i < 5; i++) wallet.seal([rowAt(startS + i)]);
  const copy = wallet.image();
  for (let i = 5; i < 10; i++) wallet.seal([rowAt(startS + i)]);
  const told = made(wallet, { sequence: 11 });
  wallet.close();
  wallet.putImage(copy);
  wallet.restart(); // seals its start as record 7
  return { wallet, told };
}

test("over LoRaWAN alone, too, an older card begins anew, and gets rid of what the node keeps of it as evidence", (t) => {
  const { wallet, told } = olderCard(t);
  const own = (sequence: number) => decodeRecord(wallet.records(epoch).get(sequence) as Uint8Array, sha256).digest;
  assert.throws(() => release(wallet, told), refusal("receipt-beyond-sealed"));
  assert.notEqual(wallet.journal.epoch, epoch);
  assert.throws(
    () => release(wallet, told),
    refusal("receipt-beyond-sealed"),
    "what it says of all releases none of it",
  );
  const kept = (sequence: number, bitmap: number, digest = own(sequence)) =>
    made(wallet, { type: evidence, epoch, sequence, bitmap, digest });
  const other = new Uint8Array(8).fill(3);
  assert.throws(() => release(wallet, kept(7, 0, other)), refusal("receipt-digest-mismatch"), "of a twin");
  assert.throws(() => release(wallet, kept(8, 0, other)), refusal("receipt-digest-mismatch"));
  assert.deepEqual(release(wallet, kept(7, 0)), { epoch, through: 0, stored: [[7, 7]] });
  // Each record names the one before: the digest speaks for the run right before it, and for nothing behind a gap in the bitmap.
  assert.deepEqual(release(wallet, kept(5, 0b1011 * 2 ** 28)), { epoch, through: 0, stored: [[4, 5]] });
  assert.deepEqual(release(wallet, kept(3, 0b11 * 2 ** 30)), { epoch, through: 5, stored: [[1, 3]] });
  assert.deepEqual(release(wallet, kept(6, 0)), { epoch, through: 7, stored: [[6, 6]] });
  assert.deepEqual(wallet.hello().earlierEpochs, []);
});

test("of an earlier epoch, what the node has in its chain under the same digest is released as well, run by run", (t) => {
  const { wallet, told } = olderCard(t);
  const own = (sequence: number) => decodeRecord(wallet.records(epoch).get(sequence) as Uint8Array, sha256).digest;
  const stored = (sequence: number, bitmap: number, digest = own(sequence)) =>
    made(wallet, { type: behindGap, epoch, sequence, bitmap, digest });
  assert.deepEqual(release(wallet, stored(3, 0b11 * 2 ** 30)), { epoch, through: 0, stored: [[1, 3]] }, "it runs yet");
  assert.throws(() => release(wallet, told), refusal("receipt-beyond-sealed"));
  const other = new Uint8Array(8).fill(3);
  assert.throws(() => release(wallet, stored(3, 0b11 * 2 ** 30, other)), refusal("receipt-digest-mismatch"));
  assert.deepEqual(release(wallet, stored(3, 0b11 * 2 ** 30)), { epoch, through: 3, stored: [[1, 3]] });
  assert.deepEqual(release(wallet, stored(6, 0b1001 * 2 ** 28)), {
    epoch,
    through: 3,
    stored: [
      [2, 2],
      [5, 6],
    ],
  });
  assert.deepEqual(release(wallet, stored(4, 0)), { epoch, through: 6, stored: [[4, 4]] });
});

test("a record of the running epoch that is kept as evidence: the chain at the node is another's, and a new epoch begins", (t) => {
  const wallet = sealedFixture(t);
  const digest = new Uint8Array(8).fill(3);
  const wrong = made(wallet, { type: evidence, sequence: 6, digest });
  assert.throws(() => release(wallet, wrong), refusal("receipt-digest-mismatch"));
  assert.equal(wallet.journal.epoch, epoch, "control: it speaks of a twin's record");
  const own = wallet.digestOf(6).slice(0, 8);
  const receipt = made(wallet, { type: evidence, sequence: 6 });
  assert.throws(() => release(wallet, receipt), refusal("receipt-digest-mismatch"));
  assert.deepEqual(eventsIn(wallet.records(), eventCodes.epochBegun), [
    [eventCodes.epochBegun, epochReasons.contradicted, epoch, 6, own],
  ]);
  assert.deepEqual(release(wallet, receipt), { epoch, through: 0, stored: [[6, 6]] }, "the same then lets it go");
});

test("several nodes are pinned, one of them with a share that no secret can be agreed with: each other one is taken", (t) => {
  const wallet = sealedFixture(t);
  const second = new NodeFixture("second");
  const nodes = [
    { name: "broken", publicKey: new NodeFixture("broken").publicKey, share: new Uint8Array(32) },
    ...wallet.policy.nodes,
    { name: "second", publicKey: second.publicKey, share: second.agreement.share },
  ];
  wallet.policy = { ...wallet.policy, nodes };
  wallet.restart();
  assert.equal(release(wallet, made(wallet, { sequence: 3 })).through, 3);
  assert.equal(release(wallet, made(wallet, { sequence: 4 }, second)).through, 4);
  const zeros = made(wallet, { sequence: 5 }).fill(0, 25);
  assert.throws(() => release(wallet, zeros), refusal("receipt-invalid"));
});

test("what such a receipt has released stays so over a restart, and the journal names it", (t) => {
  const wallet = sealedFixture(t);
  const receipt = made(wallet, { sequence: 9 });
  release(wallet, receipt);
  wallet.seal([rowAt(startS + 20)]);
  wallet.restart();
  assert.equal(wallet.hello().through, 9);
  assert.deepEqual(wallet.journal.receipt, receipt);
  wallet.close();
  const journal = new Journal(wallet.folder, "read");
  assert.deepEqual(journal.receipt, receipt);
  journal.close();
});

test("older and repeated ones take nothing back; noise releases nothing", (t) => {
  const wallet = sealedFixture(t);
  release(wallet, made(wallet, { sequence: 7 }));
  assert.equal(release(wallet, made(wallet, { sequence: 3 })).through, 7);
  assert.equal(release(wallet, made(wallet, {})).through, 7, "a node that has nothing");
  for (let i = 0; i < 300; i++) {
    const noise = Uint8Array.from({ length: 41 }, (_, at) => (i * 31 + at * 17 + ((i * at) >> 3)) & 0xff);
    noise[0] = 1 + (i & 1);
    assert.throws(
      () => release(wallet, noise),
      (error) => error instanceof WalletRefusal,
    );
  }
  assert.equal(wallet.hello().through, 7);
});

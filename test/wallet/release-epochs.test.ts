// Receipts over several epochs: an older card shows by what a full node has; what was contradicted is kept, and released by runs.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import type { Receipt } from "../../protocol/receipt.ts";
import { decodeRecord, epochReasons, eventCodes, previousBytes } from "../../protocol/record.ts";
import { type ReleaseAnswer, readReleaseAnswer } from "../../protocol/wallet-message.ts";
import {
  checkChain,
  epoch,
  eventsIn,
  meterOf,
  refusal,
  rowAt,
  sha256,
  startS,
  WalletFixture,
} from "./wallet-fixture.ts";

function release(wallet: WalletFixture, content: Partial<Receipt>): ReleaseAnswer {
  const receipt = wallet.node.receipt({ device: wallet.kid, ...content });
  return readReleaseAnswer(wallet.ask({ type: "release", receipt }));
}

function digestIn(wallet: WalletFixture, ofEpoch: number, sequence: number): Uint8Array {
  return decodeRecord(wallet.records(ofEpoch).get(sequence) as Uint8Array, sha256).digest;
}

/** A card that was copied after 5 readings, while the device went on to 10; the node has all of these. */
function olderCard(t: TestContext, options: ConstructorParameters<typeof WalletFixture>[1] = {}) {
  const wallet = new WalletFixture(t, { segments: 8, ...options });
  for (let i = 0; i < 5; i++) wallet.seal([rowAt(startS + i)]);
  const copy = wallet.image();
  for (let i = 5; i < 10; i++) wallet.seal([rowAt(startS + i)]);
  const stored = { through: 11, digest: wallet.digestOf(11) };
  wallet.close();
  wallet.putImage(copy);
  wallet.restart();
  return { wallet, stored };
}

test("a receipt beyond what is sealed begins a new epoch, whose first record says what contradicted the old one", (t) => {
  const { wallet, stored } = olderCard(t);
  assert.equal(wallet.journal.epoch, epoch, "control: until a receipt comes, nobody knows");
  assert.throws(() => release(wallet, stored), refusal("receipt-beyond-sealed"));
  const running = wallet.journal.epoch;
  assert.notEqual(running, epoch);
  const records = wallet.records();
  assert.deepEqual(eventsIn(new Map([...records].slice(0, 1)), eventCodes.epochBegun), [
    [eventCodes.epochBegun, epochReasons.contradicted, epoch, 11, stored.digest],
  ]);
  const last = [...wallet.records(epoch).values()].at(-1) as Uint8Array;
  const first = decodeRecord(records.get(1) as Uint8Array, sha256).content;
  assert.deepEqual(first.previous, decodeRecord(last, sha256).digest.slice(0, previousBytes), "the chain goes on");
  wallet.seal([rowAt(startS + 30)]);
  wallet.restart();
  assert.equal(wallet.journal.epoch, running);
  assert.equal(wallet.hello().nextSequence, 4);
  assert.deepEqual(wallet.hello().earlierEpochs, [{ epoch, through: 0, last: 7 }]);
  for (const each of [epoch, running]) checkChain(wallet.records(each), wallet.key.publicKey);
});

test("with sixteen epochs in the ring no receipt begins another: the refusal says so, and the wallet goes on", (t) => {
  const wallet = new WalletFixture(t, { segments: 8 });
  const contradict = (): string => {
    wallet.clock.pass(601);
    const lie = { epoch: wallet.journal.epoch, through: 9_999, digest: new Uint8Array(32).fill(9) };
    try {
      release(wallet, lie);
    } catch (error) {
      refusal("receipt-beyond-sealed")(error);
      return (error as Error).message;
    }
    return "taken";
  };
  for (let epochs = 1; epochs < 16; epochs++) assert.match(contradict(), /; a new epoch begins\)$/);
  const running = wallet.journal.epoch;
  assert.match(contradict(), /no new epoch begins, since the journal has records of 16/);
  assert.equal(wallet.journal.epoch, running);
  wallet.seal([rowAt(startS + 20_000)]);
  wallet.restart();
  assert.equal(wallet.hello().earlierEpochs.length, 15);
  assert.equal(wallet.journal.epoch, running);
  for (const { epoch: each } of wallet.journal.epochs) checkChain(wallet.records(each), wallet.key.publicKey);
  // Once the oldest are released and overwritten there is room for another.
  for (const { epoch: each, last } of wallet.journal.epochs)
    release(wallet, { epoch: each, through: last, digest: digestIn(wallet, each, last) });
  for (let i = 1; !wallet.journal.canBeginEpoch; i++) {
    assert.ok(i < 500);
    const [through = 0] = wallet.seal([rowAt(startS + 20_000 + i)]);
    release(wallet, { epoch: running, through, digest: wallet.digestOf(through) });
  }
  assert.match(contradict(), /; a new epoch begins\)$/);
});

test("so does another digest for a record that is there; a void sequence's digest does not", (t) => {
  const { wallet } = olderCard(t);
  wallet.seal([rowAt(startS + 20)]);
  const twin = { through: 3, digest: new Uint8Array(32).fill(9) };
  assert.throws(() => release(wallet, twin), refusal("receipt-digest-mismatch"));
  assert.notEqual(wallet.journal.epoch, epoch);
});

test("rows that waited for their batch are signed in the epoch where they were taken", (t) => {
  const policy = { meters: [meterOf({ slotS: 60 })], sealEveryS: 900 };
  const wallet = new WalletFixture(t, { policy });
  wallet.seal([rowAt(startS + 60)]);
  assert.throws(() => release(wallet, { through: 99, digest: new Uint8Array(32) }), refusal("receipt-beyond-sealed"));
  assert.equal(wallet.hello().pendingRows, 0);
  assert.equal([...wallet.records(epoch).values()].length, 2);
  assert.equal(wallet.seal([rowAt(startS + 60)]).length, 1);
  const answer = wallet.ask({
    ...{ type: "seal", meter: 0, plan: 0, slotS: 60, codes: [2, 4] },
    rows: [rowAt(startS + 60), rowAt(startS + 120)],
  });
  assert.deepEqual(
    answer.get(2),
    new Map([[0, epoch]]),
    "the answer names the epoch of the row that is in an earlier one",
  );
});

test("one epoch in ten minutes, whatever receipts come", (t) => {
  const wallet = new WalletFixture(t, { segments: 8 });
  const contradict = (): void => {
    const beyond = { epoch: wallet.journal.epoch, through: 9_999, digest: new Uint8Array(32) };
    assert.throws(() => release(wallet, beyond), refusal("receipt-beyond-sealed"));
  };
  for (let i = 0; i < 5; i++) contradict();
  assert.equal(wallet.journal.epochs.length, 2);
  wallet.clock.pass(599);
  contradict();
  assert.equal(wallet.journal.epochs.length, 2);
  wallet.clock.pass(1);
  contradict();
  assert.equal(wallet.journal.epochs.length, 3);
});

test("a receipt that is not a pinned node's begins nothing, nor does one for an earlier epoch", (t) => {
  const { wallet, stored } = olderCard(t);
  const forged = Uint8Array.from(wallet.node.receipt({ device: wallet.kid, ...stored }));
  forged[forged.length - 1] = (forged.at(-1) as number) ^ 1;
  assert.throws(() => wallet.ask({ type: "release", receipt: forged }), refusal("receipt-invalid"));
  assert.equal(wallet.journal.epochs.length, 1);
  assert.throws(() => release(wallet, stored), refusal("receipt-beyond-sealed"));
  wallet.clock.pass(3_600);
  assert.throws(() => release(wallet, stored), refusal("receipt-beyond-sealed"));
  assert.equal(wallet.journal.epochs.length, 2);
});

test("runs that the node keeps release the contradicted epoch, and only where their digest is this journal's", (t) => {
  const { wallet, stored } = olderCard(t);
  assert.throws(() => release(wallet, stored), refusal("receipt-beyond-sealed"));
  wallet.seal([rowAt(startS + 30)]);
  wallet.seal([rowAt(startS + 31)]);
  const running = wallet.journal.epoch;
  const run = (first: number, last: number, digest = digestIn(wallet, epoch, last)) => ({ first, last, digest });
  const other = { ...stored, kept: [run(1, 4, new Uint8Array(32).fill(9))] };
  assert.throws(() => release(wallet, other), refusal("receipt-beyond-sealed"));
  assert.deepEqual(wallet.hello().earlierEpochs, [{ epoch, through: 0, last: 7 }]);
  assert.deepEqual(
    release(wallet, { ...stored, kept: [run(5, 7)] }),
    { epoch, through: 0, stored: [[5, 7]] },
    "waits for what is before it",
  );
  assert.deepEqual(release(wallet, { ...stored, kept: [run(1, 4)] }), { epoch, through: 7, stored: [[1, 4]] });
  assert.deepEqual(wallet.hello().earlierEpochs, []);
  const of = { epoch: running, through: 2, digest: digestIn(wallet, running, 2) };
  assert.deepEqual(release(wallet, of), { epoch: running, through: 2, stored: [[1, 2]] });
  // A run of the running epoch says nothing: there the chain is the node's own.
  const kept = [{ first: 1, last: 3, digest: digestIn(wallet, running, 3) }];
  assert.deepEqual(release(wallet, { ...of, kept }), { epoch: running, through: 2, stored: [[1, 2]] });
});

test("a full ring that may drop overwrites the oldest, and says which sequences went; control: one that may not refuses", (t) => {
  const refusing = new WalletFixture(t, { segments: 3 });
  assert.throws(() => {
    for (let i = 0; ; i++) refusing.seal([rowAt(startS + i)]);
  }, refusal("ring-full"));
  const wallet = new WalletFixture(t, { segments: 3, policy: { whenFull: "drop_oldest" } });
  for (let i = 0; i < 200; i++) {
    wallet.seal([rowAt(startS + i)]);
    if (i % 37 === 0) wallet.restart();
  }
  const dropped: unknown[][] = [];
  for (const event of eventsIn(wallet.records(), eventCodes.dropped)) dropped.push(event.slice(1));
  assert.ok(dropped.length >= 2, "two of the three segments are there, each begins by saying what went");
  const { firstSequence } = wallet.hello();
  const [, , last] = dropped.at(-1) as [number, number, number];
  assert.equal(last, firstSequence - 1, "what went is what cannot be read any more");
  const records = wallet.records();
  const again = new Map([...records].filter(([sequence]) => sequence > firstSequence));
  assert.ok(again.size > 20);
  checkChain(records, wallet.key.publicKey);
  wallet.releaseAll();
  for (let i = 200; i < 260; i++) {
    wallet.seal([rowAt(startS + i)]);
    wallet.releaseAll();
  }
  assert.equal(eventsIn(wallet.records(), eventCodes.dropped).length, 0, "with receipts nothing goes");
});

// A block that has rotted: what lay in it never comes. It is sealed as dropped, so that neither the full node nor the ring waits for it, but
// not before everything that can still be delivered is.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { decodeRecord, eventCodes } from "../../protocol/record.ts";
import { blockBytes } from "../../wallet/journal-block.ts";
import { epoch, eventsIn, rowAt, sha256, startS, WalletFixture } from "./wallet-fixture.ts";

/** A wallet of which one record, of those in the first segment, is damaged; gives its sequence. */
function withHole(t: TestContext): { wallet: WalletFixture; missing: number } {
  const wallet = new WalletFixture(t, { segments: 6 });
  for (let i = 0; i < 30; i++) wallet.seal([rowAt(startS + i)]);
  const image = wallet.image();
  const first = image[0] as Buffer;
  const block = 6;
  const before = [...wallet.records().keys()];
  first.fill(0xa5, block * blockBytes, (block + 1) * blockBytes);
  wallet.close();
  wallet.putImage(image);
  wallet.restart();
  while (wallet.wallet.checkNext() !== undefined);
  const there = wallet.records();
  const [missing, ...others] = before.filter((sequence) => !there.has(sequence));
  assert.equal(others.length, 0);
  return { wallet, missing: missing as number };
}

test("a hole is sealed as dropped once everything before it is released, and not sooner", (t) => {
  const { wallet, missing } = withHole(t);
  wallet.wallet.tick();
  assert.deepEqual(
    eventsIn(wallet.records(), eventCodes.dropped),
    [],
    "control: records before it wait for their receipt",
  );
  wallet.release(missing - 2);
  wallet.wallet.tick();
  assert.deepEqual(eventsIn(wallet.records(), eventCodes.dropped), []);
  wallet.release(missing - 1);
  wallet.wallet.tick();
  assert.deepEqual(eventsIn(wallet.records(), eventCodes.dropped), [[eventCodes.dropped, epoch, missing, missing]]);
  wallet.wallet.tick();
  assert.equal(eventsIn(wallet.records(), eventCodes.dropped).length, 1, "once");
  // A node that passes it acknowledges what lies behind, and the ring goes on.
  const last = wallet.journal.nextSequence - 1;
  assert.equal(wallet.release(last), last);
  for (let i = 0; i < 200; i++) {
    wallet.seal([rowAt(startS + 100 + i)]);
    if (i % 10 === 0) wallet.releaseAll();
  }
});

test("what a receipt has released is not dropped", (t) => {
  const { wallet, missing } = withHole(t);
  wallet.release(missing + 2); // it was delivered before it rotted
  wallet.wallet.tick();
  assert.deepEqual(eventsIn(wallet.records(), eventCodes.dropped), []);
  const [storageError] = eventsIn(wallet.records(), eventCodes.storageError);
  assert.match(String(storageError?.[1]), /^segment 0, blocks 6-6: commits \d+-\d+ missing$/);
  const newest = [...wallet.records().values()].at(-1) as Uint8Array;
  assert.ok(decodeRecord(newest, sha256).content.sequence > missing);
});

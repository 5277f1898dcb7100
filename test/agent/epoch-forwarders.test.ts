import assert from "node:assert/strict";
import { test } from "node:test";
import { EpochForwarders } from "../../agent/epoch-forwarders.ts";
import { sampleHello } from "./scripted-wallet.ts";

const earlier = [
  { epoch: 3, through: 10, last: 12 },
  { epoch: 5, through: 0, last: 100 },
];
const hello = { ...sampleHello, nextSequence: 8, through: 2, earlierEpochs: earlier };

/** The ranges that are sent now, each published at once. */
function sendAll(forwarders: EpochForwarders, takes: (lane: string) => boolean = () => true): string[] {
  const sent: string[] = [];
  for (let next = forwarders.next(takes); next; next = forwarders.next(takes)) {
    const { from, to } = next.range;
    sent.push(`${next.epoch}: ${from}-${to}`);
    const records = Array.from({ length: to - from + 1 }, (_, i) => [from + i, 250] as const);
    next.forwarder.published(next.range, records, true, 0);
  }
  return sent;
}

test("the newest go first, then earlier epochs, oldest first, all within one window", () => {
  const forwarders = new EpochForwarders();
  assert.deepEqual(forwarders.all, []);
  assert.equal(forwarders.running.waiting, 0);
  assert.equal(
    forwarders.next(() => true),
    undefined,
  );
  forwarders.meet(hello, true);
  assert.deepEqual(sendAll(forwarders), ["7: 3-7", "3: 11-12", "5: 1-35"]);
  assert.equal(forwarders.waiting, 2 + 100 + 5);
  assert.equal(forwarders.running.highest, 7);
});

test("an uplink that carries no backlog gets the newest only", () => {
  const forwarders = new EpochForwarders();
  forwarders.meet({ ...hello, nextSequence: 1_001 }, true);
  assert.deepEqual(
    sendAll(forwarders, (lane) => lane === "live"),
    ["7: 985-1000"],
  );
});

test("what is released of one epoch moves no other; one that is complete goes at the next hello", () => {
  const forwarders = new EpochForwarders();
  forwarders.meet(hello, true);
  sendAll(forwarders);
  forwarders.of(5)?.released(35, [], 0);
  assert.equal(forwarders.of(3)?.through, 10);
  assert.equal(forwarders.running.through, 2);
  assert.deepEqual(sendAll(forwarders), ["5: 36-100"]);
  forwarders.meet({ ...hello, earlierEpochs: [{ epoch: 5, through: 35, last: 100 }] }, false);
  assert.deepEqual(
    forwarders.all.map(({ epoch }) => epoch),
    [5, 7],
  );
  assert.deepEqual(sendAll(forwarders), [], "nothing is sent anew");
});

test("an epoch that the wallet begins in the middle of it all: the one before goes on where it was", () => {
  const forwarders = new EpochForwarders();
  forwarders.meet({ ...hello, earlierEpochs: [] }, true);
  sendAll(forwarders);
  const next = { ...hello, epoch: 9, nextSequence: 2, through: 0, earlierEpochs: [{ epoch: 7, through: 2, last: 9 }] };
  forwarders.meet(next, false);
  assert.deepEqual(sendAll(forwarders), ["9: 1-1", "7: 8-9"]);
  forwarders.restart();
  assert.deepEqual(sendAll(forwarders), ["9: 1-1", "7: 3-9"]);
});

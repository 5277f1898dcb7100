// The log of events that the wallet signs by itself: starts and stops, changes, uses of the key, refusals by the minute.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { contentTypes, decodeCose, digestOf } from "../../protocol/cose-sign1.ts";
import { encodeCbor } from "../../protocol/deterministic-cbor.ts";
import { eventCodes } from "../../protocol/record.ts";
import { readEnrolAnswer } from "../../protocol/wallet-message.ts";
import { checkChain, eventsIn, meterOf, refusal, rowAt, sha256, startS, WalletFixture } from "./wallet-fixture.ts";

const nonsense = encodeCbor([99, 1, new Map()]);

test("started names software and policy; updated and parameters changed say what differs from the last start", (t) => {
  const wallet = new WalletFixture(t);
  const first = wallet.hello().policyDigest;
  wallet.restart();
  assert.deepEqual(eventsIn(wallet.records(), eventCodes.updated), [], "control: nothing changed");
  assert.deepEqual(eventsIn(wallet.records(), eventCodes.parametersChanged), []);
  wallet.softwareId = "ecp-wallet/next";
  wallet.restart();
  wallet.policy = { ...wallet.policy, meters: [meterOf({ powerMaxW: 11_000 })] };
  wallet.restart();
  wallet.restart();
  const records = wallet.records();
  const second = wallet.hello().policyDigest;
  assert.deepEqual(eventsIn(records, eventCodes.updated), [[eventCodes.updated, "ecp-wallet/test", "ecp-wallet/next"]]);
  assert.deepEqual(eventsIn(records, eventCodes.parametersChanged), [[eventCodes.parametersChanged, second]]);
  const started = eventsIn(records, eventCodes.started);
  assert.deepEqual(
    started.map(([, software, digest]) => [software, digest]),
    [
      ["ecp-wallet/test", first],
      ["ecp-wallet/test", first],
      ["ecp-wallet/next", first],
      ["ecp-wallet/next", second],
      ["ecp-wallet/next", second],
    ],
  );
});

test("a wallet that is told to stop seals it, and answers nothing after that", (t) => {
  const wallet = new WalletFixture(t);
  wallet.seal([rowAt(startS)]);
  wallet.wallet.answer(nonsense);
  wallet.wallet.stop();
  const records = new Map(wallet.journal.records(1, 99, 100_000));
  assert.deepEqual(eventsIn(records, eventCodes.stopped), [[eventCodes.stopped]]);
  assert.deepEqual(eventsIn(records, eventCodes.refusals), [[eventCodes.refusals, 1]], "the count does not get lost");
  assert.throws(() => wallet.wallet.answer(nonsense), /stopped/);
  wallet.wallet.stop();
  wallet.wallet.tick();
  assert.equal(wallet.journal.records(1, 99, 100_000).length, records.size, "once");
  wallet.restart();
  assert.equal(eventsIn(wallet.records(), eventCodes.stopped).length, 1, "control: a kill says nothing");
  checkChain(wallet.records(), wallet.key.publicKey);
});

test("refusals are sealed as one count a minute; idle, nothing is written", (t) => {
  const wallet = new WalletFixture(t);
  const counts = (): unknown[] => eventsIn(wallet.records(), eventCodes.refusals).map(([, count]) => count);
  const image = (): string =>
    wallet
      .image()
      .reduce((hash, bytes) => hash.update(bytes), createHash("sha256"))
      .digest("hex");
  const tickFor = (seconds: number): void => {
    for (let i = 0; i < seconds; i += 5) {
      wallet.clock.pass(5);
      wallet.wallet.tick();
    }
  };
  const before = image();
  tickFor(600);
  assert.equal(image(), before, "ten idle minutes write nothing");
  for (let i = 0; i < 7; i++) wallet.wallet.answer(nonsense);
  assert.throws(() => wallet.seal([rowAt(startS)], { meter: 9, slotS: 1 }), refusal("unknown-meter"));
  tickFor(30);
  wallet.wallet.answer(Uint8Array.from([0xff]));
  tickFor(30);
  assert.deepEqual(counts(), [9]);
  const after = image();
  tickFor(600);
  assert.equal(image(), after);
  wallet.wallet.answer(nonsense);
  tickFor(60);
  assert.deepEqual(counts(), [9, 1]);
});

test("while the ring is full refusals add up, and are sealed when it has room", (t) => {
  const wallet = new WalletFixture(t, { segments: 3 });
  let refused = 0;
  for (let i = 0; refused < 200; i++) {
    try {
      wallet.seal([rowAt(startS + i)]);
    } catch (error) {
      assert.ok(refusal("ring-full")(error));
      refused++;
    }
    wallet.wallet.tick();
  }
  assert.deepEqual(eventsIn(wallet.records(), eventCodes.refusals), []);
  wallet.releaseAll();
  wallet.clock.pass(60);
  wallet.wallet.tick();
  assert.deepEqual(eventsIn(wallet.records(), eventCodes.refusals), [[eventCodes.refusals, 200]]);
});

test("what the key signs besides records is journaled before it leaves, and so many a minute", (t) => {
  const wallet = new WalletFixture(t);
  const request = readEnrolAnswer(wallet.ask({ type: "enrol" }));
  const digest = digestOf(decodeCose(request), sha256).slice(0, 16);
  assert.deepEqual(eventsIn(wallet.records(), eventCodes.keyUsed), [
    [eventCodes.keyUsed, contentTypes.enrolmentRequest, digest],
  ]);
  for (let i = 0; i < 5; i++) wallet.ask({ type: "enrol" });
  assert.throws(() => wallet.ask({ type: "enrol" }), refusal("rate-exceeded"));
  assert.equal(eventsIn(wallet.records(), eventCodes.keyUsed).length, 6);
  wallet.clock.pass(60);
  wallet.ask({ type: "enrol" });
  assert.equal(eventsIn(wallet.records(), eventCodes.keyUsed).length, 7);
});

test("while the ring is full the key signs nothing that could not be journaled", (t) => {
  const wallet = new WalletFixture(t, { segments: 3 });
  assert.throws(() => {
    for (let i = 0; ; i++) wallet.seal([rowAt(startS + i)]);
  }, refusal("ring-full"));
  assert.throws(() => wallet.ask({ type: "enrol" }), refusal("ring-full"));
});

test("a start with a TPM's counter seals its value", (t) => {
  const wallet = new WalletFixture(t);
  wallet.counter = 41;
  wallet.restart();
  assert.deepEqual(
    eventsIn(wallet.records(), eventCodes.started).map((event) => event[3]),
    [undefined, 41],
  );
});

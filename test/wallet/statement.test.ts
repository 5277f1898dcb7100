// Period statements: only over rows that are sealed, good, and of one meter; signed by the device's key.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { contentTypes, verifyCose } from "../../protocol/cose-sign1.ts";
import { eventCodes } from "../../protocol/record.ts";
import { decodeStatement, type Statement } from "../../protocol/statement.ts";
import { readStatementAnswer } from "../../protocol/wallet-message.ts";
import { verifyEd25519 } from "../../wallet/verification.ts";
import { epoch, eventsIn, meterOf, NodeFixture, refusal, sha256, startS, WalletFixture } from "./wallet-fixture.ts";

const slotS = 900;
const codes = [2, 4];

function quarterHours(t: TestContext, options: ConstructorParameters<typeof WalletFixture>[1] = {}): WalletFixture {
  return new WalletFixture(t, {
    segments: 16,
    ...options,
    policy: { meters: [meterOf({ slotS })], ...options.policy },
  });
}

function seal(wallet: WalletFixture, slot: number, values: number[], status = 0): void {
  wallet.seal([{ timeS: startS + slot * slotS, status, values }], { codes });
}

function stated(wallet: WalletFixture, fromSlot: number, toSlot: number, meter = 0): Statement {
  const [fromS, toS] = [startS + fromSlot * slotS, startS + toSlot * slotS];
  wallet.clock.pass(15); // so many a minute
  const bytes = readStatementAnswer(wallet.ask({ type: "statement", meter, fromS, toS }));
  const { cose, content } = decodeStatement(bytes, sha256);
  verifyCose(cose, wallet.key.publicKey, verifyEd25519);
  assert.deepEqual(cose.kid, wallet.kid);
  return content;
}

function notHeld(wallet: WalletFixture, fromSlot: number, toSlot: number, why: RegExp): void {
  assert.throws(
    () => stated(wallet, fromSlot, toSlot),
    (error: Error) => {
      refusal("period-not-held")(error);
      return why.test(error.message);
    },
  );
}

test("a statement has the stands at the end, what they rose by, and the records at both ends", (t) => {
  const wallet = quarterHours(t);
  for (let slot = 0; slot <= 8; slot++) seal(wallet, slot, [1_000 + slot * 25, 10 * slot]);
  const statement = stated(wallet, 2, 6);
  assert.deepEqual(statement, {
    device: wallet.kid,
    meter: 0,
    fromS: startS + 2 * slotS,
    toS: startS + 6 * slotS,
    registers: [
      { code: 2, stand: 1_150, rise: 100 },
      { code: 4, stand: 60, rise: 40 },
    ],
    first: { epoch, sequence: 4 },
    last: { epoch, sequence: 8 },
    timeS: startS + 8 * slotS + 15,
    clockState: 2,
  });
  const used = eventsIn(wallet.records(), eventCodes.keyUsed);
  assert.deepEqual(
    used.map(([, type]) => type),
    [contentTypes.statement],
    "on disk before it left",
  );
  assert.deepEqual(stated(wallet, 3, 3).registers[0], { code: 2, stand: 1_075, rise: 0 });
});

test("a device that seals no full plan states the rows of the plan that it has", (t) => {
  const plans = [{ plan: 1, slotS: 3_600, sealEveryS: 86_400 }];
  const wallet = quarterHours(t, { policy: { plans } });
  for (const hour of [0, 1, 2, 3])
    wallet.seal([{ timeS: startS + hour * 3_600, status: 0, values: [1_000 + hour, 5] }], {
      ...{ plan: 1, slotS: 3_600, codes },
    });
  assert.equal(wallet.hello().pendingRows, 4);
  const statement = stated(wallet, 0, 9);
  assert.deepEqual([statement.fromS, statement.toS], [startS, startS + 7_200]);
  assert.deepEqual(statement.registers[0], { code: 2, stand: 1_002, rise: 2 });
  assert.equal(wallet.hello().pendingRows, 0, "what waited was signed first");
});

test("where the end's row failed or was marked, the last good one of ten slots before it counts", (t) => {
  const wallet = quarterHours(t);
  seal(wallet, 0, [1_000, 0]);
  for (let slot = 1; slot <= 10; slot++) seal(wallet, slot, slot % 2 ? [] : [7, 7], slot % 2 ? 2 : 0);
  seal(wallet, 11, [], 2);
  seal(wallet, 12, [1_100, 0]);
  const { fromS, toS, registers } = stated(wallet, 10, 12);
  assert.deepEqual([fromS, toS, registers[0]?.rise], [startS, startS + 12 * slotS, 100]);
  assert.equal(stated(wallet, 9, 13).toS, startS + 12 * slotS);
  notHeld(wallet, 11, 12, /no good row of meter 0/);
  notHeld(wallet, -20, 12, /no good row/);
  notHeld(wallet, 0, 23, /no good row/);
});

test("a time between two slots is stated by the slot before it", (t) => {
  const wallet = quarterHours(t);
  for (let slot = 0; slot <= 3; slot++) seal(wallet, slot, [1_000 + slot, 0]);
  const fields = wallet.ask({ type: "statement", meter: 0, fromS: startS + slotS + 1, toS: startS + 3 * slotS - 1 });
  const { fromS, toS } = decodeStatement(readStatementAnswer(fields), sha256).content;
  assert.deepEqual([fromS, toS], [startS + slotS, startS + 2 * slotS]);
});

test("rows that wait for their batch are signed first, so that the statement names their record", (t) => {
  const wallet = quarterHours(t, { policy: { meters: [meterOf({ slotS })], sealEveryS: 86_400 } });
  for (let slot = 0; slot <= 4; slot++) seal(wallet, slot + 1, [1_000 + slot, 0]);
  assert.equal(wallet.hello().pendingRows, 5);
  const { first, last } = stated(wallet, 1, 5);
  assert.equal(wallet.hello().pendingRows, 0);
  assert.deepEqual(
    [first, last],
    [
      { epoch, sequence: 2 },
      { epoch, sequence: 2 },
    ],
  );
});

test("no statement goes over a fall, a change of the meter, a clock that went back, or readings of no clock's time", (t) => {
  const wallet = quarterHours(t);
  for (let slot = 0; slot <= 3; slot++) seal(wallet, slot, [1_000 + slot, 0]);
  wallet.policy = { ...wallet.policy, meters: [meterOf({ slotS, installation: 1, installationReason: "broken" })] };
  wallet.restart();
  for (let slot = 4; slot <= 7; slot++) seal(wallet, slot, [5_000 + slot, 0]);
  notHeld(wallet, 2, 6, /replaced/);
  assert.equal(stated(wallet, 0, 3).registers[0]?.rise, 3, "control: before the change");
  assert.equal(stated(wallet, 4, 7).registers[0]?.rise, 3, "and after it");
  wallet.secondsPerSeal = 0;
  wallet.seal([{ timeS: 900, status: 0, values: [1, 1] }], { codes, relative: true });
  assert.throws(() => wallet.ask({ type: "statement", meter: 0, fromS: 900, toS: 900 }), refusal("period-not-held"));
});

test("readings of no clock's time, of whatever boot, begin no statement", (t) => {
  const wallet = quarterHours(t);
  wallet.secondsPerSeal = 0;
  wallet.clock.pass(2_000);
  wallet.seal([{ timeS: 900, status: 0, values: [1, 1] }], { codes, relative: true });
  wallet.bootId = new Uint8Array(16).fill(2);
  wallet.restart();
  wallet.seal([{ timeS: 900, status: 0, values: [2, 2] }], { codes, relative: true });
  seal(wallet, 2, [5_000, 10]);
  const ask = (): unknown => wallet.ask({ type: "statement", meter: 0, fromS: 900, toS: startS + 2 * slotS });
  assert.throws(ask, refusal("period-not-held"));
  assert.equal(stated(wallet, 2, 2).registers[0]?.stand, 5_000, "control: of a clock's time");
});

test("a row off its slot, and an older time that came after it: refused, and the wallet goes on", (t) => {
  const wallet = quarterHours(t);
  wallet.secondsPerSeal = 0;
  wallet.clock.pass(60);
  wallet.seal([{ timeS: startS + 5, status: 0, values: [1_000, 0] }], { codes });
  wallet.clock.set(startS);
  wallet.seal([{ timeS: startS, status: 0, values: [1_000, 0] }], { codes });
  const period = { meter: 0, fromS: startS + 5, toS: startS + 6 };
  assert.throws(() => wallet.ask({ type: "statement", ...period }), refusal("period-not-held"));
  const before = wallet.ask({ type: "statement", ...period, fromS: startS });
  assert.ok(readStatementAnswer(before), "control: a period of the same rows");
});

test("a meter that fell while nobody could hold it against a stand is seen by the statement", (t) => {
  const wallet = quarterHours(t);
  seal(wallet, 0, [1_000, 0]);
  t.mock.method(wallet.journal, "lastRow", () => undefined);
  seal(wallet, 1, [7, 0]);
  notHeld(wallet, 0, 1, /fell/);
});

test("an unknown meter is refused, and so are more statements than the key may sign in a minute", (t) => {
  const wallet = quarterHours(t);
  seal(wallet, 0, [1_000, 0]);
  assert.throws(() => stated(wallet, 0, 0, 9), refusal("unknown-meter"));
  const ask = (): unknown => wallet.ask({ type: "statement", meter: 0, fromS: startS, toS: startS });
  for (let i = 0; i < 6; i++) ask();
  assert.throws(ask, refusal("rate-exceeded"));
});

test("a statement reaches over epochs, and over segments of the ring that were written long before", (t) => {
  const wallet = quarterHours(t, { segments: 6 });
  for (let slot = 0; slot <= 40; slot++) seal(wallet, slot, [1_000 + slot, 0]);
  const other = wallet.node.receipt({ device: wallet.kid, through: 9_999, digest: new Uint8Array(32).fill(9) });
  assert.throws(() => wallet.ask({ type: "release", receipt: other }), refusal("receipt-beyond-sealed"));
  for (let slot = 41; slot <= 45; slot++) seal(wallet, slot, [1_000 + slot, 0]);
  wallet.restart();
  const { first, last, registers } = stated(wallet, 1, 44);
  assert.equal(first.epoch, epoch);
  assert.equal(last.epoch, wallet.journal.epoch);
  assert.notEqual(last.epoch, epoch);
  assert.equal(registers[0]?.rise, 43);
  assert.ok(new NodeFixture().publicKey);
});

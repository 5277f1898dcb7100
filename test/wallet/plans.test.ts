// Uplink plans beside the full one: their rows wait for their own batch, which the agent closes when it sends.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { decodeRecord, type ReadingContent, type Row } from "../../protocol/record.ts";
import { readSealAnswer, type SealAnswer } from "../../protocol/wallet-message.ts";
import { checkChain, meterOf, refusal, rowAt, sha256, startS, WalletFixture } from "./wallet-fixture.ts";

const quarterS = 900;
const lora = { plan: 1, slotS: quarterS } as const;

function fixture(t: TestContext, sealEveryS = 86_400): WalletFixture {
  const meters = [meterOf({ slotS: 60 }), meterOf({ index: 1, slotS: 60 })];
  const plans = [{ plan: 1, slotS: quarterS, sealEveryS }];
  return new WalletFixture(t, { policy: { meters, plans, sealEveryS: 0 }, segments: 8 });
}

/** 08:00 is no end of a day's batch when the first slot is 08:15. */
const quarter = (i: number): Row => rowAt(startS + (i + 1) * quarterS);
const quarters = (from: number, count: number): Row[] => Array.from({ length: count }, (_, i) => quarter(from + i));

function readings(wallet: WalletFixture, plan?: number): ReadingContent[] {
  return [...wallet.records().values()].flatMap((bytes) => {
    const { content } = decodeRecord(bytes, sha256);
    return content.kind === "reading" && (plan === undefined || content.plan === plan) ? [content] : [];
  });
}

function sealed(wallet: WalletFixture, rows: readonly Row[], more = {}): SealAnswer {
  wallet.clock.pass(Math.max(0, (rows.at(-1) as Row).timeS - wallet.clock.wallMs() / 1_000));
  return readSealAnswer(wallet.ask({ type: "seal", meter: 0, codes: [2, 4], rows, ...lora, ...more }));
}

test("rows of a listed plan wait until a request closes their batch: one record has them all", (t) => {
  const wallet = fixture(t);
  wallet.secondsPerSeal = 0;
  for (const i of [0, 1, 2]) {
    assert.deepEqual(sealed(wallet, [quarter(i)]).sequences, [0]);
    assert.deepEqual(sealed(wallet, [quarter(i)], { meter: 1 }).sequences, [0]);
    wallet.seal([rowAt(startS + (i + 1) * quarterS)]); // plan 0, at once
  }
  const { sequences, records } = sealed(wallet, [quarter(3)], { closes: true });
  assert.ok((sequences[0] as number) > 0);
  assert.equal(records?.length, 1, "it comes with the answer");
  const [batch, ...others] = readings(wallet, 1);
  assert.deepEqual(others, [], "the other meter's rows wait on");
  assert.deepEqual([batch?.plan, batch?.slotS, batch?.rows], [1, quarterS, quarters(0, 4)]);
  assert.equal(wallet.hello().pendingRows, 3);
  assert.equal(readings(wallet, 0).length, 3);
  const closed = sealed(wallet, [quarter(3)], { meter: 1, closes: true });
  assert.equal(closed.sequences[0], wallet.hello().nextSequence - 1);
  checkChain(wallet.records(), wallet.key.publicKey);
});

test("asked again to close, as after an answer that was lost, the same records are found and nothing is sealed twice", (t) => {
  const wallet = fixture(t);
  for (const i of [0, 1, 2]) sealed(wallet, [quarter(i)]);
  // The last row had come without the word that closes.
  const first = sealed(wallet, [quarter(1), quarter(2)], { closes: true });
  assert.equal(new Set(first.sequences).size, 1);
  assert.ok((first.sequences[0] as number) > 0);
  const { nextSequence } = wallet.hello();
  assert.deepEqual(sealed(wallet, [quarter(1), quarter(2)], { closes: true }).sequences, first.sequences);
  wallet.restart(); // seals `started`
  assert.deepEqual(sealed(wallet, [quarter(1), quarter(2)], { closes: true }).sequences, first.sequences);
  assert.equal(wallet.hello().nextSequence, nextSequence + 1);
  assert.deepEqual(
    readings(wallet, 1).flatMap(({ rows }) => rows),
    quarters(0, 3),
  );
});

test("a kill between rows and their close loses none: the start signs them, the close then has nothing to do", (t) => {
  const wallet = fixture(t);
  for (const i of [0, 1]) sealed(wallet, [quarter(i)]);
  wallet.restart();
  assert.equal(wallet.hello().pendingRows, 0);
  const answer = sealed(wallet, [quarter(0), quarter(1), quarter(2)], { closes: true });
  assert.deepEqual(
    readings(wallet, 1).map(({ rows }) => rows.length),
    [2, 1],
  );
  assert.deepEqual(new Set(answer.sequences).size, 2);
});

test("nobody closes: the policy's longest batch ends it", (t) => {
  const wallet = fixture(t, 3_600);
  const answers = Array.from({ length: 8 }, (_, i) => sealed(wallet, [quarter(i)]).sequences[0]);
  assert.deepEqual(
    answers.map((sequence) => sequence !== 0),
    [false, false, false, true, false, false, false, true],
  );
  assert.deepEqual(
    readings(wallet, 1).map(({ rows }) => rows.length),
    [4, 4],
  );
});

test("slots shorter than a minute wait for their batch as well; those of the full plan come as a batch, as before", (t) => {
  const plans = [{ plan: 1, slotS: 10, sealEveryS: 30 }];
  const wallet = new WalletFixture(t, { policy: { meters: [meterOf({ slotS: 10 })], plans, sealEveryS: 30 } });
  wallet.secondsPerSeal = 0;
  const ten = (plan: number, i: number) => sealed(wallet, [rowAt(startS + 10 * i)], { plan, slotS: 10 }).sequences[0];
  assert.deepEqual(
    [1, 2, 3].map((i) => ten(1, i) === 0),
    [true, true, false],
  );
  assert.deepEqual(
    [1, 2, 3].map((i) => ten(0, i) === 0),
    [false, false, false],
  );
});

test("a plan has the slot that the policy lists, whatever the meter's; one that is not listed is refused", (t) => {
  const wallet = fixture(t);
  const { nextSequence } = wallet.hello();
  assert.throws(() => sealed(wallet, [quarter(0)], { slotS: 60 }), refusal("slot-mismatch"));
  assert.throws(() => sealed(wallet, [quarter(0)], { plan: 2 }), refusal("unknown-plan"));
  assert.throws(() => sealed(wallet, [quarter(0)], { plan: 255, slotS: 60 }), refusal("unknown-plan"));
  assert.throws(() => sealed(wallet, [quarter(0)], { plan: 0 }), refusal("slot-mismatch"));
  assert.equal(wallet.hello().nextSequence, nextSequence);
  assert.equal(wallet.hello().pendingRows, 0);
  wallet.policy = { ...wallet.policy, plans: [] };
  wallet.restart();
  assert.throws(() => sealed(wallet, [quarter(0)]), refusal("unknown-plan"), "control: the list is what allows it");
});

test("rows that wait for a day's batch hold up no ring that events alone fill: they are signed before their segment is wanted", (t) => {
  const wallet = new WalletFixture(t, {
    policy: { meters: [meterOf()], plans: [{ plan: 1, slotS: quarterS, sealEveryS: 86_400 }], sealEveryS: 0 },
    segments: 3,
  });
  sealed(wallet, [quarter(0)]);
  for (let minute = 0; minute < 100; minute++) {
    wallet.clock.pass(61);
    assert.throws(() => wallet.seal([rowAt(startS)], { meter: 9 }), refusal("unknown-meter"));
    wallet.wallet.tick(); // seals that there was a refusal
    wallet.releaseAll();
  }
  assert.equal(wallet.hello().pendingRows, 0);
  assert.deepEqual(readings(wallet, 1).length, 0, "sealed, released, and overwritten by now");
  sealed(wallet, [quarter(9)], { closes: true });
  checkChain(wallet.records(), wallet.key.publicKey);
});

test("a full ring refuses to close; the rows stay, and are signed when there is room", (t) => {
  const meters = [meterOf({ slotS: 60, rowsPerMinute: 6_000 })];
  const plans = [{ plan: 1, slotS: quarterS, sealEveryS: 86_400 }];
  const wallet = new WalletFixture(t, { policy: { meters, plans, sealEveryS: 0 }, segments: 3 });
  const minute = (i: number) => wallet.seal([rowAt(startS + 60 * i)]);
  let i = 1;
  assert.throws(() => {
    for (; ; i++) minute(i);
  }, refusal("ring-full"));
  const last = quarter(Math.ceil((i * 60) / quarterS));
  assert.throws(() => sealed(wallet, [last], { closes: true }), refusal("ring-full"));
  wallet.releaseAll();
  const answer = sealed(wallet, [last], { closes: true });
  assert.ok((answer.sequences[0] as number) > 0);
  assert.deepEqual(
    readings(wallet, 1).map(({ rows }) => rows),
    [[last]],
  );
});

test("a device that seals no full plan: its newest row, and its clock, are known by the plan that it has", (t) => {
  const wallet = fixture(t);
  sealed(wallet, quarters(0, 4), { closes: true });
  const { meters, plans } = wallet.hello();
  assert.deepEqual(meters, [
    { index: 0, slotS: 60, lastTimeS: quarter(3).timeS },
    { index: 1, slotS: 60, lastTimeS: 0 },
  ]);
  assert.deepEqual(plans, wallet.policy.plans);
  wallet.secondsPerSeal = 0;
  wallet.clock.pass(3_600);
  wallet.seal([rowAt(startS + 7_200)]);
  assert.equal(wallet.hello().meters[0]?.lastTimeS, startS + 7_200, "the full plan counts once it is there");
  const thin = fixture(t);
  sealed(thin, quarters(0, 4), { closes: true });
  thin.close();
  thin.clock.boot(quarter(3).timeS - 90_000);
  thin.restart();
  assert.equal(thin.hello().clockState, 1, "the clock stands a day before what is sealed: unknown");
});

test("rows that come many at once, and a batch of most of a day", (t) => {
  const wallet = fixture(t);
  const rows = quarters(0, 63); // 08:15 to 23:45: the next one would end the day's batch
  for (let i = 0; i < rows.length; i += 21) sealed(wallet, rows.slice(i, i + 21), { closes: i === 42 });
  const [day, ...others] = readings(wallet, 1);
  assert.equal(others.length, 0);
  assert.deepEqual(day?.rows, rows);
});

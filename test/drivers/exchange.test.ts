import assert from "node:assert/strict";
import { test } from "node:test";
import { type ExchangeOutcome, RtuProtocol } from "../../drivers/modbus/exchange.ts";
import { encodeReadRequest, encodeRtuFrame } from "../../drivers/modbus/rtu-frame.ts";

const silenceMs = 30;
const request = (unit: number, address: number, count: number): Uint8Array =>
  encodeReadRequest({ unit, functionCode: 4, address, count });
const answer = (unit: number, count: number, fill = 0): Uint8Array =>
  encodeRtuFrame(unit, Uint8Array.from([4, 2 * count, ...Array(2 * count).fill(fill)]));
const exception = (unit: number, code: number): Uint8Array => encodeRtuFrame(unit, Uint8Array.of(0x84, code));
const timing = (sentAtMs: number) => ({ sentAtMs, deadlineMs: sentAtMs + 200, slowestAnswerMs: 500 });

/** A protocol whose request of 2 registers to unit 1, sent at 0, has timed out at 200. */
function afterTimeout(): RtuProtocol {
  const protocol = new RtuProtocol(silenceMs);
  protocol.begin(request(1, 0, 2), timing(0));
  protocol.tick(200);
  assert.equal(protocol.takeOutcome()?.kind, "failed");
  return protocol;
}

const codeOf = (outcome: ExchangeOutcome | undefined): string | undefined =>
  outcome?.kind === "failed" ? outcome.code : outcome?.kind;

test("an answer in time is the outcome, once", () => {
  const protocol = new RtuProtocol(silenceMs);
  protocol.begin(request(1, 0, 2), timing(0));
  for (const byte of answer(1, 2)) protocol.receive(Uint8Array.of(byte), 50);
  assert.deepEqual(protocol.takeOutcome(), { kind: "reply", frame: answer(1, 2) });
  protocol.receive(answer(1, 2), 60);
  protocol.tick(1000);
  assert.equal(protocol.takeOutcome(), undefined);
});

test("nothing by the deadline is a time-out, not a millisecond before it, whenever the timer fires", () => {
  const protocol = new RtuProtocol(silenceMs);
  protocol.begin(request(1, 0, 2), timing(0));
  assert.equal(protocol.wakeAtMs, 200);
  protocol.tick(199.9);
  assert.equal(protocol.takeOutcome(), undefined);
  protocol.tick(200);
  assert.equal(codeOf(protocol.takeOutcome()), "timeout");
  assert.equal(protocol.takeOutcome(), undefined);
});

test("bytes without a valid CRC, another unit, another length: each is told apart from silence", () => {
  const spoilt = answer(1, 2);
  spoilt[3]! ^= 1;
  for (const [bytes, code] of [
    [spoilt, "crc-error"],
    [answer(1, 2).subarray(0, 5), "crc-error"],
    [answer(2, 2), "wrong-unit"],
    [answer(1, 4), "wrong-reply"],
  ] as const) {
    const protocol = new RtuProtocol(silenceMs);
    protocol.begin(request(1, 0, 2), timing(0));
    protocol.receive(bytes, 20);
    protocol.tick(200);
    assert.equal(codeOf(protocol.takeOutcome()), code);
  }
});

test("the right answer still counts after another unit's and after noise that looks like a frame's head", () => {
  const protocol = new RtuProtocol(silenceMs);
  protocol.begin(request(1, 0, 2), timing(0));
  protocol.receive(answer(2, 2), 20);
  protocol.receive(Uint8Array.from([1, 4, 24, ...answer(1, 2)]), 40);
  assert.equal(protocol.takeOutcome(), undefined);
  assert.equal(protocol.wakeAtMs, 70);
  protocol.tick(70);
  assert.equal(codeOf(protocol.takeOutcome()), "reply");
});

test("after a time-out the line rests until the slowest answer could have come, and until silence after it", () => {
  const protocol = afterTimeout();
  assert.equal(protocol.readyAtMs, 500);
  protocol.receive(Uint8Array.of(0xff), 490);
  assert.equal(protocol.readyAtMs, 520);
});

test("the late answer ends the rest: it is rejected and counted, and owed until an answer of another length proves that it was the one", () => {
  const protocol = afterTimeout();
  protocol.receive(answer(1, 2), 260);
  assert.deepEqual(protocol.takeLate(), [{ unit: 1, afterMs: 260 }]);
  assert.equal(protocol.takeOutcome(), undefined);
  assert.equal(protocol.readyAtMs, 260 + silenceMs);
  assert.equal(protocol.probeCount(request(1, 8, 2), 2, 300), 4);
  protocol.begin(request(1, 0, 4), timing(300));
  protocol.receive(answer(1, 4), 320);
  assert.equal(protocol.probeCount(request(1, 8, 2), 2, 330), undefined);
});

test("a refusal that comes late is a late answer as well: it ends the rest and tells how slow the unit is, and the answer stays owed", () => {
  const protocol = afterTimeout();
  protocol.receive(exception(1, 2), 300);
  assert.deepEqual(protocol.takeLate(), [{ unit: 1, afterMs: 300 }]);
  assert.equal(protocol.readyAtMs, 330);
  assert.equal(protocol.probeCount(request(1, 8, 2), 2, 340), 4);
  protocol.receive(exception(2, 2), 350);
  assert.deepEqual(protocol.takeLate(), [], "nothing is owed by unit 2");
});

test("an answer slower than the rest is owed: only another length may be asked of that unit, others are free", () => {
  const protocol = afterTimeout();
  assert.equal(protocol.probeCount(request(1, 8, 2), 2, 600), 4);
  assert.equal(protocol.probeCount(request(1, 8, 4), 2, 600), undefined);
  assert.equal(protocol.probeCount(request(2, 8, 2), 2, 600), undefined);
  // The next request has another length; the late answer of 2 registers comes first and is not taken for it.
  protocol.begin(request(1, 8, 4), timing(600));
  protocol.receive(answer(1, 2, 7), 610);
  assert.equal(protocol.takeOutcome(), undefined);
  protocol.receive(answer(1, 4, 9), 640);
  assert.deepEqual(protocol.takeOutcome(), { kind: "reply", frame: answer(1, 4, 9) });
  assert.deepEqual(protocol.takeLate(), [{ unit: 1, afterMs: 610 }]);
});

test("control: a request of the same length sent in spite of it is given the late answer", () => {
  const protocol = afterTimeout();
  protocol.begin(request(1, 8, 2), timing(600));
  protocol.receive(answer(1, 2, 7), 610);
  assert.deepEqual(protocol.takeOutcome(), { kind: "reply", frame: answer(1, 2, 7) });
});

test("a valid answer of another length proves that nothing older will come", () => {
  const protocol = afterTimeout();
  protocol.begin(request(1, 8, 4), timing(600));
  protocol.receive(answer(1, 4), 640);
  assert.equal(protocol.probeCount(request(1, 0, 2), 2, 650), undefined);
});

test("an exception is nobody's while an answer is owed, since a late one looks the same; the request's own answer still counts", () => {
  const protocol = afterTimeout();
  protocol.begin(request(1, 8, 4), timing(600));
  protocol.receive(exception(1, 6), 610);
  assert.equal(protocol.takeOutcome(), undefined);
  protocol.receive(answer(1, 4), 650);
  assert.equal(codeOf(protocol.takeOutcome()), "reply");
  assert.equal(protocol.probeCount(request(1, 0, 2), 2, 660), undefined);
});

test("an exception while an answer is owed, and nothing after it: passed on at the deadline, and both answers are owed", () => {
  const protocol = afterTimeout();
  protocol.begin(request(1, 8, 4), timing(600));
  protocol.receive(exception(1, 6), 610);
  protocol.tick(800);
  assert.deepEqual(protocol.takeOutcome(), { kind: "reply", frame: exception(1, 6), wasHeld: true });
  assert.equal(protocol.probeCount(request(1, 0, 2), 2, 1200), 6, "2 and 4 registers are both owed");
});

/** A protocol whose request of 2 registers at 0 was answered at 20. */
function afterAnswer(): RtuProtocol {
  const protocol = new RtuProtocol(silenceMs);
  protocol.begin(request(1, 0, 2), timing(0));
  protocol.receive(answer(1, 2, 7), 20);
  assert.equal(codeOf(protocol.takeOutcome()), "reply");
  return protocol;
}

test("an answer that comes a second time is held, and the request's own answer is taken", () => {
  const protocol = afterAnswer();
  protocol.begin(request(1, 8, 2), timing(40));
  protocol.receive(answer(1, 2, 7), 60);
  assert.equal(protocol.takeOutcome(), undefined);
  protocol.receive(answer(1, 2, 9), 90);
  assert.deepEqual(protocol.takeOutcome(), { kind: "reply", frame: answer(1, 2, 9) });
});

test("only the bytes of the answer before it: no answer to another request, which is proven by another length next time", () => {
  const protocol = afterAnswer();
  protocol.begin(request(1, 8, 2), timing(40));
  protocol.receive(answer(1, 2, 7), 60);
  protocol.tick(240);
  assert.equal(codeOf(protocol.takeOutcome()), "wrong-reply");
  assert.equal(protocol.readyAtMs, 240);
  assert.equal(protocol.probeCount(request(1, 8, 2), 2, 250), 4);
  protocol.begin(request(1, 0, 4), timing(250));
  protocol.receive(answer(1, 4, 1), 270);
  assert.equal(codeOf(protocol.takeOutcome()), "reply");
  // Two registers that really read the same.
  protocol.begin(request(1, 8, 2), timing(300));
  protocol.receive(answer(1, 2, 7), 320);
  assert.equal(codeOf(protocol.takeOutcome()), "reply");
  // From now on it is asked with another length before, as long as the frame before it had its own.
  assert.equal(protocol.probeCount(request(1, 8, 2), 2, 330), 4);
  assert.equal(protocol.probeCount(request(1, 8, 2), 2, 2000), undefined);
});

test("to the same request the same bytes are an answer, at the deadline; much later at once", () => {
  const protocol = afterAnswer();
  protocol.begin(request(1, 0, 2), { ...timing(40), canProbe: false });
  protocol.receive(answer(1, 2, 7), 60);
  assert.equal(protocol.takeOutcome(), undefined);
  protocol.tick(240);
  assert.equal(codeOf(protocol.takeOutcome()), "reply");
  assert.equal(protocol.probeCount(request(1, 0, 2), 2, 250), undefined);
  protocol.begin(request(1, 0, 2), timing(2000));
  protocol.receive(answer(1, 2, 7), 2020);
  assert.equal(codeOf(protocol.takeOutcome()), "reply");
});

test("where it is known how soon the unit answers, the same bytes are held no longer than that", () => {
  const protocol = afterAnswer();
  protocol.begin(request(1, 0, 2), { ...timing(40), usuallyByMs: 90 });
  protocol.receive(answer(1, 2, 7), 60);
  assert.equal(protocol.wakeAtMs, 90);
  protocol.tick(90);
  assert.equal(codeOf(protocol.takeOutcome()), "reply");
  assert.equal(protocol.probeCount(request(1, 8, 2), 2, 100), 4, "its own answer may still come");
});

test("where nothing can be proven, refusals in a row stay refusals", () => {
  const protocol = new RtuProtocol(silenceMs);
  for (const [at, address] of [
    [0, 0],
    [300, 8],
  ] as const) {
    protocol.begin(request(1, address, 2), { ...timing(at), canProbe: false });
    protocol.receive(exception(1, 2), at + 20);
    protocol.tick(at + 200);
    assert.equal(codeOf(protocol.takeOutcome()), "reply");
    assert.equal(protocol.probeCount(request(1, 16, 2), 2, at + 250), undefined);
  }
});

test("without anything owed an exception is an answer like any other", () => {
  const protocol = new RtuProtocol(silenceMs);
  protocol.begin(request(1, 0, 2), timing(0));
  protocol.receive(exception(1, 2), 20);
  assert.equal(codeOf(protocol.takeOutcome()), "reply");
  assert.equal(protocol.probeCount(request(1, 0, 2), 2, 30), undefined);
});

test("what is owed outlives a lost port and is forgotten after ten seconds", () => {
  const protocol = new RtuProtocol(silenceMs);
  protocol.begin(request(1, 0, 2), timing(0));
  protocol.reset();
  assert.equal(protocol.takeOutcome(), undefined);
  assert.equal(protocol.readyAtMs, 500);
  assert.equal(protocol.probeCount(request(1, 0, 2), 2, 9_999), 4);
  assert.equal(protocol.probeCount(request(1, 0, 2), 2, 10_001), undefined);
});

test("a second request while one is in flight is an error of the program", () => {
  const protocol = new RtuProtocol(silenceMs);
  protocol.begin(request(1, 0, 2), timing(0));
  assert.throws(() => protocol.begin(request(1, 0, 2), timing(1)), /one request at a time/);
});

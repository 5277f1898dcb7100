import assert from "node:assert/strict";
import { test } from "node:test";
import { LineTurns, starvedMaxMs } from "../../agent/line-turns.ts";

const nowMs = 1_000_000;
const never = new AbortController().signal;
/** Asks once, without waiting. */
const asked = (turns: LineTurns, member: Parameters<LineTurns["suspectsTurn"]>[0], needMs: number, atMs = nowMs) =>
  turns.suspectsTurn(member, needMs, atMs, () => atMs, never);

test("a suspect goes where no meter that answers is read, and none is due before it would be through", async () => {
  const turns = new LineTurns();
  const [suspect, healthy] = [turns.join(), turns.join()];
  suspect.isSuspect = true;
  healthy.nextMs = nowMs + 500;
  assert.equal(await asked(turns, suspect, 500), true);
  assert.equal(await asked(turns, suspect, 501), false, "the other would wait for it");
  healthy.isReading = true;
  assert.equal(await asked(turns, suspect, 10), false);
});

test("suspects do not wait for what other suspects have due, only for their turn", async () => {
  const turns = new LineTurns();
  const [one, other] = [turns.join(), turns.join()];
  one.isSuspect = true;
  other.isSuspect = true;
  other.nextMs = nowMs;
  assert.equal(await asked(turns, one, 1_000), true);
  other.isReading = true;
  assert.equal(await asked(turns, one, 1_000), false);
});

test("a suspect that finds no moment goes once in a while all the same, but never while another is read", async () => {
  const turns = new LineTurns();
  const [suspect, healthy] = [turns.join(), turns.join()];
  suspect.isSuspect = true;
  healthy.nextMs = nowMs;
  assert.equal(await asked(turns, suspect, 100), false);
  assert.equal(await asked(turns, suspect, 100, nowMs + starvedMaxMs - 1), false);
  healthy.isReading = true;
  assert.equal(await asked(turns, suspect, 100, nowMs + starvedMaxMs), false);
  healthy.isReading = false;
  assert.equal(await asked(turns, suspect, 100, nowMs + starvedMaxMs), true);
  assert.equal(await asked(turns, suspect, 100, nowMs + starvedMaxMs + 1), false, "and then not at once again");
});

test("an abort ends the wait", async () => {
  const turns = new LineTurns();
  const [suspect, healthy] = [turns.join(), turns.join()];
  healthy.isReading = true;
  const ending = new AbortController();
  const waiting = turns.suspectsTurn(suspect, 100, Number.POSITIVE_INFINITY, () => performance.now(), ending.signal);
  ending.abort();
  assert.equal(await waiting, false);
});

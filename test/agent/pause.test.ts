import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import { pause, Rest } from "../../agent/pause.ts";

const longMs = 60_000;

test("a pause ends when its signal aborts, and at once where it has", async () => {
  const ending = new AbortController();
  const paused = pause(longMs, ending.signal);
  ending.abort();
  await paused;
  await pause(longMs, ending.signal);
});

test("a rest ends at the next wake, and at once where news came before it", async () => {
  const rest = new Rest();
  const { signal } = new AbortController();
  const resting = rest.rest(longMs, signal);
  rest.wake();
  await resting;
  rest.wake();
  rest.wake();
  await rest.rest(longMs, signal);
  // control: that news is used up; without any, the rest lasts
  let ended = false;
  const last = rest.rest(30, signal).then(() => {
    ended = true;
  });
  await Promise.resolve();
  assert.equal(ended, false);
  await last;
});

test("a thousand rests leave one listener on the signal they share, and nothing behind it", async (t) => {
  const ending = new AbortController();
  const { signal } = ending;
  const rest = new Rest();
  for (let i = 0; i < 1_000; i++) {
    const resting = rest.rest(longMs, signal);
    rest.wake();
    await resting;
    await pause(0, signal);
  }
  assert.equal(getEventListeners(signal, "abort").length, 1);
  const cleared = t.mock.method(globalThis, "clearTimeout");
  const [resting, pausing] = [rest.rest(longMs, signal), pause(longMs, signal)];
  ending.abort();
  await Promise.all([resting, pausing]);
  assert.equal(cleared.mock.callCount(), 2, "only what waited was ended");
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { keepStartGap } from "../../agent/reading-path.ts";
import { sealDue } from "../../agent/row-sealing.ts";
import { DriverError } from "../../drivers/failure.ts";
import { statuses, statusLetters } from "../../protocol/reading-status.ts";
import type { Row } from "../../protocol/record.ts";
import { sealRowsMax, WalletRefusal } from "../../protocol/wallet-message.ts";
import { letters, lostRows, rowsOf, scene, seconds, startMs, upTo } from "./reading-path-fixture.ts";

test("each slot gives one row at its end, sealed at once where each is sealed by itself", async (t) => {
  const { wallet, start, meter, pass } = scene(t);
  start(meter(1));
  await pass(5_100);
  assert.deepEqual(seconds(wallet.sealed), [0, ...upTo(5)]);
  assert.equal(letters(wallet.sealed), "GGGGGG");
  assert.ok(wallet.requests.every((rows) => rows.length === 1));
});

test("before the clock is set, slots count by the seconds since the boot; once it is set, by the clock, and nothing is dated anew", async (t) => {
  const { wallet, events, start, meter, pass, setClock, options } = scene(t, 60);
  setClock(-startMs); // 1970
  const polled = meter(1);
  keepStartGap(polled, startMs / 1_000 - 500, options); // the wallet's last row is of no use to this
  start(polled);
  await pass(20_500);
  assert.deepEqual(wallet.requests.length, 1, "the boot's own minute ended at 120 s");
  setClock(startMs);
  await pass(2_000);
  await pass(60_000);
  assert.deepEqual(wallet.relativeS, upTo(120, 100));
  const dated = wallet.sealed.filter(({ timeS }) => timeS > 1_000);
  assert.ok(dated.length >= 40, `${dated.length} rows by the clock`);
  assert.ok(dated.every(({ timeS }) => timeS >= startMs / 1_000 + 20));
  assert.equal(letters(wallet.sealed).replaceAll("G", ""), "");
  const readings = events.filter((event) => event.event === "reading");
  assert.equal(readings.filter(({ relative }) => relative).length, 21);
  assert.equal(lostRows(events), 0);
});

test("a minute's samples go as one request where a record covers a minute", async (t) => {
  const { wallet, start, meter, pass } = scene(t, 60);
  await pass(500);
  start(meter(1));
  await pass(121_000);
  assert.deepEqual(
    wallet.requests.map((rows) => [rows[0]?.timeS, rows.length]),
    [
      [startMs / 1_000 + 1, 60],
      [startMs / 1_000 + 61, 60],
    ],
  );
});

test("a meter slower than its interval: the slots it missed are rows N, none is left out", async (t) => {
  const { line, wallet, start, meter, pass } = scene(t);
  line.answerMs = 1_300; // twice, for two blocks of registers
  const slow = meter(1);
  start(slow);
  await pass(12_000);
  assert.deepEqual(seconds(wallet.sealed), upTo(wallet.sealed.length - 1, 0));
  assert.match(letters(wallet.sealed), /^G(NNG)+N*$/);
  assert.equal(
    slow.missed - rowsOf(slow).buffer.length,
    wallet.sealed.filter(({ status }) => status === statuses.notPresent).length,
  );
});

test("a line that is down gives rows D in every slot, and is tried in every slot", async (t) => {
  const { line, wallet, start, meter, pass } = scene(t);
  line.down = new DriverError("port-not-found", "no such port");
  start(meter(1));
  await pass(10_050);
  line.down = undefined;
  await pass(1_000);
  assert.equal(letters(wallet.sealed), "DDDDDDDDDDDG");
});

test("two sealings of one meter at once go one after the other", async (t) => {
  const { wallet, options, meter } = scene(t);
  const one = meter(1);
  for (const timeS of [1, 2, 3])
    rowsOf(one).buffer.push({ codes: [1, 2], row: { timeS, status: statuses.good, values: [timeS, 0] } });
  await Promise.all([
    sealDue(rowsOf(one), options, true),
    sealDue(rowsOf(one), options, true),
    sealDue(rowsOf(one), options),
  ]);
  assert.deepEqual(
    wallet.requests.map((rows) => rows.length),
    [3],
  );
});

test("a wallet that is away keeps no reading from being taken; its return finds the rows", async (t) => {
  const { wallet, events, start, meter, pass } = scene(t);
  start(meter(1));
  await pass(2_050);
  wallet.away = true;
  await pass(30_000);
  wallet.away = false;
  await pass(2_000);
  assert.deepEqual(seconds(wallet.sealed), upTo(wallet.sealed.length - 1, 0));
  assert.ok(wallet.sealed.length >= 34);
  assert.equal(letters(wallet.sealed), "G".repeat(wallet.sealed.length));
  assert.equal(lostRows(events), 0);
});

test("a wallet that is away for longer than the buffer reaches: one row N stands for what is lost, and it is counted", async (t) => {
  const { wallet, events, start, meter, pass } = scene(t);
  const one = meter(1, 10);
  start(one);
  await pass(20_050); // rows 0, 1, 2
  wallet.away = true;
  await pass(1_000_000); // rows 3 to 102; the newest 59 and one N are kept
  wallet.away = false;
  await pass(1_100);
  const after = wallet.sealed.slice(3, 3 + sealRowsMax);
  assert.equal(letters(after), `N${"G".repeat(sealRowsMax - 1)}`);
  assert.deepEqual(
    seconds(after),
    upTo(102, 43).map((slot) => slot * 10),
  );
  assert.equal(rowsOf(one).lost, 102 - 2 - (sealRowsMax - 1));
  assert.equal(lostRows(events), rowsOf(one).lost);
});

test("a wallet killed between seal and answer: the rows are asked for again, nothing is doubled or lost", async (t) => {
  const { wallet, events, start, meter, pass } = scene(t);
  start(meter(1));
  await pass(2_050);
  wallet.answerLost = true;
  await pass(3_000);
  wallet.answerLost = false;
  await pass(2_000);
  assert.deepEqual(seconds(wallet.sealed), upTo(7, 0));
  assert.equal(lostRows(events), 0);
});

test("an N in the place of a row that was sealed after all is no loss", async (t) => {
  const { wallet, events, start, meter, pass } = scene(t);
  const one = meter(1);
  start(one);
  wallet.answerLost = true; // all of it is sealed, and the agent does not know
  await pass(70_050);
  wallet.answerLost = false;
  const counted = rowsOf(one).lost; // the buffer cannot know better
  await pass(1_100);
  assert.equal(rowsOf(one).buffer.length, 0);
  assert.equal(rowsOf(one).lost, counted);
  assert.equal(events.filter(({ event }) => event === "refused").length, 1);
  assert.equal(letters(wallet.sealed).includes("N"), false);
});

test("one row that the wallet will never take takes no other with it", async (t) => {
  const { wallet, options, events, meter } = scene(t);
  const one = meter(1);
  for (const timeS of upTo(10))
    rowsOf(one).buffer.push({ codes: [1, 2], row: { timeS, status: statuses.good, values: [timeS, 0] } });
  wallet.refuse = ({ timeS }) => (timeS === 4 ? new WalletRefusal("row-conflict") : undefined);
  await sealDue(rowsOf(one), options, true);
  assert.deepEqual(
    wallet.sealed.map(({ timeS }) => timeS),
    [1, 2, 3, 5, 6, 7, 8, 9, 10],
  );
  assert.equal(rowsOf(one).lost, 1);
  assert.deepEqual(
    events.filter(({ event }) => event === "lost" || event === "refused").map(({ event }) => event),
    ["refused", "lost"],
  );
});

for (const reason of ["ring-full", "rate-exceeded", "unknown-meter", "slot-mismatch"] as const)
  test(`${reason}: rows are kept until it passes, and it is said once`, async (t) => {
    const { wallet, events, start, meter, pass } = scene(t);
    wallet.refuse = () => new WalletRefusal(reason);
    start(meter(1));
    await pass(20_050);
    assert.deepEqual(wallet.sealed, []);
    assert.equal(events.filter(({ event }) => event === "refused").length, 1);
    wallet.refuse = () => undefined;
    await pass(1_100);
    assert.deepEqual(seconds(wallet.sealed), upTo(21, 0));
    assert.equal(lostRows(events), 0);
    wallet.refuse = () => new WalletRefusal(reason);
    await pass(1_100);
    assert.equal(events.filter(({ event }) => event === "refused").length, 2, "said again when it comes again");
  });

test("after a restart one row N closes the gap since the wallet's last row", async (t) => {
  const { wallet, options, start, meter, pass } = scene(t);
  const one = meter(1, 60);
  await pass(500);
  keepStartGap(one, startMs / 1_000 - 7_200, options);
  start(one);
  await pass(60_000);
  assert.deepEqual(seconds(wallet.sealed), [0, 60]);
  assert.equal(letters(wallet.sealed), "NG");
});

for (const [name, lastS] of [
  ["without a row before", 0],
  ["within the slot of the last row", startMs / 1_000],
] as const)
  test(`after a start ${name} there is no gap to close`, async (t) => {
    const { wallet, options, start, meter, pass } = scene(t);
    const one = meter(1, 60);
    await pass(500);
    keepStartGap(one, lastS, options);
    start(one);
    await pass(60_000);
    assert.deepEqual(seconds(wallet.sealed), [60]);
  });

test("a clock that is set forward while a slot is waited for: the reading has the time of the clock as it is", async (t) => {
  const { wallet, start, meter, pass, setClock } = scene(t);
  start(meter(1, 900));
  await pass(300_000);
  setClock(86_400_000);
  await pass(630_000);
  const last = wallet.sealed.at(-1) as Row;
  assert.deepEqual([statusLetters[last.status], (last.timeS - startMs / 1_000) % 86_400], ["G", 900]);
  assert.ok(letters(wallet.sealed).startsWith("GN"));
});

test("a clock that is set back by an hour: readings go on at once, in the time of the clock as it is", async (t) => {
  const { wallet, start, meter, pass, setClock } = scene(t);
  start(meter(1, 10));
  await pass(20_050);
  setClock(-3_600_000);
  await pass(20_000);
  assert.deepEqual(seconds(wallet.sealed), [0, 10, 20, -3_570, -3_560]);
});

test("a clock that is set back by less than a slot: no slot is read twice", async (t) => {
  const { wallet, start, meter, pass, setClock } = scene(t);
  start(meter(1, 60));
  await pass(120_050);
  setClock(-50_000);
  await pass(180_000);
  assert.deepEqual(seconds(wallet.sealed), [0, 60, 120, 180, 240]);
});

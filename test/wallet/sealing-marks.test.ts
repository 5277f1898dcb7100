// Rows that cannot be true are sealed, and marked: a register that falls (M), more energy than the connection can carry (O).
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { type StatusLetter, statusLetters } from "../../protocol/reading-status.ts";
import { decodeRecord, eventCodes, type Row } from "../../protocol/record.ts";
import { SeededRandom } from "../protocol/seeded-random.ts";
import { eventsIn, meterOf, refusal, sha256, startS, WalletFixture } from "./wallet-fixture.ts";

const import2 = 2; // active energy import, Wh

interface SealedRow extends Row {
  readonly meter: number;
  readonly plan: number;
  readonly codes: readonly number[];
}

function sealedRows(wallet: WalletFixture): SealedRow[] {
  return [...wallet.records().values()].flatMap((bytes) => {
    const { content } = decodeRecord(bytes, sha256);
    if (content.kind !== "reading") return [];
    return content.rows.map((row) => ({ ...row, meter: content.meter, plan: content.plan, codes: content.codes }));
  });
}

function letters(wallet: WalletFixture): StatusLetter[] {
  return sealedRows(wallet).map(({ status }) => statusLetters[status] as StatusLetter);
}

function wentBack(wallet: WalletFixture): unknown[][] {
  return eventsIn(wallet.records(), eventCodes.registerWentBack);
}

/** Seals one row of a register a slot after the other, from `startS` on. */
function sealStands(wallet: WalletFixture, stands: readonly number[], slotS = 60, fromS = startS): void {
  for (const [i, stand] of stands.entries())
    wallet.seal([{ timeS: fromS + i * slotS, status: 0, values: [stand] }], { codes: [import2] });
}

function minutes(t: TestContext, meter: Parameters<typeof meterOf>[0] = {}): WalletFixture {
  return new WalletFixture(t, { policy: { meters: [meterOf({ slotS: 60, ...meter })] }, segments: 16 });
}

/** The rule told again, as a full node would check it: no good row of a meter and plan is below the good one before it. */
function checkRising(wallet: WalletFixture): void {
  const stands = new Map<string, number>();
  for (const { meter, plan, codes, status, values } of sealedRows(wallet)) {
    if (status !== 0) continue;
    for (const [i, code] of codes.entries()) {
      const place = `${meter}/${plan}/${code}`;
      assert.ok((values[i] as number) >= (stands.get(place) ?? 0), `${place} falls to ${values[i]}`);
      stands.set(place, values[i] as number);
    }
  }
}

test("a register that falls is sealed with M until it is back where it was; one event tells of each fall", (t) => {
  const wallet = minutes(t);
  sealStands(wallet, [1_000, 1_001, 7, 8, 1_000, 1_001, 1_002, 900, 1_003]);
  assert.equal(letters(wallet).join(""), "GGMMMGGMG");
  assert.deepEqual(wentBack(wallet), [
    [eventCodes.registerWentBack, 0, import2],
    [eventCodes.registerWentBack, 0, import2],
  ]);
  checkRising(wallet);
});

test("control: a wallet that has nothing to hold a fall against seals it as good, and the check sees it", (t) => {
  const wallet = minutes(t);
  sealStands(wallet, [1_000]);
  // What the protection rests on is taken away: the stand that the journal remembers.
  t.mock.method(wallet.journal, "lastRow", () => undefined);
  sealStands(wallet, [7], 60, startS + 60);
  assert.equal(letters(wallet).join(""), "GG");
  assert.throws(() => checkRising(wallet), assert.AssertionError);
});

test("the fall is seen across restarts, failed rows, rows of other codes, and a full turn of the ring", (t) => {
  const wallet = minutes(t);
  const at = (minute: number, codes: number[], values: number[], status = 0): void => {
    wallet.seal([{ timeS: startS + 60 * minute, status, values }], { codes });
  };
  at(0, [2, 4], [1_000, 50]);
  wallet.restart();
  at(1, [2, 4], [], 2);
  at(2, [2], [1_001]);
  at(3, [4], [60]);
  wallet.restart();
  at(4, [2], [1_000]);
  at(5, [4], [59]);
  at(6, [2, 4], [1_002, 59]);
  at(7, [2, 4], [1_002, 60]);
  for (let minute = 8; minute < 300; minute++) {
    at(minute, [1], [5]);
    wallet.releaseAll();
  }
  assert.ok(wallet.hello().firstSequence > 20);
  wallet.restart();
  at(300, [2], [1_001]);
  at(301, [2], [1_002]);
  const statuses = sealedRows(wallet).map(({ status }) => statusLetters[status]);
  assert.deepEqual(statuses.slice(-2), ["M", "G"]);
});

test("what falls in one request is told of once for each register, however often it goes up and down", (t) => {
  const wallet = new WalletFixture(t, { policy: { sealEveryS: 60 } });
  const codes = [2, 4, 6, 8, 10, 12, 15, 16, 38, 39, 43, 44];
  const rows = Array.from({ length: 60 }, (_, i) => ({
    timeS: startS + 1 + i,
    status: 0,
    values: codes.map(() => (i % 2 === 0 ? 1_000 + i : i)),
  }));
  wallet.seal(rows, { codes });
  assert.equal(wentBack(wallet).length, codes.length);
  assert.deepEqual(letters(wallet).slice(0, 4), ["G", "M", "G", "M"]);
});

test("the same row again is found by the values it was sealed with, whatever mark it got; other values are refused", (t) => {
  const wallet = minutes(t, { powerMaxW: 1_000 });
  sealStands(wallet, [1_000, 900, 900_000]);
  assert.equal(letters(wallet).join(""), "GMO");
  const { nextSequence } = wallet.hello();
  sealStands(wallet, [1_000, 900, 900_000]);
  wallet.restart();
  sealStands(wallet, [1_000, 900, 900_000]);
  assert.equal(wallet.hello().nextSequence, nextSequence + 1, "the start alone was sealed");
  for (const [i, stand] of [1_001, 901, 900_001].entries())
    assert.throws(() => sealStands(wallet, [stand], 60, startS + 60 * i), refusal("row-conflict"));
});

test("a meter that the operator declared to be another one begins anew: an event, and no mark", (t) => {
  const wallet = minutes(t);
  sealStands(wallet, [1_000, 1_001]);
  wallet.policy = {
    ...wallet.policy,
    meters: [meterOf({ slotS: 60, installation: 1, installationReason: "calibration expired" })],
  };
  wallet.restart();
  sealStands(wallet, [3, 4], 60, startS + 120);
  assert.equal(letters(wallet).join(""), "GGGG");
  assert.deepEqual(eventsIn(wallet.records(), eventCodes.meterReplaced), [
    [eventCodes.meterReplaced, 0, "calibration expired", 1],
  ]);
  wallet.restart();
  sealStands(wallet, [2], 60, startS + 240);
  assert.equal(eventsIn(wallet.records(), eventCodes.meterReplaced).length, 1, "declared once");
  assert.equal(letters(wallet).at(-1), "M", "control: undeclared it is marked as before");
});

test("more energy than the connection can carry is sealed with O, and the register is believed again when it can be true", (t) => {
  const wallet = minutes(t, { powerMaxW: 6_000, resolutionWh: 10 }); // 100 Wh a minute
  sealStands(wallet, [1_000, 1_100, 1_310, 1_311, 1_311, 1_411]);
  // 1,310 is 100 Wh too much. The next one is held against 1,100: 200 Wh are possible in two minutes, and so on.
  assert.equal(letters(wallet).join(""), "GGOGGG");
  assert.deepEqual(wentBack(wallet), [], "an O row moves no stand, so what follows it has not fallen");
});

test("the resolution hides energy once, and not anew with each row", (t) => {
  const limits = { slotS: 1, powerMaxW: 3_600, resolutionWh: 1_000 }; // 1 Wh a second
  const wallet = new WalletFixture(t, { policy: { meters: [meterOf(limits)] }, segments: 16 });
  sealStands(
    wallet,
    Array.from({ length: 40 }, (_, i) => i * 100),
    1,
  );
  const good = sealedRows(wallet).filter(({ status }) => status === 0);
  const last = good.at(-1);
  assert.ok(last);
  assert.ok((last.values[0] as number) <= 1_000 + 2 + (last.timeS - startS), `${last.values[0]} Wh`);
  assert.ok(letters(wallet).filter((letter) => letter === "O").length >= 25);
});

test("an honest meter at its limit is never marked, whatever its resolution, slots, outages and restarts", (t) => {
  for (const seed of [1, 2, 3, 4]) {
    const random = new SeededRandom(seed);
    const resolutionWh = random.pick([1, 10, 100, 1_000]);
    const powerMaxW = random.pick([500, 11_000, 40_000]);
    const slotS = random.pick([1, 10, 60]);
    const meters = [meterOf({ slotS, powerMaxW, resolutionWh })];
    const wallet = new WalletFixture(t, { policy: { meters }, segments: 64 });
    let energyWh = 123_456;
    let readAtS = startS;
    for (let slot = 1; slot < 400; slot++) {
      if (random.chance(1)) wallet.restart();
      if (random.chance(5)) slot += random.integer(1, 50);
      const timeS = startS + slot * slotS;
      const atS = timeS + random.integer(0, 1_900) / 1_000;
      energyWh += ((atS - readAtS) * powerMaxW) / 3_600;
      readAtS = atS;
      const failed = random.chance(5);
      const stand = Math.floor(energyWh / resolutionWh) * resolutionWh;
      wallet.seal([{ timeS, status: failed ? 2 : 0, values: failed ? [] : [stand] }], { codes: [import2] });
    }
    const marked = letters(wallet).filter((letter) => letter === "O" || letter === "M");
    assert.deepEqual(marked, [], `seed ${seed}: ${resolutionWh} Wh, ${powerMaxW} W, ${slotS} s`);
  }
});

test("a step of the clock gives nobody time to make energy in: what really passed counts", (t) => {
  const wallet = minutes(t, { powerMaxW: 6_000, resolutionWh: 10 });
  sealStands(wallet, [1_000]);
  wallet.secondsPerSeal = 0;
  wallet.clock.pass(60);
  wallet.clock.set(startS + 86_400); // a day later, says somebody
  sealStands(wallet, [1_000 + 24 * 6_000], 60, startS + 86_400);
  assert.equal(letters(wallet).join(""), "GO");
  wallet.clock.pass(60);
  sealStands(wallet, [1_200], 60, startS + 86_460);
  assert.equal(letters(wallet).join(""), "GOG");
  // Control: without the step a day is a day.
  wallet.clock.pass(86_400);
  sealStands(wallet, [1_200 + 24 * 6_000], 60, startS + 2 * 86_400 + 60);
  assert.equal(letters(wallet).join(""), "GOGG");
});

test("after a restart the time between the rows counts; where the clock went back meanwhile, nobody can judge", (t) => {
  const wallet = minutes(t, { powerMaxW: 6_000, resolutionWh: 10 });
  sealStands(wallet, [1_000]);
  wallet.restart();
  sealStands(wallet, [1_400], 60, startS + 60);
  wallet.restart();
  wallet.clock.boot(startS - 86_400);
  wallet.secondsPerSeal = 0;
  sealStands(wallet, [50_000], 60, startS - 86_400);
  wallet.clock.pass(60);
  sealStands(wallet, [99_000], 60, startS - 86_400 + 60);
  assert.equal(letters(wallet).join(""), "GOGO");
});

test("a time long ago, in a generation that a step began, gives nobody time to make energy in", (t) => {
  const wallet = minutes(t, { powerMaxW: 6_000, resolutionWh: 10 });
  sealStands(wallet, [1_000]);
  wallet.secondsPerSeal = 0;
  wallet.clock.pass(60);
  wallet.clock.set(startS + 30);
  const yearS = 365 * 86_400;
  sealStands(wallet, [1_000], 60, startS - yearS); // nothing says that it is not so
  sealStands(wallet, [1_000 + 365 * 24 * 6_000], 60, startS + 60);
  assert.equal(letters(wallet).join(""), "GGO");
  sealStands(wallet, [1_100], 60, startS + 120 - 30);
  assert.equal(letters(wallet).join(""), "GGOG", "control: what can be true is believed");
});

test("a row that names a time before its reference is held against what has passed by the wallet's own clock", (t) => {
  const wallet = minutes(t, { powerMaxW: 6_000, resolutionWh: 10 });
  sealStands(wallet, [1_000]);
  wallet.restart();
  wallet.secondsPerSeal = 0;
  wallet.clock.pass(60);
  wallet.clock.set(startS + 90);
  sealStands(wallet, [50_000_000], 60, startS - 86_400);
  sealStands(wallet, [1_100], 60, startS - 86_400 + 60);
  assert.equal(letters(wallet).join(""), "GOG");
});

test("a plan that begins is held against what the others have of the same registers", (t) => {
  const meters = [meterOf({ slotS: 60, powerMaxW: 6_000, resolutionWh: 10 })];
  const plans = [1, 2].map((plan) => ({ plan, slotS: 60, sealEveryS: 0 }));
  const wallet = new WalletFixture(t, { policy: { meters, plans } });
  sealStands(wallet, [1_000]);
  const thin = (minute: number, stand: number, plan: number): unknown =>
    wallet.seal([{ timeS: startS + 60 * minute, status: 0, values: [stand] }], { codes: [import2], plan });
  thin(1, 50_000_000, 1);
  thin(2, 900, 1);
  thin(3, 1_200, 1);
  wallet.restart();
  thin(4, 60_000_000, 2);
  thin(5, 1_300, 2);
  thin(5, 1_300, 1);
  assert.equal(letters(wallet).join(""), "GOMGOGG");
});

test("other statuses than G are no reference and get no mark", (t) => {
  const wallet = minutes(t, { powerMaxW: 6_000 });
  const seal = (minute: number, status: number, stand: number): unknown =>
    wallet.seal([{ timeS: startS + 60 * minute, status, values: [stand] }], { codes: [import2] });
  seal(0, 0, 1_000);
  seal(1, 9, 5); // a substitute value
  seal(2, 0, 1_010);
  seal(3, 6, 9_000_000); // exchanged
  seal(4, 0, 900);
  seal(5, 0, 1_020);
  assert.equal(letters(wallet).join(""), "GSGXMG");
});

test("rows that wait for their batch are marked one by one, and the batch has all of them", (t) => {
  const meters = [meterOf({ slotS: 60, powerMaxW: 6_000, resolutionWh: 10 })];
  const wallet = new WalletFixture(t, { policy: { meters, sealEveryS: 900 } });
  sealStands(wallet, [1_000, 1_050, 40, 1_060, 99_999, 1_070], 60, startS + 60);
  wallet.restart();
  assert.equal(letters(wallet).join(""), "GGMGOG");
  assert.equal(wentBack(wallet).length, 1);
});

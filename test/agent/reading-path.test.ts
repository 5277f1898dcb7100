import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import type { MeterConfiguration } from "../../agent/configuration.ts";
import type { AgentEvent } from "../../agent/event.ts";
import { LineTurns } from "../../agent/line-turns.ts";
import {
  keepStartGap,
  type PolledMeter,
  polledMeter,
  pollMeter,
  type ReadingPathOptions,
  sealDue,
  sealRows,
} from "../../agent/reading-path.ts";
import { type WalletClient, WalletUnavailable } from "../../agent/wallet-client.ts";
import { DriverError } from "../../drivers/failure.ts";
import type { ModbusLine } from "../../drivers/modbus/line.ts";
import type { RegisterRead } from "../../drivers/modbus/register-read.ts";
import { statuses, statusLetters } from "../../protocol/reading-status.ts";
import type { Row } from "../../protocol/record.ts";
import { type SealRequest, sealRowsMax, WalletRefusal } from "../../protocol/wallet-message.ts";
import { eastronSdm630 } from "../drivers/sdm630-line.ts";

const startMs = 1_800_000_000_000;
const answerMs = 20;
const timeoutMs = 1_000;

/** A line on which a unit answers after 20 ms, or holds it for 1 s (time-out and drain); one request at a time, as on a wire. */
class SimulatedLine {
  readonly description = "simulated line";
  readonly counters = new Map<number, { requests: number; timeouts: number }>();
  readonly dead = new Set<number>();
  answerMs = answerMs;
  down: DriverError | undefined;
  #tail: Promise<unknown> = Promise.resolve();
  readonly nowMs = (): number => Date.now();
  readonly requestCostRegisters = (): number => 8;

  readRegisters(read: RegisterRead): Promise<Uint16Array> {
    const result = this.#tail.then(() => this.#read(read));
    this.#tail = result.catch(() => undefined);
    return result;
  }

  async #read({ unit, count, startBeforeMs = Number.POSITIVE_INFINITY }: RegisterRead): Promise<Uint16Array> {
    if (this.down) throw this.down;
    if (Date.now() > startBeforeMs) throw new DriverError("timeout", "its turn came after the deadline");
    const counters = this.counters.get(unit) ?? { requests: 0, timeouts: 0 };
    this.counters.set(unit, counters);
    counters.requests++;
    const dead = this.dead.has(unit);
    await new Promise((resolve) => setTimeout(resolve, dead ? timeoutMs : this.answerMs));
    if (!dead) return new Uint16Array(count);
    counters.timeouts++;
    throw new DriverError("timeout", "no answer");
  }
}

/** A wallet in memory: known rows give the same sequence again, other values at a known time are refused. */
class SimulatedWallet {
  readonly rows = new Map<string, { row: Row; sequence: number }>();
  readonly sealed: Row[] = [];
  readonly requests: Row[][] = [];
  away = false;
  answerLost = false;
  refuse: (row: Row) => WalletRefusal | undefined = () => undefined;

  /** Times of rows that were sealed as seconds since the boot. */
  readonly relativeS: number[] = [];

  async seal({ meter, rows, relative }: Omit<SealRequest, "type">): Promise<{ sequences: number[] }> {
    await new Promise((resolve) => setImmediate(resolve));
    if (this.away) throw new WalletUnavailable("away");
    this.requests.push([...rows]);
    if (relative) this.relativeS.push(...rows.map(({ timeS }) => timeS));
    for (const row of rows) {
      const refusal = this.refuse(row);
      if (refusal) throw refusal;
      const known = this.rows.get(`${meter} ${row.timeS}`);
      if (known && JSON.stringify(known.row) !== JSON.stringify(row)) throw new WalletRefusal("row-conflict");
    }
    const sequences = rows.map((row) => {
      const name = `${meter} ${row.timeS}`;
      const known = this.rows.get(name) ?? { row, sequence: this.rows.size + 1 };
      if (!this.rows.has(name)) this.sealed.push(row);
      this.rows.set(name, known);
      return known.sequence;
    });
    if (this.answerLost) throw new WalletUnavailable("killed between seal and answer");
    return { sequences };
  }
}

interface Scene {
  readonly line: SimulatedLine;
  readonly wallet: SimulatedWallet;
  readonly events: AgentEvent[];
  readonly options: ReadingPathOptions;
  meter(unit: number, intervalS?: number, more?: Partial<MeterConfiguration>): PolledMeter;
  /** Polls and seals from now on. */
  start(...meters: PolledMeter[]): void;
  /** Lets so much time pass; the wall clock may be set beside it. */
  pass(ms: number): Promise<void>;
  setClock(byMs: number): void;
}

/** How long the machine is up when a scene begins. */
const upMs = 100_000;

function scene(t: TestContext, sealEveryS = 0): Scene {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"], now: startMs });
  const line = new SimulatedLine();
  const wallet = new SimulatedWallet();
  const events: AgentEvent[] = [];
  let setMs = 0;
  const options: ReadingPathOptions = {
    wallet: wallet as unknown as WalletClient,
    sealEveryS,
    clock: { wallMs: () => Date.now() + setMs, monotonicMs: () => Date.now() - startMs + upMs },
    emit: (event) => events.push(event),
    onSealed: () => undefined,
  };
  const ending = new AbortController();
  t.after(() => ending.abort());
  const turns = new LineTurns();
  return {
    line,
    wallet,
    events,
    options,
    meter: (unit, intervalS = 1, more = {}) =>
      polledMeter(
        {
          ...{ index: unit - 1, name: `meter-${unit}`, line: "main", unit, profile: eastronSdm630.id },
          ...{ intervalS, codes: [1, 2], powerMaxW: 0, ...more },
        },
        eastronSdm630,
        line as unknown as ModbusLine,
        turns,
      ),
    start: (...meters) => {
      for (const meter of meters) {
        void pollMeter(meter, options, ending.signal);
        void sealRows(meter, options, ending.signal);
      }
    },
    pass: async (ms) => {
      for (let passed = 0; passed < ms; passed += 10) {
        t.mock.timers.tick(10);
        for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
      }
    },
    setClock: (byMs) => {
      setMs += byMs;
    },
  };
}

const letters = (rows: readonly Row[]): string => rows.map(({ status }) => statusLetters[status]).join("");
/** Seconds since the start. */
const seconds = (rows: readonly Row[]): number[] => rows.map(({ timeS }) => timeS - startMs / 1_000);
const lostRows = (events: readonly AgentEvent[]): number =>
  events.reduce((sum, event) => sum + (event.event === "lost" ? event.rows : 0), 0);
const upTo = (last: number, first = 1): number[] => Array.from({ length: last - first + 1 }, (_, i) => first + i);

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
    slow.missed - slow.buffer.length,
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

test("a dead meter is asked less and less, each of its slots still gets a row, and the others on its line keep theirs", async (t) => {
  const { line, wallet, events, start, meter, pass } = scene(t);
  line.dead.add(2);
  const meters = [meter(1), meter(2), meter(3)];
  start(...meters);
  await pass(120_050);
  const goodRows = (index: number): number =>
    events.filter((event) => event.event === "reading" && event.meter === index && event.status === "G").length;
  assert.ok(goodRows(0) >= 100 && goodRows(2) >= 100, `${goodRows(0)} and ${goodRows(2)} of 121 good readings`);
  const requests = line.counters.get(2)?.requests ?? 0;
  assert.ok(requests <= 50, `${requests} requests to the dead unit in 120 s`);
  const dead = wallet.requests.flat().filter((row) => row.values.length === 0);
  const times = [...wallet.rows].filter(([name]) => name.startsWith("1 ")).map(([, { row }]) => row);
  assert.deepEqual(seconds(times), upTo(times.length - 1, 0));
  assert.ok(times.length >= 119 && times.every(({ status }) => status !== statuses.good));
  assert.ok(dead.length > 0);

  line.dead.delete(2);
  const before = goodRows(1);
  await pass(12_000);
  assert.ok(goodRows(1) > before, "back within the longest rest");
  const after = goodRows(1);
  await pass(5_000);
  assert.equal(goodRows(1), after + 5, "and then read in every slot");
});

test("control: without the rest, a dead meter costs the others on its line half their readings", async (t) => {
  const { line, events, start, meter, pass } = scene(t);
  line.dead.add(2);
  const meters = [meter(1), meter(2), meter(3)];
  for (const { rest } of meters) rest.vain = () => undefined;
  start(...meters);
  await pass(120_050);
  const good = events.filter((event) => event.event === "reading" && event.meter === 2 && event.status === "G").length;
  assert.ok(good < 80, `${good} of 121`);
});

/** Longest time after a slot's end at which a meter's good reading was there. */
function slowestMs(events: readonly AgentEvent[], index: number, fromS: number): number {
  const offsets = events.map((event) =>
    event.event === "reading" && event.meter === index && event.status === "G" && event.timeS > fromS
      ? event.offsetMs
      : 0,
  );
  return Math.max(...offsets);
}

test("a meter that goes dead delays the others once, and then never: their readings are there as quickly as without it", async (t) => {
  const { line, events, start, meter, pass } = scene(t);
  const meters = [meter(1, 5), meter(2, 5), meter(3, 5), meter(4, 5)];
  start(...meters);
  await pass(60_050);
  const before = Math.max(...[0, 2, 3].map((index) => slowestMs(events, index, 0)));
  line.dead.add(2);
  await pass(10_000); // the try that finds out
  await pass(300_000);
  const after = Math.max(...[0, 2, 3].map((index) => slowestMs(events, index, startMs / 1_000 + 75)));
  assert.ok(after <= before, `${after} ms after the slot's end with a dead meter on the line, ${before} ms without`);
  const requests = line.counters.get(2)?.requests ?? 0;
  assert.ok(requests > 12 + 15, `it goes on being asked: ${requests} times`);
  assert.deepEqual(
    meters.map(({ late }) => late),
    [0, 0, 0, 0],
  );
  line.dead.delete(2);
  await pass(25_000);
  const last = events.filter((event) => event.event === "reading" && event.meter === 1).at(-1);
  assert.equal(last?.event === "reading" && last.status, "G", "and is found when it is back");
});

test("control: asked in its turn, a dead meter delays those behind it in every slot that it is asked in", async (t) => {
  const { line, events, start, meter, pass } = scene(t);
  const meters = [meter(1, 5), meter(2, 5), meter(3, 5)];
  for (const { turns } of meters) turns.suspectsTurn = async () => true;
  line.dead.add(2);
  start(...meters);
  await pass(120_050);
  assert.ok(slowestMs(events, 2, startMs / 1_000 + 60) >= timeoutMs);
});

test("energies at their own interval: power in each slot, registers in those that end on theirs", async (t) => {
  const { wallet, events, start, meter, pass } = scene(t);
  start(meter(1, 5, { energyIntervalS: 60 }));
  await pass(120_050);
  const full = wallet.sealed.filter(({ values }) => values.length === 2);
  const fast = wallet.sealed.filter(({ values }) => values.length === 1);
  assert.deepEqual(seconds(full), [0, 60, 120]);
  assert.equal(fast.length, 22);
  assert.deepEqual(
    seconds(wallet.sealed),
    upTo(24, 0).map((slot) => slot * 5),
  );
  const names = events.flatMap((event) => (event.event === "reading" ? [Object.keys(event.values)] : []));
  assert.deepEqual(names[0], ["active-power-import", "active-energy-import"]);
  assert.deepEqual(names[1], ["active-power-import"]);
});

test("a reading that ends late after its slot is counted", async (t) => {
  const { line, events, start, meter, pass } = scene(t);
  line.answerMs = 1_200; // twice, for two blocks of registers
  const [slow, slower] = [meter(1, 10), meter(2, 60)];
  start(slow, slower);
  await pass(30_050);
  await pass(9_000);
  assert.ok(slow.late >= 3, `${slow.late} of 4 readings later than 2 s`);
  assert.equal(slower.late, 0, "4.8 s are in time for a slot of 60 s");
  const offsets = events.map((event) => (event.event === "reading" ? event.offsetMs : 0));
  assert.ok(Math.max(...offsets) >= 4_800);
});

test("a unit whose turn on the line does not come does not rest for it", async (t) => {
  const { line, start, meter, pass } = scene(t);
  line.dead.add(1).add(2);
  const meters = [meter(1), meter(2), meter(3)];
  for (const { rest } of meters.slice(0, 2)) rest.vain = () => undefined; // these hold the line for ever
  const starved = meters[2] as PolledMeter;
  start(...meters);
  await pass(20_000);
  assert.equal(starved.rest.isResting(Date.now()), false);
});

test("two sealings of one meter at once go one after the other", async (t) => {
  const { wallet, options, meter } = scene(t);
  const one = meter(1);
  for (const timeS of [1, 2, 3])
    one.buffer.push({ codes: [1, 2], row: { timeS, status: statuses.good, values: [timeS, 0] } });
  await Promise.all([sealDue(one, options, true), sealDue(one, options, true), sealDue(one, options)]);
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
  assert.equal(one.lost, 102 - 2 - (sealRowsMax - 1));
  assert.equal(lostRows(events), one.lost);
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
  const counted = one.lost; // the buffer cannot know better
  await pass(1_100);
  assert.equal(one.buffer.length, 0);
  assert.equal(one.lost, counted);
  assert.equal(events.filter(({ event }) => event === "refused").length, 1);
  assert.equal(letters(wallet.sealed).includes("N"), false);
});

test("one row that the wallet will never take takes no other with it", async (t) => {
  const { wallet, options, events, meter } = scene(t);
  const one = meter(1);
  for (const timeS of upTo(10))
    one.buffer.push({ codes: [1, 2], row: { timeS, status: statuses.good, values: [timeS, 0] } });
  wallet.refuse = ({ timeS }) => (timeS === 4 ? new WalletRefusal("row-conflict") : undefined);
  await sealDue(one, options, true);
  assert.deepEqual(
    wallet.sealed.map(({ timeS }) => timeS),
    [1, 2, 3, 5, 6, 7, 8, 9, 10],
  );
  assert.equal(one.lost, 1);
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

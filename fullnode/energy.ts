/**
 * Energy and other quantities by quarter hours, hours, days or months, made at reading of the quarter hours that the store keeps:
 * so a reader never sees an old figure, and another time zone needs nothing written anew.
 *
 * The energy of a slot is the register's last value in it less the last value before it, in the order of the meter's clock
 * generations and, within one, of time. So the slots of a period add up to what the register has counted, whatever is missing
 * between; what a gap hides falls to the slot that ends it, and `sinceS` says from when on that counts. What a declared exchange
 * of the meter changes in the register is not energy. Where a register falls without one, nothing is counted over the fall.
 */
import { quantityOfCode } from "../protocol/quantity.ts";
import { type CodeSummary, quarterS } from "./aggregate.ts";
import type { Calendar, Resolution, TimeSlot } from "./calendar.ts";
import type { Store } from "./store.ts";
import type { MeterExchange, Series, SlotKey, StoredSlot } from "./store-reading.ts";

/** How many quarter hours back the last stands of registers are looked for at first: a week; and where one has none, a year. */
const lookBackSlots = 672;
const lookFarBackSlots = 35_136;
const pageSlots = 2_000;
const rowsOfQuarterMax = quarterS;

/** What a register counted in a slot. */
export interface Advance {
  readonly code: number;
  /** In the quantity's unit. */
  readonly counted: number;
  /** Time of the value from which on it counts; before the slot's start as a rule. */
  readonly sinceS: number;
  readonly untilS: number;
  /** The register fell without a declared exchange of the meter. */
  readonly fell: boolean;
  /** The meter was exchanged in between, as its wallet has declared. */
  readonly exchanged: boolean;
}

/** A quantity that is no register. */
export interface Level {
  readonly code: number;
  readonly count: number;
  readonly min: number;
  readonly max: number;
  readonly sum: number;
}

export interface EnergySlot extends TimeSlot {
  readonly rows: number;
  /** How often its quarter hours changed more than an hour after their end, first rows included: 0 where all came in time. */
  readonly revision: number;
  /** Ascending by code. */
  readonly advances: readonly Advance[];
  /** Ascending by code. */
  readonly levels: readonly Level[];
}

interface Growing {
  readonly slot: TimeSlot;
  rows: number;
  revision: number;
  readonly advances: Map<number, Advance>;
  readonly levels: Map<number, Level>;
}

interface Stand {
  readonly generation: number;
  readonly timeS: number;
  readonly value: number;
}

export interface EnergyQuestion {
  readonly device: number;
  readonly meter: number;
  readonly resolution: Resolution;
  /** Start of the first slot and end of the last one: see {@link Calendar.slotAt}. */
  readonly fromS: number;
  readonly toS: number;
}

/** The slots of a meter that have booked rows, ascending. */
export async function energySlots(store: Store, calendar: Calendar, question: EnergyQuestion): Promise<EnergySlot[]> {
  const { device, meter } = question;
  const exchanges = (await store.exchanges(device)).filter((one) => one.meter === meter);
  const found = new Map<number, Growing>();
  for (const series of await store.series(device))
    if (series.meter === meter) await addSeries(store, calendar, question, { series, exchanges, found });
  return [...found.values()]
    .sort((a, b) => a.slot.startS - b.slot.startS)
    .map(({ slot, rows, revision, advances, levels }) => ({
      ...slot,
      ...{ rows, revision },
      advances: [...advances.values()].sort((a, b) => a.code - b.code),
      levels: [...levels.values()].sort((a, b) => a.code - b.code),
    }));
}

async function addSeries(
  store: Store,
  calendar: Calendar,
  { device, resolution, fromS, toS }: EnergyQuestion,
  of: { series: Series; exchanges: readonly MeterExchange[]; found: Map<number, Growing> },
): Promise<void> {
  const { series, exchanges, found } = of;
  const { meter, generation } = series;
  const rowsOf = async (endS: number) =>
    (await store.rowsAfter(device, { ...series, timeS: endS - quarterS }, rowsOfQuarterMax)).filter(
      (row) => row.booked && row.meter === meter && row.generation === generation && row.timeS <= endS,
    );
  let stands: Map<number, Stand> | undefined;
  for (let afterS = fromS; ; ) {
    const page = await store.slots(device, series, afterS, toS, pageSlots);
    for (const one of page) {
      stands ??= await standsBefore(store, device, one);
      const slot = calendar.slotAt(resolution, one.endS - quarterS);
      const growing = found.get(slot.startS) ?? {
        ...{ slot, rows: 0, revision: 0 },
        ...{ advances: new Map<number, Advance>(), levels: new Map<number, Level>() },
      };
      found.set(slot.startS, growing);
      growing.rows += one.summary.rows;
      growing.revision += one.revision;
      for (const summary of one.summary.codes) {
        const { code } = summary;
        if (!quantityOfCode(code)?.cumulative) {
          growing.levels.set(code, together(growing.levels.get(code), summary));
          continue;
        }
        // One that the quarter hours so far had not, and those of the week before neither, is read rarely.
        const before = stands.get(code) ?? (await standsBefore(store, device, one)).get(code);
        const last = { generation, timeS: summary.lastTimeS, value: summary.last };
        const between = exchanges.filter(
          (exchange) => (!before || !isBefore(exchange, before)) && isBefore(exchange, last),
        );
        const inside = between.filter((exchange) => !isBefore(exchange, { generation, timeS: summary.firstTimeS }));
        const advance =
          inside.length > 0
            ? overExchanges(
                await rowsOf(one.endS),
                summary,
                between.length > inside.length ? undefined : before,
                inside,
              )
            : advanceOf(summary, between.length > 0 ? undefined : before, between.length > 0);
        growing.advances.set(code, sumOf(growing.advances.get(code), advance));
        stands.set(code, last);
      }
    }
    const lastEndS = page.at(-1)?.endS;
    if (page.length < pageSlots || lastEndS === undefined) return;
    afterS = lastEndS;
  }
}

/** The last value of each register before a quarter hour, of those that it has itself from further back. */
async function standsBefore(store: Store, device: number, slot: StoredSlot): Promise<Map<number, Stand>> {
  const stands = new Map<number, Stand>();
  const wanted = slot.summary.codes.filter(({ code }) => quantityOfCode(code)?.cumulative);
  for (let key: SlotKey | undefined = slot, looked = 0; key && looked < lookFarBackSlots; ) {
    const page: readonly StoredSlot[] = await store.slotsBefore(device, key, lookBackSlots);
    for (const { generation, summary } of page)
      for (const { code, lastTimeS, last } of summary.codes)
        if (!stands.has(code)) stands.set(code, { generation, timeS: lastTimeS, value: last });
    looked += page.length;
    key = page.length < lookBackSlots || wanted.every(({ code }) => stands.has(code)) ? undefined : page.at(-1);
  }
  return stands;
}

/** A value of the very second of an exchange is of the meter before it. */
function isBefore(a: { generation: number; timeS: number }, b: { generation: number; timeS: number }): boolean {
  return a.generation < b.generation || (a.generation === b.generation && a.timeS < b.timeS);
}

function advanceOf(
  summary: CodeSummary,
  before: Pick<Stand, "timeS" | "value"> | undefined,
  exchanged = false,
): Advance {
  const { code, first, last, min, max, firstTimeS, lastTimeS } = summary;
  const span = { code, untilS: lastTimeS, exchanged };
  const isFallBefore = before !== undefined && first < before.value;
  const from = before === undefined || isFallBefore ? { value: first, timeS: firstTimeS } : before;
  const sinceS = isFallBefore ? before.timeS : from.timeS;
  if (last >= first) return { ...span, counted: last - from.value, sinceS, fell: isFallBefore };
  // Up to the highest value, and from the lowest one on.
  return { ...span, counted: max - from.value + (last - min), sinceS, fell: true };
}

/** Of a quarter hour in which the meter was exchanged: what each meter counted. */
function overExchanges(
  rows: readonly { timeS: number; generation: number; values: readonly number[] }[],
  { code }: CodeSummary,
  before: Stand | undefined,
  exchanges: readonly MeterExchange[],
): Advance {
  let total: Advance | undefined;
  let stand: Pick<Stand, "timeS" | "value"> | undefined = before;
  let left = [...exchanges];
  for (const { timeS, generation, values } of rows) {
    const at = values.findIndex((other, i) => i % 2 === 0 && other === code);
    if (at < 0) continue;
    const passed = left.filter((exchange) => isBefore(exchange, { generation, timeS }));
    left = left.slice(passed.length);
    const value = values[at + 1] as number;
    const one = { code, count: 1, firstTimeS: timeS, first: value, lastTimeS: timeS, last: value };
    const summary = { ...one, min: value, max: value, sum: 0 };
    total = sumOf(total, advanceOf(summary, passed.length > 0 ? undefined : stand, passed.length > 0));
    stand = { timeS, value };
  }
  if (total === undefined) throw new Error("the store has no booked row for a quarter hour that it keeps");
  return total;
}

function sumOf(sum: Advance | undefined, added: Advance): Advance {
  if (sum === undefined) return added;
  return {
    code: sum.code,
    counted: sum.counted + added.counted,
    sinceS: sum.sinceS,
    untilS: added.untilS,
    fell: sum.fell || added.fell,
    exchanged: sum.exchanged || added.exchanged,
  };
}

function together(level: Level | undefined, { code, count, min, max, sum }: CodeSummary): Level {
  if (level === undefined) return { code, count, min, max, sum };
  return {
    code,
    count: level.count + count,
    min: Math.min(level.min, min),
    max: Math.max(level.max, max),
    sum: level.sum + sum,
  };
}

/** The end of the last quarter hour of a meter that has a booked row. */
export async function lastEndS(store: Store, device: number, meter: number): Promise<number | undefined> {
  const ends: number[] = [];
  for (const series of await store.series(device)) {
    if (series.meter !== meter) continue;
    const after = { meter, generation: series.generation + 1, endS: -1 };
    const [newest] = await store.slotsBefore(device, after, 1);
    if (newest) ends.push(newest.endS);
  }
  return ends.length === 0 ? undefined : Math.max(...ends);
}

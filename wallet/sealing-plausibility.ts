/**
 * Which good rows cannot be true: a register that falls (M), more energy than the meter's connection can carry (O). They are
 * sealed all the same, marked, and a full node does not book them. The reference is the last good row of meter and plan; for
 * a register that the plan never had, that of another plan: all of them read the same meter.
 */
import type { Clock } from "../platform/clock.ts";
import { quantityOfCode } from "../protocol/quantity.ts";
import { statuses } from "../protocol/reading-status.ts";
import { eventCodes, type RecordEvent, type Row } from "../protocol/record.ts";
import type { Journal } from "./journal.ts";
import { plansMax } from "./journal-body.ts";
import type { PolicyMeter } from "./policy.ts";

/** How far the moments of two readings may lie off the ends of their slots together. */
const momentToleranceS = 2;
/**
 * How long the hub may have been off where no clock can say it: the reference is of before this process, by a clock that was ahead
 * of this one. A meter that counted more is believed once the process has run long enough for it.
 */
const offSecondsMax = 86_400;

interface Reference {
  readonly stand: number;
  readonly timeS: number;
  /** When the row was taken, by the monotonic clock; undefined where it was sealed before this process. */
  readonly takenS: number | undefined;
  /**
   * How much more the meter may have counted than `stand` shows, in Wh. It is what the resolution and the moments of reading
   * hide, and is granted once, not anew with each row: else rows of a second could carry any energy.
   */
  readonly creditWh: number;
}

export interface JudgedRows {
  readonly rows: readonly Row[];
  readonly events: readonly RecordEvent[];
  /** To be called once they are sealed. */
  keep(): void;
}

type References = Map<number, Reference>;

export class Plausibility {
  readonly #journal: Journal;
  readonly #clock: Clock;
  /** By meter and plan, by code. What the journal has is believed before this: this only knows more of it. */
  readonly #references = new Map<string, References>();
  /** Registers that stand below where they were: `meter/plan/code`. */
  #fallen = new Set<string>();

  /** Monotonic seconds of this process' start. */
  readonly #startedS: number;

  constructor(journal: Journal, clock: Clock) {
    this.#journal = journal;
    this.#clock = clock;
    this.#startedS = clock.monotonicMs() / 1_000;
  }

  /** Marks the rows of one meter and plan that cannot be true; they follow each other in time. */
  judge(meter: PolicyMeter, plan: number, codes: readonly number[], rows: readonly Row[]): JudgedRows {
    const registers = codes
      .map((code, index) => ({ code, index, quantity: quantityOfCode(code) }))
      .filter(({ quantity }) => quantity?.cumulative === true)
      .map(({ code, index, quantity }) => ({ code, index, isEnergy: quantity?.unit === "Wh" }));
    const key = `${meter.index}/${plan}`;
    const references = this.#known(meter.index, plan);
    const fallen = new Set(this.#fallen);
    const events: RecordEvent[] = [];
    const takenS = this.#clock.monotonicMs() / 1_000;
    const now = { timeS: this.#clock.wallMs() / 1_000, takenS, runningS: takenS - this.#startedS };
    const judged = rows.map((row): Row => {
      if (row.status !== statuses.good || registers.length === 0) return row;
      const fell = registers.filter(
        ({ code, index }) => (row.values[index] as number) < (references.get(code)?.stand ?? Number.NEGATIVE_INFINITY),
      );
      for (const { code } of registers) {
        const place = `${key}/${code}`;
        if (!fell.some((other) => other.code === code)) fallen.delete(place);
        else if (!fallen.has(place)) {
          fallen.add(place);
          // One that goes up and down in the rows of one request is told of once.
          if (!events.some(([, , other]) => other === code))
            events.push([eventCodes.registerWentBack, meter.index, code]);
        }
      }
      if (fell.length > 0) return { ...row, status: statuses.manipulated };
      const next = registers.map(({ code, index, isEnergy }): [number, Reference] => {
        const stand = row.values[index] as number;
        const before = references.get(code);
        const { takenS, lastedS } = takenAt(row.timeS, before, now);
        const creditWh = isEnergy ? creditOf(meter, before, { stand, lastedS }) : 0;
        return [code, { stand, timeS: row.timeS, takenS, creditWh }];
      });
      if (next.some(([, { creditWh }]) => creditWh < 0)) return { ...row, status: statuses.outOfRange };
      for (const [code, reference] of next) references.set(code, reference);
      return row;
    });
    const keep = (): void => {
      this.#references.set(key, references);
      this.#fallen = fallen;
    };
    return { rows: judged, events, keep };
  }

  /** References of a plan: its own, and where it has none for a register, the newest of another plan. */
  #known(meter: number, plan: number): References {
    const others = Array.from({ length: plansMax }, (_, other) => other).filter((other) => other !== plan);
    const inherited = others
      .flatMap((other) => [...this.#knownOf(meter, other)])
      .sort(([, a], [, b]) => a.timeS - b.timeS);
    return new Map([...inherited, ...this.#knownOf(meter, plan)]);
  }

  #knownOf(meter: number, plan: number): References {
    const known = this.#references.get(`${meter}/${plan}`);
    return new Map(
      (this.#journal.lastRow(meter, plan)?.registers ?? []).map(([code, stand, timeS]) => {
        const reference = known?.get(code);
        if (reference?.stand === stand && reference.timeS === timeS) return [code, reference];
        return [code, { stand, timeS, takenS: undefined, creditWh: Number.POSITIVE_INFINITY }];
      }),
    );
  }
}

/**
 * When a row was taken by the monotonic clock, and how long after its reference at most; undefined where there is no reference
 * with a time. A row that names a time before its reference was not taken
 * before it, else its successor had all the time between for energy that no connection carries.
 */
function takenAt(
  timeS: number,
  before: Reference | undefined,
  now: { readonly timeS: number; readonly takenS: number; readonly runningS: number },
): { readonly takenS: number; readonly lastedS: number | undefined } {
  const offsetS = now.timeS - now.takenS;
  const takenS = timeS - offsetS;
  if (before === undefined) return { takenS, lastedS: undefined };
  if (before.takenS === undefined && timeS <= before.timeS) {
    if (before.timeS === 0) return { takenS, lastedS: undefined };
    if (now.timeS <= before.timeS) return { takenS: now.takenS, lastedS: offSecondsMax + now.runningS };
    return { takenS: now.takenS, lastedS: now.timeS - before.timeS };
  }
  if (before.timeS === 0) return { takenS, lastedS: undefined };
  const beforeS = before.takenS ?? before.timeS - offsetS;
  return { takenS: Math.max(takenS, beforeS), lastedS: Math.max(0, takenS - beforeS) };
}

/** The credit that is left after a row, in Wh; negative where the meter cannot have counted so much. */
function creditOf(
  { powerMaxW, resolutionWh }: PolicyMeter,
  before: Reference | undefined,
  row: { readonly stand: number; readonly lastedS: number | undefined },
): number {
  const most = resolutionWh + (powerMaxW * momentToleranceS) / 3_600;
  if (powerMaxW === 0 || before === undefined || row.lastedS === undefined) return most;
  const couldWh = (powerMaxW * row.lastedS) / 3_600;
  return Math.min(most, Math.min(most, before.creditWh) + couldWh - (row.stand - before.stand));
}

/**
 * Hours, days and months by a time zone. Slots are made of whole quarter hours, so offsets from UTC count in quarter hours; those
 * of all zones are such since 1972. A day of a change of the clock has 23 or 25 hours, and an hour that comes twice is two slots.
 */

export const resolutions = ["quarter", "hour", "day", "month"] as const;
export type Resolution = (typeof resolutions)[number];

/** From `startS` to `endS`, in Unix seconds. */
export interface TimeSlot {
  readonly startS: number;
  readonly endS: number;
}

const quarterS = 900;
const hourS = 3_600;
const dayS = 86_400;
/** No zone is as far from UTC. */
const offsetMaxS = 27 * hourS;
const cachedMax = 20_000;

export class Calendar {
  readonly zone: string;
  readonly #format: Intl.DateTimeFormat;
  readonly #offsets = new Map<number, number>();
  readonly #slots = new Map<string, TimeSlot>();

  /** Throws RangeError where there is no such zone. */
  constructor(zone: string) {
    this.zone = zone;
    this.#format = new Intl.DateTimeFormat("en-US", {
      ...{ timeZone: zone, hourCycle: "h23", calendar: "gregory", numberingSystem: "latn", era: "short" },
      ...{ year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric" },
    });
  }

  /** The slot in which a moment lies; the moment of its start is in it, that of its end is not. */
  slotAt(resolution: Resolution, timeS: number): TimeSlot {
    const quarter = Math.floor(timeS / quarterS) * quarterS;
    if (resolution === "quarter") return { startS: quarter, endS: quarter + quarterS };
    if (resolution === "hour") return this.#hourAt(quarter);
    const day = Math.floor((quarter + this.offsetS(quarter)) / dayS);
    return resolution === "day" ? this.#days(day, day + 1) : this.#days(...monthOf(day));
  }

  /** Seconds that the zone's clocks are ahead of UTC. */
  offsetS(timeS: number): number {
    const quarter = Math.floor(timeS / quarterS) * quarterS;
    const day = Math.floor(quarter / dayS) * dayS;
    const before = this.#exactOffset(day);
    return before === this.#exactOffset(day + dayS) ? before : this.#exactOffset(quarter);
  }

  /** The moment at which clocks first show midnight or later of a day, counted from 1970-01-01. */
  dayStartS(day: number): number {
    const midnight = day * dayS;
    const offset = this.offsetS(midnight - offsetMaxS);
    if (offset === this.offsetS(midnight + offsetMaxS)) return midnight - offset;
    // The clock changes about this day, at midnight perhaps, or by a whole day (Apia, 2011).
    let start = midnight - offsetMaxS;
    while (start + this.offsetS(start) < midnight) start += quarterS;
    return start;
  }

  /** ISO 8601 with the offset: 2026-03-29T03:00:00+02:00. */
  text(timeS: number): string {
    const offsetS = this.offsetS(timeS);
    const local = new Date((timeS + offsetS) * 1_000).toISOString().slice(0, 19);
    const two = (value: number) => `${Math.floor(value)}`.padStart(2, "0");
    const ahead = Math.abs(offsetS);
    return `${local}${offsetS < 0 ? "-" : "+"}${two(ahead / hourS)}:${two((ahead % hourS) / 60)}`;
  }

  #hourAt(quarter: number): TimeSlot {
    const offset = this.offsetS(quarter);
    const hour = Math.floor((quarter + offset) / hourS);
    const isIn = (other: number) => this.offsetS(other) === offset && Math.floor((other + offset) / hourS) === hour;
    let startS = quarter;
    while (isIn(startS - quarterS)) startS -= quarterS;
    let endS = quarter + quarterS;
    while (isIn(endS)) endS += quarterS;
    return { startS, endS };
  }

  #days(first: number, next: number): TimeSlot {
    const key = `${first}/${next}`;
    let slot = this.#slots.get(key);
    if (slot === undefined) {
      if (this.#slots.size >= cachedMax) this.#slots.clear();
      slot = { startS: this.dayStartS(first), endS: this.dayStartS(next) };
      this.#slots.set(key, slot);
    }
    return slot;
  }

  #exactOffset(quarter: number): number {
    let offset = this.#offsets.get(quarter);
    if (offset === undefined) {
      if (this.#offsets.size >= cachedMax) this.#offsets.clear();
      const part = Object.fromEntries(
        this.#format.formatToParts(quarter * 1_000).map(({ type, value }) => [type, Number(value)]),
      ) as Record<"year" | "month" | "day" | "hour" | "minute" | "second", number>;
      const local = Date.UTC(part.year, part.month - 1, part.day, part.hour, part.minute, part.second) / 1_000;
      offset = Math.round((local - quarter) / quarterS) * quarterS;
      this.#offsets.set(quarter, offset);
    }
    return offset;
  }
}

export function isTimeZone(name: string): boolean {
  try {
    new Calendar(name);
    return true;
  } catch (error) {
    if (error instanceof RangeError) return false;
    throw error;
  }
}

/** First day of the month of a day, and of the next month, both counted from 1970-01-01. */
function monthOf(day: number): [number, number] {
  const date = new Date(day * dayS * 1_000);
  const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()];
  return [Date.UTC(year, month, 1) / 1_000 / dayS, Date.UTC(year, month + 1, 1) / 1_000 / dayS];
}

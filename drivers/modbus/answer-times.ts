/**
 * How long each unit of a line takes to answer, learned from its answers: what a time-out is made from. Pure.
 *
 * A profile's time-out has to fit the slowest meter of its kind; this very meter mostly answers in a tenth of that, and a
 * lost answer should cost no more than it has to.
 */

/** Answers from which a time-out is made. */
const latenciesMax = 32;
/** A time-out is so many times the longest of the last latencies. */
const timeoutFactor = 4;
/** An answer is usually there within so many times the longest of them, and this. */
const usualFactor = 2;
const usualExtraMs = 10;
/** No learned time-out is shorter, so that an adapter's lumps and a busy hub do not pass for silence. */
const timeoutFloorMs = 100;

export interface AnswerLimits {
  /** The profile's: for a unit that has not answered yet, and the least for one that was silent just now. */
  readonly timeoutMs: number;
  /** Never longer than this. */
  readonly slowestAnswerMs: number;
}

interface NextAnswer extends AnswerLimits {
  /** By then it has usually begun. */
  readonly usualMs: number;
}

export interface AnswerLatency {
  /** Answers since the line was made, late ones included. */
  readonly answers: number;
  /** Of the last 32 answers: from the request's last byte to the answer, without the answer's own time on the wire. */
  readonly medianMs: number;
  readonly maxMs: number;
}

interface UnitTimes {
  answers: number;
  /** Ring of the last latencies. */
  readonly latenciesMs: number[];
  /** Time-outs since the unit was last heard. */
  silences: number;
  /** Answers that nobody could read, since one that could be. */
  spoilt: number;
}

export class AnswerTimes {
  readonly #units = new Map<number, UnitTimes>();

  /** An answer came; `latencyMs` after its request, in time or late. */
  answered(unit: number, latencyMs: number): void {
    const times = this.#of(unit);
    times.latenciesMs[times.answers++ % latenciesMax] = Math.max(0, latencyMs);
    times.silences = 0;
    times.spoilt = 0;
  }

  /** Nothing was heard of the unit until the deadline. */
  wasSilent(unit: number): void {
    this.#of(unit).silences++;
  }

  /** What came until the deadline was no answer: a wrong CRC, or another's. */
  wasSpoilt(unit: number): void {
    this.#of(unit).spoilt++;
  }

  /**
   * The time-out of the next request, and how long the line rests should that fail. After a silence the time-out is the profile's: no
   * reading is to be lost because a unit became slower than it was. A unit that stayed silent before, through the whole rest, or
   * could not be understood, makes the others wait no longer than its time-out: late answers of it are still kept apart by their
   * length.
   */
  next(unit: number, { timeoutMs, slowestAnswerMs }: AnswerLimits): NextAnswer {
    const times = this.#units.get(unit);
    const slowestMs = Math.max(timeoutMs, slowestAnswerMs);
    let nextMs = timeoutMs;
    let usualMs = timeoutMs;
    if (times !== undefined && times.latenciesMs.length > 0) {
      const longestMs = Math.max(...times.latenciesMs);
      usualMs = usualFactor * longestMs + usualExtraMs;
      const learnedMs = Math.max(timeoutFactor * longestMs, Math.min(timeoutFloorMs, timeoutMs));
      nextMs = Math.min(times.silences === 0 ? learnedMs : Math.max(timeoutMs, learnedMs), slowestMs);
    }
    const failures = (times?.silences ?? 0) + (times?.spoilt ?? 0);
    const restMs = failures > 0 ? nextMs : slowestMs;
    return { timeoutMs: nextMs, slowestAnswerMs: restMs, usualMs: Math.min(usualMs, nextMs) };
  }

  /** Undefined for a unit that has not answered. */
  latencyOf(unit: number): AnswerLatency | undefined {
    const times = this.#units.get(unit);
    if (times === undefined || times.answers === 0) return undefined;
    const sorted = times.latenciesMs.toSorted((a, b) => a - b);
    return { answers: times.answers, medianMs: sorted[sorted.length >> 1]!, maxMs: sorted.at(-1)! };
  }

  #of(unit: number): UnitTimes {
    let times = this.#units.get(unit);
    if (times === undefined) {
      times = { answers: 0, latenciesMs: [], silences: 0, spoilt: 0 };
      this.#units.set(unit, times);
    }
    return times;
  }
}

/**
 * The radio's own measure of airtime: from what a receiver sees (spreading factor, bandwidth, bytes of the whole PHYPayload), never from
 * what a sender believes. It shares no line with the agent's sums in drivers/lora/airtime.ts, so that a mistake there shows here.
 */

export interface RadioSettings {
  readonly frequencyHz: number;
  readonly spreadingFactor: number;
  readonly bandwidthKhz: number;
}

/** Symbols of a LoRaWAN preamble: 8, then two of sync word and two and a quarter of down-chirps. */
const preambleSymbols = 8 + 2 + 2.25;
/** What the explicit header and the first code block need, whatever the length. */
const firstBlockSymbols = 8;

/**
 * Milliseconds on the air at coding rate 4/5 with explicit header. Counted as the modulator does: a nibble stream is cut into blocks, each
 * of which takes five symbols; the first block also holds the header and has two bits a symbol less.
 */
export function onAirMs(
  { spreadingFactor, bandwidthKhz }: Omit<RadioSettings, "frequencyHz">,
  phyBytes: number,
  hasCrc: boolean,
): number {
  const symbolUs = (2 ** spreadingFactor * 1_000) / bandwidthKhz;
  // The low data rate optimisation is mandated where a symbol lasts 16 ms or more: two bits of each are not used.
  const bitsOfSymbol = symbolUs >= 16_000 ? spreadingFactor - 2 : spreadingFactor;
  const nibbles = 2 * phyBytes + (hasCrc ? 4 : 0);
  // The first block has spreadingFactor − 2 nibbles, five of which are the header.
  let rest = nibbles - (spreadingFactor - 2 - 5);
  let symbols = firstBlockSymbols;
  while (rest > 0) {
    symbols += 5;
    rest -= bitsOfSymbol;
  }
  return ((preambleSymbols + symbols) * symbolUs) / 1_000;
}

export interface SubBandRule {
  readonly fromMhz: number;
  readonly toMhz: number;
  /** 0.01 is 36 s in any hour. */
  readonly dutyCycle: number;
}

export interface SubBandAirtime extends SubBandRule {
  readonly frames: number;
  readonly totalMs: number;
  /** The most that was on the air in any 3,600 s, wherever they begin. */
  readonly worstHourMs: number;
  /** What is allowed in an hour. */
  readonly hourLimitMs: number;
  /** How often a frame made the rolling hour exceed the limit. */
  readonly excesses: number;
}

interface Span {
  readonly startMs: number;
  readonly endMs: number;
}

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
/** Float sums of many frames: a nanosecond is no excess. */
const toleranceMs = 1e-6;

/** The most that was on the air in any window of one length. Frames come in the order of their ends and do not overlap. */
class RollingWindow {
  readonly #lengthMs: number;
  #spans: Span[] = [];
  worstMs = 0;

  constructor(lengthMs: number) {
    this.#lengthMs = lengthMs;
  }

  /** The worst window that ends no later than this frame. */
  add(span: Span): number {
    const kept = span.startMs - this.#lengthMs;
    if (this.#spans.length > 0 && this.#spans[0]!.endMs <= kept)
      this.#spans = this.#spans.filter(({ endMs }) => endMs > kept);
    this.#spans.push(span);
    // The sum as a function of the window's end is piecewise linear; where it is highest, either the window ends with a frame, or it
    // begins with one while it ends inside this one.
    let worst = this.#sumUntil(span.endMs);
    for (const { startMs } of this.#spans) {
      const endMs = startMs + this.#lengthMs;
      if (endMs > span.startMs && endMs < span.endMs) worst = Math.max(worst, this.#sumUntil(endMs));
    }
    this.worstMs = Math.max(this.worstMs, worst);
    return worst;
  }

  /** What of the window that ends at `untilMs` was on the air. */
  #sumUntil(untilMs: number): number {
    const fromMs = untilMs - this.#lengthMs;
    let sum = 0;
    for (const { startMs, endMs } of this.#spans)
      sum += Math.max(0, Math.min(endMs, untilMs) - Math.max(startMs, fromMs));
    return sum;
  }

  sumNow(nowMs: number): number {
    return this.#sumUntil(nowMs);
  }
}

/** What one device had on the air. */
export class AirtimeMeter {
  readonly #bands: { rule: SubBandRule; window: RollingWindow; frames: number; totalMs: number; excesses: number }[];
  readonly #hour = new RollingWindow(hourMs);
  readonly #day = new RollingWindow(dayMs);
  /** Frames outside every sub-band that the law knows; a device with any is broken. */
  outside = 0;
  frames = 0;
  totalMs = 0;

  constructor(rules: readonly SubBandRule[]) {
    this.#bands = rules.map((rule) => ({
      rule,
      window: new RollingWindow(hourMs),
      frames: 0,
      totalMs: 0,
      excesses: 0,
    }));
  }

  add(frequencyHz: number, startMs: number, endMs: number): void {
    const span = { startMs, endMs };
    this.frames++;
    this.totalMs += endMs - startMs;
    this.#hour.add(span);
    this.#day.add(span);
    if (this.#bands.length === 0) return;
    const mhz = frequencyHz / 1e6;
    const band = this.#bands.find(({ rule }) => mhz >= rule.fromMhz && mhz < rule.toMhz);
    if (band === undefined) {
      this.outside++;
      return;
    }
    band.frames++;
    band.totalMs += endMs - startMs;
    if (band.window.add(span) > band.rule.dutyCycle * hourMs + toleranceMs) band.excesses++;
  }

  /** Sub-bands with a frame in them. */
  subBands(): SubBandAirtime[] {
    return this.#bands
      .filter(({ frames }) => frames > 0)
      .map(({ rule, window, frames, totalMs, excesses }) => ({
        ...rule,
        frames,
        totalMs,
        worstHourMs: window.worstMs,
        hourLimitMs: rule.dutyCycle * hourMs,
        excesses,
      }));
  }

  /** Over all sub-bands together. */
  get worstHourMs(): number {
    return this.#hour.worstMs;
  }

  get worstDayMs(): number {
    return this.#day.worstMs;
  }

  lastHourMs(nowMs: number): number {
    return this.#hour.sumNow(nowMs);
  }

  lastDayMs(nowMs: number): number {
    return this.#day.sumNow(nowMs);
  }
}

/** In which order a line is searched for meters, and how long that takes at most. Pure. */
import type { MeterProfile, Parity } from "./profile.ts";

/** How a serial line may be set. */
export interface LineSettings {
  readonly baud: number;
  readonly parity: Parity;
  readonly stopBits: 1 | 2;
}

/** Some units asked one after the other at one setting; a line over TCP has none. */
export interface SearchStep {
  readonly settings: LineSettings | undefined;
  readonly units: readonly number[];
  readonly timeoutMs: number;
}

export interface SearchPlanOptions {
  /** Units to ask, ascending. */
  readonly units: readonly number[];
  /** Settings to try, the likeliest first; undefined: a line over TCP. */
  readonly settings: readonly LineSettings[] | undefined;
  /** Whose factory settings come before all others. */
  readonly profiles: readonly MeterProfile[];
  /** How long an answer of a unit that nothing is known of is waited for. */
  readonly timeoutMs: number;
}

/** `19200 8E1`, as makers print it. */
export function framingText({ baud, parity, stopBits }: LineSettings): string {
  return `${baud} 8${{ none: "N", even: "E", odd: "O" }[parity]}${stopBits}`;
}

/** Meters are numbered from 1 up: these are asked at every speed before any other. */
export const nearUnitMax = 10;

/** Speeds by how often meters have them. */
export const searchBauds: readonly number[] = [9600, 19_200, 2400, 38_400, 4800, 115_200, 57_600, 1200];

/** Bits of a character: start, 8 data, parity, stop. */
export function characterBits({ parity, stopBits }: LineSettings): number {
  return 9 + (parity === "none" ? 0 : 1) + stopBits;
}

/**
 * Steps, quickest first: factory settings of the known makes; units 1 to 10 at every setting; the others at every setting. A
 * line that answers is then searched to the end at that setting alone.
 */
export function planSearch(options: SearchPlanOptions): SearchStep[] {
  const { units, settings, profiles, timeoutMs } = options;
  const near = units.filter((unit) => unit <= nearUnitMax);
  const far = units.filter((unit) => unit > nearUnitMax);
  if (settings === undefined) return [near, far].map((asked) => ({ settings, units: asked, timeoutMs })).filter(isStep);
  const factory = factorySteps(settings, units, profiles);
  const done = (candidate: LineSettings): readonly number[] =>
    factory.filter((step) => isSame(step.settings, candidate)).flatMap((step) => step.units);
  const nearSteps = settings.map((candidate) => ({
    settings: candidate,
    units: near.filter((unit) => !done(candidate).includes(unit)),
    timeoutMs,
  }));
  const farSteps = settings.map((candidate) => ({
    settings: candidate,
    units: far.filter((unit) => !done(candidate).includes(unit)),
    timeoutMs,
  }));
  return [...factory, ...nearSteps, ...farSteps].filter(isStep);
}

function isStep(step: SearchStep): boolean {
  return step.units.length > 0;
}

export function isSame(one: LineSettings | undefined, other: LineSettings | undefined): boolean {
  return one?.baud === other?.baud && one?.parity === other?.parity && one?.stopBits === other?.stopBits;
}

/** What leaves the factories: each setting once, that of most makes first, with the time-out that these makes want. */
function factorySteps(
  settings: readonly LineSettings[],
  units: readonly number[],
  profiles: readonly MeterProfile[],
): SearchStep[] {
  const steps: (SearchStep & { makes: number })[] = [];
  for (const candidate of settings) {
    const makes = profiles.filter(
      ({ lines, factory }) =>
        lines.includes("rtu") && factory.bauds[0] === candidate.baud && factory.parities[0] === candidate.parity,
    );
    const asked = new Set(makes.map(({ factory }) => factory.unit).filter((unit) => units.includes(unit)));
    if (asked.size === 0) continue;
    const timeoutMs = Math.max(...makes.map((profile) => profile.timeoutMs));
    steps.push({ settings: candidate, units: [...asked].sort((a, b) => a - b), timeoutMs, makes: makes.length });
  }
  return steps
    .sort((a, b) => b.makes - a.makes)
    .map(({ settings, units, timeoutMs }) => ({ settings, units, timeoutMs }));
}

/** Characters of a request and of the shortest answer, and the silence before the next request. */
const charactersPerTry = 8 + 9 + 4;
/** Opening a port at another speed. */
const openMs = 60;

/** How long a step takes when nobody answers. */
export function stepMs({ settings, units, timeoutMs }: SearchStep): number {
  const characterMs = settings === undefined ? 0 : (1000 * characterBits(settings)) / settings.baud;
  return openMs + units.length * (timeoutMs + charactersPerTry * characterMs);
}

/** Finding out which make a unit is: a few dozen short reads, of which some are not answered. */
const recognitionMs = 15_000;

/**
 * The longest that a search may take: every step in vain but the last, where a unit answers, and every unit is asked twice.
 * Recognising more than eight meters may take longer; the search is not cut short by that.
 */
export function longestSearchMs(steps: readonly SearchStep[], units: number, timeoutMs: number): number {
  const inVain = steps.reduce((sum, step) => sum + stepMs(step), 0);
  return inVain + 2 * units * timeoutMs + 8 * recognitionMs;
}

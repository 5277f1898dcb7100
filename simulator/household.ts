/**
 * A house with three phases and solar panels, as a pure function of seed and time.
 *
 * Nothing is kept between calls that the next one depends on: a simulator that is killed and started again goes on with
 * the registers it would have had, and its energies never fall. One seeded day is laid out at steps of 1 s and its energies
 * summed once; each calendar day is that day times a factor of its own. Powers, currents and energies agree: energy is the
 * sum of the very powers that are reported.
 */

/** 2025-01-01T00:00:00Z: when the meter was fitted, its registers at the seed's first values. */
export const householdStartMs = Date.UTC(2025, 0, 1);

const daySeconds = 86_400;
const dayMs = daySeconds * 1000;
const phases = [0, 1, 2] as const;

/** What a meter at the grid connection sees. Floats, as in the meter itself; import is positive. */
export interface HouseholdState {
  readonly voltageV: readonly [number, number, number];
  readonly currentA: readonly [number, number, number];
  readonly powerW: readonly [number, number, number];
  readonly reactivePowerVar: readonly [number, number, number];
  readonly frequencyHz: number;
  readonly importWh: number;
  readonly exportWh: number;
  readonly importVarh: number;
  readonly exportVarh: number;
}

export interface Household {
  /** The state at a Unix time in milliseconds. @throws RangeError before householdStartMs */
  at(unixMs: number): HouseholdState;
}

/** A number in [0, 1) from a seed and an index: the integer hash "lowbias32" of C. Wellons. */
function noise(seed: number, index: number): number {
  let x = (Math.imul(seed, 0x9e3779b1) ^ Math.imul(index, 0x85ebca6b)) >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return ((x ^ (x >>> 16)) >>> 0) / 2 ** 32;
}

/** Noise that drifts: linear between random points `periodS` apart. */
function drift(seed: number, second: number, periodS: number): number {
  const [index, rest] = [Math.floor(second / periodS), (second % periodS) / periodS];
  return noise(seed, index) * (1 - rest) + noise(seed, index + 1) * rest;
}

/** A bump of height 1 around `hour`, `widthH` hours wide. */
function bump(second: number, hour: number, widthH: number): number {
  return Math.exp(-(((second / 3600 - hour) / widthH) ** 2));
}

/** Load in W of one phase at a second of the day, before the day's factor. */
function loadW(seed: number, phase: number, second: number): number {
  const own = seed * 7 + phase;
  const standby = 60 + 25 * phase;
  const people = 500 * bump(second, 7.2, 0.9) + 750 * bump(second, 19, 1.8) + 180 * bump(second, 12.5, 1);
  const fridge = phase === 0 && (second + Math.floor(noise(own, 1) * 2400)) % 2400 < 800 ? 95 : 0;
  // Kettle, oven, washing machine: on for some of the slots of three minutes when people are about.
  const slot = Math.floor(second / 180);
  const busy = 0.02 + 0.2 * bump(second, 7.2, 0.9) + 0.28 * bump(second, 18.6, 1.5);
  const appliance = noise(own + 11, slot) < busy ? 600 + 1500 * noise(own + 13, slot) : 0;
  return (
    standby + people * (0.6 + 0.8 * drift(own + 17, second, 400)) + fridge + appliance + 12 * noise(own + 19, second)
  );
}

/** Output in W of a solar plant of 4.2 kWp, spread evenly over the phases. */
function solarW(seed: number, second: number): number {
  const height = Math.sin((Math.PI * (second / 3600 - 5.5)) / 13.5);
  if (height <= 0 || second < 5.5 * 3600 || second > 19 * 3600) return 0;
  const cloud = Math.min(1, 0.35 + 1.1 * drift(seed * 7 + 23, second, 600)) - 0.03 * noise(seed * 7 + 29, second);
  return 4200 * height ** 1.3 * cloud;
}

/** Makes the house of a seed: about 50 ms and 5 MB, once. */
export function createHousehold(seed: number): Household {
  const power = phases.map(() => new Float32Array(daySeconds));
  // Sums up to each second, for a day of factor 1.
  const [importWh, exportWh, reactiveVarh] = [0, 1, 2].map(() => new Float64Array(daySeconds + 1)) as [
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  for (let second = 0; second < daySeconds; second++) {
    const solar = solarW(seed, second) / 3;
    let total = 0;
    for (const phase of phases) {
      power[phase]![second] = loadW(seed, phase, second) - solar;
      total += power[phase]![second]!;
    }
    importWh[second + 1] = importWh[second]! + Math.max(0, total) / 3600;
    exportWh[second + 1] = exportWh[second]! + Math.max(0, -total) / 3600;
    reactiveVarh[second + 1] = reactiveVarh[second]! + reactiveOf(total) / 3600;
  }

  /** 0.8–1.2: how this day differs from the laid-out one. */
  const dayFactor = (day: number): number => 0.8 + 0.4 * noise(seed * 7 + 31, day);
  const known = { day: 0, sum: 0 };
  /** Sum of the factors of the days before `day`; kept for the last day asked for, always added in the same order. */
  const factorsBefore = (day: number): number => {
    if (day < known.day) Object.assign(known, { day: 0, sum: 0 });
    for (; known.day < day; known.day++) known.sum += dayFactor(known.day);
    return known.sum;
  };

  return {
    at: (unixMs) => {
      if (!(unixMs >= householdStartMs)) {
        throw new RangeError(
          `the house has no state before ${new Date(householdStartMs).toISOString()}, got ${unixMs}`,
        );
      }
      const sinceStartMs = unixMs - householdStartMs;
      const day = Math.floor(sinceStartMs / dayMs);
      const [second, fraction] = [Math.floor((sinceStartMs % dayMs) / 1000), (sinceStartMs % 1000) / 1000];
      const [before, factor] = [factorsBefore(day), dayFactor(day)];
      const energy = (sums: Float64Array): number => {
        const within = sums[second]! + (sums[second + 1]! - sums[second]!) * fraction;
        return before * sums[daySeconds]! + factor * within;
      };
      const powerW = phases.map((phase) => power[phase]![second]! * factor) as [number, number, number];
      const tick = day * daySeconds + second;
      const voltageV = phases.map(
        (phase) =>
          230.5 + 3 * drift(seed * 7 + 37 + phase, tick, 300) - powerW[phase]! / 1500 + 0.4 * noise(41 + phase, tick),
      ) as [number, number, number];
      const reactivePowerVar = powerW.map((watt) => reactiveOf(watt)) as [number, number, number];
      const currentA = phases.map(
        (phase) => Math.hypot(powerW[phase]!, reactivePowerVar[phase]!) / voltageV[phase]!,
      ) as [number, number, number];
      return {
        voltageV,
        currentA,
        powerW,
        reactivePowerVar,
        frequencyHz: 49.98 + 0.04 * drift(seed * 7 + 43, tick, 60),
        importWh: 1_250_000 * noise(seed, 47) + energy(importWh),
        exportWh: 900_000 * noise(seed, 53) + energy(exportWh),
        importVarh: 90_000 * noise(seed, 59) + energy(reactiveVarh),
        exportVarh: 0,
      };
    },
  };
}

/** Reactive power of motors and power supplies behind an active power: a fifth of it, never capacitive. */
function reactiveOf(watt: number): number {
  return 0.2 * Math.abs(watt);
}

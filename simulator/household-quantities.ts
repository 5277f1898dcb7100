/** What a meter of a house would show under each quantity code, from the state of the house. */
import { type Household, householdStartMs } from "./household.ts";

/** `single`: a house with one phase, on which all of it hangs. */
export type Wiring = "single" | "three";

const quarterHourMs = 900_000;
/** A battery of 10 kWh, two years old; constant, since the house's power does not go through it. */
const storage: readonly (readonly [code: number, value: number])[] = [
  [15, 4_321_000],
  [16, 3_987_000],
  [17, 750],
  [18, 634],
  [19, 6_200],
  [30, 10_000],
  [31, 973],
  [32, 412],
  [33, 5_000],
  [34, 5_000],
  [35, 4],
];

/**
 * Values by quantity code in the code's unit, unrounded. Powers that come as an import and an export are signed here: import
 * power is minus export power, as a signed register has it.
 */
export function householdQuantities(household: Household, unixMs: number, wiring: Wiring): ReadonlyMap<number, number> {
  const state = household.at(unixMs);
  const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
  const [netW, netVar] = [sum(state.powerW), sum(state.reactivePowerVar)];
  const apparentVa = Math.hypot(netW, netVar);
  const quarter = household.at(Math.max(householdStartMs, Math.floor(unixMs / quarterHourMs) * quarterHourMs));
  const values = new Map<number, number>(storage);
  const set = (pairs: readonly (readonly [number, number])[]): void => {
    for (const [code, value] of pairs) values.set(code, value);
  };
  set([
    [1, netW],
    [2, state.importWh],
    [3, -netW],
    [4, state.exportWh],
    [5, netVar],
    [6, state.importVarh],
    [7, -netVar],
    [8, state.exportVarh],
    [9, apparentVa],
    [10, Math.hypot(state.importWh, state.importVarh)],
    [11, 0],
    [12, 0],
    [13, apparentVa === 0 ? 1000 : (1000 * netW) / apparentVa],
    [14, state.frequencyHz * 1000],
    [29, netW],
    [36, 10_000],
    [37, 4_200_000],
    // The cheap tariff has two fifths of it, so that the tariffs add up to the total.
    [38, 0.6 * state.importWh],
    [39, 0.4 * state.importWh],
    [40, state.importWh - quarter.importWh],
    [41, state.exportWh - quarter.exportWh],
    [42, 4_870],
    [43, 0.6 * state.exportWh],
    [44, 0.4 * state.exportWh],
  ]);
  if (wiring === "single") {
    const volt = state.voltageV[0];
    set([
      [20, 1000 * volt],
      [23, (1000 * apparentVa) / volt],
      [26, netW],
    ]);
    return values;
  }
  for (const phase of [0, 1, 2] as const) {
    set([
      [20 + phase, 1000 * state.voltageV[phase]],
      [23 + phase, 1000 * state.currentA[phase]],
      [26 + phase, state.powerW[phase]],
    ]);
  }
  return values;
}

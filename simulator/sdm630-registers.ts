/**
 * The input registers of an Eastron SDM630-Modbus V2 as its manual lists them (Modbus protocol V2.0), filled from a
 * household. Function 4, float32 in two registers, high word first.
 */
import type { HouseholdState } from "./household.ts";
import { RegisterImage } from "./register-image.ts";

/** Last register of the input table of V2.0 (0x017C, total reactive energy of L3) and its second word. */
const sdm630InputRegisterMax = 0x017d;
/** Most registers a request may ask for: 40 values (V1.8, V2.0). */
export const sdm630CountMax = 80;

/** Values by address; a parameter that this wiring does not have reads 0 (V2.0), so what is not listed here does. */
export function sdm630InputValues(state: HouseholdState): ReadonlyMap<number, number> {
  const { voltageV, currentA, powerW, reactivePowerVar } = state;
  const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
  const apparentVa = powerW.map((watt, phase) => Math.hypot(watt, reactivePowerVar[phase]!));
  const totalW = sum(powerW);
  const totalVar = sum(reactivePowerVar);
  const totalVa = Math.hypot(totalW, totalVar);
  const values = new Map<number, number>();
  for (const phase of [0, 1, 2] as const) {
    const at = 2 * phase;
    values.set(0x00 + at, voltageV[phase]);
    values.set(0x06 + at, currentA[phase]);
    values.set(0x0c + at, powerW[phase]);
    values.set(0x12 + at, apparentVa[phase]!);
    values.set(0x18 + at, reactivePowerVar[phase]);
    values.set(0x1e + at, apparentVa[phase]! === 0 ? 1 : powerW[phase] / apparentVa[phase]!);
  }
  values.set(0x2a, sum(voltageV) / 3);
  values.set(0x2e, sum(currentA) / 3);
  values.set(0x30, sum(currentA));
  values.set(0x34, totalW);
  values.set(0x38, totalVa);
  values.set(0x3c, totalVar);
  values.set(0x3e, totalVa === 0 ? 1 : totalW / totalVa);
  values.set(0x46, state.frequencyHz);
  values.set(0x48, state.importWh / 1000);
  values.set(0x4a, state.exportWh / 1000);
  values.set(0x4c, state.importVarh / 1000);
  values.set(0x4e, state.exportVarh / 1000);
  values.set(0x156, (state.importWh + state.exportWh) / 1000);
  values.set(0x158, (state.importVarh + state.exportVarh) / 1000);
  return values;
}

/** The whole input table: what the profile does not read is there as well, as in the meter itself. */
export function sdm630Image(state: HouseholdState): RegisterImage {
  const image = new RegisterImage();
  image.cover(4, 0, sdm630InputRegisterMax + 1);
  for (const [address, value] of sdm630InputValues(state))
    image.setValue({ functionCode: 4, address, type: "float32", wordOrder: "high-first" }, value);
  return image;
}

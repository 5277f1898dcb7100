/**
 * Where the values of our quantity codes stand in the models of SunSpec devices.
 *
 * Offsets count registers from a model's id (id 0, length 1), as in the model definitions of github.com/sunspec/models
 * (Apache-2.0). A power of an inverter is positive where it feeds the grid: its import is the negative part. A meter's is
 * positive where energy is drawn.
 */
import type { NumberType, ProfileRegister } from "./profile.ts";

/** A quantity in a model. */
export interface SunspecPoint {
  readonly code: number;
  /** First register; several are summed. */
  readonly offsets: readonly number[];
  readonly type: NumberType;
  /** Register of the scale factor (int16, a power of ten); undefined for floats and plain numbers. */
  readonly scaleOffset?: number;
  /** Integer units of the code per unit of the scaled value; negative where the direction is ours turned round. */
  readonly unitsPerValue: number;
  readonly sign: ProfileRegister["sign"];
  /** SunSpec's name of it. */
  readonly name: string;
}

type Row = readonly [
  code: number,
  name: string,
  offset: number | readonly number[],
  type: NumberType,
  scaleOffset: number | undefined,
  unitsPerValue: number,
  sign?: ProfileRegister["sign"],
];

const points = (rows: readonly Row[]): SunspecPoint[] =>
  rows.map(([code, name, offset, type, scaleOffset, unitsPerValue, sign = "unsigned"]) => ({
    ...{ code, name, type, unitsPerValue, sign },
    offsets: typeof offset === "number" ? [offset] : offset,
    ...(scaleOffset !== undefined && { scaleOffset }),
  }));

const inverter = points([
  [1, "W", 14, "int16", 15, 1, "negative part"],
  [3, "W", 14, "int16", 15, 1, "positive part"],
  [4, "WH", 24, "uint32", 26, 1],
  [11, "VA", 18, "int16", 19, 1],
  [14, "Hz", 16, "uint16", 17, 1000],
  [20, "PhVphA", 10, "uint16", 13, 1000],
  [21, "PhVphB", 11, "uint16", 13, 1000],
  [22, "PhVphC", 12, "uint16", 13, 1000],
  [23, "AphA", 3, "uint16", 6, 1000],
  [24, "AphB", 4, "uint16", 6, 1000],
  [25, "AphC", 5, "uint16", 6, 1000],
  [29, "W", 14, "int16", 15, -1, "signed"],
]);

const inverterFloat = points([
  [1, "W", 22, "float32", undefined, 1, "negative part"],
  [3, "W", 22, "float32", undefined, 1, "positive part"],
  [4, "WH", 32, "float32", undefined, 1],
  [11, "VA", 26, "float32", undefined, 1],
  [14, "Hz", 24, "float32", undefined, 1000],
  [20, "PhVphA", 16, "float32", undefined, 1000],
  [21, "PhVphB", 18, "float32", undefined, 1000],
  [22, "PhVphC", 20, "float32", undefined, 1000],
  [23, "AphA", 4, "float32", undefined, 1000],
  [24, "AphB", 6, "float32", undefined, 1000],
  [25, "AphC", 8, "float32", undefined, 1000],
  [29, "W", 22, "float32", undefined, -1, "signed"],
]);

const derMeasureAc = points([
  [1, "W", 10, "int16", 116, 1, "negative part"],
  [2, "TotWhAbs", 23, "uint64", 120, 1],
  [3, "W", 10, "int16", 116, 1, "positive part"],
  [4, "TotWhInj", 19, "uint64", 120, 1],
  [6, "TotVarhAbs", 31, "uint64", 121, 1],
  [8, "TotVarhInj", 27, "uint64", 121, 1],
  [11, "VA", 11, "int16", 118, 1],
  [13, "PF", 13, "int16", 117, -1000, "signed"],
  [14, "Hz", 17, "uint32", 115, 1000],
  [20, "VL1", 47, "uint16", 114, 1000],
  [21, "VL2", 70, "uint16", 114, 1000],
  [22, "VL3", 93, "uint16", 114, 1000],
  [23, "AL1", 45, "int16", 113, 1000],
  [24, "AL2", 68, "int16", 113, 1000],
  [25, "AL3", 91, "int16", 113, 1000],
  [26, "WL1", 41, "int16", 116, -1, "signed"],
  [27, "WL2", 64, "int16", 116, -1, "signed"],
  [28, "WL3", 87, "int16", 116, -1, "signed"],
  [29, "W", 10, "int16", 116, -1, "signed"],
]);

const meter = points([
  [1, "W", 18, "int16", 22, 1, "positive part"],
  [2, "TotWhImp", 46, "uint32", 54, 1],
  [3, "W", 18, "int16", 22, 1, "negative part"],
  [4, "TotWhExp", 38, "uint32", 54, 1],
  [5, "VAR", 28, "int16", 32, 1, "positive part"],
  [6, "TotVArhImpQ1 + TotVArhImpQ2", [72, 80], "uint32", 104, 1],
  [7, "VAR", 28, "int16", 32, 1, "negative part"],
  [8, "TotVArhExpQ3 + TotVArhExpQ4", [88, 96], "uint32", 104, 1],
  [10, "TotVAhImp", 63, "uint32", 71, 1],
  [12, "TotVAhExp", 55, "uint32", 71, 1],
  [14, "Hz", 16, "int16", 17, 1000],
  [20, "PhVphA", 8, "int16", 15, 1000],
  [21, "PhVphB", 9, "int16", 15, 1000],
  [22, "PhVphC", 10, "int16", 15, 1000],
  [23, "AphA", 3, "int16", 6, 1000, "signed"],
  [24, "AphB", 4, "int16", 6, 1000, "signed"],
  [25, "AphC", 5, "int16", 6, 1000, "signed"],
  [26, "WphA", 19, "int16", 22, 1, "signed"],
  [27, "WphB", 20, "int16", 22, 1, "signed"],
  [28, "WphC", 21, "int16", 22, 1, "signed"],
  [29, "W", 18, "int16", 22, 1, "signed"],
]);

const meterFloat = points([
  [1, "W", 28, "float32", undefined, 1, "positive part"],
  [2, "TotWhImp", 68, "float32", undefined, 1],
  [3, "W", 28, "float32", undefined, 1, "negative part"],
  [4, "TotWhExp", 60, "float32", undefined, 1],
  [5, "VAR", 44, "float32", undefined, 1, "positive part"],
  [6, "TotVArhImpQ1 + TotVArhImpQ2", [92, 100], "float32", undefined, 1],
  [7, "VAR", 44, "float32", undefined, 1, "negative part"],
  [8, "TotVArhExpQ3 + TotVArhExpQ4", [108, 116], "float32", undefined, 1],
  [10, "TotVAhImp", 84, "float32", undefined, 1],
  [12, "TotVAhExp", 76, "float32", undefined, 1],
  [14, "Hz", 26, "float32", undefined, 1000],
  [20, "PhVphA", 12, "float32", undefined, 1000],
  [21, "PhVphB", 14, "float32", undefined, 1000],
  [22, "PhVphC", 16, "float32", undefined, 1000],
  [23, "AphA", 4, "float32", undefined, 1000, "signed"],
  [24, "AphB", 6, "float32", undefined, 1000, "signed"],
  [25, "AphC", 8, "float32", undefined, 1000, "signed"],
  [26, "WphA", 30, "float32", undefined, 1, "signed"],
  [27, "WphB", 32, "float32", undefined, 1, "signed"],
  [28, "WphC", 34, "float32", undefined, 1, "signed"],
  [29, "W", 28, "float32", undefined, 1, "signed"],
]);

const derCapacity = points([
  [33, "WChaRteMaxRtg", 10, "uint16", 45, 1],
  [34, "WDisChaRteMaxRtg", 11, "uint16", 45, 1],
  [36, "WMaxRtg", 2, "uint16", 45, 1],
]);

const nameplate = points([
  [30, "WHRtg", 19, "uint16", 20, 1],
  [33, "MaxChaRte", 23, "uint16", 24, 1],
  [34, "MaxDisChaRte", 25, "uint16", 26, 1],
  [36, "WRtg", 3, "uint16", 4, 1],
]);

const storageBasic = points([
  [18, "ChaState", 8, "uint16", 22, 10],
  [33, "WChaMax", 2, "uint16", 18, 1],
  [35, "ChaSt", 11, "uint16", undefined, 1],
]);

const storageCapacity = points([
  [18, "SoC", 4, "uint16", 8, 10],
  [19, "WHAvail", 3, "uint16", 7, 1],
  [30, "WHRtg", 2, "uint16", 7, 1],
  [31, "SoH", 5, "uint16", 8, 10],
]);

const battery = points([
  [18, "SoC", 11, "uint16", 56, 10],
  [30, "WHRtg", 3, "uint16", 53, 1],
  [31, "SoH", 13, "uint16", 58, 10],
  [32, "NCyc", 14, "uint32", undefined, 1],
  [33, "WChaRteMax", 4, "uint16", 54, 1],
  [34, "WDisChaRteMax", 5, "uint16", 54, 1],
  [35, "ChaSt", 16, "uint16", undefined, 1],
]);

/** Model 714: fixed part, then a group of registers for each port; a port of type 1 is a storage. */
export const derPorts = { model: 714, countOffset: 4, firstOffset: 20, registers: 25, storageType: 1 } as const;

/** The points of storage ports that begin at these offsets, summed. */
export function derPortPoints(ports: readonly number[]): SunspecPoint[] {
  const at = (offset: number): number[] => ports.map((port) => port + offset);
  return points([
    [15, "DCWhAbs of storage ports", at(17), "uint64", 18, 1],
    [16, "DCWhInj of storage ports", at(13), "uint64", 18, 1],
    [17, "DCW of storage ports", at(12), "int16", 17, -1, "signed"],
  ]);
}

interface SunspecModel {
  readonly ids: readonly number[];
  readonly points: readonly SunspecPoint[];
}

/** By falling preference: where two models of a device give the same quantity, the first is taken. */
const inverterModels: readonly SunspecModel[] = [
  { ids: [701], points: derMeasureAc },
  { ids: [111, 112, 113], points: inverterFloat },
  { ids: [101, 102, 103], points: inverter },
];
const meterModels: readonly SunspecModel[] = [
  { ids: [211, 212, 213, 214], points: meterFloat },
  { ids: [201, 202, 203, 204], points: meter },
];
const storageModels: readonly SunspecModel[] = [
  { ids: [713], points: storageCapacity },
  { ids: [derPorts.model], points: derPortPoints([derPorts.firstOffset]) },
  { ids: [802], points: battery },
  { ids: [124], points: storageBasic },
  { ids: [702], points: derCapacity },
  { ids: [120], points: nameplate },
];

/** Models of each profile, by falling preference. */
export const sunspecModels: Readonly<Record<string, readonly SunspecModel[]>> = {
  "sunspec-inverter": [...inverterModels, ...storageModels],
  "sunspec-meter": meterModels,
  "sunspec-storage": storageModels,
};

/** Bits that say "not implemented", by type (SunSpec Device Information Model); an enumeration has those of uint16. */
export function notImplemented(type: NumberType): readonly bigint[] {
  if (type.startsWith("float")) return [];
  const bits = BigInt(type.endsWith("64") ? 64 : type.endsWith("32") ? 32 : 16);
  return type.startsWith("u") ? [(1n << bits) - 1n] : [1n << (bits - 1n)];
}

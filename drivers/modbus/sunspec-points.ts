/**
 * What stands in the models of SunSpec devices, point by point, as text. Pure.
 *
 * The table is sunspec-points.json. An integer and its scale factor become an exact decimal; a float becomes the shortest
 * decimal that is this float.
 */
import table from "./sunspec-points.json" with { type: "json" };

/** A point of a model, or of one of its groups. */
export interface ModelPoint {
  readonly name: string;
  /** First register, from the model's id. */
  readonly offset: number;
  readonly registers: number;
  readonly type: string;
  /** As the model has it; empty where it has none. */
  readonly unit: string;
  /** The point of its scale factor. */
  readonly scale?: { readonly name: string; readonly offset: number };
  /** Which one of the repeated groups it is in, from 1. */
  readonly group?: number;
}

/** What a device holds in a point. Without `value` there is none, and `absence` says why. */
export interface PointValue {
  readonly point: ModelPoint;
  /** A decimal, a text, or a bit field in hexadecimal. */
  readonly value?: string;
  readonly absence?: "not implemented" | "scale factor not implemented" | "scale factor out of range";
  /** Power of ten that it was scaled by. */
  readonly exponent?: number;
}

/** Registers by type; a text says its own. */
const registersOfType: Readonly<Record<string, number>> = {
  ...{ int16: 1, uint16: 1, enum16: 1, bitfield16: 1, sunssf: 1, count: 1 },
  ...{ uint32: 2, acc32: 2, bitfield32: 2, float32: 2, uint64: 4, acc64: 4 },
};

/** Bits that say "not implemented" (SunSpec Device Information Model); an accumulator counts from 0 and has none but 0. */
const absentRaws: Readonly<Record<string, bigint>> = {
  ...{ int16: 0x8000n, sunssf: 0x8000n, uint16: 0xffffn, count: 0xffffn, enum16: 0xffffn, bitfield16: 0xffffn },
  ...{ uint32: 0xffff_ffffn, bitfield32: 0xffff_ffffn, uint64: 0xffff_ffff_ffff_ffffn },
};

/** A NaN, as the specification writes it. */
const absentFloat = 0x7fc0_0000n;

/** Powers of ten that the specification allows. */
const scaleMax = 10;

type Row = Omit<ModelPoint, "scale" | "group"> & { readonly scaleName: string };

interface ModelTable {
  readonly title: string;
  readonly rows: readonly Row[];
  readonly group?: {
    readonly first: number;
    readonly registers: number;
    /** The point that says how many there are. */
    readonly count: string;
    readonly rows: readonly Row[];
  };
}

const tables: ReadonlyMap<number, ModelTable> = new Map(
  table.tables.flatMap(({ models, points, group }) => {
    const rows = rowsOf(points);
    const groups = group && { group: { ...group, rows: rowsOf(group.points) } };
    return Object.entries(models).map(([id, title]) => [Number(id), { title, rows, ...groups }] as const);
  }),
);

function rowsOf(lines: readonly string[]): Row[] {
  return lines.map((line) => {
    const [name = "", offset, typeText = "", unit = "", scaleName = ""] = line.split(",");
    const [type = "", count] = typeText.split("*");
    const registers = count === undefined ? registersOfType[type] : Number(count);
    if (registers === undefined) throw new Error(`sunspec-points.json: ${line}: unknown type`);
    return { name, offset: Number(offset), registers, type, unit, scaleName };
  });
}

/** The name of a model; undefined for one that is not known here. */
export function modelTitle(id: number): string | undefined {
  return tables.get(id)?.title ?? (table.not_decoded as Readonly<Record<string, string>>)[id];
}

/** Whether the points of a model are known here. */
export function isDecoded(id: number): boolean {
  return tables.has(id);
}

/** Points of a model before its repeated groups, without those for which this device's model is too short. */
export function fixedPoints(id: number, registers: number): ModelPoint[] {
  const model = tables.get(id);
  if (model === undefined) return [];
  return within(
    model.rows.map((row) => pointOf(model, row, 0)),
    registers,
  );
}

/**
 * Points of the repeated groups: as many groups as the device says, but never more than its model has registers for; that
 * many where it does not say. `said` is what it says.
 */
export function groupPoints(id: number, registers: number, said: number | undefined): ModelPoint[] {
  const model = tables.get(id);
  const group = model?.group;
  if (model === undefined || group === undefined) return [];
  const room = Math.max(0, Math.floor((registers - group.first) / group.registers));
  return Array.from({ length: Math.min(said ?? room, room) }, (_, n) =>
    group.rows.map((row) => ({ ...pointOf(model, row, group.first + n * group.registers), group: n + 1 })),
  ).flat();
}

/** The point that says how many groups there are; undefined where the model has none. */
export function groupCountName(id: number): string | undefined {
  return tables.get(id)?.group?.count;
}

/** The words of a model, id and length among them, in which nothing is implemented. */
export function emptyModelWords(id: number, registers: number): Uint16Array {
  const words = new Uint16Array(registers).fill(isDecoded(id) ? 0 : 0xffff);
  words.set([id, registers - 2].slice(0, registers));
  for (const { offset, type, registers: count } of [
    ...fixedPoints(id, registers),
    ...groupPoints(id, registers, undefined),
  ]) {
    const raw = type === "float32" ? absentFloat : (absentRaws[type] ?? 0n);
    for (let i = 0; i < count; i++) words[offset + i] = Number((raw >> BigInt(16 * (count - 1 - i))) & 0xffffn);
  }
  return words;
}

function pointOf(model: ModelTable, { scaleName, ...row }: Row, first: number): ModelPoint {
  const scale = model.rows.find(({ name }) => name === scaleName);
  const at = { ...row, offset: first + row.offset };
  return scale === undefined ? at : { ...at, scale: { name: scale.name, offset: scale.offset } };
}

function within(points: readonly ModelPoint[], registers: number): ModelPoint[] {
  return points.filter(
    ({ offset, registers: own, scale }) =>
      offset + own <= registers && (scale === undefined || scale.offset < registers),
  );
}

/** What the words of a point say. `scaleWord` is the register of its scale factor, out of the same answer. */
export function valueOfPoint(point: ModelPoint, words: Uint16Array, scaleWord: number | undefined): PointValue {
  if (point.type === "string") return textValue(point, words);
  let raw = 0n;
  for (const word of words.subarray(0, point.registers)) raw = (raw << 16n) | BigInt(word);
  if (point.type === "float32") {
    const value = floatOf(raw);
    return Number.isNaN(value) ? { point, absence: "not implemented" } : { point, value: shortestText(value) };
  }
  if (raw === absentRaws[point.type]) return { point, absence: "not implemented" };
  if (point.type.startsWith("bitfield"))
    return {
      point,
      value: `0x${raw
        .toString(16)
        .toUpperCase()
        .padStart(4 * point.registers, "0")}`,
    };
  const isSigned = point.type === "int16" || point.type === "sunssf";
  const integer = isSigned ? BigInt.asIntN(16, raw) : raw;
  if (point.scale === undefined) return { point, value: `${integer}` };
  if (scaleWord === undefined || BigInt(scaleWord) === absentRaws.sunssf)
    return { point, absence: "scale factor not implemented" };
  const exponent = (scaleWord << 16) >> 16;
  if (Math.abs(exponent) > scaleMax) return { point, absence: "scale factor out of range", exponent };
  return { point, value: scaledText(integer, exponent), exponent };
}

function textValue(point: ModelPoint, words: Uint16Array): PointValue {
  const codes = Array.from(words.subarray(0, point.registers)).flatMap((word) => [word >> 8, word & 0xff]);
  const end = codes.indexOf(0);
  const text = String.fromCharCode(...(end < 0 ? codes : codes.slice(0, end))).trim();
  // What is no ASCII is shown as "?": it would reach a terminal.
  return text === "" ? { point, absence: "not implemented" } : { point, value: text.replace(/[^\x20-\x7e]/g, "?") };
}

/** An integer times a power of ten, exactly, with the digits that the factor gives it: 2300 and −2 are `23.00`. */
export function scaledText(integer: bigint, exponent: number): string {
  if (exponent >= 0) return `${integer * 10n ** BigInt(exponent)}`;
  const digits = `${integer < 0n ? -integer : integer}`.padStart(1 - exponent, "0");
  return `${integer < 0n ? "-" : ""}${digits.slice(0, exponent)}.${digits.slice(exponent)}`;
}

function floatOf(raw: bigint): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, Number(raw));
  return view.getFloat32(0);
}

/** Nine digits tell any two float32 apart; most need fewer. */
function shortestText(value: number): string {
  for (let digits = 1; digits < 9; digits++) {
    const shorter = Number(value.toPrecision(digits));
    if (Math.fround(shorter) === value) return `${shorter}`;
  }
  return `${Number(value.toPrecision(9))}`;
}

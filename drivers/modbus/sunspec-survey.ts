/**
 * Everything that a SunSpec device holds in models that are known: for people, not for signed readings.
 *
 * A value and its scale factor come out of one answer. Where a model is too long for that (modules of model 160, ports of
 * 714), the factors are read once before and twice after, and a value whose factor is not the same each time is not shown.
 * Twice, so that one that alternates from answer to answer is seen; one that differs in a single answer would not be, which
 * is why no reading that is signed is made like this.
 */
import { DriverError } from "../failure.ts";
import type { ModbusLine } from "./line.ts";
import { readPatiently } from "./patient-read.ts";
import type { MeterProfile } from "./profile.ts";
import { type FoundModel, findSunspecModels } from "./sunspec-chain.ts";
import {
  fixedPoints,
  groupCountName,
  groupPoints,
  isDecoded,
  type ModelPoint,
  type PointValue,
  valueOfPoint,
} from "./sunspec-points.ts";

const functionCode = 3 as const;
const triesMax = 3;

/** A model of the device, and what is in it. */
export interface SurveyedModel extends FoundModel {
  readonly isDecoded: boolean;
  readonly values: readonly PointValue[];
  /** Repeated groups that the device says it has; undefined where it has none, or does not say. */
  readonly groupsSaid?: number;
  /** Points whose scale factor changed each time they were read. */
  readonly unsteady: readonly ModelPoint[];
  /** Why the model could not be read. */
  readonly problem?: string;
}

export interface SunspecSurvey {
  readonly base: number;
  readonly models: readonly SurveyedModel[];
  /** The refusal that ended the chain, where no end mark did: there may be more. */
  readonly cutBy?: string;
}

export interface SurveyOptions {
  readonly unit: number;
  /** Times and limits. */
  readonly profile: Pick<MeterProfile, "gapMs" | "timeoutMs" | "slowestAnswerMs" | "maxRegistersPerRequest">;
  /** Only these models. Default: all. */
  readonly only?: readonly number[];
}

/** Undefined where the device has no "SunS". @throws DriverError, ChainError */
export async function surveySunspec(line: ModbusLine, options: SurveyOptions): Promise<SunspecSurvey | undefined> {
  const { unit, profile, only } = options;
  const { gapMs, timeoutMs, slowestAnswerMs } = profile;
  const read = (address: number, count: number): Promise<Uint16Array> =>
    readPatiently(line, { unit, functionCode, address, count, gapMs, timeoutMs, slowestAnswerMs });
  const chain = await findSunspecModels(read);
  if (chain === undefined) return undefined;
  const models: SurveyedModel[] = [];
  for (const model of chain.models)
    if (only === undefined || only.includes(model.id)) models.push(await surveyModel(model, read, profile));
  return { base: chain.base, models, ...(chain.cutBy && { cutBy: chain.cutBy.message }) };
}

type Read = (address: number, count: number) => Promise<Uint16Array>;

async function surveyModel(
  model: FoundModel,
  read: Read,
  { maxRegistersPerRequest: registersMax }: Pick<MeterProfile, "maxRegistersPerRequest">,
): Promise<SurveyedModel> {
  if (!isDecoded(model.id)) return { ...model, isDecoded: false, values: [], unsteady: [] };
  const values: PointValue[] = [];
  const unsteady: ModelPoint[] = [];
  let groupsSaid: number | undefined;
  try {
    const head = await headOf(model, read, registersMax);
    const fixed = fixedPoints(model.id, model.registers);
    const count = fixed.find(({ name }) => name === groupCountName(model.id));
    const said = count && valueOfPoint(count, head.subarray(count.offset), undefined).value;
    if (said !== undefined) groupsSaid = Number(said);
    const points = [...fixed, ...groupPoints(model.id, model.registers, groupsSaid)];
    const [first = [], ...windows] = windowsOf(points, registersMax);
    for (const point of first) values.push(valueIn(point, head, 0, head));
    for (const window of windows) await surveyWindow(model, window, read, values, unsteady);
    values.sort((a, b) => a.point.offset - b.point.offset);
    return { ...model, isDecoded: true, values, unsteady, ...(groupsSaid !== undefined && { groupsSaid }) };
  } catch (error) {
    if (!(error instanceof ModelMoved) && !(error instanceof DriverError && error.code === "modbus-exception"))
      throw error;
    return { ...model, isDecoded: true, values, unsteady, problem: error.message };
  }
}

class ModelMoved extends Error {}

/** The first registers of a model, id and length among them. */
async function headOf({ id, address, registers }: FoundModel, read: Read, registersMax: number): Promise<Uint16Array> {
  const head = await read(address, Math.min(registers, registersMax));
  if (head[0] === id && head[1] === registers - 2) return head;
  throw new ModelMoved(`expected model ${id} at register ${address}, got ${head[0]}: the models changed meanwhile`);
}

/** Points by request; the first one begins at the model's id. A point never falls into two. */
function windowsOf(points: readonly ModelPoint[], registersMax: number): ModelPoint[][] {
  const windows: ModelPoint[][] = [];
  let end = registersMax;
  let window: ModelPoint[] = [];
  for (const point of points) {
    if (point.offset + point.registers > end) {
      windows.push(window);
      window = [];
      end = point.offset + registersMax;
    }
    window.push(point);
  }
  return [...windows, window];
}

/** `start`: of the words, from the model's id. `factors`: words from the model's id in which the scale factors stand. */
function valueIn(point: ModelPoint, words: Uint16Array, start: number, factors: Uint16Array): PointValue {
  return valueOfPoint(point, words.subarray(point.offset - start), point.scale && factors[point.scale.offset]);
}

/** A request behind the first one of a model, between those for the scale factors. */
async function surveyWindow(
  model: FoundModel,
  window: readonly ModelPoint[],
  read: Read,
  values: PointValue[],
  unsteady: ModelPoint[],
): Promise<void> {
  const start = Math.min(...window.map(({ offset }) => offset));
  const end = Math.max(...window.map(({ offset, registers }) => offset + registers));
  const factorsEnd = Math.max(2, ...window.map(({ scale }) => (scale?.offset ?? 0) + 1));
  const factorsOf = (): Promise<Uint16Array> => headOf(model, read, factorsEnd);
  let open = window;
  let before = await factorsOf();
  for (let tries = 1; open.length > 0 && tries <= triesMax; tries++) {
    const words = await read(model.address + start, end - start);
    const factors = [before, await factorsOf(), await factorsOf()];
    const isSteady = ({ scale }: ModelPoint): boolean =>
      scale === undefined || factors.every((item) => item[scale.offset] === factors[0]?.[scale.offset]);
    values.push(...open.filter(isSteady).map((point) => valueIn(point, words, start, before)));
    open = open.filter((point) => !isSteady(point));
    before = factors.at(-1) ?? before;
  }
  unsteady.push(...open);
}

/** Where the models of a SunSpec device stand: "SunS", then model 1 and others one behind the other, then an end. */
import type { DriverError } from "../failure.ts";
import { isRefusal } from "./span-reader.ts";

/** SunSpec Device Information Model: "SunS", then model 1, other models, and an id of 0xFFFF. */
export const sunspecBases = [40_000, 0, 50_000] as const;
const markWords = [0x5375, 0x6e53] as const;
const endId = 0xffff;
const modelsMax = 64;
const modelRegistersMax = 2_048;

export interface FoundModel {
  readonly id: number;
  /** Of its id. */
  readonly address: number;
  /** With id and length. */
  readonly registers: number;
}

export interface SunspecChain {
  /** Of "SunS". */
  readonly base: number;
  readonly models: readonly FoundModel[];
  /** The refusal that ended the chain, where no end mark did. */
  readonly cutBy?: DriverError;
}

/** Reads holding registers; `base` is where "SunS" was found, undefined as long as it was not. */
export type ChainRead = (address: number, count: number, base: number | undefined) => Promise<Uint16Array>;

/** A length that no model has: what was found is no chain, or damaged. */
export class ChainError extends Error {}

/** The models; undefined where no "SunS" is. @throws ChainError; DriverError for everything but a refusal */
export async function findSunspecModels(read: ChainRead): Promise<SunspecChain | undefined> {
  for (const base of sunspecBases) {
    const mark = await read(base, 2, undefined).catch(orRefused);
    if (mark?.[0] !== markWords[0] || mark[1] !== markWords[1]) continue;
    return await chainFrom(base, read);
  }
  return undefined;
}

async function chainFrom(base: number, read: ChainRead): Promise<SunspecChain> {
  const models: FoundModel[] = [];
  for (let address = base + 2; models.length < modelsMax && address + 2 <= 0x10000; ) {
    let cutBy: DriverError | undefined;
    const head = await read(address, 2, base).catch((error: unknown) => {
      orRefused(error);
      cutBy = error as DriverError;
    });
    const [id = endId, length = 0] = head ?? [];
    if (id === endId) return { base, models, ...(cutBy && { cutBy }) };
    if (length > modelRegistersMax || address + 2 + length > 0x10000)
      throw new ChainError(`model ${id} says that it has ${length} registers`);
    models.push({ id, address, registers: 2 + length });
    address += 2 + length;
  }
  return { base, models };
}

/** A refusal as nothing: what is not there is not what is looked for. */
function orRefused(error: unknown): undefined {
  if (isRefusal(error)) return undefined;
  throw error;
}

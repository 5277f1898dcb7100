/** Which make and model a unit is: by the registers in which makers write it, else by values that only its table makes plausible. */
import { DriverError } from "../failure.ts";
import type { ModbusLine } from "./line.ts";
import { type MeterProfile, type NumberPlace, type RecognitionCheck, registersOf, type TextPlace } from "./profile.ts";

/** What is known of a unit. `code`: by a code or text of the maker; `plausible`: only its values fit. */
export interface Recognition {
  readonly certainty: "code" | "plausible" | "unknown";
  readonly profile?: MeterProfile;
  readonly model?: string;
  /** Other profiles whose values would be plausible as well. */
  readonly alternatives: readonly MeterProfile[];
  /** What a SunSpec device says of itself. */
  readonly text?: string;
  readonly serialNumber?: string;
}

/** SunSpec devices begin with "SunS" at one of these registers of function 3 (SunSpec Device Information Model). */
const sunspecBases = [40_000, 0, 50_000];
const sunspecMark = 0x5375_6e53;
const sunspecModelsMax = 64;
/** Gap before each request on a serial line: what the most delicate of the known makes wants. */
const serialGapMs = 100;

/** A read is tried so often, until one was in vain all the same: then the unit says nothing to what it lacks, and two tries do. */
const triesMax = 3;
const triesOfTheSilent = 2;

export interface UnitReaderOptions {
  readonly unit: number;
  readonly timeoutMs: number;
  readonly kind: "rtu" | "tcp";
  /** The line; `afterSilence`: opened anew once nothing can be on its way any more, so that no answer is owed on it. */
  readonly line: (afterSilence: boolean) => Promise<ModbusLine>;
}

/** Reads for one unit, each place once: several profiles look at the same registers. */
export class UnitReader {
  readonly #options: UnitReaderOptions;
  readonly #known = new Map<string, Promise<Uint16Array | undefined>>();
  #triesMax = triesMax;

  constructor(options: UnitReaderOptions) {
    this.#options = options;
  }

  /** Words, or undefined where the unit refuses them or does not answer. @throws DriverError when the line is lost */
  read(functionCode: 3 | 4, address: number, count: number): Promise<Uint16Array | undefined> {
    const key = `${functionCode}:${address}+${count}`;
    let words = this.#known.get(key);
    if (words === undefined) {
      words = this.#try(functionCode, address, count);
      this.#known.set(key, words);
    }
    return words;
  }

  /** One lost answer must not make one make of another: so a read is tried again before it counts as refused. */
  async #try(functionCode: 3 | 4, address: number, count: number): Promise<Uint16Array | undefined> {
    if (address + count > 0x10000) return undefined;
    const { unit, timeoutMs, kind } = this.#options;
    const gapMs = kind === "rtu" ? serialGapMs : 0;
    const read = { unit, functionCode, address, count, gapMs, timeoutMs, slowestAnswerMs: timeoutMs };
    for (let attempt = 1; attempt <= this.#triesMax; attempt++) {
      try {
        const line = await this.#options.line(attempt > 1);
        return await line.readRegisters(read);
      } catch (error) {
        if (!(error instanceof DriverError)) throw error;
        if (error.code === "modbus-exception") return undefined;
        if (!error.retryable) throw error;
      }
    }
    this.#triesMax = triesOfTheSilent;
    return undefined;
  }
}

/** @throws DriverError when the line is lost meanwhile */
export async function recognise(
  reader: UnitReader,
  profiles: readonly MeterProfile[],
  kind: "rtu" | "tcp",
): Promise<Recognition> {
  const sunspec = await recogniseSunspec(reader, profiles);
  if (sunspec) return sunspec;
  const candidates = profiles.filter(({ recognition }) => recognition.length > 0);
  // A gateway brings a serial meter to TCP, so the kind of line only decides between equals.
  const byKind = [...candidates].sort((a, b) => Number(b.lines.includes(kind)) - Number(a.lines.includes(kind)));
  const plausible: MeterProfile[] = [];
  const hasCode = (profile: MeterProfile): boolean => profile.recognition.some((check) => !("between" in check));
  for (const profile of [...byKind.filter(hasCode), ...byKind.filter((candidate) => !hasCode(candidate))]) {
    const model = await matchOf(reader, profile);
    if (model === undefined) continue;
    if (hasCode(profile)) return { certainty: "code", profile, model, alternatives: [] };
    plausible.push(profile);
  }
  // The more has to fit, the less it fits by chance.
  plausible.sort((a, b) => b.recognition.length - a.recognition.length);
  const [profile, ...alternatives] = plausible;
  if (profile === undefined) return { certainty: "unknown", alternatives };
  return { certainty: "plausible", profile, model: profile.models[0] ?? profile.id, alternatives };
}

/** The model that the first check with names gives, or the profile's title; undefined where one of them fails. */
async function matchOf(reader: UnitReader, profile: MeterProfile): Promise<string | undefined> {
  let model: string | undefined;
  for (const check of profile.recognition) {
    const words = await readPlace(reader, check, profile.countStep);
    if (words === undefined) return undefined;
    if ("startsWith" in check) {
      const text = textOf(words, check.type);
      const found = check.startsWith.find((candidate) => text.startsWith(candidate.text));
      if (found === undefined) return undefined;
      model ??= found.model;
      continue;
    }
    const value = numberOf(words, check);
    if ("equals" in check) {
      const found = check.equals.find((candidate) => candidate.raw === value);
      if (found === undefined) return undefined;
      model ??= found.model;
    } else if (!(value >= check.between[0] && value <= check.between[1])) return undefined;
  }
  return model ?? profile.models[0] ?? profile.id;
}

/** The registers of a place; where counts must be even, those around it are read as well. */
async function readPlace(reader: UnitReader, check: RecognitionCheck, step: number): Promise<Uint16Array | undefined> {
  const count = "startsWith" in check ? check.count : registersOf(check.type);
  const first = Math.floor(check.address / step) * step;
  const whole = Math.ceil((check.address + count - first) / step) * step;
  const words = await reader.read(check.functionCode, first, whole);
  return words?.subarray(check.address - first, check.address - first + count);
}

function textOf(words: Uint16Array, type: TextPlace["type"]): string {
  const codes =
    type === "ascii" ? [...words].flatMap((word) => [word >>> 8, word & 0xff]) : [...words].map((w) => w & 0xff);
  const end = codes.indexOf(0);
  return String.fromCharCode(...(end < 0 ? codes : codes.slice(0, end))).trim();
}

/** A float as it is, an integer signed or not as its type says; exact up to 2^53, which is enough to compare. */
function numberOf(words: Uint16Array, { type, wordOrder }: NumberPlace): number {
  const ordered = wordOrder === "high-first" ? words : words.toReversed();
  const view = new DataView(new ArrayBuffer(8));
  ordered.forEach((word, i) => {
    view.setUint16(2 * i, word);
  });
  switch (type) {
    case "float32":
      return view.getFloat32(0);
    case "float64":
      return view.getFloat64(0);
    case "int16":
      return view.getInt16(0);
    case "uint16":
      return view.getUint16(0);
    case "int32":
      return view.getInt32(0);
    case "uint32":
      return view.getUint32(0);
    case "int64":
      return Number(view.getBigInt64(0));
    case "uint64":
      return Number(view.getBigUint64(0));
  }
}

async function recogniseSunspec(
  reader: UnitReader,
  profiles: readonly MeterProfile[],
): Promise<Recognition | undefined> {
  for (const base of sunspecBases) {
    const mark = await reader.read(3, base, 2);
    if (mark === undefined || mark[0]! * 0x10000 + mark[1]! !== sunspecMark) continue;
    const models = await sunspecModels(reader, base + 2);
    const common = models.find(({ id }) => id === 1);
    const texts = common && (await reader.read(3, common.address + 2, Math.min(common.length, 64)));
    const text = (from: number, count: number): string =>
      textOf((texts ?? new Uint16Array(0)).subarray(from, from + count), "ascii");
    const [make, model, serialNumber] = [text(0, 16), text(16, 16), text(48, 16)];
    const ids = models.map(({ id }) => id);
    const profile = profiles.find(
      (candidate) => candidate.kind === "sunspec" && candidate.id === sunspecProfileId(ids),
    );
    const list = ids.join(", ");
    return {
      certainty: profile ? "code" : "unknown",
      ...(profile && { profile, model: model || (profile.models[0] ?? profile.id) }),
      alternatives: [],
      text: `SunSpec${make ? `, ${make} ${model}`.trimEnd() : ""}; models ${list || "none"}`,
      ...(serialNumber && { serialNumber }),
    };
  }
  return undefined;
}

async function sunspecModels(
  reader: UnitReader,
  first: number,
): Promise<{ id: number; address: number; length: number }[]> {
  const models: { id: number; address: number; length: number }[] = [];
  for (let address = first; models.length < sunspecModelsMax; ) {
    const head = await reader.read(3, address, 2);
    const [id, length] = [head?.[0] ?? 0xffff, head?.[1] ?? 0];
    if (id === 0xffff || length === 0 || address + 2 + length > 0x10000) break;
    models.push({ id, address, length });
    address += 2 + length;
  }
  return models;
}

/** Meters are told by 20x and 21x, inverters by 10x, 11x and 701, storage without an inverter by its own models. */
function sunspecProfileId(ids: readonly number[]): string | undefined {
  const has = (...wanted: readonly number[]): boolean => wanted.some((id) => ids.includes(id));
  if (has(201, 202, 203, 204, 211, 212, 213, 214)) return "sunspec-meter";
  if (has(101, 102, 103, 111, 112, 113, 701)) return "sunspec-inverter";
  return has(124, 713, 714, 801, 802, 803, 804) ? "sunspec-storage" : undefined;
}

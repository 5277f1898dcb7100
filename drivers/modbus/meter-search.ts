/**
 * Finds the meters on a line of which neither speed nor units are known: any valid answer counts, even an exception.
 *
 * It only reads. It opens the line at one setting after the other, and asks each unit for two registers; a setting at which a
 * unit answers is that of the line, and the rest of the units are asked at it alone.
 */
import { DriverError } from "../failure.ts";
import type { DeviceIdentity } from "./identification.ts";
import type { ModbusLine } from "./line.ts";
import {
  isSame,
  type LineSettings,
  longestSearchMs,
  nearUnitMax,
  type SearchStep,
  stepMs,
} from "./meter-search-plan.ts";
import { type Recognition, recognise, UnitReader } from "./meter-search-recognition.ts";
import { ModbusMeter } from "./modbus-meter.ts";
import type { MeterProfile } from "./profile.ts";

export interface FoundUnit extends Recognition {
  readonly unit: number;
  /** What it answered first: registers, or which exception. */
  readonly answer: string;
}

export interface SearchResult {
  /** The setting at which units answered; undefined where none did, and on TCP. */
  readonly settings: LineSettings | undefined;
  readonly found: readonly FoundUnit[];
  /** What an owner should know: bytes that nobody could read, addresses given twice. One sentence each. */
  readonly remarks: readonly string[];
  /** `ended`: searched to the end. `stopped`: by the caller. `limit`: its time was over. `failed`: see `error`. */
  readonly end: "ended" | "stopped" | "limit" | "failed";
  readonly error?: DriverError;
}

export interface SearchProgress {
  readonly settings: LineSettings | undefined;
  readonly unit: number;
  /** It has answered, and is asked what it is. */
  readonly isRecognising: boolean;
  /** Share of the longest time that is behind it, 0 to 1. */
  readonly share: number;
  readonly found: number;
}

export interface SearchOptions {
  readonly kind: "rtu" | "tcp";
  /** A line at this setting that opens at its first read; it is closed by the search. */
  readonly openLine: (settings: LineSettings | undefined) => ModbusLine;
  readonly steps: readonly SearchStep[];
  /** All units that are to be asked where a line answers, ascending. */
  readonly units: readonly number[];
  readonly timeoutMs: number;
  readonly profiles: readonly MeterProfile[];
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: SearchProgress) => void;
}

type ProbeResult = { kind: "answer"; text: string } | { kind: "silent" | "garbled" | "other unit" };

/** Registers that are asked for: none of them has to exist. Two, since some meters refuse an odd count by silence. */
const probeRegisters = 2;
/** So many times the time-out is given to units that answered too late. */
const patience = 4;
/** A device on TCP that answers as these units as well looks at no unit number. */
const unlikelyUnits = [173, 241];

/** Searches; a port that cannot be opened or is lost ends it, with what was found until then. */
export async function searchLine(options: SearchOptions): Promise<SearchResult> {
  const search = new Search(options);
  try {
    await search.run();
    return search.result();
  } catch (error) {
    if (error instanceof Stopped) return search.result(error.reason);
    if (error instanceof DriverError) return search.result("failed", error);
    throw error;
  } finally {
    await search.close();
  }
}

class Stopped extends Error {
  readonly reason: "stopped" | "limit";

  constructor(reason: "stopped" | "limit") {
    super(reason);
    this.reason = reason;
  }
}

class Search {
  readonly #options: SearchOptions;
  readonly #limitAtMs: number;
  readonly #totalMs: number;
  readonly #found: FoundUnit[] = [];
  readonly #garbledAt: LineSettings[] = [];
  readonly #doubles: number[] = [];
  readonly #asked = new Set<string>();
  #remark: string | undefined;
  #settings: LineSettings | undefined;
  #line: ModbusLine | undefined;
  #lineSettings: LineSettings | undefined;
  #spentMs = 0;
  #share = 0;

  constructor(options: SearchOptions) {
    this.#options = options;
    const { steps, units, timeoutMs } = options;
    this.#totalMs = steps.reduce((sum, step) => sum + stepMs(step), 0);
    this.#limitAtMs = performance.now() + longestSearchMs(steps, units.length, timeoutMs);
  }

  async run(): Promise<void> {
    for (const step of this.#options.steps) {
      const answered = await this.#firstAnswer(step);
      this.#spentMs += stepMs(step);
      if (answered === undefined) continue;
      this.#settings = step.settings;
      await this.#searchToEnd(step.settings, answered);
      return;
    }
  }

  result(end: SearchResult["end"] = "ended", error?: DriverError): SearchResult {
    const found = [...this.#found].sort((a, b) => a.unit - b.unit);
    const settings = found.length > 0 ? this.#settings : undefined;
    return { settings, found, remarks: this.#remarks(), end, ...(error && { error }) };
  }

  async close(): Promise<void> {
    await this.#line?.close();
    this.#line = undefined;
  }

  /** Asks the units of a step until one answers. */
  async #firstAnswer({ settings, units, timeoutMs }: SearchStep): Promise<number | undefined> {
    for (const [place, unit] of units.entries()) {
      this.#checkLimits();
      this.#progress(settings, unit, (place / units.length) * stepMs({ settings, units, timeoutMs }));
      const result = await this.#probe(settings, unit, 3, timeoutMs);
      if (result.kind === "garbled" && !this.#garbledAt.some((known) => isSame(known, settings)) && settings)
        this.#garbledAt.push(settings);
      // Twice, since one in 65,536 pieces of garbage has a valid CRC.
      if (result.kind === "answer" && (await this.#probe(settings, unit, 3, timeoutMs)).kind === "answer") return unit;
      this.#asked.add(keyOf(settings, unit));
    }
    const late = await this.#lateUnits(settings);
    return late[0];
  }

  async #searchToEnd(settings: LineSettings | undefined, first: number): Promise<void> {
    const { units, kind } = this.#options;
    if (kind === "tcp" && (await this.#answersToAll(settings, first))) {
      this.#remark = "it answers to every unit number, so it is one device: a meter with a network port of its own";
      await this.#add(settings, first);
      return;
    }
    await this.#add(settings, first);
    const rest = units.filter((unit) => unit !== first);
    const near = rest.filter((unit) => unit <= nearUnitMax);
    await this.#sweep(settings, near, [3, 4]);
    await this.#sweep(
      settings,
      rest.filter((unit) => unit > nearUnitMax),
      [3],
    );
    for (const unit of await this.#lateUnits(settings)) await this.#add(settings, unit);
  }

  /** Asks these units at the line's own setting. Some devices say nothing to a function that they lack: the near ones are asked both. */
  async #sweep(
    settings: LineSettings | undefined,
    units: readonly number[],
    functionCodes: readonly (3 | 4)[],
  ): Promise<void> {
    const { timeoutMs } = this.#options;
    for (const [place, unit] of units.entries()) {
      for (const functionCode of functionCodes) {
        this.#checkLimits();
        this.#progress(settings, unit, 0, place / units.length);
        if (functionCode === 3 && this.#asked.has(keyOf(settings, unit))) continue;
        const result = await this.#probe(settings, unit, functionCode, timeoutMs);
        if (
          result.kind === "garbled" &&
          (await this.#probe(settings, unit, functionCode, timeoutMs)).kind === "garbled"
        ) {
          this.#doubles.push(unit);
          break;
        }
        if (result.kind !== "answer") continue;
        await this.#add(settings, unit);
        break;
      }
    }
  }

  async #answersToAll(settings: LineSettings | undefined, first: number): Promise<boolean> {
    for (const unit of unlikelyUnits) {
      if (unit === first) continue;
      if ((await this.#probe(settings, unit, 3, this.#options.timeoutMs)).kind !== "answer") return false;
    }
    return true;
  }

  /** Units whose answers came after their time: they are asked again, and more is waited for. */
  async #lateUnits(settings: LineSettings | undefined): Promise<number[]> {
    const late = [...(this.#line?.counters ?? [])].filter(([unit, { late }]) => late > 0 && !this.#has(unit));
    if (late.length === 0) return [];
    const patientMs = patience * this.#options.timeoutMs;
    await this.#freshLineAt(settings);
    const answering: number[] = [];
    for (const [unit] of late) {
      const result = await this.#probe(settings, unit, 3, patientMs);
      if (result.kind === "answer") answering.push(unit);
    }
    return answering;
  }

  async #add(settings: LineSettings | undefined, unit: number): Promise<void> {
    if (this.#has(unit)) return;
    const { profiles, kind, timeoutMs } = this.#options;
    const slowMs = patience * timeoutMs;
    this.#progress(settings, unit, 0, this.#share, true);
    const first = await this.#probe(settings, unit, 3, slowMs);
    const answer = first.kind === "answer" ? first.text : first.kind;
    const place = this.#found.push({ unit, answer, certainty: "unknown", alternatives: [] }) - 1;
    const line = (afterSilence: boolean): Promise<ModbusLine> =>
      afterSilence ? this.#freshLineAt(settings) : this.#lineAt(settings);
    const reader = new UnitReader({ unit, timeoutMs: slowMs, kind, line });
    const recognition = await recognise(reader, profiles, kind);
    const { profile } = recognition;
    let { serialNumber, text } = recognition;
    if (!profile && text === undefined)
      text = identityText(await (await line(false)).identify({ unit, timeoutMs: slowMs }));
    if (profile && serialNumber === undefined)
      serialNumber = await new ModbusMeter(await line(false), profile, unit).serialNumber().catch(() => undefined);
    this.#found[place] = {
      ...{ unit, answer, ...recognition },
      ...(serialNumber !== undefined && { serialNumber }),
      ...(text !== undefined && { text }),
    };
  }

  async #probe(
    settings: LineSettings | undefined,
    unit: number,
    functionCode: 3 | 4,
    timeoutMs: number,
  ): Promise<ProbeResult> {
    const line = await this.#lineAt(settings);
    try {
      // The line rests for as long as it waits: an answer that comes later still is told from the next unit's by its unit.
      await line.readRegisters({
        unit,
        functionCode,
        address: 0,
        count: probeRegisters,
        timeoutMs,
        slowestAnswerMs: timeoutMs,
      });
      return { kind: "answer", text: "registers" };
    } catch (error) {
      if (!(error instanceof DriverError)) throw error;
      return probeResult(error);
    }
  }

  async #lineAt(settings: LineSettings | undefined): Promise<ModbusLine> {
    if (this.#line !== undefined && isSame(this.#lineSettings, settings)) return this.#line;
    await this.close();
    this.#line = this.#options.openLine(settings);
    this.#lineSettings = settings;
    return this.#line;
  }

  /** A line opened anew waits for nothing that may still be on its way: so all of that has to have come before. */
  async #freshLineAt(settings: LineSettings | undefined): Promise<ModbusLine> {
    await this.close();
    await new Promise((resolve) => setTimeout(resolve, patience * this.#options.timeoutMs));
    return this.#lineAt(settings);
  }

  #has(unit: number): boolean {
    return this.#found.some((known) => known.unit === unit);
  }

  #checkLimits(): void {
    if (this.#options.signal.aborted) throw new Stopped("stopped");
    if (performance.now() > this.#limitAtMs) throw new Stopped("limit");
  }

  #progress(
    settings: LineSettings | undefined,
    unit: number,
    inStepMs: number,
    shareOfEnd?: number,
    isRecognising = false,
  ): void {
    this.#share = Math.min(1, shareOfEnd ?? (this.#spentMs + inStepMs) / Math.max(1, this.#totalMs));
    this.#options.onProgress?.({ settings, unit, isRecognising, share: this.#share, found: this.#found.length });
  }

  #remarks(): string[] {
    const remarks = this.#remark === undefined ? [] : [this.#remark];
    for (const unit of this.#doubles)
      remarks.push(
        `unit ${unit}: answers that nobody can read; perhaps two devices have this address: unplug one and scan again`,
      );
    if (this.#found.length === 0 && this.#garbledAt.length > 0)
      remarks.push(
        "bytes came that nobody can read: something is there, at a setting that was not tried, or the line is disturbed",
      );
    return remarks;
  }
}

/** What a unit says of itself by functions 43 and 17, in one line. */
function identityText(identity: DeviceIdentity | undefined): string | undefined {
  if (identity === undefined) return undefined;
  const { vendor, product, revision, text } = identity;
  return [vendor, product, revision, text].filter((part) => part !== undefined && part !== "").join(" ") || undefined;
}

function keyOf(settings: LineSettings | undefined, unit: number): string {
  return settings === undefined ? `${unit}` : `${settings.baud} ${settings.parity} ${settings.stopBits} ${unit}`;
}

/** What an error says of the unit. @throws the error itself where it says something of the port */
function probeResult(error: DriverError): ProbeResult {
  switch (error.code) {
    case "timeout":
      return { kind: "silent" };
    case "crc-error":
    case "wrong-reply":
      return { kind: "garbled" };
    case "wrong-unit":
      return { kind: "other unit" };
    case "modbus-exception":
      // 10 and 11 are a gateway's word for: nobody there ("Application Protocol" V1.1b3 §7).
      if (error.exceptionCode === 10 || error.exceptionCode === 11) return { kind: "silent" };
      return { kind: "answer", text: `exception ${error.exceptionCode}` };
    default:
      throw error;
  }
}

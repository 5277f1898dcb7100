/**
 * A meter on a line: what the agent and the commands read. It keeps what was learned of this one meter (blocks that it
 * refuses, registers that it lacks, its settings), which a profile cannot know.
 */
import type { ModbusLine } from "./line.ts";
import { MeterMemory } from "./meter-memory.ts";
import { type MeterReading, readMeter, readSerialNumber } from "./meter-reader.ts";
import type { MeterProfile } from "./profile.ts";
import { SunspecReader } from "./sunspec-reader.ts";

export interface MeterReadOptions {
  /** Codes wanted, each of which must come. Default: the profile's, less those that this meter does not have. */
  readonly codes?: readonly number[];
  /** Without `codes`: of the default ones these alone, none of which must come. Default: all of them. */
  readonly only?: readonly number[];
  /** No request of this reading is begun later than this after the call. Default 5000. */
  readonly deadlineMs?: number;
}

export class ModbusMeter {
  readonly line: ModbusLine;
  readonly profile: MeterProfile;
  readonly unit: number;
  readonly #memory: MeterMemory;
  readonly #sunspec: SunspecReader | undefined;

  constructor(line: ModbusLine, profile: MeterProfile, unit: number) {
    this.line = line;
    this.profile = profile;
    this.unit = unit;
    this.#memory = new MeterMemory(profile);
    this.#sunspec = profile.kind === "sunspec" ? new SunspecReader(line, profile, unit) : undefined;
  }

  /**
   * One reading. A bus that fails gives a reading with a status, never an exception.
   * @throws RangeError for a code that the profile does not have
   */
  read(options: MeterReadOptions = {}): Promise<MeterReading> {
    if (this.#sunspec) return this.#sunspec.read(options);
    return readMeter(this.line, { profile: this.profile, unit: this.unit, memory: this.#memory, ...options });
  }

  /** The meter's serial number; undefined where it tells none. @throws DriverError */
  serialNumber(): Promise<string | undefined> {
    if (this.#sunspec) return this.#sunspec.serialNumber();
    return readSerialNumber(this.line, { profile: this.profile, unit: this.unit });
  }
}

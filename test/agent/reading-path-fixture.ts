// A line, a wallet and a clock in memory, for the tests of the path of a reading.
import type { TestContext } from "node:test";
import type { MeterConfiguration } from "../../agent/configuration.ts";
import type { AgentEvent } from "../../agent/event.ts";
import { LineTurns } from "../../agent/line-turns.ts";
import {
  type PolledMeter,
  polledMeter,
  pollMeter,
  type ReadingPathOptions,
  sealRows,
} from "../../agent/reading-path.ts";
import type { MeterRows } from "../../agent/row-sealing.ts";
import { type WalletClient, WalletUnavailable } from "../../agent/wallet-client.ts";
import { DriverError } from "../../drivers/failure.ts";
import type { ModbusLine } from "../../drivers/modbus/line.ts";
import type { RegisterRead } from "../../drivers/modbus/register-read.ts";
import { statusLetters } from "../../protocol/reading-status.ts";
import type { Row } from "../../protocol/record.ts";
import { type SealRequest, WalletRefusal } from "../../protocol/wallet-message.ts";
import { eastronSdm630 } from "../drivers/sdm630-line.ts";

export const startMs = 1_800_000_000_000;
export const answerMs = 20;
export const timeoutMs = 1_000;

/** A line on which a unit answers after 20 ms, or holds it for 1 s (time-out and drain); one request at a time, as on a wire. */
export class SimulatedLine {
  readonly description = "simulated line";
  readonly counters = new Map<
    number,
    { requests: number; timeouts: number; crcErrors: number; wrongReplies: number }
  >();
  readonly dead = new Set<number>();
  /** Units that answer, each time with a wrong CRC. */
  readonly garbled = new Set<number>();
  answerMs = answerMs;
  down: DriverError | undefined;
  #tail: Promise<unknown> = Promise.resolve();
  readonly nowMs = (): number => Date.now();
  readonly requestCostRegisters = (): number => 8;

  readRegisters(read: RegisterRead): Promise<Uint16Array> {
    const result = this.#tail.then(() => this.#read(read));
    this.#tail = result.catch(() => undefined);
    return result;
  }

  async #read({ unit, count, startBeforeMs = Number.POSITIVE_INFINITY }: RegisterRead): Promise<Uint16Array> {
    if (this.down) throw this.down;
    if (Date.now() > startBeforeMs) throw new DriverError("timeout", "its turn came after the deadline");
    const counters = this.counters.get(unit) ?? { requests: 0, timeouts: 0, crcErrors: 0, wrongReplies: 0 };
    this.counters.set(unit, counters);
    counters.requests++;
    const dead = this.dead.has(unit);
    const garbled = this.garbled.has(unit);
    await new Promise((resolve) => setTimeout(resolve, dead || garbled ? timeoutMs : this.answerMs));
    if (garbled) counters.crcErrors++;
    if (garbled) throw new DriverError("crc-error", "bytes without a valid CRC");
    if (!dead) return new Uint16Array(count);
    counters.timeouts++;
    throw new DriverError("timeout", "no answer");
  }
}

/** A wallet in memory: known rows give the same sequence again, other values at a known time are refused. */
export class SimulatedWallet {
  readonly rows = new Map<string, { row: Row; sequence: number }>();
  readonly sealed: Row[] = [];
  readonly requests: Row[][] = [];
  away = false;
  answerLost = false;
  refuse: (row: Row) => WalletRefusal | undefined = () => undefined;

  /** Times of rows that were sealed as seconds since the boot. */
  readonly relativeS: number[] = [];

  async seal({ meter, rows, relative }: Omit<SealRequest, "type">): Promise<{ sequences: number[] }> {
    await new Promise((resolve) => setImmediate(resolve));
    if (this.away) throw new WalletUnavailable("away");
    this.requests.push([...rows]);
    if (relative) this.relativeS.push(...rows.map(({ timeS }) => timeS));
    for (const row of rows) {
      const refusal = this.refuse(row);
      if (refusal) throw refusal;
      const known = this.rows.get(`${meter} ${row.timeS}`);
      if (known && JSON.stringify(known.row) !== JSON.stringify(row)) throw new WalletRefusal("row-conflict");
    }
    const sequences = rows.map((row) => {
      const name = `${meter} ${row.timeS}`;
      const known = this.rows.get(name) ?? { row, sequence: this.rows.size + 1 };
      if (!this.rows.has(name)) this.sealed.push(row);
      this.rows.set(name, known);
      return known.sequence;
    });
    if (this.answerLost) throw new WalletUnavailable("killed between seal and answer");
    return { sequences };
  }
}

export interface Scene {
  readonly line: SimulatedLine;
  readonly wallet: SimulatedWallet;
  readonly events: AgentEvent[];
  readonly options: ReadingPathOptions;
  meter(unit: number, intervalS?: number, more?: Partial<MeterConfiguration>): PolledMeter;
  /** Polls and seals from now on. */
  start(...meters: PolledMeter[]): void;
  /** Lets so much time pass; the wall clock may be set beside it. */
  pass(ms: number): Promise<void>;
  setClock(byMs: number): void;
}

/** How long the machine is up when a scene begins. */
export const upMs = 100_000;

export function scene(t: TestContext, sealEveryS = 0): Scene {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"], now: startMs });
  const line = new SimulatedLine();
  const wallet = new SimulatedWallet();
  const events: AgentEvent[] = [];
  let setMs = 0;
  const options: ReadingPathOptions = {
    wallet: wallet as unknown as WalletClient,
    sealEveryS,
    clock: { wallMs: () => Date.now() + setMs, monotonicMs: () => Date.now() - startMs + upMs },
    emit: (event) => events.push(event),
    onSealed: () => undefined,
  };
  const ending = new AbortController();
  t.after(() => ending.abort());
  const turns = new LineTurns();
  return {
    line,
    wallet,
    events,
    options,
    meter: (unit, intervalS = 1, more = {}) =>
      polledMeter(
        {
          ...{ index: unit - 1, name: `meter-${unit}`, line: "main", unit, profile: eastronSdm630.id },
          ...{ intervalS, codes: [1, 2], powerMaxW: 0, ...more },
        },
        eastronSdm630,
        line as unknown as ModbusLine,
        turns,
      ),
    start: (...meters) => {
      for (const meter of meters) {
        void pollMeter(meter, options, ending.signal);
        void sealRows(meter, options, ending.signal);
      }
    },
    pass: async (ms) => {
      for (let passed = 0; passed < ms; passed += 10) {
        t.mock.timers.tick(10);
        for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
      }
    },
    setClock: (byMs) => {
      setMs += byMs;
    },
  };
}

/** Those of its first plan. */
export const rowsOf = ({ rows }: PolledMeter): MeterRows => rows[0] as MeterRows;
export const letters = (rows: readonly Row[]): string => rows.map(({ status }) => statusLetters[status]).join("");
/** Seconds since the start. */
export const seconds = (rows: readonly Row[]): number[] => rows.map(({ timeS }) => timeS - startMs / 1_000);
export const lostRows = (events: readonly AgentEvent[]): number =>
  events.reduce((sum, event) => sum + (event.event === "lost" ? event.rows : 0), 0);
export const upTo = (last: number, first = 1): number[] =>
  Array.from({ length: last - first + 1 }, (_, i) => first + i);

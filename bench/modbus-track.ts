/** A set of paced lines and the masters that take turns on them, each on a line of its own: what one condition of the benchmark runs on. */
import { existsSync } from "node:fs";
import path from "node:path";
import type { WireStatistics } from "../simulator/paced-line-wire.ts";
import type { RunningProgram } from "../test/system/running-program-fixture.ts";
import type { Scene } from "../test/system/scene-fixture.ts";
import type { LineProcessOptions } from "./modbus-line-process.ts";
import type { MasterOptions, MasterOrder, MasterReport } from "./modbus-master.ts";
import { requestsOf, wordSumOf } from "./modbus-register-set.ts";

const python = "/usr/bin/python3"; // Debian's own, which sees Debian's packages

/** How a line is set; at 10 bits a character without parity, 11 with it. */
export interface Condition {
  readonly baud: number;
  readonly parity: "none" | "even";
  readonly pieceCharacters?: number;
}

/** One round of one master. */
export interface Round extends MasterReport {
  /** What the wire's limit allows, of what was needed: above 1 only by breaking silences. */
  readonly share: number;
  readonly silences: number;
  readonly violations: number;
  readonly shortestSilenceMs: number;
  readonly cpuMsPerPoll: number;
  /** Of the round's time, how much the line was kept from its core by other processes, and all figures with it. */
  readonly stalledPercent: number;
}

interface LineReport {
  readonly stalledMs: number;
  readonly lines: readonly WireStatistics[];
}

export class Track {
  readonly #scene: Scene;
  readonly #condition: Condition;
  readonly #process: RunningProgram;
  readonly #paths: string[];

  private constructor(scene: Scene, condition: Condition, process: RunningProgram, paths: string[]) {
    this.#scene = scene;
    this.#condition = condition;
    this.#process = process;
    this.#paths = paths;
  }

  static async open(scene: Scene, condition: Condition, lines: number): Promise<Track> {
    const file = path.join(import.meta.dirname, "modbus-line-process.ts");
    const options: LineProcessOptions = { ...condition, stopBits: 1, lines };
    const running = scene.startCommand(process.execPath, [file, JSON.stringify(options)]);
    const { paths } = await running.event<{ paths: string[] }>((event) => "paths" in event);
    return new Track(scene, condition, running, paths);
  }

  /** Starts a master on so many lines that nobody has yet; undefined where the machine does not have that peer. */
  async start(kind: string, lines = 1): Promise<Master | undefined> {
    const paths = this.#paths.splice(0, lines);
    const { baud, parity } = this.#condition;
    const options: MasterOptions = { kind, paths, baud, parity, stopBits: 1 };
    const started = this.#scene.startCommand(...commandOf(kind, JSON.stringify(options)));
    try {
      await started.event((event) => event.ready === true);
      return new Master(started, this.#process);
    } catch {
      return undefined;
    }
  }

  async close(): Promise<void> {
    await this.#process.stop();
  }
}

function commandOf(kind: string, options: string): [string, string[]] {
  const file = (name: string): string => path.join(import.meta.dirname, name);
  if (kind === "jsmodbus") return [process.execPath, [file("modbus-jsmodbus.mjs"), options]];
  if (kind === "libmodbus" || kind === "pymodbus")
    return [existsSync(python) ? python : "python3", [file("modbus-peers.py"), kind, options]];
  return [process.execPath, [file("modbus-master.ts"), options]];
}

export class Master {
  readonly #process: RunningProgram;
  readonly #line: RunningProgram;

  constructor(process: RunningProgram, line: RunningProgram) {
    this.#process = process;
    this.#line = line;
  }

  /** Polls as fast as it can. The masters of a track take turns: what is seen on all lines is then this one's. */
  async round(polls: number, more: Partial<MasterOrder> = {}): Promise<Round> {
    const { units = [1], set = "blocks" } = more;
    const requests = requestsOf(set).map(({ address, count }) => [address, count]);
    const before = await this.#ask("begin");
    const { position } = this.#process;
    this.#process.write(`${JSON.stringify({ polls, units, set, wordSum: wordSumOf(set), requests })}\n`);
    const report = await this.#process.event<MasterReport & object>((event) => "cpuMs" in event, position, 120_000);
    const after = await this.#ask("end");
    const sum = (of: LineReport, key: keyof WireStatistics): number =>
      of.lines.reduce((total, statistics) => total + statistics[key], 0);
    const since = (key: keyof WireStatistics): number => sum(after, key) - sum(before, key);
    return {
      ...report,
      share: since("wireLimitMs") / since("elapsedMs"),
      silences: since("silences"),
      violations: since("violations"),
      shortestSilenceMs: Math.min(...after.lines.map(({ shortestSilenceMs }) => shortestSilenceMs ?? Infinity)),
      cpuMsPerPoll: report.cpuMs / polls,
      stalledPercent: (100 * (after.stalledMs - before.stalledMs)) / report.elapsedMs,
    };
  }

  async stop(): Promise<void> {
    await this.#process.stop();
  }

  async #ask(command: string): Promise<LineReport> {
    const { position } = this.#line;
    this.#line.write(`${command}\n`);
    return this.#line.event<LineReport & object>((event) => "stalledMs" in event, position);
  }
}

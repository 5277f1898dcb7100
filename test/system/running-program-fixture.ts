/** Programs as real processes: what they say is awaited line by line, and each is ended by its handle. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";

export const projectRoot = path.resolve(import.meta.dirname, "../..");
const lineTimeoutMs = 60_000;
const stopGraceMs = 15_000;

export type ProgramName = "ecp" | "ecp-wallet" | "ecp-node" | "ecp-demo";

/** The file that Node runs for a program: TypeScript as it stands, the wallet from its bundle (build/run.cjs builds it). */
export function programFile(name: ProgramName): string {
  return path.join(projectRoot, name === "ecp-wallet" ? "dist/ecp-wallet.cjs" : `cli/${name}.ts`);
}

export interface Ending {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface ProcessOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
}

/** What runs: a test file that is ended from outside must not leave programs behind. */
const running = new Set<ChildProcess>();
for (const signal of ["SIGTERM", "SIGINT"] as const)
  process.once(signal, () => {
    for (const child of running) child.kill("SIGKILL"); // their own parts end with them
    process.exit(1);
  });

export class RunningProgram {
  readonly pid: number;
  /** Whole lines, in the order in which they came. */
  readonly stdout: string[] = [];
  readonly stderr: string[] = [];
  readonly #ended: Promise<Ending>;
  readonly #child: ChildProcess;
  readonly #name: string;
  readonly #listeners = new Set<(line: string | undefined) => void>();
  readonly #lines: string[] = [];
  #isEnded = false;

  constructor(command: string, args: readonly string[], options: ProcessOptions = {}) {
    this.#name = [path.basename(command), ...args].join(" ");
    // Its stdin is a pipe that nobody writes to: with --exit-with-parent it ends when this process does.
    const child = spawn(command, args, { ...options, stdio: ["pipe", "pipe", "pipe"] });
    child.stdin.on("error", () => undefined);
    this.#child = child;
    running.add(child);
    child.once("close", () => running.delete(child));
    this.pid = child.pid ?? 0;
    createInterface({ input: child.stdout }).on("line", (line) => this.#take(this.stdout, line));
    createInterface({ input: child.stderr }).on("line", (line) => this.#take(this.stderr, line));
    this.#ended = new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code, signal) => {
        this.#isEnded = true;
        for (const listener of [...this.#listeners]) listener(undefined);
        resolve({ code, signal });
      });
    });
    this.#ended.catch(() => undefined); // told to whoever awaits it
  }

  #take(lines: string[], line: string): void {
    lines.push(line);
    this.#lines.push(line);
    for (const listener of [...this.#listeners]) listener(line);
  }

  /** How many lines it has said: a place to look from with {@link line}. */
  get position(): number {
    return this.#lines.length;
  }

  /** The first line since `from` that fits; waits for it. Rejects when the program ends or time is up, with what it said. */
  line(fits: RegExp | ((line: string) => boolean), from = 0, timeoutMs = lineTimeoutMs): Promise<string> {
    const test = typeof fits === "function" ? fits : (line: string): boolean => fits.test(line);
    const found = this.#lines.slice(from).find(test);
    if (found !== undefined) return Promise.resolve(found);
    const failure = (what: string): Error =>
      new Error(`${this.#name}: ${what} ${String(fits)}; it said:\n${this.#lines.slice(-40).join("\n")}`);
    if (this.#isEnded) return Promise.reject(failure("ended without a line"));
    return new Promise((resolve, reject) => {
      const done = (action: () => void): void => {
        clearTimeout(timer);
        this.#listeners.delete(listener);
        action();
      };
      const timer = setTimeout(() => done(() => reject(failure(`within ${timeoutMs} ms no line`))), timeoutMs);
      const listener = (line: string | undefined): void => {
        if (line === undefined) done(() => reject(failure("ended without a line")));
        else if (test(line)) done(() => resolve(line));
      };
      this.#listeners.add(listener);
    });
  }

  /** The same for lines that are JSON objects. */
  async event<T extends object = Record<string, unknown>>(
    fits: (event: Record<string, unknown>) => boolean,
    from = 0,
    timeoutMs = lineTimeoutMs,
  ): Promise<T> {
    const fitting = (line: string): boolean => {
      const event = jsonOf(line);
      return event !== undefined && fits(event);
    };
    // The condition's text helps whoever reads that it was not met in time.
    fitting.toString = () => fits.toString();
    return jsonOf(await this.line(fitting, from, timeoutMs)) as T;
  }

  /** The JSON objects among what it said so far. */
  events(): Record<string, unknown>[] {
    return this.#lines.map(jsonOf).filter((event) => event !== undefined);
  }

  /** Writes to its standard input. */
  write(text: string): void {
    this.#child.stdin?.write(text);
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** How it ended; rejects when it still runs after `timeoutMs`, with what it said. */
  async ending(timeoutMs = lineTimeoutMs): Promise<Ending> {
    const late = new Promise<never>((_, reject) => {
      const text = (): string =>
        `${this.#name}: still runs after ${timeoutMs} ms:\n${this.#lines.slice(-40).join("\n")}`;
      setTimeout(() => reject(new Error(text())), timeoutMs).unref();
    });
    return await Promise.race([this.#ended, late]);
  }

  /** Ends it: SIGTERM, SIGKILL where that does not help. */
  async stop(): Promise<Ending> {
    if (!this.#isEnded) {
      const hard = setTimeout(() => this.#child.kill("SIGKILL"), stopGraceMs);
      this.#child.kill("SIGTERM");
      await this.#ended.finally(() => clearTimeout(hard));
    }
    return this.#ended;
  }
}

function jsonOf(line: string): Record<string, unknown> | undefined {
  if (!line.startsWith("{")) return undefined;
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

export interface Result extends Ending {
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command to its end. */
export async function runToEnd(
  command: string,
  args: readonly string[],
  options: ProcessOptions = {},
): Promise<Result> {
  const child = spawn(command, args, { ...options, stdio: ["ignore", "pipe", "pipe"] });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const [code, signal] = (await once(child, "close")) as [number | null, NodeJS.Signals | null];
  return { code, signal, stdout, stderr };
}

/** Whether a process runs; one that is dead and waits for its parent to notice (proc(5), state Z) does not. */
export function isRunning(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(")") + 2));
  } catch {
    return false;
  }
}

/** Asks again and again until the answer is true; rejects after `timeoutMs`. For what gives no event. */
export async function eventually(
  what: string,
  isSo: () => boolean | Promise<boolean>,
  timeoutMs = lineTimeoutMs,
): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs;
  while (!(await isSo())) {
    if (performance.now() > deadlineMs) throw new Error(`within ${timeoutMs} ms it did not come about that ${what}`);
    await pause(100);
  }
}

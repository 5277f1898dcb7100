/** Keeps child processes running: starts them, starts one again a while after it died, stops all by handle. */
import { type ChildProcess, spawn } from "node:child_process";

export interface PartOptions {
  readonly name: string;
  readonly command: string;
  /** Asked for at each start. */
  readonly arguments: () => readonly string[];
  /** In a process group of its own: Ctrl-C at the terminal then reaches only us, and we end our parts in order. */
  readonly ownGroup?: boolean;
  /** Called with each whole line of the child's stdout. */
  readonly onLine?: (line: string) => void;
  /** Called with each whole line of the child's stderr; inherited where absent. */
  readonly onErrorLine?: (line: string) => void;
  readonly onStart?: (pid: number) => void;
  /** Called when the child has ended without being told to. */
  readonly onExit?: (code: number | null, signal: NodeJS.Signals | null) => void;
  /** Exit codes after which starting again is useless (a wrong passphrase, a bad configuration). */
  readonly finalExitCodes?: readonly number[];
}

const lineBytesMax = 1_048_576;
/** How long after the child's end its last lines are waited for: a grandchild may hold its pipes open for ever. */
const lastLinesMs = 1_000;

/** One child process that is started again `restartAfterMs` after each death. */
export class Part {
  readonly name: string;
  readonly #options: PartOptions;
  readonly #restartAfterMs: number;
  readonly #stopGraceMs: number;
  #child: ChildProcess | undefined;
  #timer: NodeJS.Timeout | undefined;
  #stopping = false;

  constructor(options: PartOptions, restartAfterMs: number, stopGraceMs = 10_000) {
    this.#stopGraceMs = stopGraceMs;
    this.name = options.name;
    this.#options = options;
    this.#restartAfterMs = restartAfterMs;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  start(): void {
    if (this.#child || this.#stopping) return;
    const { command, arguments: list, ownGroup, onLine, onErrorLine, onStart } = this.#options;
    // Its stdin is a pipe that we hold and never write to: it closes when we die, and the child can end then.
    const child = spawn(command, [...list()], {
      stdio: ["pipe", onLine ? "pipe" : "inherit", onErrorLine ? "pipe" : "inherit"],
      detached: ownGroup === true,
    });
    this.#child = child;
    child.stdin?.on("error", () => undefined); // the child went first: its exit says all there is to say
    if (child.stdout && onLine) readLines(child.stdout, onLine);
    if (child.stderr && onErrorLine) readLines(child.stderr, onErrorLine);
    child.once("error", (error) => {
      onErrorLine?.(`${this.name}: cannot be started: ${error.message}`);
      if (child.pid === undefined) this.#ended(child, 127, null);
    });
    child.once("exit", () => {
      const hard = setTimeout(() => {
        child.stdout?.destroy();
        child.stderr?.destroy();
      }, lastLinesMs);
      child.once("close", () => clearTimeout(hard));
    });
    child.once("close", (code, signal) => this.#ended(child, code, signal));
    if (child.pid !== undefined) onStart?.(child.pid);
  }

  #ended(child: ChildProcess, code: number | null, signal: NodeJS.Signals | null): void {
    if (this.#child !== child) return;
    this.#child = undefined;
    if (this.#stopping) return;
    this.#options.onExit?.(code, signal);
    if (code !== null && this.#options.finalExitCodes?.includes(code)) return;
    this.#timer = setTimeout(() => this.start(), this.#restartAfterMs);
  }

  /** Ends the child: SIGTERM, and SIGKILL where that has not helped after `stopGraceMs`. Resolves when it is gone. */
  async stop(): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#timer);
    const child = this.#child;
    if (!child) return;
    await new Promise<void>((resolve) => {
      const hard = setTimeout(() => child.kill("SIGKILL"), this.#stopGraceMs);
      child.once("close", () => {
        clearTimeout(hard);
        resolve();
      });
      child.kill("SIGTERM");
    });
  }
}

function readLines(stream: NodeJS.ReadableStream, onLine: (line: string) => void): void {
  let pending = "";
  stream.setEncoding("utf8");
  stream.on("data", (text: string) => {
    const lines = (pending + text).split("\n");
    pending = (lines.pop() ?? "").slice(0, lineBytesMax);
    for (const line of lines) onLine(line);
  });
  stream.on("end", () => {
    if (pending !== "") onLine(pending);
  });
}

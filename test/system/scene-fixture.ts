/** What one test has of the machine: a folder, processes, ports. All of it ends with the test, the last begun first. */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import type { TestContext } from "node:test";
import {
  type ProcessOptions,
  type ProgramName,
  programFile,
  type Result,
  RunningProgram,
  runToEnd,
} from "./running-program-fixture.ts";

export class Scene {
  readonly folder: string;
  /** What programs put into the folder for temporary files lies here. */
  readonly temporary: string;
  readonly env: NodeJS.ProcessEnv;
  readonly #endings: (() => unknown)[] = [];

  constructor(t: Pick<TestContext, "after">) {
    this.folder = mkdtempSync(path.join(tmpdir(), "ecp-system-"));
    this.temporary = path.join(this.folder, "tmp");
    mkdirSync(this.temporary);
    this.env = { ...process.env, TMPDIR: this.temporary };
    this.atEnd(() => rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 }));
    t.after(async () => {
      for (const ending of this.#endings.reverse()) await ending();
    });
  }

  atEnd(ending: () => unknown): void {
    this.#endings.push(ending);
  }

  path(...names: string[]): string {
    return path.join(this.folder, ...names);
  }

  /** Starts one of the project's programs with the Node that runs this. */
  start(program: ProgramName, ...args: string[]): RunningProgram {
    return this.startCommand(process.execPath, [programFile(program), ...args]);
  }

  startCommand(command: string, args: readonly string[], options: ProcessOptions = {}): RunningProgram {
    const running = new RunningProgram(command, args, { env: this.env, ...options });
    this.atEnd(() => running.stop());
    return running;
  }

  /** Runs one of the project's programs to its end. */
  run(program: ProgramName, ...args: string[]): Promise<Result> {
    return runToEnd(process.execPath, [programFile(program), ...args], { env: this.env });
  }

  /** The same, where it must succeed: its stdout. */
  async succeed(program: ProgramName, ...args: string[]): Promise<string> {
    const { code, signal, stdout, stderr } = await this.run(program, ...args);
    if (code === 0) return stdout;
    throw new Error(`${program} ${args.join(" ")}: ended with ${code ?? signal}:\n${stdout}${stderr}`);
  }
}

/** A TCP port of 127.0.0.1 that nobody had a moment ago. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}

/** ecp-node as a process of its own. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { TestContext } from "node:test";

const program = join(import.meta.dirname, "../../cli/ecp-node.ts");

export interface Finished {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command to its end. */
export function ecpNode(...args: readonly string[]): Finished {
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...args], {
    encoding: "utf8",
    timeout: 30_000,
  });
  return { status, stdout, stderr };
}

export interface RunningNode {
  readonly child: ChildProcess;
  readonly port: number;
  /** What it has said on stdout so far. */
  readonly events: readonly Record<string, unknown>[];
  /** Waits for an event of this name, one that came before included. */
  event(name: string): Promise<Record<string, unknown>>;
  /** Waits until so many events of this name have come. */
  eventCount(name: string, count: number): Promise<void>;
  /** Status, or the signal that ended it. */
  readonly ended: Promise<number | NodeJS.Signals | null>;
}

/** Starts `ecp-node run --json` and waits until its broker listens. It is killed when the test ends. */
export async function startNode(t: TestContext, data: string, ...args: readonly string[]): Promise<RunningNode> {
  const child = spawn(process.execPath, [program, "run", "--data", data, "--json", ...args], {
    stdio: ["pipe", "pipe", "pipe"],
  });
  t.after(() => child.kill("SIGKILL"));
  const events: Record<string, unknown>[] = [];
  const waiting: { name: string; resolve: (event: Record<string, unknown>) => void }[] = [];
  let stderr = "";
  child.stderr.on("data", (chunk) => {
    stderr += chunk;
  });
  const ended = new Promise<number | NodeJS.Signals | null>((resolve) => {
    child.on("close", (status, signal) => resolve(signal ?? status));
  });
  createInterface({ input: child.stdout }).on("line", (line) => {
    const event = JSON.parse(line) as Record<string, unknown>;
    events.push(event);
    for (const { resolve } of waiting.filter(({ name }) => name === event.event)) resolve(event);
  });
  const event = (name: string) => {
    const past = events.find((one) => one.event === name);
    if (past) return Promise.resolve(past);
    const coming = new Promise<Record<string, unknown>>((resolve) => waiting.push({ name, resolve }));
    const never = ended.then((status) => {
      throw new Error(`ecp-node ended (${status}) before it said "${name}": ${stderr}`);
    });
    return Promise.race([coming, never]);
  };
  const eventCount = async (name: string, count: number) => {
    while (events.filter((one) => one.event === name).length < count)
      await new Promise<unknown>((resolve) => waiting.push({ name, resolve }));
  };
  const started = await event("started");
  await event("connected");
  const port = Number(new URL(`${started.broker}`).port);
  return { child, port, events, event, eventCount, ended };
}

/** The control of the kills: a log that answers at once and writes what it answered every 50 ms, as a queue in memory does. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import type { Campaign } from "./campaign.ts";

const isServer = process.argv[2] === "--answer-early";

if (isServer) {
  const file = process.argv[3] as string;
  let waiting = "";
  createInterface({ input: process.stdin }).on("line", (line) => {
    waiting += `${line}\n`;
    process.stdout.write(`${line}\n`);
  });
  setInterval(() => {
    if (waiting !== "") appendFileSync(file, waiting);
    waiting = "";
  }, 50);
}

/** Kills it so often, each time under load; gives how many of its answers were lost. */
export async function killEarlyAnswerer(
  campaign: Campaign,
  folder: string,
  kills: number,
): Promise<{ kills: number; answers: number; lostAnswers: number }> {
  mkdirSync(folder);
  const file = path.join(folder, "log");
  const answered = new Set<string>();
  let next = 0;
  for (let i = 0; i < kills; i++) {
    const child = spawn(process.execPath, [import.meta.filename, "--answer-early", file], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    const lines = createInterface({ input: child.stdout });
    lines.on("line", (line) => {
      answered.add(line);
      if (child.stdin.writable) child.stdin.write(`${++next}\n`);
    });
    child.stdin.on("error", () => undefined);
    child.stdin.write(`${++next}\n`);
    await once(lines, "line");
    await pause(campaign.random.integer(0, 200));
    child.kill("SIGKILL");
    await once(child, "close");
  }
  const written = new Set(existsSync(file) ? readFileSync(file, "utf8").split("\n") : []);
  return { kills, answers: answered.size, lostAnswers: [...answered].filter((line) => !written.has(line)).length };
}

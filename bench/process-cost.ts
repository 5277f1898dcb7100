/** What a process costs, from proc(5). */
import { readFileSync } from "node:fs";

/** USER_HZ is 100 on every architecture that Linux has today. */
const tickMs = 10;

/** CPU time so far, user and system, of the process and of its children that have ended. */
export function cpuMsOf(pid: number): number {
  // The name in parentheses may hold anything: the numbers come behind the last one.
  const text = readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) * tickMs;
}

/** RssAnon of its status, Pss of its smaps_rollup. */
export function memoryOf(pid: number): { anonymousMiB: number; pssMiB: number } {
  const of = (file: string, field: string): number => {
    const text = readFileSync(`/proc/${pid}/${file}`, "latin1");
    return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(text)?.[1]) / 1_024;
  };
  return { anonymousMiB: of("status", "RssAnon"), pssMiB: of("smaps_rollup", "Pss") };
}

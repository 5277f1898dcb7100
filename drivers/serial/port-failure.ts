/** Turns a failed open of a serial port into a DriverError that says what to do. */
import { readdir, readFile, readlink, realpath } from "node:fs/promises";
import { join } from "node:path";
import { DriverError, type DriverErrorCode, messageOf } from "../failure.ts";

type OpenFailureCode = Extract<
  DriverErrorCode,
  "port-not-found" | "port-busy" | "port-not-permitted" | "port-open-failed"
>;

/**
 * Which of the four failures the text of @serialport/bindings-cpp means: it has no `code`, only strerror(3) in English
 * (`Error: No such file or directory, cannot open /dev/x`, `Error Resource temporarily unavailable Cannot lock port`).
 */
export function classifyOpenFailure(text: string): OpenFailureCode {
  if (/no such (file|device)|not a directory/i.test(text)) return "port-not-found";
  if (/permission denied|operation not permitted/i.test(text)) return "port-not-permitted";
  if (/cannot lock port|resource busy|temporarily unavailable/i.test(text)) return "port-busy";
  return "port-open-failed";
}

/** A process that has a device open. */
export interface PortHolder {
  readonly pid: number;
  /** Its short name (/proc/PID/comm), `?` when unreadable. */
  readonly command: string;
}

/** Where udev keeps names of adapters that outlast re-plugging. */
export const serialById = "/dev/serial/by-id";

/** Stable names of the USB serial adapters present, full paths, sorted; empty when there are none. */
export async function listSerialById(folder = serialById): Promise<string[]> {
  const names = await readdir(folder).catch(() => []);
  return names.sort().map((name) => join(folder, name));
}

/**
 * Processes that hold the device behind `path`, found through /proc/PID/fd. Other users' processes are visible to root
 * only, so an empty list does not prove that nobody has it.
 */
export async function findPortHolders(path: string): Promise<PortHolder[]> {
  const device = await realpath(path).catch(() => path);
  const pids = (await readdir("/proc").catch(() => [])).filter((name) => /^\d+$/.test(name));
  const holders: PortHolder[] = [];
  for (const pid of pids) {
    const folder = `/proc/${pid}/fd`;
    for (const descriptor of await readdir(folder).catch(() => [])) {
      if ((await readlink(join(folder, descriptor)).catch(() => "")) !== device) continue;
      const command = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "?");
      holders.push({ pid: Number(pid), command: command.trim() });
      break;
    }
  }
  return holders;
}

/**
 * The sentence for a failure; pure, so that each can be tested without such a port.
 * @param present paths under /dev/serial/by-id, for `port-not-found`
 * @param holders who has the device, for `port-busy`
 */
export function describeOpenFailure(
  code: OpenFailureCode,
  path: string,
  text: string,
  present: readonly string[],
  holders: readonly PortHolder[],
): string {
  switch (code) {
    case "port-not-found": {
      const found = present.length > 0 ? `present are: ${present.join(", ")}` : `nothing is under ${serialById}`;
      return `Serial port ${path}: expected a device, found none; ${found}. Plug the adapter in or correct the path.`;
    }
    case "port-not-permitted":
      return (
        `Serial port ${path}: this user may not open it. Devices of this kind belong to the group dialout: run ` +
        '"sudo usermod -aG dialout $USER" and log in again (a service: SupplementaryGroups=dialout in its unit).'
      );
    case "port-busy": {
      const names = holders.map((holder) =>
        holder.pid === process.pid
          ? `this process itself (pid ${holder.pid})`
          : `${holder.command} (pid ${holder.pid})`,
      );
      const who = names.length > 0 ? `held by ${names.join(", ")}` : "held by a process that only root can see";
      return `Serial port ${path}: expected to have it alone, but it is ${who}. Stop that program, or use another port.`;
    }
    case "port-open-failed":
      return `Serial port ${path}: could not be opened as a serial port (${text}). Check that the path is one and that its settings suit it.`;
  }
}

/** The DriverError for what serialport said when it failed to open `path`. */
export async function explainOpenFailure(path: string, cause: unknown): Promise<DriverError> {
  const text = messageOf(cause);
  const code = classifyOpenFailure(text);
  const present = code === "port-not-found" ? await listSerialById() : [];
  const holders = code === "port-busy" ? await findPortHolders(path) : [];
  return new DriverError(code, describeOpenFailure(code, path, text, present, holders), { cause });
}

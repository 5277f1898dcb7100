/** Where the agent tells its status on this machine: a Unix socket that gives one JSON text to whoever connects. */
import { chmodSync, lstatSync, unlinkSync } from "node:fs";
import { createConnection, createServer } from "node:net";
import type { AgentStatus } from "./agent.ts";

const statusBytesMax = 1_048_576;
const connectionsMax = 8;
const clientTimeoutMs = 5_000;
/** Longest path that fits into a sockaddr_un (unix(7)). */
const socketPathBytesMax = 107;

/** Listens at a path; a socket file that a dead agent left is replaced. Throws Error with a message for people. */
export async function serveStatus(
  path: string,
  status: () => AgentStatus,
  timeoutMs = clientTimeoutMs,
): Promise<{ close(): void }> {
  if (Buffer.byteLength(path) > socketPathBytesMax)
    throw new Error(`${path} is longer than ${socketPathBytesMax} bytes, the longest path of a Unix socket`);
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found && !found.isSocket()) throw new Error(`${path} is there already, and no socket; it was left as it is`);
  if (found) {
    if (await isAlive(path)) throw new Error(`another agent answers at ${path}; two must never read the same meters`);
    unlinkSync(path);
  }
  const server = createServer((socket) => {
    socket.on("error", () => socket.destroy());
    socket.setTimeout(timeoutMs, () => socket.destroy()); // whoever does not hang up must not keep others out
    socket.resume().end(JSON.stringify(status()));
  });
  server.maxConnections = connectionsMax;
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) => reject(new Error(`cannot listen at ${path}: ${error.message}`)));
    server.listen(path, resolve);
  });
  chmodSync(path, 0o660);
  return { close: () => server.close() };
}

function isAlive(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const probe = createConnection(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "ECONNREFUSED" || error.code === "ENOENT") resolve(false);
      else reject(new Error(`cannot tell whether an agent answers at ${path}: ${error.message}`));
    });
  });
}

/** The status of the agent at a socket; undefined where none answers. */
export function askStatus(path: string): Promise<AgentStatus | undefined> {
  return new Promise((resolve, reject) => {
    let text = "";
    const socket = createConnection(path);
    socket.setEncoding("utf8");
    socket.setTimeout(clientTimeoutMs, () => socket.destroy());
    socket.on("data", (part: string) => {
      text += part;
      if (text.length > statusBytesMax) socket.destroy();
    });
    socket.once("error", () => resolve(undefined));
    socket.once("close", () => {
      if (text === "") resolve(undefined);
      try {
        resolve(JSON.parse(text) as AgentStatus);
      } catch {
        reject(new Error(`the agent at ${path} gave no status that can be read`));
      }
    });
  });
}

/** Where the agent tells its status on this machine: a Unix socket that gives one JSON text to whoever connects. */
import { chmodSync, existsSync, unlinkSync } from "node:fs";
import { createConnection, createServer } from "node:net";
import type { AgentStatus } from "./agent.ts";

const statusBytesMax = 1_048_576;

export async function serveStatus(path: string, status: () => AgentStatus): Promise<{ close(): void }> {
  if (existsSync(path)) {
    if (await isAlive(path)) throw new Error(`another agent answers at ${path}; two must never read the same meters`);
    unlinkSync(path);
  }
  const server = createServer((socket) => {
    socket.on("error", () => socket.destroy());
    socket.end(JSON.stringify(status()));
  });
  server.maxConnections = 8;
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) => reject(new Error(`cannot listen at ${path}: ${error.message}`)));
    server.listen(path, resolve);
  });
  chmodSync(path, 0o660);
  return { close: () => server.close() };
}

function isAlive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createConnection(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", () => resolve(false));
  });
}

/** The status of the agent at a socket; undefined where none answers. */
export function askStatus(path: string): Promise<AgentStatus | undefined> {
  return new Promise((resolve, reject) => {
    let text = "";
    const socket = createConnection(path);
    socket.setEncoding("utf8");
    socket.setTimeout(5_000, () => socket.destroy());
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

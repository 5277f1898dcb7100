/** Where an agent or a full node tells its status on this machine: a Unix socket that gives one JSON text to whoever connects. */
import { chmodSync, lstatSync, unlinkSync } from "node:fs";
import { createConnection, createServer } from "node:net";

const statusBytesMax = 4_194_304;
const connectionsMax = 8;
const clientTimeoutMs = 5_000;
/** Longest path that fits into a sockaddr_un (unix(7)). */
const socketPathBytesMax = 107;

/** Listens at a path; a socket file that a dead agent left is replaced. Throws Error with a message for people. */
export async function serveStatus(
  path: string,
  status: () => object,
  timeoutMs = clientTimeoutMs,
  part: "agent" | "node" = "agent",
): Promise<{ close(): void }> {
  if (Buffer.byteLength(path) > socketPathBytesMax)
    throw new Error(`${path} is longer than ${socketPathBytesMax} bytes, the longest path of a Unix socket`);
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found && !found.isSocket()) throw new Error(`${path} is there already, and no socket; it was left as it is`);
  if (found) {
    if (await isAlive(path, part))
      throw new Error(
        `another ${part} answers at ${path}; two must never ${part === "agent" ? "read the same meters" : "use the same data"}`,
      );
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

function isAlive(path: string, part: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const probe = createConnection(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "ECONNREFUSED" || error.code === "ENOENT") resolve(false);
      else
        reject(
          new Error(
            `cannot tell whether ${part === "agent" ? "an agent" : "a node"} answers at ${path}: ${error.message}`,
          ),
        );
    });
  });
}

/** The status of the agent or node at a socket; undefined where none answers. */
export function askStatus<Status extends object>(path: string): Promise<Status | undefined> {
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
        resolve(JSON.parse(text) as Status);
      } catch {
        reject(new Error(`what answers at ${path} gave no status that can be read`));
      }
    });
  });
}

/** The wallet behind its Unix socket: framed messages, a few connections, one request at a time. */
import { chmodSync, existsSync, unlinkSync } from "node:fs";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { FrameParser, frameOf } from "../platform/framed-channel.ts";
import type { Log } from "../platform/log.ts";
import { walletMessageBytesMax } from "../protocol/wallet-message.ts";

export const walletConnectionsMax = 8;
/** Longest path that fits into a sockaddr_un (unix(7)). */
export const socketPathBytesMax = 107;

/** The socket cannot be had. The message says why and what to do. */
export class SocketError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "SocketError";
  }
}

export interface WalletServer {
  close(): Promise<void>;
}

/**
 * Listens at a path. A socket file that a dead wallet left is replaced; a living one is an error. `fail` is called with
 * what ended the wallet's ability to answer (a failed write): the caller ends the process.
 */
export async function serveWallet(
  path: string,
  mode: number,
  answer: (message: Uint8Array) => Uint8Array,
  log: Log,
  fail: (error: unknown) => void,
): Promise<WalletServer> {
  if (Buffer.byteLength(path) > socketPathBytesMax)
    throw new SocketError(
      `${path} is longer than ${socketPathBytesMax} bytes, the longest path of a Unix socket; choose a shorter --socket`,
    );
  if (existsSync(path)) await removeStale(path);
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    serveConnection(socket, answer, log, fail);
  });
  server.maxConnections = walletConnectionsMax;
  await listen(server, path);
  chmodSync(path, mode);
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

function serveConnection(
  socket: Socket,
  answer: (m: Uint8Array) => Uint8Array,
  log: Log,
  fail: (e: unknown) => void,
): void {
  const parser = new FrameParser(walletMessageBytesMax);
  socket.on("error", () => socket.destroy()); // the agent went away; it will come back or not
  socket.on("data", (bytes) => {
    let messages: Uint8Array[];
    try {
      messages = parser.push(bytes);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      log.warn("connection closed", { reason: error.message });
      socket.destroy();
      return;
    }
    for (const message of messages) {
      try {
        socket.write(frameOf(answer(message)));
      } catch (error) {
        fail(error);
        return;
      }
    }
  });
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) =>
      reject(new SocketError(`cannot listen at ${path}: ${error.message}`)),
    );
    server.listen(path, () => resolve());
  });
}

/** Removes a socket file at which nobody answers. Throws {@link SocketError} where somebody does. */
async function removeStale(path: string): Promise<void> {
  const alive = await new Promise<boolean>((resolve) => {
    const probe = createConnection(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", () => resolve(false));
  });
  if (alive) throw new SocketError(`another wallet answers at ${path}; stop it first, two must never use one journal`);
  unlinkSync(path);
}

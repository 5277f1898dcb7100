/** The wallet behind its Unix socket: framed messages, a few connections, one request at a time. */
import { chmodSync, linkSync, lstatSync, renameSync, statSync, unlinkSync } from "node:fs";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { FrameParser, frameOf } from "../platform/framed-channel.ts";
import type { Log } from "../platform/log.ts";
import { walletMessageBytesMax } from "../protocol/wallet-message.ts";

export const walletConnectionsMax = 8;
/** Longest path that fits into a sockaddr_un (unix(7)). */
export const socketPathBytesMax = 107;
const lockTriesMax = 5;

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

/** Where the wallet answers: at a path, or at a socket that listens already and was handed over (systemd.socket(5)). */
export type ListenAt = { readonly path: string; readonly mode: number } | { readonly descriptor: number };

/**
 * Listens. A socket file that a dead wallet left is replaced; a living one is an error. `fail` is called with what ended the
 * wallet's ability to answer (a failed write): the caller ends the process.
 */
export async function serveWallet(
  at: ListenAt,
  answer: (message: Uint8Array) => Uint8Array,
  log: Log,
  fail: (error: unknown) => void,
): Promise<WalletServer> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    serveConnection(socket, answer, log, fail);
  });
  server.maxConnections = walletConnectionsMax;
  if ("path" in at) await listenAtPath(server, at.path, at.mode);
  else await listen(server, { fd: at.descriptor });
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

async function listenAtPath(server: Server, path: string, mode: number): Promise<void> {
  if (Buffer.byteLength(path) > socketPathBytesMax)
    throw new SocketError(
      `${path} is longer than ${socketPathBytesMax} bytes, the longest path of a Unix socket; choose a shorter --socket`,
    );
  if (await isTaken(path)) throw new SocketError(`another process answers at ${path}; stop it first`);
  if (lstatSync(path, { throwIfNoEntry: false })) unlinkSync(path);
  await listen(server, { path });
  chmodSync(path, mode);
}

function serveConnection(
  socket: Socket,
  answer: (m: Uint8Array) => Uint8Array,
  log: Log,
  fail: (e: unknown) => void,
): void {
  const parser = new FrameParser(walletMessageBytesMax);
  let waiting: Uint8Array[] = [];
  const answerWaiting = (): void => {
    for (;;) {
      const message = waiting[0];
      if (message === undefined) break;
      waiting = waiting.slice(1);
      // Who does not read the answers gets no more of them: the wallet's memory is small.
      if (!socket.write(frameOf(answer(message)))) {
        socket.pause();
        return;
      }
    }
    if (socket.isPaused()) socket.resume();
  };
  const tryAnswering = (): void => {
    try {
      answerWaiting();
    } catch (error) {
      fail(error);
    }
  };
  socket.on("error", () => socket.destroy()); // the agent went away; it will come back or not
  socket.on("drain", tryAnswering);
  socket.on("data", (bytes) => {
    try {
      waiting.push(...parser.push(bytes));
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      log.warn("connection closed", { reason: error.message });
      socket.destroy();
      return;
    }
    if (!socket.isPaused()) tryAnswering();
  });
}

function listen(server: Server, at: { readonly path: string } | { readonly fd: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    const place = "path" in at ? at.path : `descriptor ${at.fd}, which must be a listening Unix socket`;
    server.once("error", (error: NodeJS.ErrnoException) =>
      reject(new SocketError(`cannot listen at ${place}: ${error.message}`)),
    );
    server.listen(at, () => resolve());
  });
}

/** Whether somebody listens at a path. Throws {@link SocketError} on what is no socket, or cannot be asked. */
async function isTaken(path: string): Promise<boolean> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return false;
  if (!found.isSocket()) throw new SocketError(`${path} is there and is no socket; choose another path`);
  return new Promise((resolve, reject) => {
    const probe = createConnection(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", ({ code, message }: NodeJS.ErrnoException) => {
      if (code === "ECONNREFUSED" || code === "ENOENT") resolve(false);
      else reject(new SocketError(`cannot tell whether another process answers at ${path}: ${message}`));
    });
  });
}

/**
 * Takes the lock of a wallet's folder: a socket that only its holder answers at, so that it ends with its process, however
 * that ends. It is made under a name of its own and linked into place, which succeeds for one of two that start at once.
 * Throws {@link SocketError} where another wallet holds it.
 */
export async function lockFolder(path: string): Promise<WalletServer> {
  const own = `${path}.${process.pid}`;
  if (lstatSync(own, { throwIfNoEntry: false })) unlinkSync(own);
  const server = createServer((socket) => socket.destroy());
  await listen(server, { path: own });
  chmodSync(own, 0o600);
  for (let tries = 0; tries < lockTriesMax; tries++) {
    if (linkIfFree(own, path)) {
      unlinkSync(own);
      return {
        close: () =>
          new Promise((resolve) => {
            unlinkSync(path);
            server.close(() => resolve());
          }),
      };
    }
    const inode = lstatSync(path, { throwIfNoEntry: false })?.ino;
    if (await isTaken(path)) break;
    removeStale(path, inode);
  }
  server.close();
  throw new SocketError(`another wallet runs on ${process.cwd()}; stop it first, two must never use one journal`);
}

function linkIfFree(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

/** Takes away the lock that was found dead; one that somebody else has put there meanwhile goes back. */
function removeStale(path: string, inode: number | undefined): void {
  const aside = `${path}.old.${process.pid}`;
  try {
    renameSync(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  if (statSync(aside).ino !== inode) linkIfFree(aside, path);
  unlinkSync(aside);
}

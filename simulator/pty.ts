/** A pseudo-terminal as the far end of a serial line: the one place where a pty is made. */
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { closeSync, writeSync } from "node:fs";
import { lstat, readlink, rename, rm, symlink } from "node:fs/promises";
import { ReadStream } from "node:tty";
import { loadPtyNative } from "./pty-native.ts";

export interface Pty {
  /** The slave's path, such as /dev/pts/3: what a program under test opens as its serial port. */
  readonly path: string;
  /** Sends bytes to whoever has the slave open. When nobody reads and the kernel's buffer is full they are lost, as on a wire. */
  write(bytes: Uint8Array): void;
  /** Registers the one listener of bytes written to the slave. */
  onData(listener: (bytes: Uint8Array) => void): void;
  /** Hangs up, as when a cable is pulled: both descriptors are closed and the path goes away. */
  close(): Promise<void>;
}

/**
 * Opens a pty in raw mode without echo.
 * @throws Error when openpty(3) fails or `stty` is missing
 */
export function openPty(): Pty {
  const { master: masterFd, slave: slaveFd, pty: path } = loadPtyNative().open(80, 24);
  // Our slave descriptor stays open, so that the master gets no EIO between one user of the line and the next.
  const stty = spawnSync("stty", ["-F", path, "raw", "-echo"]);
  if (stty.status !== 0) {
    closeSync(masterFd);
    closeSync(slaveFd);
    throw new Error(
      `pty ${path}: "stty raw -echo" failed (${stty.error?.message ?? stty.stderr.toString().trim()}); coreutils' stty is needed`,
    );
  }
  const master = new ReadStream(masterFd);
  let open = true;
  // EIO after a hang-up: nothing is left to be read, and close() is what ends it.
  master.on("error", () => {});
  master.resume();
  return {
    path,
    write: (bytes) => {
      if (!open) return;
      try {
        writeSync(masterFd, bytes);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
      }
    },
    onData: (listener) => {
      master.on("data", listener);
    },
    close: () =>
      new Promise((resolve) => {
        if (!open) {
          resolve();
          return;
        }
        open = false;
        master.once("close", () => {
          closeSync(slaveFd);
          resolve();
        });
        master.destroy();
      }),
  };
}

/** What lies where a link is to be made is somebody's file or folder; it was left alone. */
export class NotASymlink extends Error {
  constructor(path: string) {
    super(`${path} is there already, and is no symlink`);
    this.name = "NotASymlink";
  }
}

/**
 * Makes `link` lead to `target`, replacing what it led to in one step: there is no moment without a link.
 * @throws NotASymlink where something else is at `link`
 */
export async function replaceSymlink(link: string, target: string): Promise<void> {
  const there = await lstat(link).catch(() => undefined);
  if (there && !there.isSymbolicLink()) throw new NotASymlink(link);
  const fresh = `${link}.${randomBytes(6).toString("hex")}`;
  await symlink(target, fresh);
  await rename(fresh, link).catch(async (error) => {
    await rm(fresh, { force: true });
    throw error;
  });
}

/**
 * Takes `link` away if it still leads to `target`, as udev does when a device is unplugged. A link left behind would lead to
 * whoever gets the same /dev/pts number next.
 */
export async function removeSymlink(link: string, target: string): Promise<void> {
  if ((await readlink(link).catch(() => undefined)) === target) await rm(link, { force: true });
}

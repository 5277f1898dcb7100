/** Files that are whole after a power cut, or not there: write aside, fsync, rename, fsync the folder. */
import { closeSync, constants, fsyncSync, mkdirSync, openSync, renameSync, rmSync, statSync, writeSync } from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { dirname, resolve } from "node:path";

/** Makes the entries of a folder durable (a rename or a new file in it). */
export function syncFolder(folder: string): void {
  const descriptor = openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Makes a folder and those above it that are missing; one that is there is taken as it is. One step at a time: in a file
 * system that says ENOENT to each mkdir(2), such as /proc, Node's own `recursive` tries for ever. Throws what the system says:
 * EEXIST or ENOTDIR where a file is in the way.
 */
export function makeFolders(path: string, mode: number): void {
  const folder = resolve(path);
  if (isFolder(folder)) return;
  if (dirname(folder) !== folder) makeFolders(dirname(folder), mode);
  try {
    mkdirSync(folder, mode);
  } catch (error) {
    // Somebody else was faster.
    if ((error as NodeJS.ErrnoException).code !== "EEXIST" || !isFolder(folder)) throw error;
  }
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

/**
 * Replaces or makes a file with these bytes and this mode (less what the umask takes). After it returns, the new content
 * survives a power cut; where it throws, what was there before is there still.
 */
export function writeFileDurably(path: string, content: Uint8Array | string, mode: number): void {
  const bytes = typeof content === "string" ? Buffer.from(content, "utf8") : content;
  writePiecesDurably(path, [bytes], mode);
}

/** The same without blocking: for a process that must not stand still while a slow card takes its time. */
export async function replaceFileDurably(path: string, content: Uint8Array, mode: number): Promise<void> {
  const aside = `${path}.new-${process.pid}`;
  await rm(aside, { force: true });
  const file = await open(aside, "wx", mode);
  try {
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(aside, path);
  } catch (error) {
    await rm(aside, { force: true });
    throw error;
  }
  const folder = await open(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** The same for content that need not be in memory as a whole: one piece behind the other. */
export function writePiecesDurably(path: string, pieces: Iterable<Uint8Array>, mode: number): void {
  replaceFile(path, `${path}.new-${process.pid}`, pieces, constants.O_WRONLY, mode, fsyncSync);
  syncFolder(dirname(path));
}

function replaceFile(
  path: string,
  aside: string,
  pieces: Iterable<Uint8Array>,
  flags: number,
  mode: number,
  sync: (descriptor: number) => void,
): void {
  // One that a crash left has a mode, or is a link, of its own.
  rmSync(aside, { force: true });
  const descriptor = openSync(aside, flags | constants.O_CREAT | constants.O_EXCL, mode);
  try {
    try {
      for (const piece of pieces) writeAll(descriptor, piece);
      sync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    renameSync(aside, path);
  } catch (error) {
    rmSync(aside, { force: true });
    throw error;
  }
}

function writeAll(descriptor: number, bytes: Uint8Array): void {
  let offset = 0;
  while (offset < bytes.length) offset += writeSync(descriptor, bytes, offset);
}

/**
 * The same where fsync is forbidden (Node's permission model): O_DSYNC makes the content durable before the rename. The
 * rename itself may be lost in a power cut, and then the old file is there, whole.
 */
export function replaceFileSynced(path: string, content: Uint8Array, mode: number): void {
  replaceFile(path, `${path}.new`, [content], constants.O_WRONLY | constants.O_DSYNC, mode, () => undefined);
}

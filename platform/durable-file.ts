/** Files that are whole after a power cut, or not there: write aside, fsync, rename, fsync the folder. */
import { closeSync, constants, fsyncSync, openSync, renameSync, unlinkSync, writeSync } from "node:fs";
import { dirname } from "node:path";

/** Makes the entries of a folder durable (a rename or a new file in it). */
export function syncFolder(folder: string): void {
  const descriptor = openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** Replaces or makes a file with these bytes and this mode. After it returns, the new content survives a power cut. */
export function writeFileDurably(path: string, content: Uint8Array | string, mode: number): void {
  const aside = `${path}.new-${process.pid}`;
  const bytes = typeof content === "string" ? Buffer.from(content, "utf8") : content;
  const descriptor = openSync(aside, "w", mode);
  try {
    writeAll(descriptor, bytes);
    fsyncSync(descriptor);
  } catch (error) {
    closeSync(descriptor);
    unlinkSync(aside);
    throw error;
  }
  closeSync(descriptor);
  renameSync(aside, path);
  syncFolder(dirname(path));
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
  const aside = `${path}.new`;
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_DSYNC;
  const descriptor = openSync(aside, flags, mode);
  try {
    writeAll(descriptor, content);
  } finally {
    closeSync(descriptor);
  }
  renameSync(aside, path);
}

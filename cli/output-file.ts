/** Files and folders that commands write where a person says so: nothing that they did not write is ever overwritten. */
import { lstatSync, readFileSync, type Stats, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { makeFolders, writeFileDurably } from "../platform/durable-file.ts";
import { type ContentType, decodeCose } from "../protocol/cose-sign1.ts";
import { Refusal } from "../protocol/refusal.ts";
import { CommandError, exit, systemCode } from "./command.ts";

/** A file that is larger is none of ours, and is not read to find out. */
const ownFileBytesMax = 262_144;

/** Whether what is there may be replaced. */
export type Replaceable = (existing: Uint8Array) => boolean;

/** A signed message of this kind may be replaced by another one. */
export function signedMessage(contentType: ContentType): Replaceable {
  return (existing) => {
    try {
      decodeCose(existing, contentType, ownFileBytesMax);
      return true;
    } catch (error) {
      if (error instanceof Refusal) return false;
      throw error;
    }
  };
}

/** Throws {@link CommandError} where the file could not be made, or would overwrite what is not of its kind. */
export function checkOutput(path: string, replaceable: Replaceable): void {
  try {
    if (!statSync(dirname(resolve(path))).isDirectory()) throw notMade(path, `${dirname(path)} is no folder`);
    const there = lstatSync(path, { throwIfNoEntry: false });
    if (there === undefined || mayGo(path, there, replaceable)) return;
    throw notMade(path, there.isDirectory() ? "a folder is there" : "another file is there; it was left as it is");
  } catch (error) {
    throw explained(path, error);
  }
}

function mayGo(path: string, there: Stats, replaceable: Replaceable): boolean {
  if (!there.isFile() || there.size > ownFileBytesMax) return false;
  return there.size === 0 || replaceable(readFileSync(path));
}

/** Writes a file whole or not at all, after {@link checkOutput}. */
export function writeOutput(path: string, content: Uint8Array | string, replaceable: Replaceable): void {
  checkOutput(path, replaceable);
  try {
    writeFileDurably(path, content, 0o644);
  } catch (error) {
    throw explained(path, error);
  }
}

/** Makes a folder and those above it that are missing; one that is there is taken as it is. */
export function makeFolder(path: string, mode = 0o777): void {
  try {
    makeFolders(path, mode);
  } catch (error) {
    if (systemCode(error) === "EEXIST") throw notMade(path, "a file is there; it was left as it is");
    throw explained(path, error);
  }
}

function explained(path: string, error: unknown): unknown {
  const code = systemCode(error);
  if (code === undefined || error instanceof CommandError) return error;
  // What Node adds names the file that is written aside, which nobody asked for.
  const got = code === "ENOENT" ? "its folder is not there, or cannot hold it" : (error as Error).message.split(",")[0];
  if (code === "EACCES" || code === "EPERM" || code === "EROFS") return notMade(path, `${got}`, exit.notPermitted);
  return notMade(path, `${got}`, code === "ENOSPC" || code === "EIO" ? exit.ioError : exit.cannotCreate);
}

function notMade(where: string, got: string, status: number = exit.cannotCreate): CommandError {
  return new CommandError(status, {
    expected: "a place where this can be written without harm to anything else",
    got,
    where,
    todo: "choose another path",
  });
}

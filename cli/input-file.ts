/** Files that a person names for a command to read. */
import { readFileSync } from "node:fs";
import { CommandError, exit, systemCode } from "./command.ts";

/** The file's bytes. Throws {@link CommandError} with the path where there is no file: `expected` says what it was to be. */
export function readInput(path: string, expected: string, todo: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    const code = systemCode(error);
    if (code !== "ENOENT" && code !== "ENOTDIR" && code !== "EISDIR") throw error;
    const got = code === "EISDIR" ? "a folder" : "no such file";
    throw new CommandError(exit.noInput, { expected, got, where: path, todo });
  }
}

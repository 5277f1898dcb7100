/** Files with a password in them: nobody but their owner may read them. */
import { readFileSync, statSync } from "node:fs";
import { CommandError, exit, systemCode } from "./command.ts";

/** The password in a file, without the line's end. @param what whose it is, as errors name it */
export function readPassword(file: string, what: string): string {
  try {
    const mode = statSync(file).mode & 0o777;
    if ((mode & 0o077) !== 0)
      throw new CommandError(exit.notPermitted, {
        expected: `a file with ${what} that only its owner may read (mode 600)`,
        got: `mode ${mode.toString(8)}`,
        where: file,
        todo: `chmod 600 ${file}`,
      });
    return readFileSync(file, "utf8").replace(/\r?\n$/, "");
  } catch (error) {
    if (systemCode(error) !== "ENOENT") throw error;
    throw new CommandError(exit.noInput, {
      expected: `a file with ${what}`,
      got: "no such file",
      where: file,
      todo: `write ${what} into it, mode 600; or give the right path`,
    });
  }
}

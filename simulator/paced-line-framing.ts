/** How a serial line is set, and how the program at the other end of a pty has set its side (termios(3)). */
import { execFile } from "node:child_process";

export interface LineFraming {
  readonly baud: number;
  /** `any`: the other side's parity is not looked at; a character then has 10 bits and its stop bits. */
  readonly parity: "none" | "even" | "odd" | "any";
  readonly stopBits: 1 | 2;
}

/**
 * Reads what `stty -a` says of a pty's slave.
 *
 * Linux clears PARENB on ptys and keeps INPCK, PARODD, CSTOPB and the speed. So a program that wants its parity seen sets
 * INPCK (on a real port it must, or the kernel does not check the parity of what comes in): INPCK with PARODD is odd, INPCK alone
 * even, PARODD alone (a program that does not set INPCK) odd, neither none.
 * @throws Error when the text is not stty's
 */
export function parseFraming(stty: string): LineFraming {
  const [, baud] = /\bspeed (\d+) baud\b/.exec(stty) ?? [];
  const flags = new Set(stty.split(/[\s;]+/));
  if (baud === undefined || flags.has("inpck") === flags.has("-inpck"))
    throw new Error(`expected the settings of a terminal from "stty -a", got: ${stty.slice(0, 200)}`);
  const even = flags.has("inpck") ? "even" : "none";
  return { baud: Number(baud), parity: flags.has("parodd") ? "odd" : even, stopBits: flags.has("cstopb") ? 2 : 1 };
}

/** The settings of the terminal at `path`. @throws Error when it is gone or coreutils' stty is missing */
export function readFraming(path: string): Promise<LineFraming> {
  return new Promise((resolve, reject) => {
    execFile("stty", ["-F", path, "-a"], { env: { ...process.env, LC_ALL: "C" } }, (error, stdout) => {
      if (error) reject(error);
      else resolve(parseFraming(stdout));
    });
  });
}

/** Whether a program set like `theirs` can understand a line set like `ours`. A receiver cares for one stop bit only. */
export function isFramingShared(ours: LineFraming, theirs: LineFraming): boolean {
  return ours.baud === theirs.baud && (ours.parity === "any" || ours.parity === theirs.parity);
}

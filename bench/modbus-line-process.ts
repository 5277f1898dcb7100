// Paced lines in a process of their own, which spins while there is traffic: `modbus-line-process.ts '{"lines": 5, "baud": 9600, …}'`.
// Prints {"paths": […]}, and at each line on stdin what was seen since the start, on all lines together and how long it was kept from its core.
import { createInterface } from "node:readline";
import { openPacedLine } from "../simulator/paced-line.ts";
import type { LineFraming } from "../simulator/paced-line-framing.ts";
import { answerAsMeter } from "./modbus-register-set.ts";

export interface LineProcessOptions extends LineFraming {
  readonly lines: number;
  /** Characters that a master gets at a time. Default: whole answers. */
  readonly pieceCharacters?: number;
}

/** A turn of the spinning loop that took longer: another process had the core. */
const stallMs = 0.3;

if (import.meta.main) {
  const options = JSON.parse(process.argv[2] ?? "{}") as LineProcessOptions;
  const lines = Array.from({ length: options.lines }, () =>
    openPacedLine({ ...options, turnaroundMs: 2, otherFraming: "not checked", pace: "spin", answer: answerAsMeter }),
  );
  let [stalledMs, lastMs, turning] = [0, 0, false];
  const traffic = (): number => lines.reduce((sum, { statistics }) => sum + statistics.exchanges, 0);
  const turn = (): void => {
    const nowMs = performance.now();
    if (nowMs - lastMs > stallMs) stalledMs += nowMs - lastMs;
    lastMs = nowMs;
    if (turning) setImmediate(turn);
  };
  const input = createInterface({ input: process.stdin });
  input.on("line", (command) => {
    turning = command === "begin";
    if (turning) {
      lastMs = performance.now();
      turn();
    }
    process.stdout.write(
      `${JSON.stringify({ stalledMs, exchanges: traffic(), lines: lines.map(({ statistics }) => statistics) })}\n`,
    );
  });
  input.on("close", () => void Promise.all(lines.map((line) => line.close())));
  process.stdout.write(`${JSON.stringify({ paths: lines.map(({ path }) => path) })}\n`);
}

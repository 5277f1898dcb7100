/** One read of registers that is tried again where that may help: by the kind of error, while the deadline allows. */
import { DriverError, type DriverErrorCode } from "../failure.ts";
import type { ModbusLine } from "./line.ts";
import type { RegisterRead } from "./register-read.ts";

/** How often a request is sent in all, and the pauses before each further try; the last one goes on. */
interface Patience {
  readonly triesMax: number;
  readonly pausesMs: readonly number[];
}

const impatience: Patience = { triesMax: 1, pausesMs: [] };

/** The line itself rests after these; a spoilt answer is worth more tries than silence, since somebody is there. */
const patienceByCode: Partial<Record<DriverErrorCode, Patience>> = {
  timeout: { triesMax: 2, pausesMs: [0] },
  "crc-error": { triesMax: 3, pausesMs: [0] },
  "wrong-unit": { triesMax: 3, pausesMs: [0] },
  "wrong-reply": { triesMax: 3, pausesMs: [0] },
};

/**
 * "Application Protocol" V1.1b3 §7. 1–4 say that the request is wrong or the unit broken: never again. 5 and 6 ask for
 * time. A gateway that cannot reach its unit (11) is a time-out elsewhere; one without a path (10) is often overloaded.
 */
const patienceByException: Readonly<Record<number, Patience>> = {
  5: { triesMax: 4, pausesMs: [100, 200, 400] },
  6: { triesMax: 4, pausesMs: [100, 200, 400] },
  10: { triesMax: 2, pausesMs: [500] },
  11: { triesMax: 2, pausesMs: [0] },
};

function patienceFor(error: unknown): Patience {
  if (!(error instanceof DriverError)) return impatience;
  if (error.code === "modbus-exception") return patienceByException[error.exceptionCode ?? 0] ?? impatience;
  return patienceByCode[error.code] ?? impatience;
}

/** As {@link ModbusLine.readRegisters}, tried again after an error that may pass, but never begun after `startBeforeMs`. */
export async function readPatiently(line: ModbusLine, read: RegisterRead): Promise<Uint16Array> {
  const untilMs = read.startBeforeMs ?? Number.POSITIVE_INFINITY;
  for (let tries = 1; ; tries++) {
    try {
      return await line.readRegisters(read);
    } catch (error) {
      const { triesMax, pausesMs } = patienceFor(error);
      if (tries >= triesMax) throw error;
      const pauseMs = pausesMs[Math.min(tries, pausesMs.length) - 1] ?? 0;
      if (line.nowMs() + pauseMs > untilMs) throw error;
      // Beside the line's queue: other units are read meanwhile.
      if (pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }
}

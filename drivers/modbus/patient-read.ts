/** One read of registers that is tried again where that may help: by the kind of error, while the deadline allows. */
import { DriverError } from "../failure.ts";
import type { ModbusLine } from "./line.ts";
import type { RegisterRead } from "./register-read.ts";

/** Each request is tried twice: once more after a time-out or a spoilt answer. */
const triesMax = 2;

/** As {@link ModbusLine.readRegisters}, tried again after an error that may pass, unless `startBeforeMs` is over. */
export async function readPatiently(line: ModbusLine, read: RegisterRead): Promise<Uint16Array> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await line.readRegisters(read);
    } catch (error) {
      const again = error instanceof DriverError && error.retryable && attempt < triesMax;
      if (!again || line.nowMs() > (read.startBeforeMs ?? Number.POSITIVE_INFINITY)) throw error;
    }
  }
}

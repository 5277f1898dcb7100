/**
 * The port that is injected under `modbus-serial`'s ModbusRTU: the library builds requests and reads answers, and this
 * port lets out only what reads. Framing, deadlines and draining are the line's (line.ts), which hands `deliver` exactly
 * one whole, checked frame for one request.
 */
import { EventEmitter } from "node:events";
import { DriverError } from "../failure.ts";
import { asLastPage } from "./identification.ts";

/** Functions that cannot change a meter: read coils, inputs, holding, input registers; server id; identification. */
const readingFunctions: ReadonlySet<number> = new Set([1, 2, 3, 4, 17, 43]);

/**
 * @throws DriverError function-refused unless the RTU frame `request` only reads. The library contains the writing
 * functions (5, 6, 15, 16, 22, 23 and custom ones); a meter's registers can also be reset by them, so none may pass.
 */
export function assertReading(request: Uint8Array, where: string): void {
  const functionCode = request[1];
  if (functionCode !== undefined && readingFunctions.has(functionCode)) return;
  throw new DriverError(
    "function-refused",
    `${where}, unit ${request[0]}: Modbus function ${functionCode} was refused before a byte was sent; only the reading ` +
      "functions 1-4, 17 and 43 may pass. Set a meter up with its maker’s own tool.",
  );
}

export class LinePort extends EventEmitter {
  isOpen = false;
  readonly #where: string;
  readonly #send: (request: Uint8Array) => void;

  /** @param send takes each request that passed the filter, as an RTU frame with CRC */
  constructor(where: string, send: (request: Uint8Array) => void) {
    super();
    this.#where = where;
    this.#send = send;
  }

  open(callback: (error: Error | null) => void): void {
    this.isOpen = true;
    callback(null);
  }

  close(callback?: (error: Error | null) => void): void {
    this.isOpen = false;
    callback?.(null);
  }

  destroy(): void {
    this.isOpen = false;
  }

  /** Called by the library, synchronously from its read functions. */
  write(request: Uint8Array): void {
    assertReading(request, this.#where);
    this.#send(request);
  }

  /** Gives the library the answer to the request it sent last. */
  deliver(frame: Uint8Array): void {
    this.emit("data", Buffer.from(asLastPage(frame)));
  }
}

/** What answers requests at a Modbus unit: the one thing that a line, a TCP server and a test need to know of a device. */
import type { SlaveFault } from "./slave-fault.ts";

export interface SlaveDevice {
  /** Modbus unit, 1–247. */
  readonly unit: number;
  /**
   * The answer to a request's PDU, exceptions included. `fault` is for those that are the device's own affair, such as a
   * register that holds no number; those of the line are put in by whoever carries the answer.
   */
  answer(pdu: Uint8Array, fault?: SlaveFault): Uint8Array;
}

/** Modbus exception codes ("Application Protocol" V1.1b3 §7). */
export const illegalFunction = 1;
export const illegalAddress = 2;
export const illegalValue = 3;

export function exceptionPdu(functionCode: number, code: number): Uint8Array {
  return Uint8Array.of(functionCode | 0x80, code);
}

/** Address and count of a request of functions 1–4; undefined where the PDU has another length. */
export function readRequestOf(pdu: Uint8Array): { address: number; count: number } | undefined {
  if (pdu.length !== 5) return undefined;
  return { address: (pdu[1]! << 8) | pdu[2]!, count: (pdu[3]! << 8) | pdu[4]! };
}

/** The answer to functions 3 and 4. */
export function wordsPdu(functionCode: number, words: Uint16Array): Uint8Array {
  const pdu = new Uint8Array(2 + 2 * words.length);
  pdu.set([functionCode, 2 * words.length]);
  const view = new DataView(pdu.buffer);
  words.forEach((word, i) => {
    view.setUint16(2 + 2 * i, word);
  });
  return pdu;
}

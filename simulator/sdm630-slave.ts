/**
 * A Modbus slave with the registers of an SDM630: what it answers to a PDU, on an RTU line and over TCP, and the faults it
 * can be told to have. Our own, since modbus-serial's ServerSerial checks no CRC.
 */
import { createServer, type Server, type Socket } from "node:net";
import { encodeMbapFrame, MbapParser } from "../drivers/modbus/mbap.ts";
import { encodeRtuFrame, RtuParser, requestLength } from "../drivers/modbus/rtu-frame.ts";
import type { Household } from "./household.ts";
import { sdm630CountMax, sdm630HoldingWords, sdm630InputRegisterMax, sdm630InputValues } from "./sdm630-registers.ts";

/** A fault of the slave. Each applies to the answers to the requests that come after it is set. */
export type SlaveFault =
  | { readonly kind: "silent" }
  | { readonly kind: "wrong unit" }
  | { readonly kind: "bad crc" }
  /** Bytes of noise instead of the answer. */
  | { readonly kind: "garbage" }
  /** Bytes of noise, then the right answer. */
  | { readonly kind: "noise before" }
  | { readonly kind: "exception"; readonly code: number }
  | { readonly kind: "late"; readonly byMs: number }
  /** One register of the answer is NaN (0x7FC00000), the pair at this address. */
  | { readonly kind: "not a number"; readonly address: number };

export interface Sdm630SlaveOptions {
  readonly unit: number;
  readonly household: Household;
  /** The meter's clock, Unix milliseconds. */
  readonly now: () => number;
  /** What 0xFC00 tells. */
  readonly serialNumber: number;
}

/** Time the slave needs before it begins to answer. */
const turnaroundMs = 8;

const illegalFunction = 1;
const illegalAddress = 2;
const illegalValue = 3;

export class Sdm630Slave {
  readonly unit: number;
  /** Requests that were for this unit and whole. */
  requests = 0;
  readonly #options: Sdm630SlaveOptions;
  readonly #holding: ReadonlyMap<number, number>;
  #fault: SlaveFault | undefined;
  #faultTimes = 0;

  constructor(options: Sdm630SlaveOptions) {
    this.#options = options;
    this.unit = options.unit;
    this.#holding = sdm630HoldingWords(options.serialNumber);
  }

  /** Sets the fault of the next `times` answers (default: until changed); undefined clears it. */
  setFault(fault: SlaveFault | undefined, times = Number.POSITIVE_INFINITY): void {
    this.#fault = fault;
    this.#faultTimes = times;
  }

  takeFault(): SlaveFault | undefined {
    if (this.#fault === undefined || this.#faultTimes-- <= 0) return undefined;
    return this.#fault;
  }

  /** The answer to a request's PDU, exceptions included. */
  answer(pdu: Uint8Array, fault?: SlaveFault): Uint8Array {
    this.requests++;
    const functionCode = pdu[0]!;
    const exception = (code: number): Uint8Array => Uint8Array.of(functionCode | 0x80, code);
    if (fault?.kind === "exception") return exception(fault.code);
    if (functionCode !== 3 && functionCode !== 4) return exception(illegalFunction);
    if (pdu.length !== 5) return exception(illegalValue);
    const address = (pdu[1]! << 8) | pdu[2]!;
    const count = (pdu[3]! << 8) | pdu[4]!;
    if (count === 0 || count > sdm630CountMax || count % 2 === 1) return exception(illegalValue);
    if (address % 2 === 1) return exception(illegalAddress);
    const answer = new Uint8Array(2 + 2 * count);
    answer.set([functionCode, 2 * count]);
    const view = new DataView(answer.buffer);
    if (functionCode === 3) {
      for (let i = 0; i < count; i++) {
        const word = this.#holding.get(address + i);
        if (word === undefined) return exception(illegalAddress);
        view.setUint16(2 + 2 * i, word);
      }
      return answer;
    }
    if (address + count - 1 > sdm630InputRegisterMax) return exception(illegalAddress);
    const values = sdm630InputValues(this.#options.household.at(this.#options.now()));
    for (let i = 0; i < count; i += 2) {
      const broken = fault?.kind === "not a number" && fault.address === address + i;
      view.setFloat32(2 + 2 * i, broken ? Number.NaN : (values.get(address + i) ?? 0));
    }
    return answer;
  }
}

/** Noise without a valid frame in it. */
const noise = Uint8Array.of(0x00, 0xff, 0x01, 0x04, 0x18, 0x55, 0xaa, 0x00, 0x13, 0x37);

/**
 * The line's side of a slave: bytes in, bytes out after the time that they need on the wire. One request at a time and in
 * order, as a real slave's single UART has it: what comes while it is busy waits in the receive buffer.
 */
export class RtuSlave {
  readonly #slave: Sdm630Slave;
  readonly #parser = new RtuParser(requestLength);
  readonly #write: (bytes: Uint8Array) => void;
  readonly #characterMs: number;
  readonly #waiting: Uint8Array[] = [];
  #timer: NodeJS.Timeout | undefined;

  /** @param baud paces the answers, 10 bits a character; a pty by itself knows no speed */
  constructor(slave: Sdm630Slave, baud: number, write: (bytes: Uint8Array) => void) {
    this.#slave = slave;
    this.#characterMs = 10_000 / baud;
    this.#write = write;
  }

  receive(bytes: Uint8Array): void {
    // Other units' requests, and broadcasts (unit 0), are not answered (V1.02 §2.2).
    this.#waiting.push(...this.#parser.push(bytes).filter((request) => request[0] === this.#slave.unit));
    this.#next();
  }

  /** Forgets answers that are still to be sent. */
  close(): void {
    clearTimeout(this.#timer);
    this.#waiting.length = 0;
  }

  #next(): void {
    if (this.#timer !== undefined) return;
    const request = this.#waiting.shift();
    if (request === undefined) return;
    const fault = this.#slave.takeFault();
    const bytes = answerBytes(this.#slave, request, fault);
    const wireMs = (request.length + bytes.length) * this.#characterMs;
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        if (bytes.length > 0) this.#write(bytes);
        this.#next();
      },
      turnaroundMs + wireMs + (fault?.kind === "late" ? fault.byMs : 0),
    );
  }
}

/** What goes on the line for a request, with the fault in it; nothing when the slave is silent. */
function answerBytes(slave: Sdm630Slave, request: Uint8Array, fault: SlaveFault | undefined): Uint8Array {
  const pdu = slave.answer(request.subarray(1, -2), fault);
  const frame = encodeRtuFrame(fault?.kind === "wrong unit" ? slave.unit + 1 : slave.unit, pdu);
  switch (fault?.kind) {
    case "silent":
      return new Uint8Array(0);
    case "garbage":
      return noise;
    case "noise before":
      return Uint8Array.from([...noise, ...frame]);
    case "bad crc":
      frame[frame.length - 1]! ^= 0x5a;
      return frame;
    default:
      return frame;
  }
}

/** Serves the slave over Modbus TCP; port 0 lets the system choose. Resolves when it listens. */
export function serveModbusTcp(slave: Sdm630Slave, endpoint: { host: string; port: number }): Promise<TcpSlave> {
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    const parser = new MbapParser();
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    socket.on("data", (bytes) => {
      for (const { transaction, unit, pdu } of parser.push(bytes)) {
        if (unit !== slave.unit) continue;
        const fault = slave.takeFault();
        const answer = slave.answer(pdu, fault);
        if (fault?.kind === "silent") continue;
        if (fault?.kind === "garbage") {
          socket.write(noise);
          continue;
        }
        const frame = encodeMbapFrame({
          transaction,
          unit: fault?.kind === "wrong unit" ? unit + 1 : unit,
          pdu: answer,
        });
        if (fault?.kind === "late") setTimeout(() => socket.write(frame), fault.byMs).unref();
        else socket.write(frame);
      }
      if (parser.broken) socket.destroy();
    });
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(endpoint.port, endpoint.host, () => {
      const address = server.address();
      const port = address !== null && typeof address === "object" ? address.port : endpoint.port;
      resolve({
        address: `${endpoint.host}:${port}`,
        port,
        cut: () => {
          for (const socket of sockets) socket.destroy();
        },
        close: () =>
          new Promise((done) => {
            server.close(() => done());
            for (const socket of sockets) socket.destroy();
          }),
      });
    });
  });
}

export interface TcpSlave {
  readonly address: string;
  readonly port: number;
  /** Breaks every connection; new ones are taken. */
  cut(): void;
  close(): Promise<void>;
}

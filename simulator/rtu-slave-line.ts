/**
 * The slaves' end of an RTU line: bytes in, bytes out after the time that they need on the wire. Each unit takes one request
 * at a time and in order, as a real slave's single UART has it: what comes while it is busy waits in its receive buffer.
 */
import { encodeRtuFrame, RtuParser, requestLength } from "../drivers/modbus/rtu-frame.ts";
import type { AnswerPiece, SimulatedSlave } from "./simulated-slave.ts";

/** Time a slave needs before it begins to answer. */
export const slaveTurnaroundMs = 8;

export interface RtuSlaveLineOptions {
  /** Several of one unit answer at once, and their answers spoil one another. */
  readonly slaves: readonly SimulatedSlave[];
  /** Paces the answers; a pty by itself knows no speed. */
  readonly baud: number;
  /** 10 for 8N1, 11 for 8E1. Default 10. */
  readonly bitsPerCharacter?: number;
  readonly write: (bytes: Uint8Array) => void;
}

/** What the slaves put on the wire for a whole request frame. */
export function answerOnLine(
  slaves: readonly SimulatedSlave[],
  request: Uint8Array,
  silenceMs?: number,
): readonly AnswerPiece[] {
  // Other units' requests, and broadcasts (unit 0), are not answered (V1.02 §2.2).
  const asked = slaves.filter((slave) => slave.unit === request[0]);
  const answers = asked.map((slave) => slave.reply(request.subarray(1, -2), encodeRtuFrame, silenceMs));
  if (answers.length < 2) return answers[0] ?? [];
  return collided(answers.filter((pieces) => pieces.length > 0));
}

/** Two drivers on one pair: a dominant level wins, bit by bit. */
function collided(answers: readonly (readonly AnswerPiece[])[]): readonly AnswerPiece[] {
  if (answers.length < 2) return answers[0] ?? [];
  const frames = answers.map((pieces) => pieces.flatMap(({ bytes }) => [...bytes]));
  const bytes = new Uint8Array(Math.max(...frames.map(({ length }) => length))).fill(0xff);
  frames.forEach((frame, place) => {
    // Two devices never begin at the same bit: the second is a character behind.
    frame.forEach((byte, i) => {
      if (i + place < bytes.length) bytes[i + place]! &= byte;
    });
  });
  return [{ afterMs: 0, bytes }];
}

export class RtuSlaveLine {
  readonly #units: readonly UnitQueue[];
  readonly #parser = new RtuParser(requestLength);
  #lastByteMs = Number.NEGATIVE_INFINITY;

  constructor(options: RtuSlaveLineOptions) {
    const write = (bytes: Uint8Array): void => {
      this.#lastByteMs = performance.now();
      options.write(bytes);
    };
    const characterMs = (1000 * (options.bitsPerCharacter ?? 10)) / options.baud;
    const units = new Set(options.slaves.map(({ unit }) => unit));
    this.#units = [...units].map(
      (unit) =>
        new UnitQueue(
          options.slaves.filter((slave) => slave.unit === unit),
          characterMs,
          write,
        ),
    );
  }

  receive(bytes: Uint8Array): void {
    const nowMs = performance.now();
    const silenceMs = nowMs - this.#lastByteMs;
    this.#lastByteMs = nowMs;
    for (const request of this.#parser.push(bytes)) for (const unit of this.#units) unit.take(request, silenceMs);
  }

  /** Forgets answers that are still to be sent. */
  close(): void {
    for (const unit of this.#units) unit.close();
  }
}

/** One unit's requests. While one unit is late, the others go on answering, and their frames may meet on the wire. */
class UnitQueue {
  readonly #slaves: readonly SimulatedSlave[];
  readonly #characterMs: number;
  readonly #write: (bytes: Uint8Array) => void;
  readonly #waiting: { request: Uint8Array; silenceMs: number }[] = [];
  #timer: NodeJS.Timeout | undefined;
  #busy = false;

  constructor(slaves: readonly SimulatedSlave[], characterMs: number, write: (bytes: Uint8Array) => void) {
    this.#slaves = slaves;
    this.#characterMs = characterMs;
    this.#write = write;
  }

  take(request: Uint8Array, silenceMs: number): void {
    if (request[0] !== this.#slaves[0]?.unit) return;
    this.#waiting.push({ request, silenceMs });
    if (!this.#busy) this.#next();
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#waiting.length = 0;
    this.#busy = true;
  }

  #next(): void {
    for (;;) {
      const waiting = this.#waiting.shift();
      this.#busy = waiting !== undefined;
      if (waiting === undefined) return;
      const pieces = answerOnLine(this.#slaves, waiting.request, waiting.silenceMs);
      if (pieces.length === 0) continue;
      this.#send(pieces, slaveTurnaroundMs + waiting.request.length * this.#characterMs);
      return;
    }
  }

  #send(pieces: readonly AnswerPiece[], beforeMs: number): void {
    const [piece, ...rest] = pieces;
    if (piece === undefined) {
      this.#next();
      return;
    }
    this.#timer = setTimeout(
      () => {
        this.#write(piece.bytes);
        this.#send(rest, 0);
      },
      beforeMs + piece.afterMs + piece.bytes.length * this.#characterMs,
    );
  }
}

/** A device with the faults that it is told to have: what its requests come to, before a line or TCP carries them. */
import type { SlaveDevice } from "./slave-device.ts";
import { exceptionPdu } from "./slave-device.ts";
import type { SlaveFault } from "./slave-fault.ts";

/** Some bytes of an answer, and the pause before them. */
export interface AnswerPiece {
  readonly afterMs: number;
  readonly bytes: Uint8Array;
}

/** How a unit and a PDU become the bytes of a frame: RTU or Modbus TCP. */
export type FrameEncoder = (unit: number, pdu: Uint8Array) => Uint8Array;

/** Noise without a valid frame in it. */
const noise = Uint8Array.of(0x00, 0xff, 0x01, 0x04, 0x18, 0x55, 0xaa, 0x00, 0x13, 0x37);
const duplicateAfterMs = 5;
const slowPieceBytes = 4;

export class SimulatedSlave {
  readonly device: SlaveDevice;
  /** Requests that were for this unit and whole. */
  requests = 0;
  readonly #random: () => number;
  #fault: SlaveFault | undefined;
  #faultTimes = 0;
  #faultShare = 1;

  /** @param random numbers in [0, 1) for faults that fall on a share of the answers; the same ones give the same run */
  constructor(device: SlaveDevice, random: () => number = seededRandom(device.unit)) {
    this.device = device;
    this.#random = random;
  }

  get unit(): number {
    return this.device.unit;
  }

  /** The fault as it was set, whether or not its times are used up. */
  get fault(): SlaveFault | undefined {
    return this.#fault;
  }

  /** Sets the fault of the next `times` answers (default: until changed); undefined clears it. */
  setFault(fault: SlaveFault | undefined, times = Number.POSITIVE_INFINITY, share = 1): void {
    this.#fault = fault;
    this.#faultTimes = times;
    this.#faultShare = share;
  }

  takeFault(): SlaveFault | undefined {
    if (this.#fault === undefined || this.#faultTimes <= 0) return undefined;
    if (this.#faultShare < 1 && this.#random() >= this.#faultShare) return undefined;
    this.#faultTimes--;
    return this.#fault;
  }

  /** The answer to a request's PDU, exceptions included. */
  answer(pdu: Uint8Array, fault?: SlaveFault): Uint8Array {
    this.requests++;
    if (fault?.kind === "exception") return exceptionPdu(pdu[0]!, fault.code);
    return this.device.answer(pdu, fault);
  }

  /**
   * What goes out for a request, with the fault of the moment in it; empty for silence.
   * @param silenceMs how long the line was silent before the request
   */
  reply(pdu: Uint8Array, encode: FrameEncoder, silenceMs = Number.POSITIVE_INFINITY): readonly AnswerPiece[] {
    const fault = this.takeFault();
    const answer = this.answer(pdu, fault);
    if (fault?.kind === "wrong function" && (answer[0] === 3 || answer[0] === 4)) answer[0] = 7 - answer[0];
    const frame = encode(fault?.kind === "wrong unit" ? (this.unit % 247) + 1 : this.unit, answer);
    const whole = (bytes: Uint8Array, afterMs = 0): AnswerPiece[] => [{ afterMs, bytes }];
    switch (fault?.kind) {
      case "silent":
        return [];
      case "needs gap":
        return silenceMs < fault.gapMs ? [] : whole(frame);
      case "garbage":
        return whole(noise);
      case "noise before":
        return whole(Uint8Array.from([...noise, ...frame]));
      case "cut":
        return whole(frame.subarray(0, Math.ceil(frame.length / 2)));
      case "duplicate":
        return [...whole(frame), ...whole(frame, duplicateAfterMs)];
      case "late":
        return whole(frame, fault.byMs);
      case "slow":
        return piecesOf(frame, fault.pauseMs);
      case "bad crc":
        frame[frame.length - 1]! ^= 0x5a;
        return whole(frame);
      case "garbled":
        return whole(this.#garbled(frame));
      default:
        return whole(frame);
    }
  }

  /** One to four bits turned; an even number within 16 bits would be found by the CRC as well, so any choice will do. */
  #garbled(frame: Uint8Array): Uint8Array {
    const bits = 1 + Math.floor(this.#random() * 4);
    for (let i = 0; i < bits; i++) {
      const bit = Math.floor(this.#random() * frame.length * 8);
      frame[bit >>> 3]! ^= 1 << (bit & 7);
    }
    return frame;
  }
}

function piecesOf(frame: Uint8Array, pauseMs: number): AnswerPiece[] {
  const pieces: AnswerPiece[] = [];
  for (let start = 0; start < frame.length; start += slowPieceBytes)
    pieces.push({ afterMs: start === 0 ? 0 : pauseMs, bytes: frame.subarray(start, start + slowPieceBytes) });
  return pieces;
}

/** mulberry32 of T. Ettinger: small, and good enough to choose faults by. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

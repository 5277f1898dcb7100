/**
 * Modbus TCP: the MBAP header, and exchanges told apart by its transaction id.
 *
 * "MODBUS Messaging on TCP/IP Implementation Guide" V1.0b §3.1.3: transaction id, protocol id 0, length, unit, PDU. The
 * library above speaks RTU frames, so requests come and answers leave as those.
 */
import type { ExchangeOutcome, ExchangeTiming, LateAnswer, LineProtocol } from "./exchange.ts";
import { encodeRtuFrame, replyLengthOf } from "./rtu-frame.ts";

export const mbapHeaderBytes = 7;
/** Unit and PDU together, the most that the length field may say (253 bytes of PDU). */
const mbapLengthMax = 254;
/** Requests without an answer whose time of sending is kept: a late answer tells how slow the unit is. */
const unansweredMax = 16;

export interface MbapFrame {
  readonly transaction: number;
  readonly unit: number;
  readonly pdu: Uint8Array;
}

export function encodeMbapFrame(frame: MbapFrame): Uint8Array {
  const length = frame.pdu.length + 1;
  const bytes = new Uint8Array(mbapHeaderBytes + frame.pdu.length);
  bytes.set([frame.transaction >>> 8, frame.transaction & 0xff, 0, 0, length >>> 8, length & 0xff, frame.unit]);
  bytes.set(frame.pdu, mbapHeaderBytes);
  return bytes;
}

/** Incremental parser of a TCP stream. After a header that cannot be one it is `broken`: TCP gives no way back. */
export class MbapParser {
  broken = false;
  #buffer = new Uint8Array(0);

  push(bytes: Uint8Array): MbapFrame[] {
    const frames: MbapFrame[] = [];
    if (this.broken) return frames;
    const held = new Uint8Array(this.#buffer.length + bytes.length);
    held.set(this.#buffer);
    held.set(bytes, this.#buffer.length);
    let start = 0;
    while (held.length - start >= mbapHeaderBytes) {
      const protocol = (held[start + 2]! << 8) | held[start + 3]!;
      const length = (held[start + 4]! << 8) | held[start + 5]!;
      if (protocol !== 0 || length < 2 || length > mbapLengthMax) {
        this.broken = true;
        return frames;
      }
      if (held.length - start < 6 + length) break;
      frames.push({
        transaction: (held[start]! << 8) | held[start + 1]!,
        unit: held[start + 6]!,
        pdu: held.slice(start + mbapHeaderBytes, start + 6 + length),
      });
      start += 6 + length;
    }
    this.#buffer = held.slice(start);
    return frames;
  }
}

interface Awaiting extends ExchangeTiming {
  readonly transaction: number;
  readonly unit: number;
  readonly functionCode: number;
  readonly frameBytes: number | undefined;
  stray: { code: "wrong-unit" | "wrong-reply"; got: string } | undefined;
}

/**
 * The TCP side. A late answer has the id of its own request and is rejected by it, so nothing is drained and nothing is
 * owed. modbus-serial's own TCP port wraps its ids at 256 and keeps them: it takes an answer 256 requests old.
 */
export class MbapProtocol implements LineProtocol {
  readonly readyAtMs = Number.NEGATIVE_INFINITY;
  #parser = new MbapParser();
  #transaction = 0;
  #awaiting: Awaiting | undefined;
  #outcome: ExchangeOutcome | undefined;
  #late: LateAnswer[] = [];
  /** When the requests were sent that nobody answered, by transaction; the newest few. */
  readonly #unanswered = new Map<number, number>();

  get broken(): boolean {
    return this.#parser.broken;
  }

  get wakeAtMs(): number {
    return this.#awaiting?.deadlineMs ?? Number.POSITIVE_INFINITY;
  }

  begin(request: Uint8Array, timing: ExchangeTiming): Uint8Array {
    if (this.#awaiting !== undefined) throw new Error("an exchange is still running: one request at a time on a line");
    this.#transaction = (this.#transaction + 1) & 0xffff;
    const [unit, functionCode] = [request[0]!, request[1]!];
    this.#outcome = undefined;
    this.#awaiting = {
      ...timing,
      transaction: this.#transaction,
      unit,
      functionCode,
      frameBytes: replyLengthOf(request),
      stray: undefined,
    };
    return encodeMbapFrame({ transaction: this.#transaction, unit, pdu: request.subarray(1, -2) });
  }

  receive(bytes: Uint8Array, nowMs: number): void {
    const frames = this.#parser.push(bytes);
    // Where what follows a frame is no header, the frame itself may have been put together from two: half of one, and a late one.
    if (!this.#parser.broken) for (const frame of frames) this.#take(frame, nowMs);
    if (this.#parser.broken && this.#awaiting !== undefined) {
      this.#awaiting = undefined;
      this.#outcome = { kind: "failed", code: "wrong-reply", got: "bytes that are no Modbus TCP header" };
    }
  }

  tick(nowMs: number): void {
    const awaiting = this.#awaiting;
    if (awaiting === undefined || nowMs < awaiting.deadlineMs) return;
    this.#awaiting = undefined;
    this.#outcome = { kind: "failed", ...(awaiting.stray ?? { code: "timeout", got: "nothing" }) };
    this.#unanswered.set(awaiting.transaction, awaiting.sentAtMs);
    const [oldest] = this.#unanswered.keys();
    if (this.#unanswered.size > unansweredMax) this.#unanswered.delete(oldest!);
  }

  takeOutcome(): ExchangeOutcome | undefined {
    const outcome = this.#outcome;
    this.#outcome = undefined;
    return outcome;
  }

  takeLate(): LateAnswer[] {
    return this.#late.splice(0);
  }

  readonly mayNeedProbe = false;

  probeCount(): undefined {
    return undefined;
  }

  reset(): void {
    this.#parser = new MbapParser();
    this.#unanswered.clear();
    this.#awaiting = undefined;
    this.#outcome = undefined;
  }

  #take(frame: MbapFrame, nowMs: number): void {
    const awaiting = this.#awaiting;
    if (frame.transaction !== awaiting?.transaction) {
      const sentAtMs = this.#unanswered.get(frame.transaction);
      this.#unanswered.delete(frame.transaction);
      this.#late.push({ unit: frame.unit, afterMs: sentAtMs === undefined ? undefined : nowMs - sentAtMs });
      return;
    }
    const functionCode = frame.pdu[0]!;
    // An RTU frame is the PDU with the unit before it and the CRC behind it.
    const frameBytes = frame.pdu.length + 3;
    const isException = functionCode === (awaiting.functionCode | 0x80) && frame.pdu.length === 2;
    const isNormal =
      functionCode === awaiting.functionCode &&
      frameBytes === (awaiting.frameBytes ?? frameBytes) &&
      (functionCode === 43 ? frame.pdu[1] === 0x0e : frame.pdu[1] === frame.pdu.length - 2);
    if (frame.unit !== awaiting.unit) {
      awaiting.stray = { code: "wrong-unit", got: `an answer of unit ${frame.unit}` };
    } else if (isException || isNormal) {
      this.#awaiting = undefined;
      this.#outcome = { kind: "reply", frame: encodeRtuFrame(frame.unit, frame.pdu) };
    } else {
      awaiting.stray = { code: "wrong-reply", got: `function ${functionCode} in ${frame.pdu.length} bytes` };
    }
  }
}

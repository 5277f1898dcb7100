/**
 * One exchange on a Modbus line as a pure state machine: bytes and the time go in, exactly one outcome comes out.
 *
 * What it guards against (seen with modbus-serial's own ports, whose checks are unit, function and length only): the
 * answer to a request that had timed out is handed to the next request, and every value after it is off by one, with
 * valid CRCs. RTU answers carry no number, so two things together keep a late answer out:
 *  1. after a failure the line is drained: nobody sends before the slowest answer could have come, and silence after it;
 *  2. an answer that is still owed after that is remembered by its length. No request whose answer has that length may
 *     be sent to that unit (`probeCount` tells with which other length to ask first). A slave answers in order, so a
 *     valid answer of a length nobody owes proves that nothing older will come.
 */
import { answerLength, exceptionFrameBytes, RtuParser, replyLengthOf } from "./rtu-frame.ts";

export type ExchangeFailureCode = "timeout" | "crc-error" | "wrong-unit" | "wrong-reply";

export type ExchangeOutcome =
  /** A whole RTU frame: right unit, function and length, valid CRC. May be an exception answer. */
  | { readonly kind: "reply"; readonly frame: Uint8Array }
  | { readonly kind: "failed"; readonly code: ExchangeFailureCode; readonly got: string };

export interface ExchangeTiming {
  /** Monotonic milliseconds at which the last byte of the request leaves. */
  readonly sentAtMs: number;
  /** Monotonic milliseconds by which the whole answer must be here. */
  readonly deadlineMs: number;
  /** Longest time after `sentAtMs` in which this slave has ever been known to begin an answer. */
  readonly slowestAnswerMs: number;
}

/** What one kind of line (RTU, TCP) does with requests and bytes. No timer and no port: the caller has those. */
export interface LineProtocol {
  /** Begins an exchange with a request given as an RTU frame; returns the bytes for the wire. One at a time. */
  begin(request: Uint8Array, timing: ExchangeTiming): Uint8Array;
  /** Bytes from the wire, at any time. */
  receive(bytes: Uint8Array, nowMs: number): void;
  /** The time went on; to be called at `wakeAtMs` at the latest. */
  tick(nowMs: number): void;
  /** The outcome of the exchange begun last: once, then undefined. */
  takeOutcome(): ExchangeOutcome | undefined;
  /** When tick() is wanted next; Infinity when it is not. */
  readonly wakeAtMs: number;
  /** Nothing may be sent before this: the line is being drained. */
  readonly readyAtMs: number;
  /** Register count to ask a unit for first, since an answer of the same length is still owed; undefined when none is. */
  probeCount(request: Uint8Array, countStep: number, nowMs: number): number | undefined;
  /** Units whose late answers came and were rejected since the last call, one entry an answer. */
  takeLateUnits(): number[];
  /** True when the byte stream cannot be trusted any more and the connection has to be made anew. */
  readonly broken: boolean;
  /** The connection was lost or closed: an exchange in flight ends without an outcome. */
  reset(): void;
}

/** An answer that was not there in time and may still come. */
interface OwedAnswer {
  readonly unit: number;
  readonly frameBytes: number;
  readonly expiresAtMs: number;
}

/** After this nobody answers any more, not even a gateway with a queue. */
const owedAnswerAgeMaxMs = 10_000;

interface Awaiting extends ExchangeTiming {
  readonly unit: number;
  readonly functionCode: number;
  readonly frameBytes: number | undefined;
  readonly rejectedBefore: number;
  stray: { code: "wrong-unit" | "wrong-reply"; got: string } | undefined;
}

/** The RTU side: answers are told apart by unit, function, length and CRC, and late ones by what is still owed. */
export class RtuProtocol implements LineProtocol {
  readonly broken = false;
  readonly #parser = new RtuParser(answerLength);
  readonly #silenceMs: number;
  #awaiting: Awaiting | undefined;
  #outcome: ExchangeOutcome | undefined;
  #owed: OwedAnswer[] = [];
  #lateUnits: number[] = [];
  #drainUntilMs: number | undefined;
  #lastByteAtMs = Number.NEGATIVE_INFINITY;
  #rescanned = false;

  /** @param silenceMs how long without a byte the line counts as silent; above the lumps of USB adapters (16 ms) */
  constructor(silenceMs: number) {
    this.#silenceMs = silenceMs;
  }

  get wakeAtMs(): number {
    if (this.#awaiting === undefined) return Number.POSITIVE_INFINITY;
    if (this.#parser.pendingBytes === 0 || this.#rescanned) return this.#awaiting.deadlineMs;
    return Math.min(this.#awaiting.deadlineMs, this.#lastByteAtMs + this.#silenceMs);
  }

  get readyAtMs(): number {
    if (this.#drainUntilMs === undefined) return Number.NEGATIVE_INFINITY;
    return Math.max(this.#drainUntilMs, this.#lastByteAtMs + this.#silenceMs);
  }

  begin(request: Uint8Array, timing: ExchangeTiming): Uint8Array {
    if (this.#awaiting !== undefined) throw new Error("an exchange is still running: one request at a time on a line");
    this.#parser.clear();
    this.#drainUntilMs = undefined;
    this.#outcome = undefined;
    this.#rescanned = false;
    this.#awaiting = {
      ...timing,
      unit: request[0]!,
      functionCode: request[1]!,
      frameBytes: replyLengthOf(request),
      rejectedBefore: this.#parser.rejectedBytes,
      stray: undefined,
    };
    return request;
  }

  receive(bytes: Uint8Array, nowMs: number): void {
    this.#lastByteAtMs = nowMs;
    this.#rescanned = false;
    for (const frame of this.#parser.push(bytes)) this.#take(frame, nowMs);
  }

  tick(nowMs: number): void {
    const awaiting = this.#awaiting;
    if (awaiting === undefined) return;
    if (this.#parser.pendingBytes > 0 && nowMs >= Math.min(this.#lastByteAtMs + this.#silenceMs, awaiting.deadlineMs)) {
      this.#rescanned = true;
      for (const frame of this.#parser.rescan()) this.#take(frame, nowMs);
    }
    if (this.#awaiting !== undefined && nowMs >= awaiting.deadlineMs) this.#fail(awaiting);
  }

  takeOutcome(): ExchangeOutcome | undefined {
    const outcome = this.#outcome;
    this.#outcome = undefined;
    return outcome;
  }

  takeLateUnits(): number[] {
    return this.#lateUnits.splice(0);
  }

  probeCount(request: Uint8Array, countStep: number, nowMs: number): number | undefined {
    this.#owed = this.#owed.filter((answer) => answer.expiresAtMs > nowMs);
    const owed = new Set(this.#owed.filter((answer) => answer.unit === request[0]).map((answer) => answer.frameBytes));
    const frameBytes = replyLengthOf(request);
    if (owed.size === 0 || (frameBytes !== undefined && !owed.has(frameBytes))) return undefined;
    let count = countStep;
    while (owed.has(5 + 2 * count)) count += countStep;
    return count;
  }

  reset(): void {
    // What is owed stays owed, and the drain goes on: the meter is on the same wire, whichever descriptor leads there.
    if (this.#awaiting !== undefined) this.#owe(this.#awaiting);
    this.#parser.clear();
    this.#awaiting = undefined;
    this.#outcome = undefined;
  }

  #take(frame: Uint8Array, nowMs: number): void {
    const awaiting = this.#awaiting;
    const [unit, functionCode] = [frame[0]!, frame[1]!];
    const isAnswer =
      awaiting !== undefined &&
      unit === awaiting.unit &&
      (functionCode === (awaiting.functionCode | 0x80) ||
        (functionCode === awaiting.functionCode && frame.length === (awaiting.frameBytes ?? frame.length)));
    if (isAnswer) {
      this.#awaiting = undefined;
      this.#outcome = { kind: "reply", frame };
      this.#settleOwed(awaiting, frame);
      return;
    }
    const owedAt = this.#owed.findIndex((answer) => answer.unit === unit && answer.frameBytes === frame.length);
    if (owedAt >= 0) {
      this.#owed.splice(owedAt, 1);
      this.#lateUnits.push(unit);
      // The one answer the line was drained for has come: silence is enough now.
      if (this.#owed.length === 0 && this.#drainUntilMs !== undefined) this.#drainUntilMs = nowMs;
    } else if (awaiting !== undefined) {
      awaiting.stray =
        unit === awaiting.unit
          ? { code: "wrong-reply", got: `function ${functionCode} in ${frame.length} bytes` }
          : { code: "wrong-unit", got: `an answer of unit ${unit}` };
    }
  }

  /**
   * A normal answer proves that the slave is through with all that came before. An exception proves nothing while an
   * answer is owed (every exception has 5 bytes, so it may be the late one): then this request's own answer is owed too.
   */
  #settleOwed(awaiting: Awaiting, frame: Uint8Array): void {
    if (frame.length !== exceptionFrameBytes || frame[1] === awaiting.functionCode) {
      this.#owed = this.#owed.filter((answer) => answer.unit !== awaiting.unit);
    } else if (this.#owed.some((answer) => answer.unit === awaiting.unit)) {
      this.#owe(awaiting);
    }
  }

  #fail(awaiting: Awaiting): void {
    this.#awaiting = undefined;
    const rejected = this.#parser.rejectedBytes + this.#parser.pendingBytes - awaiting.rejectedBefore;
    if (awaiting.stray !== undefined) this.#outcome = { kind: "failed", ...awaiting.stray };
    else if (rejected > 0)
      this.#outcome = { kind: "failed", code: "crc-error", got: `${rejected} bytes without a valid CRC` };
    else this.#outcome = { kind: "failed", code: "timeout", got: "nothing" };
    this.#owe(awaiting);
  }

  #owe(awaiting: Awaiting): void {
    this.#drainUntilMs = Math.max(awaiting.deadlineMs, awaiting.sentAtMs + awaiting.slowestAnswerMs);
    const { unit, frameBytes } = awaiting;
    if (frameBytes === undefined) return;
    this.#owed = this.#owed.filter((answer) => answer.unit !== unit || answer.frameBytes !== frameBytes);
    this.#owed.push({ unit, frameBytes, expiresAtMs: awaiting.sentAtMs + owedAnswerAgeMaxMs });
  }
}

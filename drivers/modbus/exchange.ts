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
 * And against answers that come twice (a repeater, a gateway that asked twice): the same bytes as a frame that came from that
 * unit since its last answer are held for a while. If another answer comes, that is the one; if none comes, they are taken for the same
 * request only. So is an exception while an answer is owed: all exceptions look alike, and it may be the late one.
 */
import { answerLength, RtuParser, replyLengthOf } from "./rtu-frame.ts";

export type ExchangeFailureCode = "timeout" | "crc-error" | "wrong-unit" | "wrong-reply";

export type ExchangeOutcome =
  /** A whole RTU frame: right unit, function and length, valid CRC. May be an exception answer. Held: it waited for a better one. */
  | { readonly kind: "reply"; readonly frame: Uint8Array; readonly wasHeld?: true }
  | { readonly kind: "failed"; readonly code: ExchangeFailureCode; readonly got: string };

export interface ExchangeTiming {
  /** Monotonic milliseconds at which the last byte of the request leaves. */
  readonly sentAtMs: number;
  /** Monotonic milliseconds by which the whole answer must be here. */
  readonly deadlineMs: number;
  /** Longest time after `sentAtMs` in which this slave has ever been known to begin an answer. */
  readonly slowestAnswerMs: number;
  /** Monotonic milliseconds by which an answer is usually here. Default deadlineMs. */
  readonly usuallyByMs?: number;
  /** There is a place at which this unit answers reads of any length for certain. Default true. */
  readonly canProbe?: boolean;
}

/** An answer that came after its time. */
export interface LateAnswer {
  readonly unit: number;
  /** After the request's last byte; undefined when it cannot be told whose answer it was. */
  readonly afterMs: number | undefined;
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
  /** Register count to ask a unit for first, since an answer of the same length may still come; undefined when none may. */
  probeCount(request: Uint8Array, countStep: number, nowMs: number): number | undefined;
  /** False where probeCount() would say undefined to any request: nothing is owed by anybody. */
  readonly mayNeedProbe: boolean;
  /** The late answers that came and were rejected since the last call. */
  takeLate(): LateAnswer[];
  /** True when the byte stream cannot be trusted any more and the connection has to be made anew. */
  readonly broken: boolean;
  /** The connection was lost or closed: an exchange in flight ends without an outcome. */
  reset(): void;
}

/** An answer that was not there in time and may still come. */
interface OwedAnswer {
  readonly unit: number;
  readonly frameBytes: number;
  readonly sentAtMs: number;
  /** A frame like it came late. It may have been another slave's in this unit's name, so it stays owed until it is proven. */
  hasCome: boolean;
}

/** After this nobody answers any more, not even a gateway with a queue. */
const owedAnswerAgeMaxMs = 10_000;
/** An answer that comes a second time comes within this after the first. */
const copyAgeMaxMs = 1_500;
/** Frames of one unit that are remembered that long. */
const seenFramesMax = 16;
/** Requests remembered for reading the same as the one before them. */
const alikeRequestsMax = 256;

/** A valid frame of a unit, and the request that it answered. */
interface SeenFrame {
  readonly frame: Uint8Array;
  readonly request: Uint8Array | undefined;
  readonly atMs: number;
}

interface Awaiting extends ExchangeTiming {
  readonly request: Uint8Array;
  readonly unit: number;
  readonly functionCode: number;
  readonly frameBytes: number | undefined;
  readonly rejectedBefore: number;
  stray: { code: "wrong-unit" | "wrong-reply"; got: string } | undefined;
  /** An answer that may be an earlier request's. */
  held: { readonly frame: Uint8Array; readonly isGood: boolean } | undefined;
}

/** The RTU side: answers are told apart by unit, function, length and CRC, and late ones by what is still owed. */
export class RtuProtocol implements LineProtocol {
  readonly broken = false;
  readonly #parser = new RtuParser(answerLength);
  readonly #silenceMs: number;
  #awaiting: Awaiting | undefined;
  #outcome: ExchangeOutcome | undefined;
  #owed: OwedAnswer[] = [];
  #late: LateAnswer[] = [];
  /** By unit: the last answer taken, and what came in its name since then. */
  readonly #seen = new Map<number, SeenFrame[]>();
  /** Requests whose answer was the same as that to another request before: two registers that are both 0, say. */
  readonly #alike = new Set<string>();
  #drainUntilMs: number | undefined;
  #lastByteAtMs = Number.NEGATIVE_INFINITY;
  #rescanned = false;

  /** @param silenceMs how long without a byte the line counts as silent; above the lumps of USB adapters (16 ms) */
  constructor(silenceMs: number) {
    this.#silenceMs = silenceMs;
  }

  get wakeAtMs(): number {
    if (this.#awaiting === undefined) return Number.POSITIVE_INFINITY;
    if (this.#awaiting.held?.isGood) return this.#awaiting.usuallyByMs ?? this.#awaiting.deadlineMs;
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
      request: request.slice(),
      unit: request[0]!,
      functionCode: request[1]!,
      frameBytes: replyLengthOf(request),
      rejectedBefore: this.#parser.rejectedBytes,
      stray: undefined,
      held: undefined,
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
    if (this.#awaiting === undefined) return;
    if (nowMs >= awaiting.deadlineMs) this.#fail(awaiting);
    else if (awaiting.held?.isGood && nowMs >= (awaiting.usuallyByMs ?? awaiting.deadlineMs)) {
      this.#awaiting = undefined;
      this.#settleHeld(awaiting, awaiting.held);
    }
  }

  takeOutcome(): ExchangeOutcome | undefined {
    const outcome = this.#outcome;
    this.#outcome = undefined;
    return outcome;
  }

  takeLate(): LateAnswer[] {
    return this.#late.splice(0);
  }

  get mayNeedProbe(): boolean {
    return this.#owed.length > 0 || this.#alike.size > 0;
  }

  probeCount(request: Uint8Array, countStep: number, nowMs: number): number | undefined {
    this.#owed = this.#owed.filter((answer) => answer.sentAtMs + owedAnswerAgeMaxMs > nowMs);
    const unit = request[0]!;
    const possible = new Set(this.#owed.filter((answer) => answer.unit === unit).map((answer) => answer.frameBytes));
    const frameBytes = replyLengthOf(request);
    const mayBeCopied = this.#seenLately(unit, nowMs).some(({ frame }) => frame.length === frameBytes);
    if (mayBeCopied && frameBytes !== undefined && this.#alike.has(keyOf(request))) possible.add(frameBytes);
    if (possible.size === 0 || (frameBytes !== undefined && !possible.has(frameBytes))) return undefined;
    let count = countStep;
    while (possible.has(5 + 2 * count)) count += countStep;
    return count;
  }

  reset(): void {
    // What is owed stays owed, and the drain goes on: the meter is on the same wire, whichever descriptor leads there.
    if (this.#awaiting !== undefined) {
      this.#owe(this.#awaiting);
      this.#drainFor(this.#awaiting);
    }
    this.#parser.clear();
    this.#awaiting = undefined;
    this.#outcome = undefined;
  }

  #take(frame: Uint8Array, nowMs: number): void {
    const awaiting = this.#awaiting;
    const [unit, functionCode] = [frame[0]!, frame[1]!];
    const lately = this.#seenLately(unit, nowMs);
    const original = lately.find((seen) => isSame(seen.frame, frame));
    const isAnswer =
      awaiting !== undefined &&
      unit === awaiting.unit &&
      (functionCode === (awaiting.functionCode | 0x80) ||
        (functionCode === awaiting.functionCode && frame.length === (awaiting.frameBytes ?? frame.length)));
    const isRefusal = awaiting !== undefined && functionCode !== awaiting.functionCode;
    const isDoubtful = original !== undefined || (isRefusal && this.#owed.some((answer) => answer.unit === unit));
    // A slave answers in order, so nothing older than an answer that was taken comes again after it.
    const since = isAnswer && !isDoubtful ? [] : lately.filter((other) => other !== original);
    const request = original?.request ?? (isAnswer ? awaiting.request : undefined);
    this.#seen.set(unit, [...since, { frame, atMs: nowMs, request }].slice(-seenFramesMax));
    if (isAnswer && isDoubtful) {
      const isOfSameRequest = original?.request !== undefined && isSame(original.request, awaiting.request);
      awaiting.held = { frame, isGood: isRefusal || isOfSameRequest };
      return;
    }
    if (isAnswer) {
      this.#awaiting = undefined;
      this.#outcome = { kind: "reply", frame };
      // A normal answer proves that the slave is through with all that came before.
      this.#owed = this.#owed.filter((answer) => answer.unit !== unit);
      return;
    }
    // A late refusal looks like any other: it may be that of each answer owed.
    const mayRefuse = functionCode >= 0x80;
    const isLate = (answer: OwedAnswer): boolean =>
      answer.unit === unit && (mayRefuse || answer.frameBytes === frame.length);
    const owed = this.#owed.find((answer) => isLate(answer) && !answer.hasCome);
    if (owed !== undefined) {
      owed.hasCome = true;
      this.#late.push({ unit, afterMs: nowMs - owed.sentAtMs });
      // The one answer the line was drained for has come: silence is enough now.
      const allHaveCome = this.#owed.every((answer) => answer.hasCome);
      if (allHaveCome && this.#drainUntilMs !== undefined) this.#drainUntilMs = nowMs;
    } else if (awaiting !== undefined) {
      awaiting.stray =
        unit === awaiting.unit
          ? { code: "wrong-reply", got: `function ${functionCode} in ${frame.length} bytes` }
          : { code: "wrong-unit", got: `an answer of unit ${unit}` };
    }
  }

  #seenLately(unit: number, nowMs: number): SeenFrame[] {
    return (this.#seen.get(unit) ?? []).filter((seen) => nowMs - seen.atMs <= copyAgeMaxMs);
  }

  /** The deadline has come. */
  #fail(awaiting: Awaiting): void {
    this.#awaiting = undefined;
    if (awaiting.held !== undefined) {
      this.#settleHeld(awaiting, awaiting.held);
      return;
    }
    const rejected = this.#parser.rejectedBytes + this.#parser.pendingBytes - awaiting.rejectedBefore;
    if (awaiting.stray !== undefined) this.#outcome = { kind: "failed", ...awaiting.stray };
    else if (rejected > 0)
      this.#outcome = { kind: "failed", code: "crc-error", got: `${rejected} bytes without a valid CRC` };
    else this.#outcome = { kind: "failed", code: "timeout", got: "nothing" };
    this.#owe(awaiting);
    this.#drainFor(awaiting);
  }

  /**
   * Nothing came but what may be an earlier request's. The bytes of the last answer are one to the same request, at worst a
   * moment old; to another request they may be a wrong value. No value comes of an exception, so it is passed on.
   * Whether this request's own answer is still to come cannot be known: it is owed, unless nothing could ever prove it.
   */
  #settleHeld(awaiting: Awaiting, { frame, isGood }: NonNullable<Awaiting["held"]>): void {
    if (isGood) {
      this.#outcome = { kind: "reply", frame, wasHeld: true };
    } else {
      this.#drainUntilMs = awaiting.deadlineMs;
      if (this.#alike.size >= alikeRequestsMax) this.#alike.clear();
      this.#alike.add(keyOf(awaiting.request));
      this.#outcome = { kind: "failed", code: "wrong-reply", got: "the bytes of the answer before it once more" };
    }
    const wasOwed = this.#owed.some((answer) => answer.unit === awaiting.unit);
    if (!isGood || wasOwed || (awaiting.canProbe ?? true)) this.#owe(awaiting);
  }

  #owe({ unit, frameBytes, sentAtMs }: Awaiting): void {
    if (frameBytes === undefined) return;
    this.#owed = this.#owed.filter((answer) => answer.unit !== unit || answer.frameBytes !== frameBytes);
    this.#owed.push({ unit, frameBytes, sentAtMs, hasCome: false });
  }

  #drainFor(awaiting: Awaiting): void {
    this.#drainUntilMs = Math.max(awaiting.deadlineMs, awaiting.sentAtMs + awaiting.slowestAnswerMs);
  }
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function keyOf(request: Uint8Array): string {
  return request.join();
}

/**
 * The wire of a serial line as a pure state machine: when each character is on it, and how long it is silent in between.
 *
 * A pty takes a whole request at once and gives a whole answer at once. Here a character takes its time in both directions,
 * the slave hears a request end after a silence of t3.5 ("MODBUS over Serial Line" V1.02 §2.5.1.1) and answers after its
 * turnaround; the master gets the characters when they have passed. Bytes and the time go in, due bytes come out.
 */
import type { LineFraming } from "./paced-line-framing.ts";

/** What goes on the wire after a request. */
export interface WireReply {
  readonly bytes: Uint8Array;
  /** Time from the silence that ends the request to the first character. Default: the line's turnaround. */
  readonly afterMs?: number;
}

export interface PacedWireOptions extends LineFraming {
  /** Time for a slave to begin its answer. Default 2: quick for a meter, so that what the master loses shows. */
  readonly turnaroundMs?: number;
  /** The master gets answers in pieces of so many characters, each when its last one has passed. Default: the whole answer. */
  readonly pieceCharacters?: number;
  /** What the slaves answer to what was on the line between two silences (CRCs are theirs to check); nothing: silence. */
  readonly answer: (request: Uint8Array) => readonly WireReply[];
}

/** What was seen on the wire; figures only grow. */
export interface WireStatistics {
  /** Requests that were answered. */
  exchanges: number;
  /** Silences measured: those between the end of what was on the wire and the next request. */
  silences: number;
  /** Of these, shorter than t3.5. */
  violations: number;
  /** Requests that came while an answer, or the request before, was still on the wire. */
  collisions: number;
  shortestSilenceMs: number;
  /** For each answered request: its characters, t3.5, turnaround, the answer's characters, t3.5. */
  wireLimitMs: number;
  /** From each answered request's first character to that of the next request. */
  elapsedMs: number;
}

interface Transmission {
  /** When its first character begins. */
  readonly startMs: number;
  readonly bytes: Uint8Array;
  sent: number;
}

/** After so long a pause the next request belongs to another round: nobody polled as fast as the line allows. */
const pauseMs = 250;

/** Start, 8 data, parity and stop bits of a character. */
export function characterMsOf({ baud, parity, stopBits }: LineFraming): number {
  return ((9 + (parity === "none" || parity === "any" ? 0 : 1) + stopBits) * 1000) / baud;
}

export class PacedWire {
  readonly characterMs: number;
  /** Silence that ends a frame: 3.5 characters, above 19200 baud 1.75 ms. */
  readonly frameGapMs: number;
  readonly statistics: WireStatistics = emptyStatistics();
  readonly #options: PacedWireOptions;
  readonly #turnaroundMs: number;
  #request: number[] = [];
  /** When the first character of the request began, and when its last one has passed. */
  #requestStartMs = 0;
  #requestEndMs = 0;
  #queue: Transmission[] = [];
  /** When the wire fell silent: the benefit of the doubt (the moment before the bytes were handed over) is the master's. */
  #silentSinceMs = Number.NEGATIVE_INFINITY;
  #exchange: { startMs: number; limitMs: number } | undefined;

  constructor(options: PacedWireOptions) {
    this.#options = options;
    this.characterMs = characterMsOf(options);
    this.frameGapMs = options.baud > 19_200 ? 1.75 : 3.5 * this.characterMs;
    this.#turnaroundMs = options.turnaroundMs ?? 2;
  }

  /** When takeDue() is wanted next; Infinity when nothing is under way. */
  get nextAtMs(): number {
    const requestEndsMs = this.#request.length > 0 ? this.#requestEndMs + this.frameGapMs : Number.POSITIVE_INFINITY;
    const next = this.#queue[0];
    return Math.min(requestEndsMs, next === undefined ? Number.POSITIVE_INFINITY : this.#pieceEndMs(next));
  }

  /** Bytes that the master wrote, at the time they were seen. */
  receive(bytes: Uint8Array, nowMs: number): void {
    if (bytes.length === 0) return;
    if (this.#request.length === 0) this.#beginRequest(nowMs);
    const startMs = Math.max(nowMs, this.#requestEndMs);
    this.#request.push(...bytes);
    this.#requestEndMs = startMs + bytes.length * this.characterMs;
  }

  /** Puts bytes on the wire that nobody asked for: noise, a second master. */
  send(bytes: Uint8Array, nowMs: number): void {
    this.#enqueue({ startMs: nowMs, bytes, sent: 0 });
  }

  /** What the master may read by now, one piece a call; undefined when nothing is due. */
  takeDue(nowMs: number): Uint8Array | undefined {
    if (this.#request.length > 0 && nowMs >= this.#requestEndMs + this.frameGapMs) this.#endRequest();
    const next = this.#queue[0];
    if (next === undefined || nowMs < this.#pieceEndMs(next)) return undefined;
    const length = this.#pieceLength(next);
    const piece = next.bytes.subarray(next.sent, next.sent + length);
    next.sent += length;
    if (next.sent === next.bytes.length) this.#queue.shift();
    this.#silentSinceMs = nowMs;
    return piece;
  }

  #beginRequest(nowMs: number): void {
    const { statistics } = this;
    const onWire = this.#queue[0];
    if (nowMs < this.#requestEndMs || (onWire !== undefined && nowMs >= onWire.startMs)) statistics.collisions++;
    if (this.#silentSinceMs !== Number.NEGATIVE_INFINITY) {
      const silenceMs = nowMs - this.#silentSinceMs;
      statistics.silences++;
      if (silenceMs < this.frameGapMs) statistics.violations++;
      statistics.shortestSilenceMs = Math.min(statistics.shortestSilenceMs, silenceMs);
    }
    const exchange = this.#exchange;
    this.#exchange = undefined;
    if (exchange !== undefined && nowMs - this.#silentSinceMs < pauseMs) {
      statistics.exchanges++;
      statistics.wireLimitMs += exchange.limitMs;
      statistics.elapsedMs += nowMs - exchange.startMs;
    }
    this.#requestStartMs = nowMs;
    this.#requestEndMs = nowMs;
  }

  #endRequest(): void {
    const request = Uint8Array.from(this.#request);
    const heardAtMs = this.#requestEndMs + this.frameGapMs;
    this.#request = [];
    this.#silentSinceMs = this.#requestEndMs;
    const replies = this.#options.answer(request).filter(({ bytes }) => bytes.length > 0);
    for (const { bytes, afterMs = this.#turnaroundMs } of replies)
      this.#enqueue({ startMs: heardAtMs + afterMs, bytes, sent: 0 });
    const [reply] = replies;
    if (reply === undefined) return;
    const { afterMs = this.#turnaroundMs, bytes } = reply;
    const characters = request.length + bytes.length;
    this.#exchange = {
      startMs: this.#requestStartMs,
      limitMs: characters * this.characterMs + 2 * this.frameGapMs + afterMs,
    };
  }

  #enqueue(transmission: Transmission): void {
    this.#queue.push(transmission);
    this.#queue.sort((a, b) => a.startMs - b.startMs);
  }

  #pieceLength({ bytes, sent }: Transmission): number {
    return Math.min(this.#options.pieceCharacters ?? bytes.length, bytes.length - sent);
  }

  #pieceEndMs(transmission: Transmission): number {
    return transmission.startMs + (transmission.sent + this.#pieceLength(transmission)) * this.characterMs;
  }
}

function emptyStatistics(): WireStatistics {
  return {
    exchanges: 0,
    silences: 0,
    violations: 0,
    collisions: 0,
    shortestSilenceMs: Number.POSITIVE_INFINITY,
    wireLimitMs: 0,
    elapsedMs: 0,
  };
}

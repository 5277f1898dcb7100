/**
 * The device's end of SCHC fragmentation (RFC 9011 §5.6.2, RFC 8724 §8.4.3.1): one packet on one FPort, from its first tile to its
 * outcome. Pure: frames come out of {@link SchcSender.next}, time is an argument, and {@link SchcSender.state} is all there is to keep.
 *
 * Where it goes beyond the RFC: requests in vain are counted from the last answer that told of a new tile, so that a long packet on a
 * lossy channel ends when nothing arrives any more, not after eight rounds; tiles sent since the last request are not believed missing,
 * since in Class A an answer may be older than they are; and an answer that says "all there, yet wrong" is asked for once again.
 */
import { crc32 } from "../protocol/crc-32.ts";
import { packetBytesMax } from "../protocol/lorawan.ts";
import { Refusal } from "../protocol/refusal.ts";
import {
  ackRequestsMax,
  allOneBytes,
  decodeAnswer,
  encodeFragment,
  fcnOfTile,
  type SchcAnswer,
  tileBytes,
  windowOfTile,
  windowTiles,
} from "../protocol/schc.ts";

export interface SenderFrame {
  readonly kind: "regular" | "all-1" | "ack-request" | "sender-abort";
  /** The FRMPayload, at most as long as was asked for. */
  readonly bytes: Uint8Array;
  /** Numbers of the tiles of a regular fragment, from the packet's start: the first, and how many. */
  readonly tiles: readonly [first: number, count: number];
}

export type SenderOutcome = "acknowledged" | "receiver-abort" | "unacknowledged" | "rcs-mismatch";

/** Plain data; times are what remains, as the clock may be another one after a restart. */
export interface SenderState {
  readonly port: number;
  readonly packet: Uint8Array;
  /** How the last tile travels, once that is settled. */
  readonly lastTile?: "all-1" | "regular";
  /** Tiles to be sent. */
  readonly missing: readonly number[];
  readonly acknowledged: readonly number[];
  /** Tiles sent since the last request for an answer. */
  readonly unasked: readonly number[];
  /** Asks for an answer when no tile is missing. */
  readonly request?: "all-1" | "ack-request";
  readonly lastRequest?: "all-1" | "ack-request";
  /** Whether the receiver has the All-1, as far as its answers tell. */
  readonly allOne: "unknown" | "there" | "lost";
  /** Requests since the last answer that told of a new tile. */
  readonly attempts: number;
  /** Answers in a row that said that every tile is there, and the packet is wrong. */
  readonly mismatches: number;
  /** What a Sender-Abort that is to be sent leads to. */
  readonly aborting?: "unacknowledged" | "rcs-mismatch" | "begin-again";
  readonly remainingMs?: number;
  readonly outcome?: SenderOutcome;
}

/** Without what is kept as sets and as a time. */
type Kept = Omit<SenderState, "missing" | "acknowledged" | "unasked" | "remainingMs">;
type MutableState = {
  -readonly [Name in keyof Kept]: Kept[Name] | undefined;
} & Pick<SenderState, "port" | "packet" | "allOne" | "attempts" | "mismatches">;

const second = 1000;
const hour = 3600 * second;
/** How long an answer is waited for after the first request, the second and so on; after the last one, what was waited for is given up. */
const usualRetryDelaysMs: readonly number[] = [
  30 * second,
  300 * second,
  1_200 * second,
  hour,
  2 * hour,
  4 * hour,
  8 * hour,
];

export interface SenderOptions {
  /** How long to wait after each request in vain; the last one counts for all that follow. */
  readonly retryDelaysMs?: readonly number[];
}

export class SchcSender {
  readonly #s: MutableState;
  readonly #missing: Set<number>;
  readonly #acknowledged: Set<number>;
  readonly #unasked: Set<number>;
  readonly #tileCount: number;
  readonly #delaysMs: readonly number[];
  #wakesAtMs: number | undefined;
  #inFlight: SenderFrame | undefined;

  private constructor(state: SenderState, nowMs: number, options: SenderOptions) {
    const { missing, acknowledged, unasked, remainingMs, ...rest } = state;
    this.#s = rest;
    this.#missing = new Set(missing);
    this.#acknowledged = new Set(acknowledged);
    this.#unasked = new Set(unasked);
    this.#tileCount = Math.ceil(state.packet.length / tileBytes);
    this.#delaysMs = options.retryDelaysMs ?? usualRetryDelaysMs;
    this.#wakesAtMs = remainingMs === undefined ? undefined : nowMs + remainingMs;
  }

  /** Throws RangeError for a packet of no bytes, or of more than {@link packetBytesMax}. */
  static begin(port: number, packet: Uint8Array, options: SenderOptions = {}): SchcSender {
    if (packet.length === 0 || packet.length > packetBytesMax)
      throw new RangeError(`a packet of ${packet.length} bytes: 1 to ${packetBytesMax} go in fragments`);
    const sender = new SchcSender(
      {
        port,
        packet,
        missing: [],
        acknowledged: [],
        unasked: [],
        allOne: "unknown",
        attempts: 0,
        mismatches: 0,
      },
      0,
      options,
    );
    sender.#beginAgain();
    return sender;
  }

  static restore(state: SenderState, nowMs: number, options: SenderOptions = {}): SchcSender {
    return new SchcSender(state, nowMs, options);
  }

  /** What a restart goes on from. A frame on its way counts as not sent: it is sent again. */
  state(nowMs: number): SenderState {
    const { lastTile, request, lastRequest, aborting, outcome, ...rest } = this.#s;
    return {
      ...rest,
      ...(lastTile && { lastTile }),
      ...(request && { request }),
      ...(lastRequest && { lastRequest }),
      ...(aborting && { aborting }),
      ...(outcome && { outcome }),
      missing: [...this.#missing],
      acknowledged: [...this.#acknowledged],
      unasked: [...this.#unasked],
      ...(this.#wakesAtMs !== undefined && { remainingMs: Math.max(0, this.#wakesAtMs - nowMs) }),
    };
  }

  get port(): number {
    return this.#s.port;
  }

  get packet(): Uint8Array {
    return this.#s.packet;
  }

  /** Undefined while the session goes on. Only "acknowledged" says that a full node has the packet, and no signature says so. */
  get outcome(): SenderOutcome | undefined {
    return this.#s.outcome;
  }

  /** When {@link next} has something: now, or when an answer is late; undefined at the end. */
  wakesAtMs(nowMs: number): number | undefined {
    if (this.#s.outcome) return undefined;
    if (this.#s.aborting || this.#missing.size > 0 || this.#s.request) return nowMs;
    return this.#wakesAtMs ?? nowMs;
  }

  /**
   * The frame to send now with at most `bytesMax` bytes of FRMPayload; "no-room" where the frame that is due needs more: try again when
   * the data rate has changed or an empty frame has taken the MAC commands along. Undefined: waits, or has ended.
   */
  next(bytesMax: number, nowMs: number): SenderFrame | "no-room" | undefined {
    this.#inFlight = undefined;
    const frame = this.#due(bytesMax, nowMs);
    if (frame !== undefined && frame !== "no-room") this.#inFlight = frame;
    return frame;
  }

  #due(bytesMax: number, nowMs: number): SenderFrame | "no-room" | undefined {
    const s = this.#s;
    if (s.outcome) return undefined;
    if (bytesMax < 1) return "no-room";
    this.#askAgain(nowMs);
    if (s.aborting) return { kind: "sender-abort", bytes: encodeFragment({ kind: "sender-abort" }), tiles: [0, 0] };
    if (this.#missing.size > 0) return this.#regular(bytesMax);
    if (s.request === "all-1") return this.#allOne(bytesMax);
    return s.request && this.#ackRequest();
  }

  /** Where an answer is late. */
  #askAgain(nowMs: number): void {
    const s = this.#s;
    if (s.aborting || s.request || this.#missing.size > 0 || nowMs < (this.#wakesAtMs ?? nowMs)) return;
    this.#wakesAtMs = undefined;
    if (s.attempts >= ackRequestsMax) s.aborting = s.mismatches > 0 ? "rcs-mismatch" : "unacknowledged";
    else s.request = s.allOne === "there" ? "ack-request" : "all-1";
  }

  #regular(bytesMax: number): SenderFrame | "no-room" {
    const room = Math.floor((bytesMax - 1) / tileBytes);
    const first = Math.min(...this.#missing);
    let count = 0;
    while (count < room && this.#missing.has(first + count)) count++;
    if (count === 0 && bytesMax - 1 < this.#tile(first).length) return "no-room";
    count ||= 1; // a last tile that is short
    const tiles = this.#s.packet.subarray(first * tileBytes, (first + count) * tileBytes);
    const bytes = encodeFragment({ kind: "regular", window: windowOfTile(first), fcn: fcnOfTile(first), tiles });
    return { kind: "regular", bytes, tiles: [first, count] };
  }

  /** The All-1; where it does not fit, what helps: the last tile in a regular fragment while that can be chosen, later to begin again. */
  #allOne(bytesMax: number): SenderFrame | "no-room" {
    const s = this.#s;
    const last = this.#tileCount - 1;
    const tile = s.lastTile === "regular" ? new Uint8Array() : this.#tile(last);
    if (bytesMax >= allOneBytes + tile.length) {
      const rcs = crc32(s.packet);
      const bytes = encodeFragment({ kind: "all-1", window: windowOfTile(last), rcs, tile });
      return { kind: "all-1", bytes, tiles: [0, 0] };
    }
    if (bytesMax < 1 + tile.length || s.lastTile === "regular") return "no-room";
    if (s.lastTile === undefined) {
      s.lastTile = "regular";
      this.#missing.add(last);
      return this.#regular(bytesMax);
    }
    const knowsPacket = s.allOne === "there" || this.#acknowledged.size > 0;
    if (knowsPacket && s.allOne !== "lost") return this.#ackRequest();
    // The last tile must not go both ways in one session (RFC 9011 §5.6.2), and this data rate has no room for the way chosen.
    s.aborting = "begin-again";
    return { kind: "sender-abort", bytes: encodeFragment({ kind: "sender-abort" }), tiles: [0, 0] };
  }

  #ackRequest(): SenderFrame {
    const window = windowOfTile(this.#tileCount - 1);
    return { kind: "ack-request", bytes: encodeFragment({ kind: "ack-request", window }), tiles: [0, 0] };
  }

  #tile(tile: number): Uint8Array {
    return this.#s.packet.subarray(tile * tileBytes, (tile + 1) * tileBytes);
  }

  /** The modem says that the frame is out and its receive windows are closed. */
  sent(frame: SenderFrame, nowMs: number): void {
    // One whose answer came before this call has had its effect.
    if (frame !== this.#inFlight) return;
    this.#inFlight = undefined;
    const s = this.#s;
    if (frame.kind === "sender-abort") {
      if (s.aborting === "begin-again") this.#beginAgain("regular");
      else s.outcome = s.aborting;
    } else if (frame.kind === "regular") {
      const [first, count] = frame.tiles;
      for (let tile = first; tile < first + count; tile++) {
        this.#missing.delete(tile);
        this.#unasked.add(tile);
      }
    } else {
      if (frame.kind === "all-1") s.lastTile ??= "all-1";
      s.lastRequest = frame.kind;
      s.request = undefined;
      this.#unasked.clear();
      this.#wakesAtMs = nowMs + (this.#delaysMs[Math.min(s.attempts, this.#delaysMs.length - 1)] ?? hour);
      s.attempts++;
    }
  }

  #beginAgain(lastTile?: "regular"): void {
    Object.assign(this.#s, {
      lastTile,
      request: "all-1",
      lastRequest: undefined,
      allOne: "unknown",
      attempts: 0,
      mismatches: 0,
      aborting: undefined,
    });
    this.#wakesAtMs = undefined;
    this.#acknowledged.clear();
    this.#unasked.clear();
    const count = lastTile === "regular" ? this.#tileCount : this.#tileCount - 1;
    for (let tile = 0; tile < count; tile++) this.#missing.add(tile);
  }

  /** A downlink on this port. False: malformed, or not about this session, as an answer to an earlier packet on the port may be. */
  received(bytes: Uint8Array, nowMs: number): boolean {
    if (this.#s.outcome) return false;
    let answer: SchcAnswer;
    try {
      answer = decodeAnswer(bytes);
    } catch (error) {
      if (error instanceof Refusal) return false;
      throw error;
    }
    // A downlink comes in the receive windows of an uplink: what is on its way has been sent.
    if (this.#inFlight) this.sent(this.#inFlight, nowMs);
    if (answer.kind === "receiver-abort") {
      const hasSent = this.#s.lastRequest !== undefined || this.#unasked.size > 0;
      if (hasSent) this.#s.outcome = "receiver-abort";
      return hasSent;
    }
    const lastWindow = windowOfTile(this.#tileCount - 1);
    if (this.#s.lastRequest === undefined || answer.window > lastWindow) return false;
    if (answer.complete) {
      if (answer.window === lastWindow) this.#s.outcome = "acknowledged";
      return answer.window === lastWindow;
    }
    if (this.#s.aborting === "begin-again") return false;
    this.#resend(answer.window, answer.bitmap as readonly boolean[], lastWindow);
    return true;
  }

  #resend(window: number, bitmap: readonly boolean[], lastWindow: number): void {
    const s = this.#s;
    const news = this.#note(window, bitmap);
    const isAllOneThere = window === lastWindow ? bitmap[windowTiles - 1] === true : s.lastRequest === "all-1";
    if (isAllOneThere && s.allOne !== "there") s.attempts = 0;
    if (window === lastWindow || isAllOneThere) s.allOne = isAllOneThere ? "there" : "lost";
    if (news.acknowledged > 0) s.attempts = 0;
    if (this.#missing.size > 0 || s.allOne === "lost") {
      s.mismatches = 0;
      s.aborting = undefined;
      this.#ask();
    } else if (window === lastWindow && this.#unasked.size === 0) this.#doubt();
  }

  /** Takes in one window's bitmap. */
  #note(window: number, bitmap: readonly boolean[]): { readonly acknowledged: number } {
    const tiles = this.#s.lastTile === "regular" ? this.#tileCount : this.#tileCount - 1;
    const first = window * windowTiles;
    let acknowledged = 0;
    for (let tile = first; tile < Math.min(tiles, first + windowTiles); tile++) {
      if (!bitmap[tile - first]) {
        if (!this.#unasked.has(tile)) this.#missing.add(tile);
      } else {
        this.#missing.delete(tile);
        if (!this.#acknowledged.has(tile)) acknowledged++;
        this.#acknowledged.add(tile);
      }
    }
    return { acknowledged };
  }

  #ask(): void {
    this.#wakesAtMs = undefined;
    this.#s.request = this.#s.allOne === "there" ? "ack-request" : "all-1";
  }

  /**
   * Every tile is there, it is said, and the packet is wrong. The answer may be one to an earlier packet: only the second one is believed.
   * Where the last tile went in a regular fragment and fills its window, one bit stands for it and for the All-1 alike: it goes once more.
   */
  #doubt(): void {
    const s = this.#s;
    const isLastTileInDoubt = s.lastTile === "regular" && this.#tileCount % windowTiles === 0;
    s.mismatches++;
    if (s.mismatches > (isLastTileInDoubt ? ackRequestsMax : 1)) s.aborting = "rcs-mismatch";
    else if (isLastTileInDoubt) this.#missing.add(this.#tileCount - 1);
    this.#ask();
  }
}

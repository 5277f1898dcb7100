/**
 * The full node's end of SCHC fragmentation (RFC 9011 §5.6.2, RFC 8724 §8.4.3.2), for one device and one FPort. Pure: time is an
 * argument, answers and packets are what comes back. It holds one packet of at most 2,520 bytes, whatever comes.
 *
 * There is no DTag: what keeps two packets on one port apart is that a tile or All-1 that contradicts what is there belongs to a new
 * packet where its frame counter is higher, and to an old one where it is not. CRC-32 finds losses; it is no proof of who sent what:
 * the record's signature is checked behind it.
 */
import { crc32 } from "../protocol/crc-32.ts";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { Refusal } from "../protocol/refusal.ts";
import {
  ackRequestsMax,
  decodeFragment,
  encodeAnswer,
  type Fragment,
  tileBytes,
  tileNumber,
  tilesMax,
  windowOfTile,
  windowTiles,
} from "../protocol/schc.ts";
import { SchcTiles } from "./schc-tiles.ts";

export type ReceiverAction =
  /** For the record path; what that says comes back by `stored` or `refused`. */
  | { readonly kind: "packet"; readonly packet: Uint8Array }
  /** To be sent on the same FPort, in place of any that still waits. */
  | { readonly kind: "answer"; readonly bytes: Uint8Array };

type AllOne = { readonly window: number; readonly rcs: number; readonly tile: Uint8Array };

/** Plain data; the time is what remains. */
export interface ReceiverState {
  /** "whole": the packet is with the record path. "stored", "refused": what that said, kept to answer once more where the answer was lost. */
  readonly phase: "idle" | "collecting" | "whole" | "stored" | "refused";
  readonly tiles: readonly (readonly [tile: number, bytes: Uint8Array])[];
  readonly allOne?: AllOne;
  readonly packet?: Uint8Array;
  /** Answers in a row that led to no new tile. */
  readonly attempts: number;
  /** Highest frame counter of this packet; -1 before the first. */
  readonly newestFCnt: number;
  /** Highest frame counter of the packet before it: what is not above belongs to that one. */
  readonly endedFCnt: number;
  /** The LoRaWAN session that the counters belong to. */
  readonly devAddr?: string;
  readonly remainingMs: number;
}

/** RFC 9011 §5.6.2: 12 hours. */
const usualInactivityMs = 12 * 3_600_000;

export interface ReceiverOptions {
  /** After so long without a frame, what is incomplete is given up, and what was answered is forgotten. */
  readonly inactivityMs?: number;
}

export class SchcReceiver {
  #phase: ReceiverState["phase"] = "idle";
  readonly #tiles = new SchcTiles();
  #allOne: AllOne | undefined;
  #packet: Uint8Array | undefined;
  #attempts = 0;
  #newestFCnt = -1;
  #endedFCnt = -1;
  #devAddr: string | undefined;
  #deadlineMs = 0;
  readonly #inactivityMs: number;

  constructor(options: ReceiverOptions = {}) {
    this.#inactivityMs = options.inactivityMs ?? usualInactivityMs;
  }

  static restore(state: ReceiverState, nowMs: number, options: ReceiverOptions = {}): SchcReceiver {
    const receiver = new SchcReceiver(options);
    receiver.#phase = state.phase;
    for (const [tile, bytes] of state.tiles) receiver.#tiles.set(tile, bytes);
    receiver.#allOne = state.allOne;
    receiver.#packet = state.packet;
    receiver.#attempts = state.attempts;
    receiver.#newestFCnt = state.newestFCnt;
    receiver.#endedFCnt = state.endedFCnt;
    receiver.#devAddr = state.devAddr;
    receiver.#deadlineMs = nowMs + state.remainingMs;
    return receiver;
  }

  state(nowMs: number): ReceiverState {
    return {
      phase: this.#phase,
      tiles: [...this.#tiles],
      ...(this.#allOne && { allOne: this.#allOne }),
      ...(this.#packet && { packet: this.#packet }),
      attempts: this.#attempts,
      newestFCnt: this.#newestFCnt,
      endedFCnt: this.#endedFCnt,
      ...(this.#devAddr !== undefined && { devAddr: this.#devAddr }),
      remainingMs: Math.max(0, this.#deadlineMs - nowMs),
    };
  }

  /** Nothing would be lost with this object but which frame counters are old. */
  get isIdle(): boolean {
    return this.#phase === "idle";
  }

  /** The packet is stored, and whoever asks hears so. */
  get hasStored(): boolean {
    return this.#phase === "stored";
  }

  /** What became of the packet is known, and kept only to be said once more. */
  get isSettled(): boolean {
    return this.#phase === "stored" || this.#phase === "refused";
  }

  /** When {@link expire} has something to do; undefined while idle. */
  get deadlineMs(): number | undefined {
    return this.isIdle ? undefined : this.#deadlineMs;
  }

  /**
   * An uplink on this port. Never throws for what the bytes are: malformed ones lead to nothing.
   *
   * @param fCnt the frame counter of the uplink
   * @param devAddr names the LoRaWAN session; where it changes, the device has joined again and its counter has begun anew
   */
  receive(bytes: Uint8Array, fCnt: number, nowMs: number, devAddr: string): ReceiverAction[] {
    let fragment: Fragment;
    try {
      fragment = decodeFragment(bytes);
    } catch (error) {
      if (error instanceof Refusal) return [];
      throw error;
    }
    if (devAddr !== this.#devAddr) {
      this.#devAddr = devAddr;
      this.#newestFCnt = -1;
      this.#endedFCnt = -1;
    }
    if (fCnt <= this.#endedFCnt) return [];
    this.#deadlineMs = nowMs + this.#inactivityMs;
    switch (fragment.kind) {
      case "sender-abort":
        if (fCnt > this.#newestFCnt) this.#end(fCnt);
        return [];
      case "ack-request":
        this.#count(fCnt);
        return this.#answer(fragment.window);
      case "all-1":
        return this.#receiveAllOne({ ...fragment, tile: new Uint8Array(fragment.tile) }, fCnt);
      case "regular":
        return this.#receiveTiles(tileNumber(fragment.window, fragment.fcn), fragment.tiles, fCnt);
    }
  }

  /**
   * The record of the packet is stored, or was before: only now the device may hear that the packet is complete.
   *
   * @param packet the one meant; nothing happens where another one has taken its place
   */
  stored(nowMs: number, packet?: Uint8Array): ReceiverAction[] {
    return this.#settle("stored", nowMs, packet);
  }

  /**
   * The record of the packet is not taken as things are, which may change: a rotation may come, a gap may close. Whoever asks again has
   * it handed over again.
   */
  declined(packet: Uint8Array): ReceiverAction[] {
    return this.#phase === "whole" && this.#packet && equalBytes(packet, this.#packet) ? [abort] : [];
  }

  /** No record can come of the packet, however often it is sent. */
  refused(nowMs: number, packet?: Uint8Array): ReceiverAction[] {
    return this.#settle("refused", nowMs, packet);
  }

  #settle(phase: "stored" | "refused", nowMs: number, packet: Uint8Array | undefined): ReceiverAction[] {
    if (this.#phase !== "whole" || !this.#packet) return [];
    if (packet && !equalBytes(packet, this.#packet)) return [];
    this.#phase = phase;
    this.#deadlineMs = nowMs + this.#inactivityMs;
    return this.#verdict();
  }

  /** After a long silence: gives up what is incomplete, and forgets what was answered. To be called now and then. */
  expire(nowMs: number): ReceiverAction[] {
    if (this.isIdle || nowMs < this.#deadlineMs) return [];
    const isIncomplete = this.#phase === "collecting";
    this.#end(this.#newestFCnt);
    return isIncomplete ? [abort] : [];
  }

  #end(fCnt: number): void {
    this.#phase = "idle";
    this.#tiles.clear();
    this.#allOne = undefined;
    this.#packet = undefined;
    this.#attempts = 0;
    this.#endedFCnt = Math.max(this.#endedFCnt, this.#newestFCnt, fCnt);
    this.#newestFCnt = -1;
  }

  #count(fCnt: number): void {
    this.#newestFCnt = Math.max(this.#newestFCnt, fCnt);
    if (this.#phase === "idle") this.#phase = "collecting";
  }

  /** Whether a frame that contradicts what is there is the newer of both, so that a new packet begins with it, or a little before. */
  #isSuperseded(fCnt: number, firstTile = tilesMax): boolean {
    if (fCnt <= this.#newestFCnt) return false;
    const begun = this.#packet ? [...this.#tiles].filter(([tile]) => tile < firstTile) : [];
    this.#end(this.#newestFCnt);
    for (const [tile, bytes] of begun) this.#tiles.set(tile, bytes);
    return true;
  }

  #receiveAllOne(allOne: AllOne, fCnt: number): ReceiverAction[] {
    const known = this.#allOne;
    const isSame = known && known.window === allOne.window && known.rcs === allOne.rcs;
    const contradicts = known ? !isSame : Math.max(-1, ...this.#tiles.keys()) >= (allOne.window + 1) * windowTiles;
    if (contradicts && !this.#isSuperseded(fCnt)) return [];
    if (!isSame) this.#attempts = 0;
    this.#count(fCnt);
    // Of the same packet with its last tile on the other way: the sender has begun again, and its abort was lost.
    if (this.#phase === "collecting") this.#allOne = allOne;
    return this.#answer(allOne.window);
  }

  #receiveTiles(first: number, bytes: Uint8Array, fCnt: number): ReceiverAction[] {
    const count = Math.ceil(bytes.length / tileBytes);
    const tile = (i: number) => bytes.subarray(i * tileBytes, (i + 1) * tileBytes);
    let isNew = false;
    let contradicts = this.#allOne !== undefined && windowOfTile(first + count - 1) > this.#allOne.window;
    for (let i = 0; i < count; i++) {
      const known = this.#tileOf(first + i);
      if (!known) isNew = true;
      else if (!equalBytes(known, tile(i))) contradicts = true;
    }
    if (this.#packet && isNew) contradicts = true;
    if (contradicts) {
      if (!this.#isSuperseded(fCnt, first)) return [];
      isNew = true;
    }
    const isLate = fCnt <= this.#newestFCnt;
    this.#count(fCnt);
    // All packets of a device begin alike: behind a whole one, these may be the first tiles of the next.
    if (!isNew && (isLate || !this.#packet)) return [];
    for (let i = 0; i < count; i++) this.#tiles.set(first + i, tile(i));
    if (!isNew) return [];
    this.#attempts = 0;
    return this.#allOne && this.#reassemble() ? this.#handOver() : [];
  }

  /** A tile of what was received, also where the packet is put together already. */
  #tileOf(tile: number): Uint8Array | undefined {
    if (!this.#packet) return this.#tiles.get(tile);
    const bytes = this.#packet.subarray(tile * tileBytes, (tile + 1) * tileBytes);
    return bytes.length > 0 ? bytes : undefined;
  }

  /** To one who asked: what became of the packet, or which tiles are missing. */
  #answer(askedWindow: number): ReceiverAction[] {
    if (this.#packet) this.#tiles.clear(); // they were this packet's
    if (this.#phase === "stored" || this.#phase === "refused") return this.#verdict();
    if (this.#phase === "whole" || (this.#allOne && this.#reassemble())) return this.#handOver();
    if (this.#attempts >= ackRequestsMax) {
      this.#end(this.#newestFCnt);
      return [abort];
    }
    this.#attempts++;
    return [{ kind: "answer", bytes: encodeAnswer(this.#missingTiles(askedWindow)) }];
  }

  /** Again where the record path has not answered: after a restart it may never have heard of the packet. */
  #handOver(): ReceiverAction[] {
    return this.#packet ? [{ kind: "packet", packet: this.#packet }] : [];
  }

  #verdict(): ReceiverAction[] {
    if (this.#phase === "refused" || !this.#allOne) return [abort];
    return [{ kind: "answer", bytes: encodeAnswer({ kind: "ack", window: this.#allOne.window, complete: true }) }];
  }

  /** The lowest window that lacks a tile; if none does, the last one. */
  #missingTiles(askedWindow: number) {
    const last = this.#allOne?.window ?? Math.max(askedWindow, ...[...this.#tiles.keys()].map(windowOfTile));
    const bitmapOf = (window: number) =>
      Array.from({ length: windowTiles }, (_, i) => this.#tiles.has(window * windowTiles + i));
    let window = 0;
    let bitmap = bitmapOf(0);
    while (window < last && !bitmap.includes(false)) bitmap = bitmapOf(++window);
    if (this.#allOne && window === last) bitmap[windowTiles - 1] = true;
    return { kind: "ack", window, complete: false, bitmap } as const;
  }

  /**
   * Nobody says how many tiles there are: the CRC does. Every number of tiles that the All-1's window allows is tried, as tiles of an
   * earlier packet that was given up may stand behind those of this one.
   */
  #reassemble(): boolean {
    const allOne = this.#allOne as AllOne;
    let crc = 0;
    for (let count = 0; count <= tilesMax; count++) {
      const last = allOne.tile.length > 0 ? count : count - 1;
      if (last >= 0 && windowOfTile(last) === allOne.window && crc32(allOne.tile, crc) === allOne.rcs) {
        this.#packet = this.#joined(count, allOne.tile);
        this.#phase = "whole";
        this.#tiles.clear();
        return true;
      }
      const next = this.#tiles.get(count);
      // Behind a short tile there is none: only the packet's last one is short.
      if (!next || (count > 0 && (this.#tiles.get(count - 1) as Uint8Array).length < tileBytes)) return false;
      crc = crc32(next, crc);
    }
    return false;
  }

  #joined(count: number, lastTile: Uint8Array): Uint8Array {
    const tiles = [...Array(count).keys()].map((i) => this.#tiles.get(i) as Uint8Array);
    const packet = new Uint8Array(tiles.reduce((length, tile) => length + tile.length, lastTile.length));
    tiles.forEach((tile, i) => {
      packet.set(tile, i * tileBytes);
    });
    packet.set(lastTile, packet.length - lastTile.length);
    return packet;
  }
}

const abort: ReceiverAction = { kind: "answer", bytes: encodeAnswer({ kind: "receiver-abort" }) };

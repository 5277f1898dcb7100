/**
 * The messages of SCHC fragmentation as LoRaWAN's uplink has them (RFC 9011 §5.6.2, mode ACK-on-Error of RFC 8724 §8.4.3). The FPort
 * is the RuleID and stands in no message; there is no DTag. Tiles are numbered here from 0 in the order of the packet; on air, a
 * window of 2 bits and an FCN of 6 bits that counts down from 62 in each window.
 */
import { packetBytesMax } from "./lorawan.ts";
import { Refusal } from "./refusal.ts";

export const tileBytes = 10;
export const windowTiles = 63;
const windowsMax = 4;
export const tilesMax = windowsMax * windowTiles;
/** MAX_ACK_REQUESTS: how often in a row an answer is asked for, or given, in vain. */
export const ackRequestsMax = 8;

const fcnAllOne = 63;
const headerBytes = 1;
const rcsBytes = 4;
/** The bytes of an All-1 before its tile. */
export const allOneBytes: number = headerBytes + rcsBytes;
const senderAbort = 0xff;

export type Fragment =
  /** Whole tiles one after the other, the first one of which is `fcn` of `window`; only the packet's last tile is shorter. */
  | { readonly kind: "regular"; readonly window: number; readonly fcn: number; readonly tiles: Uint8Array }
  /** Ends the packet: its CRC-32, and the last tile unless a regular fragment had that. `window` is that of the last tile. */
  | { readonly kind: "all-1"; readonly window: number; readonly rcs: number; readonly tile: Uint8Array }
  | { readonly kind: "ack-request"; readonly window: number }
  | { readonly kind: "sender-abort" };

export type SchcAnswer =
  /** Of one window; `bitmap`, 63 bits from FCN 62 to 0, where the packet is not complete. The last bit of the last window is the All-1's. */
  | {
      readonly kind: "ack";
      readonly window: number;
      readonly complete: boolean;
      readonly bitmap?: readonly boolean[];
    }
  | { readonly kind: "receiver-abort" };

/** Number of the tile that window and FCN name. */
export function tileNumber(window: number, fcn: number): number {
  return window * windowTiles + windowTiles - 1 - fcn;
}

export function windowOfTile(tile: number): number {
  return Math.floor(tile / windowTiles);
}

export function fcnOfTile(tile: number): number {
  return windowTiles - 1 - (tile % windowTiles);
}

/** A fragment as it goes behind the FPort. Throws RangeError where the profile has no such fragment. */
export function encodeFragment(fragment: Fragment): Uint8Array {
  if (fragment.kind === "sender-abort") return Uint8Array.of(senderAbort);
  const { window } = fragment;
  assertWindow(window);
  if (fragment.kind === "ack-request") return Uint8Array.of(window << 6);
  if (fragment.kind === "regular") {
    const { fcn, tiles } = fragment;
    if (tiles.length === 0 || !fitsPacket(window, fcn, tiles.length))
      throw new RangeError(`${tiles.length} bytes of tiles from window ${window}, FCN ${fcn}`);
    return withHead(Uint8Array.of((window << 6) | fcn), tiles);
  }
  const { rcs, tile } = fragment;
  if (tile.length > tileBytes) throw new RangeError(`a last tile of ${tile.length} bytes`);
  return withHead(Uint8Array.of((window << 6) | fcnAllOne, rcs >>> 24, rcs >>> 16, rcs >>> 8, rcs), tile);
}

/** Throws {@link Refusal}. The tiles of what it gives are views of `bytes`. */
export function decodeFragment(bytes: Uint8Array): Fragment {
  const [head] = bytes;
  if (head === undefined) throw new Refusal("bad-fragment", "no bytes");
  const window = head >> 6;
  const fcn = head & 0x3f;
  if (bytes.length === headerBytes) {
    if (fcn === 0) return { kind: "ack-request", window };
    if (head === senderAbort) return { kind: "sender-abort" };
    throw new Refusal("bad-fragment", `1 byte with FCN ${fcn}`);
  }
  if (fcn === fcnAllOne) {
    if (bytes.length < allOneBytes || bytes.length > allOneBytes + tileBytes)
      throw new Refusal("bad-fragment", `an All-1 of ${bytes.length} bytes`);
    const rcs = new DataView(bytes.buffer, bytes.byteOffset).getUint32(headerBytes);
    return { kind: "all-1", window, rcs, tile: bytes.subarray(allOneBytes) };
  }
  const tiles = bytes.subarray(headerBytes);
  if (!fitsPacket(window, fcn, tiles.length))
    throw new Refusal(
      "bad-fragment",
      `${tiles.length} bytes from window ${window}, FCN ${fcn}, go beyond the last window`,
    );
  return { kind: "regular", window, fcn, tiles };
}

function fitsPacket(window: number, fcn: number, length: number): boolean {
  return fcn < windowTiles && tileNumber(window, fcn) * tileBytes + length <= packetBytesMax;
}

/** Bits of the header of an ACK that stand in the payload: window and C. */
const ackHeaderBits = 3;
/** An ACK longer than this holds the whole bitmap, and 6 bits of padding. */
const wholeBitmapBytes = 9;

/**
 * An answer as it goes behind the FPort. A bitmap is compressed (RFC 8724 §8.3.2.1): ones at its end are left out up to a
 * border of bytes.
 */
export function encodeAnswer(answer: SchcAnswer): Uint8Array {
  if (answer.kind === "receiver-abort") return Uint8Array.of(0xff, 0xff);
  const { window, complete, bitmap } = answer;
  assertWindow(window);
  if (complete) return Uint8Array.of((window << 6) | 0x20);
  if (bitmap?.length !== windowTiles) throw new RangeError(`a bitmap of ${bitmap?.length} bits`);
  const significant = bitmap.lastIndexOf(false) + 1;
  const length = Math.min(wholeBitmapBytes, Math.max(1, Math.ceil((ackHeaderBits + significant) / 8)));
  const bytes = new Uint8Array(length);
  bytes[0] = window << 6;
  bitmap.forEach((isReceived, i) => {
    const bit = ackHeaderBits + i;
    if (isReceived && bit < length * 8) (bytes[bit >> 3] as number) |= 0x80 >> (bit & 7);
  });
  return bytes;
}

/** Throws {@link Refusal}. */
export function decodeAnswer(bytes: Uint8Array): SchcAnswer {
  const [head] = bytes;
  if (head === undefined || bytes.length > wholeBitmapBytes)
    throw new Refusal("bad-fragment", `an answer of ${bytes.length} bytes`);
  if (bytes.length === 2 && head === 0xff && bytes[1] === 0xff) return { kind: "receiver-abort" };
  const window = head >> 6;
  if (head & 0x20) {
    if (bytes.length > 1 || head & 0x1f) throw new Refusal("bad-fragment", "an ACK with C = 1 and a bitmap");
    return { kind: "ack", window, complete: true };
  }
  const bitmap = Array.from({ length: windowTiles }, (_, i) => {
    const bit = ackHeaderBits + i;
    const byte = bytes[bit >> 3];
    return byte === undefined || (byte & (0x80 >> (bit & 7))) !== 0;
  });
  return { kind: "ack", window, complete: false, bitmap };
}

function assertWindow(window: number): void {
  if (!Number.isInteger(window) || window < 0 || window >= windowsMax) throw new RangeError(`window ${window}`);
}

function withHead(head: Uint8Array, tail: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(head.length + tail.length);
  bytes.set(head);
  bytes.set(tail, head.length);
  return bytes;
}

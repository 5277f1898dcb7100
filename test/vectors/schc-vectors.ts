/**
 * SCHC fragments and answers, by hand; those marked so were cross-checked with PySCHC's encoder (niclabs/PySCHC), which gave the same
 * bytes. CRCs are those of node:zlib.
 */
import { crc32 } from "node:zlib";
import { hexOf } from "./signature-suite.ts";
import { type Json, type Vector } from "./vector.ts";

/** 64 followed by 00 01 02 … 9a: 156 bytes, 16 tiles, the last one of 6 bytes. */
export const shortPacket: Uint8Array = Uint8Array.from({ length: 156 }, (_, i) => (i === 0 ? 0x64 : i - 1));
/** 64 followed by (7 i) mod 256: 1,000 bytes, which need two windows. */
export const longPacket: Uint8Array = Uint8Array.from({ length: 1000 }, (_, i) => (i === 0 ? 0x64 : (7 * (i - 1)) & 0xff));

const peer = { peer: "PySCHC" };

export function fragmentVectors(): Vector[] {
  const short = (from: number, to: number) => hexOf(shortPacket.slice(from, to));
  const long = (from: number, to: number) => hexOf(longPacket.slice(from, to));
  const rcs = (packet: Uint8Array) => crc32(packet).toString(16).padStart(8, "0");
  const regular = (name: string, head: string, window: number, fcn: number, tiles: string, more = {}): Vector => ({
    name,
    hex: head + tiles,
    expect: "ok",
    meaning: { kind: "regular", window, fcn, tiles },
    ...more,
  });
  const allOne = (name: string, head: string, window: number, packet: Uint8Array, tile: string, more = {}): Vector => ({
    name,
    hex: head + rcs(packet) + tile,
    expect: "ok",
    meaning: { kind: "all-1", window, rcs: crc32(packet), tile },
    ...more,
  });
  const bad = (name: string, hex: string): Vector => ({ name, hex, expect: "bad-fragment" });
  return [
    regular("five tiles", "3e", 0, 62, short(0, 50), peer),
    regular("the five after them", "39", 0, 57, short(50, 100), peer),
    regular("and the next", "34", 0, 52, short(100, 150), peer),
    regular("one tile, in a frame of 11 bytes", "39", 0, 57, short(50, 60), peer),
    regular("the five after that one", "38", 0, 56, short(60, 110), peer),
    regular("the four at the end", "33", 0, 51, short(110, 150), peer),
    allOne("All-1 with the last tile", "3f", 0, shortPacket, short(150, 156), peer),
    regular("tiles of two windows in one frame", "12", 0, 18, long(440, 660), peer),
    regular("the second window", "7b", 1, 59, long(660, 880), peer),
    allOne("All-1 of the second window", "7f", 1, longPacket, long(990, 1000), peer),
    regular("a last tile of 6 bytes in a regular fragment", "2f", 0, 47, short(150, 156)),
    allOne("All-1 without a tile, as in RFC 9011 appendix A.2", "3f", 0, shortPacket, ""),
    regular("FCN 0 with a tile is no ACK REQ", "00", 0, 0, short(0, 10)),
    regular("the last tile of the last window", "c0", 3, 0, short(0, 10)),
    ...([0, 1, 2, 3] as const).map(
      (window): Vector => ({
        name: `ACK REQ of window ${window}`,
        hex: (window << 6).toString(16).padStart(2, "0"),
        expect: "ok",
        meaning: { kind: "ack-request", window },
        ...(window === 0 && peer),
      }),
    ),
    { name: "Sender-Abort", hex: "ff", expect: "ok", meaning: { kind: "sender-abort" }, ...peer },
    bad("nothing", ""),
    bad("a Sender-Abort must name window 3", "3f"),
    bad("a header without a tile", "3e"),
    bad("an All-1 with half an RCS", "3f78f3"),
    bad("an All-1 with 11 bytes behind the RCS", `3f78f38800${"00".repeat(11)}`),
    bad("a tile behind the last of the last window", `c0${"00".repeat(11)}`),
    bad("25 tiles where the last window has room for 24", `d7${"00".repeat(250)}`),
  ];
}

/** 63 bits from one of tile 62 on, as text. */
function bitmapOf(received: (fcn: number) => boolean): Json {
  return Array.from({ length: 63 }, (_, i) => received(62 - i));
}

export function answerVectors(): Vector[] {
  const miss = (name: string, hex: string, received: (fcn: number) => boolean, more = {}): Vector => ({
    name,
    hex,
    expect: "ok",
    meaning: { kind: "ack", window: 0, complete: false, bitmap: bitmapOf(received) },
    ...more,
  });
  const bad = (name: string, hex: string): Vector => ({ name, hex, expect: "bad-fragment" });
  return [
    miss("16 tiles there, RCS wrong", "1fffc0000000000040", (fcn) => fcn > 47 || fcn === 0, peer),
    miss("tiles 57 to 53 lost", "1f07c0000000000040", (fcn) => fcn > 57 || (fcn < 53 && fcn > 47) || fcn === 0, peer),
    miss("only the All-1 there", "000000000000000040", (fcn) => fcn === 0, peer),
    miss("nothing there", "000000000000000000", () => false, peer),
    miss("all 63 there", "1f", () => true, peer),
    miss("only tile 62 missing", "0f", (fcn) => fcn !== 62, peer),
    miss("only tile 58 missing", "1e", (fcn) => fcn !== 58, peer),
    miss("only tile 57 missing", "1f7f", (fcn) => fcn !== 57, peer),
    miss("only tile 2 missing", "1ffffffffffffffe", (fcn) => fcn !== 2),
    miss("only tile 1 missing", "1fffffffffffffff40", (fcn) => fcn !== 1),
    miss("only tile 0 missing", "1fffffffffffffff80", (fcn) => fcn !== 0, peer),
    ...(["20", "60", "a0", "e0"] as const).map(
      (hex, window): Vector => ({
        name: `complete, window ${window}`,
        hex,
        expect: "ok",
        meaning: { kind: "ack", window, complete: true },
        ...peer,
      }),
    ),
    { name: "Receiver-Abort", hex: "ffff", expect: "ok", meaning: { kind: "receiver-abort" }, ...peer },
    bad("nothing", ""),
    bad("C = 1 and bits behind it", "3f"),
    bad("C = 1 and a byte behind it", "2000"),
    bad("three bytes of ones", "ffffff"),
    bad("ten bytes", "00000000000000000000"),
  ];
}

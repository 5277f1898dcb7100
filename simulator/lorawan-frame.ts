/** Data frames of LoRaWAN 1.0.x (specification clause 4): MHDR | DevAddr | FCtrl | FCnt | FOpts | FPort | FRMPayload | MIC. */
import { timingSafeEqual } from "node:crypto";
import { cipherPayload, type Direction, dataMic } from "./lorawan-crypto.ts";
import type { SessionKeys } from "./lorawan-join.ts";

export interface DataFrame {
  readonly direction: Direction;
  readonly confirmed: boolean;
  readonly devAddr: number;
  readonly adr: boolean;
  /** Up only: the device has heard nothing for long and asks for any downlink. */
  readonly adrAckRequest: boolean;
  readonly ack: boolean;
  /** Down only: more waits for the device. */
  readonly pending: boolean;
  /** All 32 bits. */
  readonly frameCounter: number;
  /** MAC commands, 0 to 15 bytes. */
  readonly fOpts: Uint8Array;
  /** Absent: a frame without payload. */
  readonly port?: number;
  readonly payload: Uint8Array;
}

/** What is readable without a key. */
export interface DataFrameHead {
  readonly direction: Direction;
  readonly devAddr: number;
  /** The lower 16 bits. */
  readonly frameCounter16: number;
}

/** MHDR 1, DevAddr 4, FCtrl 1, FCnt 2, MIC 4. */
const emptyFrameBytes = 12;
const headBytes = 8;
const micBytes = 4;

const heads: Readonly<Record<number, { direction: Direction; confirmed: boolean }>> = {
  64: { direction: "up", confirmed: false },
  96: { direction: "down", confirmed: false },
  128: { direction: "up", confirmed: true },
  160: { direction: "down", confirmed: true },
};

/** @throws RangeError on more than 15 bytes of FOpts, or FOpts beside FPort 0 */
export function encodeDataFrame(frame: DataFrame, keys: SessionKeys): Uint8Array {
  const { direction, confirmed, devAddr, frameCounter, fOpts, port, payload } = frame;
  if (fOpts.length > 15 || (port === 0 && fOpts.length > 0))
    throw new RangeError(`FOpts of ${fOpts.length} bytes beside FPort ${port}: at most 15 were expected, none with 0`);
  const message = new Uint8Array(headBytes + fOpts.length + (port === undefined ? 0 : 1 + payload.length));
  const view = new DataView(message.buffer);
  message[0] = (direction === "up" ? 0x40 : 0x60) + (confirmed ? 0x40 : 0);
  view.setUint32(1, devAddr, true);
  message[5] =
    (frame.adr ? 0x80 : 0) |
    (frame.adrAckRequest ? 0x40 : 0) |
    (frame.ack ? 0x20 : 0) |
    (frame.pending ? 0x10 : 0) |
    fOpts.length;
  view.setUint16(6, frameCounter & 0xffff, true);
  message.set(fOpts, headBytes);
  if (port !== undefined) {
    message[headBytes + fOpts.length] = port;
    const key = port === 0 ? keys.nwkSKey : keys.appSKey;
    message.set(cipherPayload(key, direction, devAddr, frameCounter, payload), headBytes + fOpts.length + 1);
  }
  const mic = dataMic(keys.nwkSKey, direction, devAddr, frameCounter, message);
  return Uint8Array.from(Buffer.concat([message, mic]));
}

/** Undefined where it is no data frame by its form. */
export function dataFrameHead(phyPayload: Uint8Array): DataFrameHead | undefined {
  const head = heads[phyPayload[0] ?? 0];
  if (head === undefined || phyPayload.length < emptyFrameBytes) return undefined;
  if (phyPayload.length < emptyFrameBytes + (phyPayload[5]! & 0x0f)) return undefined;
  const view = new DataView(phyPayload.buffer, phyPayload.byteOffset, phyPayload.length);
  return {
    direction: head.direction,
    devAddr: view.getUint32(1, true),
    frameCounter16: view.getUint16(6, true),
  };
}

/**
 * Opens a data frame: undefined where its form or its MIC is wrong.
 * @param counterFrom the lowest counter that would be new; the 16 bits on the air are completed to the next one from there on
 */
export function openDataFrame(phyPayload: Uint8Array, keys: SessionKeys, counterFrom: number): DataFrame | undefined {
  const head = dataFrameHead(phyPayload);
  if (head === undefined) return undefined;
  const { direction, devAddr, frameCounter16 } = head;
  const frameCounter = counterFrom + ((frameCounter16 - counterFrom) & 0xffff);
  if (frameCounter >= 2 ** 32) return undefined;
  const message = phyPayload.subarray(0, -micBytes);
  const mic = dataMic(keys.nwkSKey, direction, devAddr, frameCounter, message);
  if (!timingSafeEqual(mic, phyPayload.subarray(-micBytes))) return undefined;
  const control = message[5]!;
  const portAt = headBytes + (control & 0x0f);
  const port = message[portAt];
  if (port === 0 && portAt > headBytes) return undefined; // clause 4.3.1.6: commands are in one of the two places
  const sealed = message.slice(portAt + 1);
  return {
    direction,
    confirmed: heads[message[0]!]!.confirmed,
    devAddr,
    adr: (control & 0x80) !== 0,
    adrAckRequest: direction === "up" && (control & 0x40) !== 0,
    ack: (control & 0x20) !== 0,
    pending: direction === "down" && (control & 0x10) !== 0,
    frameCounter,
    fOpts: message.slice(headBytes, portAt),
    ...(port !== undefined && { port }),
    payload:
      port === undefined
        ? sealed
        : cipherPayload(port === 0 ? keys.nwkSKey : keys.appSKey, direction, devAddr, frameCounter, sealed),
  };
}

/** Joining over the air in LoRaWAN 1.0.x (specification clause 6.2): the two messages and the keys that come of them. */
import { timingSafeEqual } from "node:crypto";
import { aesCmac, aesDecryptBlocks, aesEncryptBlocks } from "./lorawan-crypto.ts";

export interface SessionKeys {
  readonly appSKey: Uint8Array;
  readonly nwkSKey: Uint8Array;
}

export interface JoinRequest {
  /** 16 hexadecimal digits, most significant first, as everybody writes an EUI; on the air it goes least significant first. */
  readonly joinEui: string;
  readonly devEui: string;
  readonly devNonce: number;
}

export interface JoinAccept {
  readonly joinNonce: number;
  readonly netId: number;
  readonly devAddr: number;
  /** RX1DROffset in bits 4–6, the data rate of the second window in bits 0–3. */
  readonly dlSettings: number;
  /** Seconds to the first window; 0 means 1. */
  readonly rxDelay: number;
  /** 16 bytes: more channels; see channelListOf. */
  readonly cfList?: Uint8Array;
}

const joinRequestBytes = 23;
const joinRequestHead = 0x00;
const joinAcceptHead = 0x20;

export function encodeJoinRequest({ joinEui, devEui, devNonce }: JoinRequest, appKey: Uint8Array): Uint8Array {
  const out = new Uint8Array(joinRequestBytes);
  const view = new DataView(out.buffer);
  out[0] = joinRequestHead;
  view.setBigUint64(1, BigInt(`0x${joinEui}`), true);
  view.setBigUint64(9, BigInt(`0x${devEui}`), true);
  view.setUint16(17, devNonce, true);
  out.set(aesCmac(appKey, out.subarray(0, 19)).subarray(0, 4), 19);
  return out;
}

/** Undefined where it is no join-request by its form; its MIC is another question. */
export function decodeJoinRequest(phyPayload: Uint8Array): JoinRequest | undefined {
  if (phyPayload.length !== joinRequestBytes || phyPayload[0] !== joinRequestHead) return undefined;
  const view = new DataView(phyPayload.buffer, phyPayload.byteOffset, phyPayload.length);
  return {
    joinEui: euiText(view.getBigUint64(1, true)),
    devEui: euiText(view.getBigUint64(9, true)),
    devNonce: view.getUint16(17, true),
  };
}

export function isJoinRequestAuthentic(phyPayload: Uint8Array, appKey: Uint8Array): boolean {
  const mic = aesCmac(appKey, phyPayload.subarray(0, -4)).subarray(0, 4);
  return timingSafeEqual(mic, phyPayload.subarray(-4));
}

export function encodeJoinAccept(accept: JoinAccept, appKey: Uint8Array): Uint8Array {
  const { cfList = new Uint8Array(0) } = accept;
  const clear = new Uint8Array(13 + cfList.length);
  clear[0] = joinAcceptHead;
  setUint24(clear, 1, accept.joinNonce);
  setUint24(clear, 4, accept.netId);
  new DataView(clear.buffer).setUint32(7, accept.devAddr, true);
  clear[11] = accept.dlSettings;
  clear[12] = accept.rxDelay;
  clear.set(cfList, 13);
  const mic = aesCmac(appKey, clear).subarray(0, 4);
  // The server decrypts, so that a device needs nothing but encryption.
  const body = aesDecryptBlocks(appKey, Buffer.concat([clear.subarray(1), mic]));
  return Uint8Array.from([joinAcceptHead, ...body]);
}

/** Undefined where its form or its MIC is wrong: what a device does then is wait for another. */
export function decodeJoinAccept(phyPayload: Uint8Array, appKey: Uint8Array): JoinAccept | undefined {
  if ((phyPayload.length !== 17 && phyPayload.length !== 33) || phyPayload[0] !== joinAcceptHead) return undefined;
  const clear = Uint8Array.from([joinAcceptHead, ...aesEncryptBlocks(appKey, phyPayload.subarray(1))]);
  const signed = clear.subarray(0, -4);
  if (!timingSafeEqual(aesCmac(appKey, signed).subarray(0, 4), clear.subarray(-4))) return undefined;
  return {
    joinNonce: uint24(signed, 1),
    netId: uint24(signed, 4),
    devAddr: new DataView(signed.buffer, signed.byteOffset).getUint32(7, true),
    dlSettings: signed[11]!,
    rxDelay: signed[12]!,
    ...(signed.length > 13 && { cfList: signed.slice(13) }),
  };
}

export function sessionKeysOf(
  appKey: Uint8Array,
  { joinNonce, netId }: Pick<JoinAccept, "joinNonce" | "netId">,
  devNonce: number,
): SessionKeys {
  const derive = (first: number): Uint8Array => {
    const block = new Uint8Array(16);
    block[0] = first;
    setUint24(block, 1, joinNonce);
    setUint24(block, 4, netId);
    new DataView(block.buffer).setUint16(7, devNonce, true);
    return aesEncryptBlocks(appKey, block);
  };
  return { nwkSKey: derive(1), appSKey: derive(2) };
}

/** CFList of type 0 (EU868, AS923): up to five frequencies in Hz that a device gets beside those that it has. */
export function encodeChannelList(frequenciesHz: readonly number[]): Uint8Array {
  const list = new Uint8Array(16);
  frequenciesHz.slice(0, 5).forEach((frequencyHz, i) => {
    setUint24(list, i * 3, frequencyHz / 100);
  });
  return list;
}

export function decodeChannelList(list: Uint8Array): number[] {
  if (list[15] !== 0) return [];
  return [0, 3, 6, 9, 12].map((at) => uint24(list, at) * 100).filter((frequencyHz) => frequencyHz > 0);
}

function euiText(eui: bigint): string {
  return eui.toString(16).padStart(16, "0");
}

function uint24(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16);
}

function setUint24(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value & 0xff;
  bytes[at + 1] = (value >> 8) & 0xff;
  bytes[at + 2] = (value >> 16) & 0xff;
}

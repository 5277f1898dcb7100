/** The cryptography of LoRaWAN 1.0.x (specification 1.0.4, clauses 4.3.3, 4.4, 6.2): AES-128 alone, as cipher, as MAC, and to derive keys. */
import { createCipheriv, createDecipheriv } from "node:crypto";

const blockBytes = 16;
const zeros = new Uint8Array(blockBytes);

/** @throws RangeError where the key has not 16 bytes or the data no whole blocks */
export function aesEncryptBlocks(key: Uint8Array, data: Uint8Array): Uint8Array {
  const cipher = createCipheriv("aes-128-ecb", key, null).setAutoPadding(false);
  return Uint8Array.from(Buffer.concat([cipher.update(data), cipher.final()]));
}

export function aesDecryptBlocks(key: Uint8Array, data: Uint8Array): Uint8Array {
  const decipher = createDecipheriv("aes-128-ecb", key, null).setAutoPadding(false);
  return Uint8Array.from(Buffer.concat([decipher.update(data), decipher.final()]));
}

/** AES-CMAC, RFC 4493. */
export function aesCmac(key: Uint8Array, message: Uint8Array): Uint8Array {
  const subkey1 = doubled(aesEncryptBlocks(key, zeros));
  const blocks = Math.max(1, Math.ceil(message.length / blockBytes));
  const padded = new Uint8Array(blocks * blockBytes);
  padded.set(message);
  const isWhole = message.length > 0 && message.length % blockBytes === 0;
  if (!isWhole) padded[message.length] = 0x80;
  const subkey = isWhole ? subkey1 : doubled(subkey1);
  const last = padded.length - blockBytes;
  for (let i = 0; i < blockBytes; i++) padded[last + i]! ^= subkey[i]!;
  const cipher = createCipheriv("aes-128-cbc", key, zeros).setAutoPadding(false);
  return Uint8Array.from(cipher.update(padded).subarray(last));
}

/** Doubling in GF(2^128), RFC 4493 clause 2.3. */
function doubled(block: Uint8Array): Uint8Array {
  const out = new Uint8Array(blockBytes);
  for (let i = 0; i < blockBytes; i++) out[i] = (block[i]! << 1) | ((block[i + 1] ?? 0) >> 7);
  if (block[0]! & 0x80) out[blockBytes - 1]! ^= 0x87;
  return out;
}

export type Direction = "up" | "down";

/** The first block of the MIC (B0), and the counter blocks of the cipher (A1 …), which differ only in their ends. */
function frameBlock(
  first: number,
  direction: Direction,
  devAddr: number,
  frameCounter: number,
  last: number,
): Uint8Array {
  const block = new Uint8Array(blockBytes);
  const view = new DataView(block.buffer);
  block[0] = first;
  block[5] = direction === "up" ? 0 : 1;
  view.setUint32(6, devAddr, true);
  view.setUint32(10, frameCounter, true);
  block[15] = last;
  return block;
}

/** The MIC of a data frame: of everything before it, with the whole 32-bit counter of which 16 bits are on the air. */
export function dataMic(
  nwkSKey: Uint8Array,
  direction: Direction,
  devAddr: number,
  frameCounter: number,
  message: Uint8Array,
): Uint8Array {
  const first = frameBlock(0x49, direction, devAddr, frameCounter, message.length);
  return aesCmac(nwkSKey, Buffer.concat([first, message])).subarray(0, 4);
}

/** Encrypts or decrypts, which is the same. `key` is the AppSKey, or the NwkSKey on FPort 0. */
export function cipherPayload(
  key: Uint8Array,
  direction: Direction,
  devAddr: number,
  frameCounter: number,
  payload: Uint8Array,
): Uint8Array {
  const count = Math.ceil(payload.length / blockBytes);
  const counters = Buffer.concat(
    Array.from({ length: count }, (_, i) => frameBlock(0x01, direction, devAddr, frameCounter, i + 1)),
  );
  const stream = aesEncryptBlocks(key, counters);
  return payload.map((byte, i) => byte ^ stream[i]!);
}

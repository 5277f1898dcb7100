/** CRC-32 of IEEE 802.3 (polynomial 0xEDB88320 reflected, zlib's crc32): the Reassembly Check Sequence of RFC 9011 §5.6.1. */
const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let remainder = byte;
  for (let bit = 0; bit < 8; bit++) remainder = (remainder >>> 1) ^ (remainder & 1 ? 0xedb8_8320 : 0);
  return remainder;
});

/** The CRC-32 of `bytes`, or of what `before` is the CRC-32 of with `bytes` behind it. */
export function crc32(bytes: Uint8Array, before = 0): number {
  let remainder = ~before;
  for (const byte of bytes) remainder = (remainder >>> 8) ^ (table[(remainder ^ byte) & 0xff] as number);
  return ~remainder >>> 0;
}

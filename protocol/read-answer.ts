/** The answer of a wallet to a read, at the speed that a backlog wants. Everything else of it: wallet-message.ts. */
import type { ReadAnswer } from "./wallet-message.ts";

/**
 * The whole answer to a read, put together from its parts: the same bytes as `encodeAnswer` of `readFields` gives, without
 * a copy of each record at each step. A wallet has no JIT, and a backlog is read through it.
 */
export function encodeReadAnswer(id: number, { records }: ReadAnswer): Uint8Array {
  const start = [...headOf(4, 2), ...headOf(0, id), ...headOf(5, 1), ...headOf(0, 1), ...headOf(4, records.length)];
  const heads = records.map(([sequence, record]) => [
    ...headOf(4, 2),
    ...headOf(0, sequence),
    ...headOf(2, record.length),
  ]);
  let length = start.length;
  for (const [i, [, record]] of records.entries()) length += (heads[i] as number[]).length + record.length;
  const bytes = new Uint8Array(length);
  bytes.set(start);
  let offset = start.length;
  for (const [i, [, record]] of records.entries()) {
    const head = heads[i] as number[];
    bytes.set(head, offset);
    bytes.set(record, offset + head.length);
    offset += head.length + record.length;
  }
  return bytes;
}

/** The first bytes of an item (RFC 8949 §3). */
function headOf(major: number, argument: number): number[] {
  const first = major << 5;
  if (argument < 24) return [first | argument];
  if (argument < 0x100) return [first | 24, argument];
  if (argument < 0x1_0000) return [first | 25, argument >>> 8, argument & 0xff];
  return [first | 26, argument >>> 24, (argument >>> 16) & 0xff, (argument >>> 8) & 0xff, argument & 0xff];
}

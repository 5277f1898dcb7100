/** Looks for a secret in another process's memory, in the forms in which it could lie there. */
import { createHash } from "node:crypto";
import { closeSync, openSync, readFileSync, readSync } from "node:fs";

const chunkBytes = 8 * 1024 * 1024;
const orderOfEd25519 = 2n ** 252n + 27742317777372353535851937790883648493n; // RFC 8032 §5.1

export interface Needle {
  readonly name: string;
  readonly bytes: Buffer;
}

/** The seed, and the scalar that signing makes of it (RFC 8032 §5.1.5), raw, as hex and as base64, as bytes and as 16-bit text. */
export function needlesOf(seed: Uint8Array): Needle[] {
  const hashed = createHash("sha512").update(seed).digest();
  const clamped = Buffer.from(hashed.subarray(0, 32));
  clamped[0] = (clamped[0] as number) & 0xf8;
  clamped[31] = ((clamped[31] as number) & 0x7f) | 0x40;
  const scalar = BigInt(`0x${Buffer.from(clamped).reverse().toString("hex")}`);
  const reduced = Buffer.from((scalar % orderOfEd25519).toString(16).padStart(64, "0"), "hex");
  const raws: [string, Buffer][] = [
    ["seed", Buffer.from(seed)],
    ["scalar", clamped],
    ["scalar, reversed", Buffer.from(clamped).reverse()],
    ["reduced scalar", Buffer.from(reduced).reverse()],
    ["reduced scalar, reversed", reduced],
    ["nonce prefix", hashed.subarray(32)],
  ];
  return raws.flatMap(([name, bytes]) => {
    const texts: [string, string][] = [
      ["hex", bytes.toString("hex")],
      ["HEX", bytes.toString("hex").toUpperCase()],
      ["base64", bytes.toString("base64").replace(/=*$/, "").slice(0, 42)],
      ["base64url", bytes.toString("base64url").slice(0, 42)],
      ["decimal", BigInt(`0x${bytes.toString("hex")}`).toString()],
    ];
    return [
      { name, bytes },
      ...texts.map(([form, text]) => ({ name: `${name} as ${form}`, bytes: Buffer.from(text, "latin1") })),
      ...texts.map(([form, text]) => ({ name: `${name} as ${form}, 16 bits`, bytes: Buffer.from(text, "utf16le") })),
    ];
  });
}

export interface Scan {
  readonly bytes: number;
  readonly hits: readonly string[];
}

/** Reads all memory of a process that can be read (proc(5): maps, mem), and names what was found. */
export function scanMemory(pid: number, needles: readonly Needle[]): Scan {
  const hits = new Set<string>();
  let bytes = 0;
  const regions = readFileSync(`/proc/${pid}/maps`, "latin1").split("\n");
  const memory = openSync(`/proc/${pid}/mem`, "r");
  try {
    for (const line of regions) {
      const [, from, to] = /^([0-9a-f]+)-([0-9a-f]+) r/.exec(line) ?? [];
      if (from === undefined || to === undefined || line.includes("[vvar")) continue;
      const overlap = Buffer.alloc(0);
      let before: Buffer = overlap;
      for (let at = BigInt(`0x${from}`); at < BigInt(`0x${to}`); at += BigInt(chunkBytes)) {
        const length = Math.min(chunkBytes, Number(BigInt(`0x${to}`) - at));
        const chunk = Buffer.alloc(length);
        let count = 0;
        try {
          count = readSync(memory, chunk, 0, length, at);
        } catch {
          break; // a region that went meanwhile, or that the kernel does not give
        }
        bytes += count;
        const whole = Buffer.concat([before, chunk.subarray(0, count)]);
        for (const needle of needles) if (whole.includes(needle.bytes)) hits.add(needle.name);
        before = whole.subarray(-256);
      }
    }
  } finally {
    closeSync(memory);
  }
  return { bytes, hits: [...hits] };
}

/** The few packets of MQTT 3.1.1 that a simulated device needs, as bytes. */

function packet(type: number, ...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  const length: number[] = [];
  let rest = body.length;
  do {
    length.push(rest > 127 ? (rest & 0x7f) | 0x80 : rest);
    rest >>>= 7;
  } while (rest > 0);
  return Buffer.concat([Uint8Array.of(type, ...length), body]);
}

function uint16(value: number): Uint8Array {
  return Uint8Array.of(value >> 8, value & 0xff);
}

function text(value: string): Buffer {
  return Buffer.concat([uint16(Buffer.byteLength(value)), Buffer.from(value)]);
}

/** MQTT 3.1.1 §3.1: a clean session, no keep-alive. */
export function connectPacket(clientId: string): Buffer {
  return packet(0x10, text("MQTT"), Uint8Array.of(4, 2, 0, 0), text(clientId));
}

/** §3.8, QoS 0. */
export function subscribePacket(id: number, topics: readonly string[]): Buffer {
  return packet(0x82, uint16(id), ...topics.map((topic) => Buffer.concat([text(topic), Uint8Array.of(0)])));
}

/** §3.3; of QoS 0 there is no packet identifier. */
export function publishPacket(topic: string, payload: Uint8Array, id: number, qos: 0 | 1 = 1): Buffer {
  return packet(0x30 | (qos << 1), text(topic), qos === 0 ? new Uint8Array(0) : uint16(id), payload);
}

/** Topic and payload of a PUBLISH; undefined: another packet. */
export function publishedIn(bytes: Buffer): { topic: string; payload: Buffer } | undefined {
  const first = bytes[0] as number;
  if (first >> 4 !== 3) return undefined;
  let offset = 1;
  while ((bytes[offset++] as number) & 0x80);
  const length = bytes.readUInt16BE(offset);
  const end = offset + 2 + length;
  return {
    topic: bytes.toString("latin1", offset + 2, end),
    payload: bytes.subarray(end + ((first >> 1) & 3 ? 2 : 0)),
  };
}

/** Cuts a stream into packets. */
export class PacketReader {
  #rest: Buffer = Buffer.alloc(0);

  push(chunk: Buffer): Buffer[] {
    const bytes = this.#rest.length > 0 ? Buffer.concat([this.#rest, chunk]) : chunk;
    const packets: Buffer[] = [];
    let start = 0;
    for (;;) {
      const end = endOf(bytes, start);
      if (end === undefined) break;
      packets.push(bytes.subarray(start, end));
      start = end;
    }
    this.#rest = bytes.subarray(start);
    return packets;
  }
}

function endOf(bytes: Buffer, start: number): number | undefined {
  let length = 0;
  for (let i = 0; i < 4; i++) {
    const byte = bytes[start + 1 + i];
    if (byte === undefined) return undefined;
    length += (byte & 0x7f) * 128 ** i;
    if ((byte & 0x80) !== 0) continue;
    const end = start + 2 + i + length;
    return end <= bytes.length ? end : undefined;
  }
  return undefined;
}

/**
 * Semtech's gateway protocol, version 2 (Lora-net/packet_forwarder, PROTOCOL.TXT): one datagram is version, token, type, for some types the
 * gateway's EUI, for some a JSON object.
 */

const types = ["PUSH_DATA", "PUSH_ACK", "PULL_DATA", "PULL_RESP", "PULL_ACK", "TX_ACK"] as const;

export type Datagram =
  | { readonly type: "PUSH_ACK" | "PULL_ACK"; readonly token: number }
  | { readonly type: "PULL_DATA"; readonly token: number; readonly eui: string }
  | { readonly type: "PULL_RESP"; readonly token: number; readonly json: Record<string, unknown> }
  | {
      readonly type: "PUSH_DATA" | "TX_ACK";
      readonly token: number;
      readonly eui: string;
      readonly json: Record<string, unknown>;
    };

const version = 2;
const headBytes = 4;
const euiBytes = 8;
export const datagramBytesMax = 16_384;

export function encodeDatagram(datagram: Datagram): Uint8Array {
  const head = Buffer.alloc(headBytes);
  head[0] = version;
  head.writeUInt16BE(datagram.token, 1);
  head[3] = types.indexOf(datagram.type);
  const eui = "eui" in datagram ? Buffer.from(datagram.eui, "hex") : Buffer.alloc(0);
  const json = "json" in datagram ? Buffer.from(JSON.stringify(datagram.json)) : Buffer.alloc(0);
  return Uint8Array.from(Buffer.concat([head, eui, json]));
}

/** Undefined where it is none of version 2, or its JSON no object. */
export function decodeDatagram(bytes: Uint8Array): Datagram | undefined {
  const type = types[bytes[3] ?? types.length];
  if (bytes[0] !== version || type === undefined || bytes.length > datagramBytesMax) return undefined;
  const token = (bytes[1]! << 8) | bytes[2]!;
  if (type === "PUSH_ACK" || type === "PULL_ACK") return { type, token };
  if (type === "PULL_RESP") {
    const json = readJson(bytes.subarray(headBytes));
    return json && { type, token, json };
  }
  if (bytes.length < headBytes + euiBytes) return undefined;
  const eui = Buffer.from(bytes.subarray(headBytes, headBytes + euiBytes)).toString("hex");
  if (type === "PULL_DATA") return { type, token, eui };
  const body = bytes.subarray(headBytes + euiBytes);
  const json = body.length === 0 && type === "TX_ACK" ? {} : readJson(body);
  return json && { type, token, eui, json };
}

function readJson(bytes: Uint8Array): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(bytes).toString("utf8"));
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Fields of a network server's JSON events. Proto3's JSON leaves out what is zero, false or empty, so every field has a default; and it
 * may write numbers as strings (ProtoJSON: 64-bit integers always, others are accepted so).
 */
import { frameBytesMax, LorawanRefusal } from "./lorawan-uplink.ts";

export type JsonObject = Readonly<Record<string, unknown>>;

/** Throws LorawanRefusal where the bytes are no JSON object. */
export function parseJsonObject(bytes: Uint8Array): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new LorawanRefusal("not-json");
  }
  if (!isObject(value)) throw new LorawanRefusal("not-json");
  return value;
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** An empty object where the field is left out. */
export function objectIn(from: JsonObject, name: string): JsonObject {
  const value = own(from, name) ?? {};
  if (!isObject(value)) throw new LorawanRefusal("bad-field", name);
  return value;
}

/** Items that are objects, at most `max`; the rest is not looked at. */
export function objectsIn(from: JsonObject, name: string, max: number): readonly JsonObject[] {
  const value = own(from, name) ?? [];
  if (!Array.isArray(value)) throw new LorawanRefusal("bad-field", name);
  return value.slice(0, max).filter(isObject);
}

export function textIn(from: JsonObject, name: string, lengthMax = 200): string {
  const value = own(from, name) ?? "";
  if (typeof value !== "string") throw new LorawanRefusal("bad-field", name);
  return value.slice(0, lengthMax);
}

export function flagIn(from: JsonObject, name: string): boolean {
  const value = own(from, name) ?? false;
  if (typeof value !== "boolean") throw new LorawanRefusal("bad-field", name);
  return value;
}

/** 0 where the field is left out. */
export function integerIn(from: JsonObject, name: string, max: number): number {
  const value = own(from, name) ?? 0;
  const number = typeof value === "string" && /^[0-9]{1,15}$/.test(value) ? Number(value) : value;
  if (typeof number !== "number" || !Number.isInteger(number) || number < 0 || number > max)
    throw new LorawanRefusal("bad-field", name);
  return number;
}

/** For display only: 0 where it is left out, undefined where it is no number. */
export function measureIn(from: JsonObject, name: string): number | undefined {
  const value = own(from, name) ?? 0;
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
}

/** Hexadecimal digits, in lower case. */
export function hexIn(from: JsonObject, name: string, digits: number): string {
  const value = textIn(from, name).toLowerCase();
  if (value.length !== digits || !/^[0-9a-f]+$/.test(value)) throw new LorawanRefusal("bad-field", name);
  return value;
}

/** An 8-digit DevAddr; undefined where it is left out. */
export function devAddrIn(from: JsonObject, name: string): string | undefined {
  return textIn(from, name) === "" ? undefined : hexIn(from, name, 8);
}

/** An FRMPayload in base64 (RFC 4648 §4), with or without padding. */
export function frameIn(from: JsonObject, name: string): Uint8Array {
  const value = own(from, name) ?? "";
  if (typeof value !== "string") throw new LorawanRefusal("bad-field", name);
  if (value.length > 4 * Math.ceil(frameBytesMax / 3)) throw new LorawanRefusal("too-large", name);
  const bytes = Buffer.from(value, "base64");
  if (bytes.toString("base64").replace(/=+$/, "") !== value.replace(/=+$/, ""))
    throw new LorawanRefusal("bad-field", `${name} is not base64`);
  if (bytes.length > frameBytesMax) throw new LorawanRefusal("too-large", `${bytes.length} bytes`);
  return new Uint8Array(bytes);
}

/** How the best of the gateways heard a frame. */
export function bestOf(gateways: readonly JsonObject[]): { rssiDbm: number | undefined; snrDb: number | undefined } {
  let best: { rssiDbm: number | undefined; snrDb: number | undefined } | undefined;
  for (const gateway of gateways) {
    const heard = { rssiDbm: measureIn(gateway, "rssi"), snrDb: measureIn(gateway, "snr") };
    if (best === undefined || (heard.snrDb ?? -99) > (best.snrDb ?? -99)) best = heard;
  }
  return best ?? { rssiDbm: undefined, snrDb: undefined };
}

/** Own fields only: a name that every object has, such as `constructor`, is not in the message. */
function own(from: JsonObject, name: string): unknown {
  const value = Object.hasOwn(from, name) ? from[name] : undefined;
  return value === null ? undefined : value; // ProtoJSON: null is the default
}

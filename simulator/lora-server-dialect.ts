/** What a network server says to applications over MQTT and takes from them, whatever its maker's JSON. */

export interface ServerDevice {
  /** 16 hexadecimal digits in lower case. */
  readonly devEui: string;
  readonly joinEui: string;
  readonly appKey: Uint8Array;
  readonly name: string;
}

/** How one gateway heard a frame. */
export interface GatewayCopy {
  readonly gatewayEui: string;
  /** Its counter of microseconds, 32 bits. */
  readonly tmst: number;
  readonly rssiDbm: number;
  readonly snrDb: number;
}

export interface UplinkReport {
  readonly device: ServerDevice;
  readonly devAddr: number;
  readonly adr: boolean;
  readonly dataRate: number;
  readonly spreadingFactor: number;
  readonly bandwidthKhz: number;
  readonly frequencyHz: number;
  readonly frameCounter: number;
  /** Absent: a frame without payload. */
  readonly port?: number;
  readonly confirmed: boolean;
  readonly bytes: Uint8Array;
  /** Unix time in milliseconds at which the server had it. */
  readonly wallMs: number;
  readonly copies: readonly GatewayCopy[];
  readonly id: string;
}

export interface QueueItem {
  readonly id: string;
  readonly port: number;
  readonly bytes: Uint8Array;
  readonly confirmed: boolean;
  /** Unix time in milliseconds after which it is not sent. */
  readonly expiresAtMs?: number;
  readonly correlationIds: readonly string[];
}

export interface ServerCommand {
  readonly devEui: string;
  readonly replaces: boolean;
  readonly items: readonly QueueItem[];
}

export interface ServerMessage {
  readonly topic: string;
  readonly json: string;
}

export type DownlinkState =
  | { readonly kind: "queued" | "sent"; readonly frameCounter: number; readonly gatewayEui: string }
  | { readonly kind: "acknowledged" | "not-acknowledged"; readonly frameCounter: number }
  | { readonly kind: "failed"; readonly code: string; readonly detail: string };

export interface ServerDialect {
  readonly rx1DelayS: number;
  /** Which topics applications send commands to, as an MQTT filter. */
  readonly commandFilter: string;
  up(report: UplinkReport): ServerMessage;
  joined(device: ServerDevice, devAddr: number, wallMs: number): ServerMessage;
  downlink(device: ServerDevice, item: QueueItem, state: DownlinkState, wallMs: number): ServerMessage | undefined;
  /** Undefined where it is none for this server. */
  command(topic: string, json: string, newId: () => string): ServerCommand | undefined;
}

export function hex8(devAddr: number): string {
  return devAddr.toString(16).padStart(8, "0");
}

/** Standard base64 of a command; undefined where it is none. */
export function base64Bytes(text: unknown): Uint8Array | undefined {
  if (typeof text !== "string" || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) return undefined;
  return Uint8Array.from(Buffer.from(text, "base64"));
}

export function jsonObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

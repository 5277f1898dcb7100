/** ChirpStack v4's MQTT integration with JSON, as chirpstack-docs and the event messages of its API describe it. */
import {
  base64Bytes,
  type DownlinkState,
  hex8,
  jsonObject,
  type QueueItem,
  type ServerCommand,
  type ServerDevice,
  type ServerDialect,
  type ServerMessage,
  type UplinkReport,
} from "./lora-server-dialect.ts";

export interface ChirpStackOptions {
  /** A UUID. */
  readonly applicationId: string;
  readonly regionConfigId: string;
}

export function chirpStackDialect({ applicationId, regionConfigId }: ChirpStackOptions): ServerDialect {
  const message = (device: ServerDevice, event: string, body: Record<string, unknown>): ServerMessage => ({
    topic: `application/${applicationId}/device/${device.devEui}/event/${event}`,
    json: JSON.stringify(body),
  });
  const deviceInfo = (device: ServerDevice) => ({
    tenantId: "52f14cd4-c6f1-4fbd-8f87-4025e1d49242",
    tenantName: "ChirpStack",
    applicationId,
    applicationName: "meters",
    deviceProfileId: "3a4f1dcb-8b8b-4c4f-a3a4-57a6b3d9f9d1",
    deviceProfileName: "hub",
    deviceName: device.name,
    devEui: device.devEui,
    deviceClassEnabled: "CLASS_A",
    tags: {},
  });
  return {
    rx1DelayS: 1,
    commandFilter: `application/${applicationId}/device/+/command/down`,
    up: (report) =>
      message(report.device, "up", {
        deduplicationId: report.id,
        time: timeText(report.wallMs),
        deviceInfo: deviceInfo(report.device),
        devAddr: hex8(report.devAddr),
        adr: report.adr,
        dr: report.dataRate,
        fCnt: report.frameCounter,
        fPort: report.port ?? 0,
        confirmed: report.confirmed,
        data: Buffer.from(report.bytes).toString("base64"),
        rxInfo: report.copies.map((copy, i) => ({
          gatewayId: copy.gatewayEui,
          uplinkId: (copy.tmst + i) % 2 ** 32,
          nsTime: timeText(report.wallMs),
          // Gateway objects leave zeros out.
          ...(copy.rssiDbm !== 0 && { rssi: copy.rssiDbm }),
          ...(copy.snrDb !== 0 && { snr: copy.snrDb }),
          context: contextOf(copy.tmst),
          crcStatus: "CRC_OK",
        })),
        txInfo: txInfo(report),
        regionConfigId,
      }),
    joined: (device, devAddr, wallMs) =>
      message(device, "join", {
        deduplicationId: "d7f1f2f0-0b6f-4b66-9f5d-3ad9a0f4b9b5",
        time: timeText(wallMs),
        deviceInfo: deviceInfo(device),
        devAddr: hex8(devAddr),
        regionConfigId,
      }),
    downlink: (device, item, state, wallMs) =>
      downlinkMessage(message, deviceInfo(device), device, item, state, wallMs),
    command: (topic, json, newId) => readCommand(applicationId, topic, json, newId),
  };
}

function downlinkMessage(
  message: (device: ServerDevice, event: string, body: Record<string, unknown>) => ServerMessage,
  deviceInfo: Record<string, unknown>,
  device: ServerDevice,
  item: QueueItem,
  state: DownlinkState,
  wallMs: number,
): ServerMessage | undefined {
  const time = timeText(wallMs);
  switch (state.kind) {
    case "sent":
      return message(device, "txack", {
        downlinkId: 1 + (state.frameCounter % 2 ** 31),
        time,
        deviceInfo,
        queueItemId: item.id,
        fCntDown: state.frameCounter,
        gatewayId: state.gatewayEui,
        txInfo: {},
      });
    case "acknowledged":
    case "not-acknowledged":
      return message(device, "ack", {
        deduplicationId: item.id,
        time,
        deviceInfo,
        queueItemId: item.id,
        acknowledged: state.kind === "acknowledged",
        fCntDown: state.frameCounter,
      });
    case "failed":
      return message(device, "log", {
        time,
        deviceInfo,
        level: "ERROR",
        code: state.code,
        description: state.detail,
        context: { queue_item_id: item.id },
      });
    case "queued":
      return undefined;
  }
}

function readCommand(
  applicationId: string,
  topic: string,
  json: string,
  newId: () => string,
): ServerCommand | undefined {
  const parts = topic.split("/");
  const [first, application, second, devEui, third, fourth] = parts;
  if (parts.length !== 6 || first !== "application" || application !== applicationId || second !== "device") return;
  if (third !== "command" || fourth !== "down" || devEui === undefined) return undefined;
  const body = jsonObject(json);
  const bytes = base64Bytes(body?.data);
  const port = body?.fPort;
  if (body === undefined || body.devEui !== devEui || bytes === undefined) return undefined;
  if (typeof port !== "number" || !Number.isInteger(port) || port < 1 || port > 223) return undefined;
  const expiresAtMs = typeof body.expiresAt === "string" ? Date.parse(body.expiresAt) : Number.NaN;
  const item: QueueItem = {
    id: typeof body.id === "string" ? body.id : newId(),
    port,
    bytes,
    confirmed: body.confirmed === true,
    ...(!Number.isNaN(expiresAtMs) && { expiresAtMs }),
    correlationIds: [],
  };
  return { devEui, replaces: false, items: [item] };
}

function txInfo({ frequencyHz, bandwidthKhz, spreadingFactor }: UplinkReport): Record<string, unknown> {
  return {
    frequency: frequencyHz,
    modulation: { lora: { bandwidth: bandwidthKhz * 1_000, spreadingFactor, codeRate: "CR_4_5" } },
  };
}

/** RFC 3339 with nanoseconds, as prost writes it. */
function timeText(wallMs: number): string {
  return new Date(wallMs).toISOString().replace("Z", "000000+00:00");
}

function contextOf(tmst: number): string {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(tmst);
  return bytes.toString("base64");
}

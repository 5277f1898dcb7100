/** The Things Stack v3's MQTT integration, as lorawan-stack-docs gives its messages: zero, false and empty fields are left out. */
import { onAirMs } from "./lora-airtime-meter.ts";
import {
  base64Bytes,
  hex8,
  jsonObject,
  type QueueItem,
  type ServerCommand,
  type ServerDevice,
  type ServerDialect,
  type ServerMessage,
  type UplinkReport,
} from "./lora-server-dialect.ts";

export interface ThingsStackOptions {
  /** `meters@ttn`: application and tenant. */
  readonly applicationId: string;
}

/** MHDR 1, DevAddr 4, FCtrl 1, FCnt 2, FPort 1, MIC 4. */
const frameOverheadBytes = 13;

export function thingsStackDialect({ applicationId }: ThingsStackOptions): ServerDialect {
  const [application = applicationId] = applicationId.split("@");
  const message = (device: ServerDevice, event: string, body: Record<string, unknown>): ServerMessage => ({
    topic: `v3/${applicationId}/devices/${deviceIdOf(device.devEui)}/${event}`,
    json: JSON.stringify(body),
  });
  const ids = (device: ServerDevice, devAddr?: number) => ({
    device_id: deviceIdOf(device.devEui),
    application_ids: { application_id: application },
    dev_eui: device.devEui.toUpperCase(),
    join_eui: device.joinEui.toUpperCase(),
    ...(devAddr !== undefined && { dev_addr: hex8(devAddr).toUpperCase() }),
  });
  const events = { queued: "queued", sent: "sent", acknowledged: "ack", "not-acknowledged": "nack", failed: "failed" };
  return {
    rx1DelayS: 5,
    commandFilter: `v3/${applicationId}/devices/+/down/+`,
    up: (report) =>
      message(report.device, "up", {
        end_device_ids: ids(report.device, report.devAddr),
        correlation_ids: [`gs:uplink:${report.id}`],
        received_at: timeText(report.wallMs),
        uplink_message: uplinkMessage(report),
      }),
    joined: (device, devAddr, wallMs) =>
      message(device, "join", {
        end_device_ids: ids(device, devAddr),
        correlation_ids: [],
        received_at: timeText(wallMs),
        join_accept: { session_key_id: "AXBSz1BEk3/6Zm7hOyyCpA==", received_at: timeText(wallMs) },
      }),
    downlink: (device, item, state, wallMs) => {
      const fields = {
        ...(item.port > 0 && { f_port: item.port }),
        frm_payload: Buffer.from(item.bytes).toString("base64"),
        ...(item.confirmed && { confirmed: true }),
        priority: "NORMAL",
        ...(item.correlationIds.length > 0 && { correlation_ids: item.correlationIds }),
        ...("frameCounter" in state && state.frameCounter > 0 && { f_cnt: state.frameCounter }),
      };
      const failed = state.kind === "failed" && { name: state.code, message_format: state.detail };
      const body = failed ? { downlink: fields, error: { namespace: "pkg/networkserver", ...failed } } : fields;
      return message(device, `down/${events[state.kind]}`, {
        end_device_ids: ids(device),
        correlation_ids: item.correlationIds,
        received_at: timeText(wallMs),
        [`downlink_${events[state.kind]}`]: body,
      });
    },
    command: (topic, json, newId) => readCommand(applicationId, topic, json, newId),
  };
}

function uplinkMessage(report: UplinkReport): Record<string, unknown> {
  const { bandwidthKhz, spreadingFactor, bytes, port, frameCounter, confirmed } = report;
  const airtimeS = onAirMs(report, bytes.length + frameOverheadBytes, true) / 1_000;
  return {
    session_key_id: "AXBSz1BEk3/6Zm7hOyyCpA==",
    ...(port !== undefined && port > 0 && { f_port: port }),
    ...(frameCounter > 0 && { f_cnt: frameCounter }),
    ...(bytes.length > 0 && { frm_payload: Buffer.from(bytes).toString("base64") }),
    rx_metadata: report.copies.map((copy) => ({
      gateway_ids: { gateway_id: `eui-${copy.gatewayEui}`, eui: copy.gatewayEui.toUpperCase() },
      ...(copy.tmst > 0 && { timestamp: copy.tmst }),
      ...(copy.rssiDbm !== 0 && { rssi: copy.rssiDbm, channel_rssi: copy.rssiDbm }),
      ...(copy.snrDb !== 0 && { snr: copy.snrDb }),
      uplink_token: "CiIKIAoUZXVp",
    })),
    settings: {
      data_rate: {
        lora: { bandwidth: bandwidthKhz * 1_000, spreading_factor: spreadingFactor, coding_rate: "4/5" },
      },
      frequency: `${report.frequencyHz}`,
      ...(report.copies[0] && { timestamp: report.copies[0].tmst }),
    },
    received_at: timeText(report.wallMs),
    consumed_airtime: `${airtimeS.toFixed(6)}s`,
    ...(confirmed && { confirmed: true }),
    network_ids: { net_id: "000013", tenant_id: "ttn", cluster_id: "eu1" },
  };
}

function readCommand(
  applicationId: string,
  topic: string,
  json: string,
  newId: () => string,
): ServerCommand | undefined {
  const parts = topic.split("/");
  const [version, application, devices, deviceId, down, verb] = parts;
  if (parts.length !== 6 || version !== "v3" || application !== applicationId || devices !== "devices") return;
  const devEui = /^eui-([0-9a-f]{16})$/.exec(deviceId ?? "")?.[1];
  if (down !== "down" || (verb !== "push" && verb !== "replace") || devEui === undefined) return undefined;
  const body = jsonObject(json);
  const downlinks = body?.downlinks ?? [];
  if (body === undefined || !Array.isArray(downlinks)) return undefined;
  const items: QueueItem[] = [];
  for (const downlink of downlinks as Record<string, unknown>[]) {
    const bytes = base64Bytes(downlink?.frm_payload ?? "");
    const port = downlink?.f_port;
    if (bytes === undefined || typeof port !== "number" || port < 1 || port > 223) return undefined;
    const correlationIds = Array.isArray(downlink.correlation_ids) ? downlink.correlation_ids.map(String) : [];
    items.push({ id: newId(), port, bytes, confirmed: downlink.confirmed === true, correlationIds });
  }
  return { devEui, replaces: verb === "replace", items };
}

function deviceIdOf(devEui: string): string {
  return `eui-${devEui}`;
}

function timeText(wallMs: number): string {
  return new Date(wallMs).toISOString().replace("Z", "123456Z");
}

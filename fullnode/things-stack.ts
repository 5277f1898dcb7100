/** The Things Stack v3 over MQTT: its documentation, Integrations → MQTT server, and the reference of data formats. */
import {
  bestOf,
  devAddrIn,
  flagIn,
  frameIn,
  hexIn,
  integerIn,
  type JsonObject,
  objectIn,
  objectsIn,
  parseJsonObject,
  textIn,
} from "./json-field.ts";
import {
  eventBytesMax,
  type LorawanEvent,
  LorawanRefusal,
  type LorawanRoute,
  type NetworkServer,
} from "./lorawan-uplink.ts";

const gatewaysMax = 200;
const uint32Max = 2 ** 32 - 1;
/** Tells our downlinks' correlation IDs from the server's own. */
const correlationStart = "ecp:";
const deviceIdForm = /^[a-z0-9](?:[-]?[a-z0-9]){1,35}$/;

/** Application and tenant: `meters@ttn`; a server without tenants has `meters`. */
export const thingsStackApplicationForm = /^[a-z0-9](-?[a-z0-9]){1,35}(@[a-z0-9](-?[a-z0-9]){1,35})?$/;

const kinds = ["up", "join", "down/sent", "down/failed", "down/nack"] as const;
type Kind = (typeof kinds)[number];

/** @param application `APPLICATION@TENANT`, which is the name of its MQTT user too */
export function thingsStack(application: string): NetworkServer {
  const start = `v3/${application}/devices/`;
  return {
    name: "tts",
    filters: kinds.map((kind) => `${start}+/${kind}`),
    qos: 0, // the server offers no other
    replaces: true,

    read(topic, payload) {
      const [deviceId = "", ...rest] = topic.startsWith(start) ? topic.slice(start.length).split("/") : [];
      if (!deviceIdForm.test(deviceId)) throw new LorawanRefusal("foreign-topic");
      if (payload.length > eventBytesMax) throw new LorawanRefusal("too-large", `${payload.length} bytes`);
      const kind = kinds.find((one) => one === rest.join("/"));
      if (kind === undefined) return { kind: "other" };
      const message = parseJsonObject(payload);
      const ids = objectIn(message, "end_device_ids");
      if (textIn(ids, "device_id") !== deviceId) throw new LorawanRefusal("other-device");
      return readers[kind](message, `${start}${deviceId}`, ids);
    },

    command({ topic }, fresh, others) {
      const downlinks = [fresh, ...others].map(({ id, fPort, bytes }) => ({
        f_port: fPort,
        frm_payload: Buffer.from(bytes).toString("base64"),
        priority: "HIGH",
        confirmed: false,
        correlation_ids: [`${correlationStart}${id}`],
      }));
      return { topic: `${topic}/down/replace`, json: JSON.stringify({ downlinks }) };
    },
  };
}

const readers: Readonly<Record<Kind, (message: JsonObject, topic: string, ids: JsonObject) => LorawanEvent>> = {
  up(message, topic, ids) {
    if (flagIn(message, "simulated")) throw new LorawanRefusal("simulated");
    const uplink = objectIn(message, "uplink_message");
    // Present where the application server leaves the payload's encryption to the application.
    if (Object.keys(objectIn(uplink, "app_s_key")).length > 0) throw new LorawanRefusal("still-encrypted");
    const gateways = objectsIn(uplink, "rx_metadata", gatewaysMax);
    const lora = objectIn(objectIn(objectIn(uplink, "settings"), "data_rate"), "lora");
    return {
      kind: "uplink",
      route: routeOf(topic, ids),
      devAddr: devAddrIn(ids, "dev_addr"),
      fCnt: integerIn(uplink, "f_cnt", uint32Max),
      fPort: integerIn(uplink, "f_port", 255),
      bytes: frameIn(uplink, "frm_payload"),
      spreadingFactor: integerIn(lora, "spreading_factor", 12) || undefined,
      gateways: gateways.length,
      ...bestOf(gateways),
    };
  },

  join: (_message, topic, ids) => ({ kind: "join", route: routeOf(topic, ids), devAddr: devAddrIn(ids, "dev_addr") }),

  "down/sent": (message, deviceTopic) => ({
    kind: "downlink",
    deviceTopic,
    id: ownId(message) ?? ownId(objectIn(message, "downlink_sent")),
    state: "sent",
  }),

  "down/nack": (message, deviceTopic) => ({
    kind: "downlink",
    deviceTopic,
    id: ownId(message) ?? ownId(objectIn(message, "downlink_nack")),
    state: "failed",
    detail: "not acknowledged",
  }),

  "down/failed"(message, deviceTopic) {
    const failed = objectIn(message, "downlink_failed");
    const error = objectIn(failed, "error");
    return {
      kind: "downlink",
      deviceTopic,
      id: ownId(objectIn(failed, "downlink")) ?? ownId(message),
      state: "failed",
      detail: textIn(error, "name") || textIn(error, "message_format") || "no reason given",
    };
  },
};

function routeOf(topic: string, ids: JsonObject): LorawanRoute {
  return { devEui: hexIn(ids, "dev_eui", 16), topic };
}

/** The id of one of our downlinks among its correlation IDs. */
function ownId(from: JsonObject): string | undefined {
  const ids = Object.hasOwn(from, "correlation_ids") ? from.correlation_ids : undefined;
  if (!Array.isArray(ids)) return undefined;
  const own = ids.find((one): one is string => typeof one === "string" && one.startsWith(correlationStart));
  return own?.slice(correlationStart.length, correlationStart.length + 36);
}

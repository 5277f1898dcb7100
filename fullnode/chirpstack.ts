/** ChirpStack v4 over MQTT, JSON (`json=true` in its `[integration.mqtt]`): its documentation, chapter Integrations → MQTT. */
import {
  bestOf,
  devAddrIn,
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
/** Events are told of at levels INFO, WARNING and ERROR. */
const toldLevels: ReadonlySet<string> = new Set(["WARNING", "ERROR"]);

export const chirpStackApplicationForm = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** @param application the application's ID, a UUID */
export function chirpStack(application: string): NetworkServer {
  const start = `application/${application}/device/`;
  return {
    name: "chirpstack",
    filters: [`${start}+/event/+`],
    qos: 1,
    replaces: false,

    read(topic, payload) {
      const [devEui = "", event = "", kind = "", ...more] = topic.startsWith(start)
        ? topic.slice(start.length).split("/")
        : [];
      if (!/^[0-9a-f]{16}$/.test(devEui) || event !== "event" || more.length > 0)
        throw new LorawanRefusal("foreign-topic");
      if (payload.length > eventBytesMax) throw new LorawanRefusal("too-large", `${payload.length} bytes`);
      const read = readers[kind];
      if (read === undefined) return { kind: "other" };
      const message = parseJsonObject(payload);
      if (hexIn(objectIn(message, "deviceInfo"), "devEui", 16) !== devEui) throw new LorawanRefusal("other-device");
      return read(message, { devEui, topic: `${start}${devEui}` });
    },

    command({ devEui, topic }, { id, fPort, bytes, expiresMs }) {
      const data = Buffer.from(bytes).toString("base64");
      const expiresAt = new Date(expiresMs).toISOString();
      return {
        topic: `${topic}/command/down`,
        json: JSON.stringify({ id, devEui, confirmed: false, fPort, data, expiresAt }),
      };
    },
  };
}

const readers: Readonly<Record<string, (message: JsonObject, route: LorawanRoute) => LorawanEvent>> = {
  up(message, route) {
    // The application key is at the join server, which this node does not ask.
    if (Object.keys(objectIn(message, "joinServerContext")).length > 0) throw new LorawanRefusal("still-encrypted");
    const gateways = objectsIn(message, "rxInfo", gatewaysMax);
    const lora = objectIn(objectIn(objectIn(message, "txInfo"), "modulation"), "lora");
    return {
      kind: "uplink",
      route,
      devAddr: devAddrIn(message, "devAddr"),
      fCnt: integerIn(message, "fCnt", uint32Max),
      fPort: integerIn(message, "fPort", 255),
      bytes: frameIn(message, "data"),
      spreadingFactor: integerIn(lora, "spreadingFactor", 12) || undefined,
      gateways: gateways.length,
      ...bestOf(gateways),
    };
  },

  join: (message, route) => ({ kind: "join", route, devAddr: devAddrIn(message, "devAddr") }),

  // A gateway has confirmed that it sent the downlink. (`ack` speaks of confirmed downlinks, of which this node sends none.)
  txack: (message, route) => ({
    kind: "downlink",
    deviceTopic: route.topic,
    id: textIn(message, "queueItemId") || undefined,
    state: "sent",
  }),

  log(message, route) {
    const code = textIn(message, "code");
    const detail = textIn(message, "description");
    const id = textIn(objectIn(message, "context"), "queue_item_id") || undefined;
    if (code === "EXPIRED" || code === "DOWNLINK_PAYLOAD_SIZE")
      return { kind: "downlink", deviceTopic: route.topic, id, state: "failed", detail: `${code}: ${detail}` };
    return toldLevels.has(textIn(message, "level")) ? { kind: "warning", route, code, detail } : { kind: "other" };
  },
};

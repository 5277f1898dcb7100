/** The `uplink:` of hub.yaml: brokers in their order, checked for sense. */
import { resolve } from "node:path";
import type { HubConfiguration, MqttConfiguration } from "../agent/configuration.ts";
import type { LoraFile } from "./lora-configuration.ts";
import type { YamlSource } from "./yaml-source.ts";

interface BrokerFile {
  url: string;
  username?: string;
  password_file?: string;
  ca_file?: string;
  cert_file?: string;
  key_file?: string;
  server_name?: string;
  carries: "all" | "newest";
  proxy?: string;
  own_broker?: boolean;
}

/** The section's form, as the schema has it. */
export interface UplinkFile {
  mqtt?: BrokerFile & { reconnect_s?: number; fallbacks?: BrokerFile[] };
  lora?: LoraFile;
  encrypt?: boolean;
  encrypt_to?: string;
  window_kib: number;
}

const portDefaults = { mqtt: 1_883, mqtts: 8_883, ws: 80, wss: 443 } as const;
const ipv6Brackets = /^\[|\]$/g;
const kibibyte = 1_024;

/** Relative paths count from the file's folder. */
export function uplinkOf(
  { mqtt, lora, window_kib: windowKib }: UplinkFile,
  folder: string,
  source: YamlSource,
): Pick<HubConfiguration, "mqtt" | "mqttFallbacks" | "windowBytes"> {
  if (mqtt === undefined) {
    if (lora === undefined) throw source.error(["uplink"], "the key 'mqtt' or 'lora' in uplink", "neither", true);
    return { windowBytes: windowKib * kibibyte };
  }
  const { reconnect_s: reconnectS, fallbacks = [] } = mqtt;
  return {
    mqtt: {
      ...brokerOf(mqtt, ["uplink", "mqtt"], folder, source),
      ...(reconnectS !== undefined && { reconnectFirstMs: reconnectS * 1_000 }),
    },
    ...(fallbacks.length > 0 && {
      mqttFallbacks: fallbacks.map((broker, place) =>
        brokerOf(broker, ["uplink", "mqtt", "fallbacks", place], folder, source),
      ),
    }),
    windowBytes: windowKib * kibibyte,
  };
}

function brokerOf(
  broker: BrokerFile,
  at: readonly (string | number)[],
  folder: string,
  source: YamlSource,
): MqttConfiguration {
  if (broker.proxy !== undefined)
    throw source.error(
      [...at, "proxy"],
      "no proxy: the hub connects to its broker directly (HTTP_PROXY is not looked at either); let it through the firewall, or use wss:// where only port 443 is open",
      broker.proxy,
    );
  const url = URL.canParse(broker.url) ? new URL(broker.url) : undefined;
  const protocol = url?.protocol.slice(0, -1) as keyof typeof portDefaults | undefined;
  if (!url || !protocol || !(protocol in portDefaults) || url.hostname === "" || url.port === "0")
    throw source.error([...at, "url"], "mqtt://host:port or mqtts://host:port", broker.url);
  const isWebSocket = protocol === "ws" || protocol === "wss";
  if (!isWebSocket && (url.search !== "" || url.hash !== ""))
    throw source.error([...at, "url"], "mqtt://host:port or mqtts://host:port", broker.url);
  const files = ["ca_file", "cert_file", "key_file", "server_name"] as const;
  const forTls = files.find((key) => broker[key] !== undefined);
  if (forTls && (protocol === "mqtt" || protocol === "ws"))
    throw source.error([...at, forTls], `an mqtts:// or wss:// address beside a ${forTls}`, broker.url, true);
  for (const [one, other] of [
    ["cert_file", "key_file"],
    ["key_file", "cert_file"],
  ] as const)
    if (broker[one] && !broker[other]) throw source.error([...at, one], `a ${other} beside the ${one}`, "none", true);
  // MQTT 3.1.1 §3.1.2.9: without a user name there must be no password.
  if (broker.password_file && !broker.username)
    throw source.error([...at, "password_file"], "a username beside the password_file", "none", true);
  return {
    protocol,
    host: url.hostname.replace(ipv6Brackets, ""),
    port: url.port === "" ? portDefaults[protocol] : Number(url.port),
    ...(isWebSocket && { path: url.pathname === "/" ? "/mqtt" : url.pathname }),
    ...(broker.username && { username: broker.username }),
    ...(broker.password_file && { passwordFile: resolve(folder, broker.password_file) }),
    ...(broker.ca_file && { caFile: resolve(folder, broker.ca_file) }),
    ...(broker.cert_file && { certFile: resolve(folder, broker.cert_file) }),
    ...(broker.key_file && { keyFile: resolve(folder, broker.key_file) }),
    ...(broker.server_name && { serverName: broker.server_name }),
    ...(broker.carries === "newest" && { carries: "newest" }),
  };
}

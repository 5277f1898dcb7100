/** The parts of hub.yaml by which others see a hub: `home` and `metrics`. Both are off unless named. */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { HomeConfiguration, HubConfiguration } from "../agent/configuration.ts";
import type { YamlSource } from "./yaml-source.ts";

/** As the schema has them. */
export interface ObservationFile {
  home?: {
    mqtt: { url: string; username?: string; password_file?: string; ca_file?: string };
    every_s: number;
  };
  metrics?: { listen: string };
}

export function observationOf(
  data: ObservationFile,
  folder: string,
  source: YamlSource,
): Pick<HubConfiguration, "home" | "metrics"> {
  return {
    ...(data.home && { home: homeOf(data.home, folder, source) }),
    ...(data.metrics && { metrics: listenOf(data.metrics.listen, source) }),
  };
}

function homeOf(
  { mqtt, every_s: everyS }: NonNullable<ObservationFile["home"]>,
  folder: string,
  source: YamlSource,
): HomeConfiguration {
  const at = (key: string) => ["home", "mqtt", key];
  const url = URL.canParse(mqtt.url) ? new URL(mqtt.url) : undefined;
  if (!url || url.hostname === "" || url.port === "0" || url.search !== "" || url.hash !== "")
    throw source.error(at("url"), "mqtt://host:port or mqtts://host:port", mqtt.url);
  const protocol = url.protocol === "mqtts:" ? "mqtts" : "mqtt";
  if (mqtt.ca_file && protocol === "mqtt")
    throw source.error(at("ca_file"), "an mqtts:// address beside a ca_file", mqtt.url, true);
  // MQTT 3.1.1 §3.1.2.9: without a user name there must be no password.
  if (mqtt.password_file && !mqtt.username)
    throw source.error(at("password_file"), "a username beside the password_file", "none", true);
  const passwordFile = mqtt.password_file && resolve(folder, mqtt.password_file);
  const caFile = mqtt.ca_file && resolve(folder, mqtt.ca_file);
  return {
    everyS,
    broker: {
      protocol,
      host: url.hostname.replace(/^\[|\]$/g, ""),
      port: url.port === "" ? (protocol === "mqtts" ? 8883 : 1883) : Number(url.port),
      ...(mqtt.username && { username: mqtt.username }),
      ...(passwordFile && { password: () => readFileSync(passwordFile, "utf8").trim() }),
      ...(caFile && { ca: () => readFileSync(caFile) }),
    },
  };
}

function listenOf(text: string, source: YamlSource): { host: string; port: number } {
  const match = /^(?:(?<host>\[[0-9a-fA-F:]+\]|[^:[\]]*):)?(?<port>[0-9]{1,5})$/.exec(text);
  const port = Number(match?.groups?.port ?? Number.NaN);
  if (!(port <= 65_535)) throw source.error(["metrics", "listen"], "a port, or HOST:PORT", text);
  return { host: (match?.groups?.host ?? "").replace(/^\[|\]$/g, "") || "127.0.0.1", port };
}

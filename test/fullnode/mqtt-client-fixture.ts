/** What a test waits for at an MQTT client. */
import type { MqttClient } from "mqtt";

/** The next message, as text. */
export function nextMessage(client: MqttClient): Promise<string> {
  return new Promise((resolve) => client.once("message", (_topic, payload) => resolve(payload.toString())));
}

/** The end of the connection, by an error or not. */
export function closed(client: MqttClient): Promise<void> {
  client.on("error", () => {});
  return new Promise((resolve) => client.once("close", () => resolve()));
}

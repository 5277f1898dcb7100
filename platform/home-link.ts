/**
 * A connection to a home's MQTT broker that only ever publishes: values that nobody waits for. It subscribes to nothing, so that
 * nothing can be commanded through it; what cannot be sent at once is dropped, since a newer value follows.
 */
import type { Duplex } from "node:stream";
import { BackOff } from "./back-off.ts";
import { guardMqttStream } from "./mqtt-packet-guard.ts";

export interface HomeBroker {
  readonly protocol: "mqtt" | "mqtts";
  readonly host: string;
  readonly port: number;
  readonly username?: string;
  /** Read at each connection. */
  readonly password?: () => string;
  readonly ca?: () => Buffer;
}

/** What is needed of an MQTT client; the caller brings one (mqtt.js). */
export interface PublishingClient {
  readonly stream: Duplex;
  publish(topic: string, payload: string, options: { qos: 0 | 1; retain: boolean }): unknown;
  end(force: boolean, options: object, done: () => void): unknown;
  on(event: "connect" | "close", listener: () => void): unknown;
  on(event: "error", listener: (error: Error) => void): unknown;
}

export interface ClientSettings {
  readonly broker: HomeBroker;
  readonly clientId: string;
  readonly keepaliveS: number;
  readonly connectTimeoutMs: number;
  readonly will: { readonly topic: string; readonly payload: Buffer; readonly qos: 1; readonly retain: true };
}

export interface HomeLinkOptions {
  readonly broker: HomeBroker;
  readonly clientId: string;
  readonly availabilityTopic: string;
  readonly connect: (settings: ClientSettings) => PublishingClient;
  /** Called at each new connection: for what is to be retained. */
  readonly onConnected: () => void;
  readonly onLost: (reason: string) => void;
}

const keepaliveS = 30;
const connectTimeoutMs = 10_000;
const stopTimeoutMs = 1_000;
/** Nothing but acknowledgements comes to whoever subscribes to nothing. */
const packetBytesMax = 1_024;
/** A broker that takes nothing more is not given more. */
const unsentBytesMax = 262_144;

export class HomeLink {
  readonly #options: HomeLinkOptions;
  readonly #backOff = new BackOff({ firstMs: 1_000, longestMs: 60_000 });
  #client: PublishingClient | undefined;
  #isConnected = false;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;
  #dropped = 0;

  constructor(options: HomeLinkOptions) {
    this.#options = options;
  }

  get isConnected(): boolean {
    return this.#isConnected;
  }
  /** Values that were not sent because the broker was away or slow. */
  get dropped(): number {
    return this.#dropped;
  }

  start(): void {
    const { broker, clientId, availabilityTopic: topic } = this.#options;
    let reason = "the connection was closed";
    const lost = () => {
      this.#options.onLost(reason);
      this.#timer = setTimeout(() => this.start(), this.#backOff.next());
    };
    let client: PublishingClient;
    try {
      const will = { topic, payload: Buffer.from("offline"), qos: 1, retain: true } as const;
      client = this.#options.connect({ broker, clientId, keepaliveS, connectTimeoutMs, will });
    } catch (error) {
      reason = (error as Error).message; // a password or CA file that cannot be read
      lost();
      return;
    }
    this.#client = client;
    guardMqttStream(client.stream, { bytesMax: packetBytesMax, qosMax: 1 }, (got) => {
      reason = `the broker sent ${got}`;
    });
    client.on("error", (error) => {
      reason = error.message || ("code" in error ? String(error.code) : reason);
    });
    client.on("connect", () => {
      this.#isConnected = true;
      this.#backOff.reset();
      client.publish(topic, "online", { qos: 1, retain: true });
      this.#options.onConnected();
    });
    client.on("close", () => {
      if (this.#client !== client) return;
      this.#client = undefined;
      this.#isConnected = false;
      client.end(true, {}, () => undefined);
      if (!this.#stopped) lost();
    });
  }

  publish(topic: string, payload: string, retain = false): void {
    const client = this.#client;
    if (client === undefined || !this.#isConnected || client.stream.writableLength > unsentBytesMax) {
      this.#dropped++;
      return;
    }
    client.publish(topic, payload, { qos: retain ? 1 : 0, retain });
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    const client = this.#client;
    if (client === undefined) return;
    const isConnected = this.#isConnected;
    if (isConnected) client.publish(this.#options.availabilityTopic, "offline", { qos: 1, retain: true });
    this.#client = undefined;
    await new Promise<void>((resolve) => {
      const hard = setTimeout(() => client.end(true, {}, () => resolve()), stopTimeoutMs);
      client.end(!isConnected, {}, () => {
        clearTimeout(hard);
        resolve();
      });
    });
  }
}

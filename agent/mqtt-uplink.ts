/** Records to a full node over MQTT, its receipts back. Connects again by itself, at a jittered and growing distance. */
import { readFileSync } from "node:fs";
import type { Socket } from "node:net";
import { connect, type IClientOptions, type MqttClient } from "mqtt";
import { BackOff } from "../platform/back-off.ts";
import { topicOf } from "../protocol/mqtt-topic.ts";
import { receiptBytesMax } from "../protocol/receipt.ts";
import type { MqttConfiguration } from "./configuration.ts";

const connectTimeoutMs = 10_000;
const keepaliveS = 30;

export interface MqttUplinkOptions {
  readonly configuration: MqttConfiguration;
  /** Multibase part of the device's did:key. */
  readonly device: string;
  readonly onReceipt: (receipt: Uint8Array) => void;
  readonly onState: (connected: boolean, detail?: string) => void;
}

export class MqttUplink {
  readonly address: string;
  readonly #options: MqttUplinkOptions;
  readonly #backOff = new BackOff({ firstMs: 500, longestMs: 60_000 });
  #client: MqttClient | undefined;
  #timer: NodeJS.Timeout | undefined;
  #connected = false;
  #stopped = false;
  /** MQTT 5 first; brokers that only speak 3.1.1 are remembered. */
  #protocolVersion: 4 | 5 = 5;
  #reason = "";

  constructor(options: MqttUplinkOptions) {
    this.#options = options;
    const { protocol, host, port } = options.configuration;
    this.address = `${protocol}://${host}:${port}`;
  }

  get isConnected(): boolean {
    return this.#connected;
  }

  start(): void {
    if (this.#stopped) return;
    const { device } = this.#options;
    let client: MqttClient;
    try {
      client = connect(this.#clientOptions());
    } catch (error) {
      // A password or CA file that cannot be read: a later try may find it mended.
      this.#options.onState(false, (error as Error).message);
      this.#again();
      return;
    }
    this.#client = client;
    this.#reason = "the broker closed the connection";
    client.on("error", (error) => {
      this.#reason = error.message || ((error as NodeJS.ErrnoException).code ?? "connection failed");
      // CONNACK return code 1 (3.1.1 §3.2.2.3) or reason code 0x84 (5 §3.2.2.2): unacceptable protocol version.
      if (/protocol version/i.test(this.#reason)) this.#protocolVersion = 4;
    });
    client.on("connect", () => {
      // Small packets both ways: with Nagle's algorithm each would wait for the other side's delayed acknowledgement (40 ms).
      (client.stream as Partial<Socket>).setNoDelay?.(true);
      client.subscribe(topicOf(device, "receipt"), { qos: 1 }, (error) => {
        if (error) {
          this.#reason = `the broker refused the subscription: ${error.message}`;
          client.end(true);
          return;
        }
        this.#connected = true;
        this.#backOff.reset();
        client.publish(topicOf(device, "status"), JSON.stringify({ state: "online" }), { qos: 1, retain: true });
        this.#options.onState(true);
      });
    });
    client.on("message", (_topic, payload) => {
      if (payload.length <= receiptBytesMax) this.#options.onReceipt(new Uint8Array(payload));
    });
    client.once("close", () => {
      const connected = this.#connected;
      this.#connected = false;
      client.end(true);
      // A broker that knows only 3.1.1 may hang up on a 5 without a word: speak 3.1.1 with the next try.
      if (!connected && this.#protocolVersion === 5 && this.#reason.startsWith("the broker closed"))
        this.#protocolVersion = 4;
      if (this.#stopped) return;
      this.#options.onState(false, this.#reason);
      this.#again();
    });
  }

  #again(): void {
    this.#timer = setTimeout(() => this.start(), this.#backOff.next());
  }

  #clientOptions(): IClientOptions {
    const { protocol, host, port, username, passwordFile, caFile } = this.#options.configuration;
    const { device } = this.#options;
    return {
      protocol,
      host,
      port,
      protocolVersion: this.#protocolVersion,
      clientId: `ecp-${device}`,
      clean: true,
      keepalive: keepaliveS,
      connectTimeout: connectTimeoutMs,
      reconnectPeriod: 0,
      will: { topic: topicOf(device, "status"), payload: Buffer.from('{"state":"offline"}'), qos: 1, retain: true },
      ...(username !== undefined && { username }),
      ...(passwordFile !== undefined && { password: readFileSync(passwordFile, "utf8").trim() }),
      ...(caFile !== undefined && { ca: readFileSync(caFile) }),
    };
  }

  /** Hands a record to the connection; false where there is none. That it arrived only a receipt can say. */
  publish(record: Uint8Array): boolean {
    if (!this.#connected || !this.#client) return false;
    this.#client.publish(topicOf(this.#options.device, "record"), Buffer.from(record), { qos: 1 }, () => undefined);
    return true;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    const client = this.#client;
    if (!client) return;
    if (this.#connected)
      client.publish(topicOf(this.#options.device, "status"), JSON.stringify({ state: "offline" }), {
        qos: 1,
        retain: true,
      });
    await new Promise<void>((resolve) => {
      const hard = setTimeout(() => client.end(true, {}, () => resolve()), 1_000);
      client.end(!this.#connected, {}, () => {
        clearTimeout(hard);
        resolve();
      });
    });
  }
}

/** Records to a full node over MQTT, its receipts back. Connects again by itself, at a jittered and growing distance. */
import { readFileSync } from "node:fs";
import type { Socket } from "node:net";
import { connect, type IClientOptions, type MqttClient } from "mqtt";
import { BackOff } from "../platform/back-off.ts";
import { guardMqttStream } from "../platform/mqtt-packet-guard.ts";
import { topicOf } from "../protocol/mqtt-topic.ts";
import { receiptBytesMax } from "../protocol/receipt.ts";
import type { MqttConfiguration } from "./configuration.ts";
import { PublishQueue } from "./publish-queue.ts";
import type { Lane } from "./send-window.ts";

const connectTimeoutMs = 10_000;
const keepaliveS = 30;
const stopTimeoutMs = 1_000;
/** A connection that lasted so long was a good one: after it, the first delay is short again. */
const stableMs = 2_000;
/** The largest packet that is taken: a receipt has 2 KiB at most, its topic less than 100 bytes, a broker may add properties. */
export const packetBytesMax = 8_192;
const stallCheckMs = 1_000;

const refusedVersion = new Set([1, 0x84]); // MQTT 3.1.1 §3.2.2.3, MQTT 5 §3.2.2.2
const refusedCredentials = new Set([4, 5, 0x86, 0x87]);

export interface MqttUplinkOptions {
  readonly configuration: MqttConfiguration;
  /** Multibase part of the device's did:key. */
  readonly device: string;
  readonly onReceipt: (receipt: Uint8Array) => void;
  /** Called when a connection can be used, and with the reason when one has gone or a try has failed. */
  readonly onState: (connected: boolean, detail?: string) => void;
  readonly backOff?: BackOff;
}

export class MqttUplink {
  readonly address: string;
  readonly device: string;
  readonly #options: MqttUplinkOptions;
  readonly #backOff: BackOff;
  #client: MqttClient | undefined;
  #timer: NodeJS.Timeout | undefined;
  #connectedAtMs: number | undefined;
  #queue: PublishQueue | undefined;
  #stallTimer: NodeJS.Timeout | undefined;
  #stopped = false;
  /** MQTT 5 first; a broker that refuses it gets 3.1.1 at once, and from then on. */
  #protocolVersion: 4 | 5 = 5;
  /** What the broker said of how many messages it takes unacknowledged (MQTT 5 §3.2.2.3.3). */
  #receiveMaximum: number | undefined;
  /** Whether a broker has spoken the version above: one that now hangs up does so for another reason. */
  #versionProven = false;
  /** Why the connection ends, where we know; a broker may hang up without a word. */
  #reason: string | undefined;

  constructor(options: MqttUplinkOptions) {
    const { protocol, host, port } = options.configuration;
    this.#options = options;
    this.device = options.device;
    this.#backOff = options.backOff ?? new BackOff({ firstMs: 500, longestMs: 60_000 });
    this.address = `${protocol}://${host.includes(":") ? `[${host}]` : host}:${port}`;
  }

  get isConnected(): boolean {
    return this.#connectedAtMs !== undefined;
  }

  /** The version in use, or to be tried next: 4 is 3.1.1. */
  get protocolVersion(): 4 | 5 {
    return this.#protocolVersion;
  }

  start(): void {
    if (this.#stopped) return;
    this.#reason = undefined;
    this.#queue = undefined;
    let client: MqttClient;
    try {
      client = connect(this.#clientOptions());
    } catch (error) {
      // A password or CA file that cannot be read: a later try may find it mended.
      this.#options.onState(false, (error as Error).message);
      this.#startLater();
      return;
    }
    this.#client = client;
    // mqtt.js gathers a packet of any announced length, up to 256 MB, before it looks at it.
    guardMqttStream(client.stream, { bytesMax: packetBytesMax, qosMax: 1 }, (got) => {
      this.#reason = `the broker sent ${got}; expected: at most ${packetBytesMax} bytes, QoS 0 or 1`;
    });
    client.on("error", (error) => this.#failed(error));
    client.on("connect", ({ properties }) => {
      this.#receiveMaximum = properties?.receiveMaximum;
      this.#subscribe(client);
    });
    client.on("message", (_topic, payload) => {
      if (payload.length <= receiptBytesMax) this.#options.onReceipt(new Uint8Array(payload));
    });
    client.once("close", () => this.#closed(client));
  }

  #subscribe(client: MqttClient): void {
    this.#versionProven = true;
    // Small packets both ways: with Nagle's algorithm each would wait for the other side's delayed acknowledgement (40 ms).
    (client.stream as Partial<Socket>).setNoDelay?.(true);
    client.subscribe(topicOf(this.device, "receipt"), { qos: 1 }, (error) => {
      if (this.#client !== client || this.#stopped) return;
      if (error) {
        this.#hangUp(`the broker refused the subscription to receipts: ${error.message}`);
        return;
      }
      this.#connectedAtMs = performance.now();
      this.#openQueue(client);
      this.#publishState(client, "online");
      this.#options.onState(true);
    });
  }

  #failed(error: Error & { code?: unknown }): void {
    const { code } = error;
    if (typeof code === "number" && refusedVersion.has(code) && this.#protocolVersion === 5) {
      this.#protocolVersion = 4;
      this.#versionProven = false;
      this.#reason = "";
      return;
    }
    // Some brokers that know only 3.1.1 hang up on a 5 without a word: #closed() tries the other version then.
    if (code === "ECONNRESET") return;
    // Of an AggregateError (a name with several addresses) the code is all there is.
    this.#reason ??= error.message || (typeof code === "string" ? code : "connection failed");
    if (typeof code === "number" && refusedCredentials.has(code))
      this.#reason = `the broker refuses this hub's user name or password (${error.message}): set 'username:' and 'password_file:' under 'uplink: mqtt:' in hub.yaml`;
  }

  #closed(client: MqttClient): void {
    client.end(true);
    const connectedMs = this.#connectedAtMs === undefined ? 0 : performance.now() - this.#connectedAtMs;
    this.#connectedAtMs = undefined;
    clearInterval(this.#stallTimer);
    if (this.#client === client) this.#client = undefined;
    if (this.#stopped) return;
    const silent = this.#reason === undefined && !this.#versionProven && this.#protocolVersion === 5;
    if (silent) this.#protocolVersion = 4;
    if (silent || this.#reason === "") {
      this.start();
      return;
    }
    // One that hung up on both versions meant something else.
    if (!this.#versionProven) this.#protocolVersion = 5;
    if (connectedMs >= stableMs) this.#backOff.reset();
    this.#options.onState(false, this.#reason ?? "the broker closed the connection");
    this.#startLater();
  }

  #startLater(): void {
    this.#timer = setTimeout(() => this.start(), this.#backOff.next());
  }

  #hangUp(reason: string): void {
    this.#reason = reason;
    this.#client?.end(true);
  }

  #clientOptions(): IClientOptions {
    const { protocol, host, port, username, passwordFile, caFile } = this.#options.configuration;
    return {
      protocol,
      host,
      port,
      protocolVersion: this.#protocolVersion,
      clientId: `ecp-${this.device}`,
      clean: true,
      keepalive: keepaliveS,
      connectTimeout: connectTimeoutMs,
      reconnectPeriod: 0,
      ...(this.#protocolVersion === 5 && { properties: { maximumPacketSize: packetBytesMax } }),
      will: {
        topic: topicOf(this.device, "status"),
        payload: Buffer.from('{"state":"offline"}'),
        qos: 1,
        retain: true,
      },
      ...(username !== undefined && { username }),
      ...(passwordFile !== undefined && { password: readFileSync(passwordFile, "utf8").trim() }),
      ...(caFile !== undefined && { ca: readFileSync(caFile) }),
    };
  }

  #publishState(client: MqttClient, state: "online" | "offline"): void {
    const topic = topicOf(this.device, "status");
    client.publish(topic, JSON.stringify({ state }), { qos: 1, retain: true }, () => undefined);
  }

  #openQueue(client: MqttClient): void {
    const send = (record: Uint8Array, acknowledged: () => void): void => {
      client.publish(topicOf(this.device, "record"), Buffer.from(record), { qos: 1 }, (error) => {
        if (this.#client !== client) return;
        if (error && typeof (error as { code?: unknown }).code === "number")
          this.#hangUp(`the broker refused a record: ${error.message}`);
        if (!error) acknowledged();
      });
    };
    const queue = new PublishQueue(send, () => performance.now(), this.#receiveMaximum);
    this.#queue = queue;
    this.#stallTimer = setInterval(() => {
      const stalledMs = queue.stalledMs();
      if (stalledMs !== undefined)
        this.#hangUp(`the broker has acknowledged nothing for ${Math.round(stalledMs / 1_000)} s`);
    }, stallCheckMs);
  }

  takes(lane: Lane): boolean {
    return this.isConnected && this.#queue?.takes(lane) === true;
  }

  /** Hands a record to the connection; false where there is none. That it arrived only a receipt can say. */
  publish(record: Uint8Array, lane: Lane, onLeft: () => void): boolean {
    if (!this.isConnected || !this.#queue) return false;
    this.#queue.push(record, lane, onLeft);
    return true;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    clearInterval(this.#stallTimer);
    const client = this.#client;
    if (!client) return;
    const { isConnected } = this;
    if (isConnected) this.#publishState(client, "offline");
    await new Promise<void>((resolve) => {
      const hard = setTimeout(() => client.end(true, {}, () => resolve()), stopTimeoutMs);
      client.end(!isConnected, {}, () => {
        clearTimeout(hard);
        resolve();
      });
    });
  }
}

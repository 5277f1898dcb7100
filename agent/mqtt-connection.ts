/** One connection to one broker, from the first packet to its end. It does not connect again: agent/mqtt-uplink.ts does. */
import type { Duplex } from "node:stream";
import { type IClientOptions, MqttClient } from "mqtt";
import { guardMqttStream } from "../platform/mqtt-packet-guard.ts";
import { topicOf } from "../protocol/mqtt-topic.ts";
import { receiptBytesMax } from "../protocol/receipt.ts";
import { type BrokerFiles, loadTls, openBrokerStream, readBrokerFiles, tlsAdvice } from "./broker-stream.ts";
import type { MqttConfiguration } from "./configuration.ts";
import { PublishQueue } from "./publish-queue.ts";

const connectTimeoutMs = 10_000;
/** TLS and WebSocket ask back and forth more often: on a line of 2 s each way, four times. */
const connectTimeoutLayeredMs = 20_000;
const keepaliveS = 30;
const stopTimeoutMs = 1_000;
const stallCheckMs = 1_000;
/** The largest packet that is taken: a receipt has 2 KiB at most, its topic less than 100 bytes, a broker may add properties. */
export const packetBytesMax = 8_192;

const refusedVersion = new Set([1, 0x84]); // MQTT 3.1.1 §3.2.2.3, MQTT 5 §3.2.2.2
const refusedCredentials = new Set([4, 5, 0x86, 0x87]);

/** What is known of a broker's version; kept from one connection to the next. 4 is 3.1.1. */
export interface BrokerVersion {
  /** MQTT 5 first; a broker that refuses it gets 3.1.1 at once, and from then on. */
  protocolVersion: 4 | 5;
  /** Whether the broker has spoken the version above: one that now hangs up does so for another reason. */
  isProven: boolean;
}

export interface MqttConnectionOptions {
  readonly broker: MqttConfiguration;
  readonly version: BrokerVersion;
  /** Multibase part of the device's did:key. */
  readonly device: string;
  readonly onReceipt: (receipt: Uint8Array) => void;
  /** Records can be published, and receipts come. */
  readonly onOpen: () => void;
  /**
   * Once, unless stop() was called. Without a reason: to be tried again at once, with the version that is now known. `isOurs`:
   * we hung up on a broker that does not do its part, however long it was there.
   */
  readonly onClosed: (reason: string | undefined, isOurs: boolean) => void;
}

export class MqttConnection {
  readonly broker: MqttConfiguration;
  readonly #options: MqttConnectionOptions;
  #client: MqttClient | undefined;
  #queue: PublishQueue | undefined;
  #receiveMaximum: number | undefined;
  #stallTimer: NodeJS.Timeout | undefined;
  #answerTimer: NodeJS.Timeout | undefined;
  #isEnded = false;
  #hungUp = false;
  /** Why the connection ends, where we know; a broker may hang up without a word. */
  #reason: string | undefined;

  constructor(options: MqttConnectionOptions) {
    this.#options = options;
    this.broker = options.broker;
    this.#open().catch((error: Error) => {
      // A password or CA file that cannot be read, or makes no sense: a later try may find it mended.
      this.#reason = error.message;
      this.#end();
    });
  }

  get isOpen(): boolean {
    return this.#queue !== undefined;
  }
  /** Where records go; undefined while it is not open. */
  get queue(): PublishQueue | undefined {
    return this.#queue;
  }

  async #open(): Promise<void> {
    const { broker, onReceipt } = this.#options;
    const files = readBrokerFiles(broker);
    const tls = await loadTls(broker);
    if (this.#isEnded) return;
    const stream = openBrokerStream(broker, files, tls);
    stream.on("error", (error) => this.#failed(error));
    const client = new MqttClient(() => stream as MqttClient["stream"], this.#clientOptions(files));
    this.#client = client;
    // mqtt.js gathers a packet of any announced length, up to 256 MB, before it looks at it.
    guardMqttStream(stream, { bytesMax: packetBytesMax, qosMax: 1 }, (got) => {
      this.#reason = `the broker sent ${got}; expected: at most ${packetBytesMax} bytes, QoS 0 or 1`;
    });
    client.on("error", (error) => this.#failed(error));
    client.on("connect", ({ properties }) => {
      this.#receiveMaximum = properties?.receiveMaximum;
      this.#subscribe(client, stream);
    });
    client.on("message", (_topic, payload) => {
      if (payload.length <= receiptBytesMax) onReceipt(new Uint8Array(payload));
    });
    client.once("close", () => this.#end());
  }

  #subscribe(client: MqttClient, stream: Duplex): void {
    this.#options.version.isProven = true;
    // mqtt.js waits for the CONNACK so long, and for a SUBACK for ever.
    this.#answerTimer = setTimeout(
      () => this.hangUp("the broker does not answer the subscription to receipts"),
      client.options.connectTimeout,
    );
    client.subscribe(topicOf(this.#options.device, "receipt"), { qos: 1 }, (error) => {
      if (this.#isEnded || stream.destroyed) return;
      clearTimeout(this.#answerTimer);
      if (error) {
        this.hangUp(`the broker refused the subscription to receipts: ${error.message}`);
        return;
      }
      this.#openQueue(client);
      this.#publishState(client, "online");
      this.#options.onOpen();
    });
  }

  #failed(error: Error & { code?: unknown }): void {
    const { version } = this.#options;
    const { code } = error;
    if (typeof code === "number" && refusedVersion.has(code) && version.protocolVersion === 5) {
      version.protocolVersion = 4;
      version.isProven = false;
      this.#reason = "";
      return;
    }
    // Some brokers that know only 3.1.1 hang up on a 5 without a word: #end() has the other version tried then.
    if (code === "ECONNRESET") return;
    const advice = typeof code === "string" ? tlsAdvice(code) : undefined;
    // Of an AggregateError (a name with several addresses) the code is all there is.
    this.#reason ??= [sentenceOf(error.message) || (typeof code === "string" ? code : "connection failed"), advice]
      .filter(Boolean)
      .join("; ");
    if (typeof code === "number" && refusedCredentials.has(code))
      this.#reason = `the broker refuses this hub's user name or password (${error.message}): set 'username:' and 'password_file:' under 'uplink: mqtt:' in hub.yaml`;
  }

  #end(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#client?.end(true);
    clearInterval(this.#stallTimer);
    clearTimeout(this.#answerTimer);
    this.#queue = undefined;
    const { version, onClosed } = this.#options;
    const isSilent = this.#reason === undefined && !version.isProven && version.protocolVersion === 5;
    if (isSilent) version.protocolVersion = 4;
    if (isSilent || this.#reason === "") {
      onClosed(undefined, false);
      return;
    }
    // One that hung up on both versions meant something else.
    if (!version.isProven) version.protocolVersion = 5;
    onClosed(this.#reason ?? "the broker closed the connection", this.#hungUp);
  }

  hangUp(reason: string): void {
    this.#reason ??= reason;
    this.#hungUp = true;
    this.#client?.end(true);
  }

  #clientOptions({ password }: BrokerFiles): IClientOptions {
    const { broker, device, version } = this.#options;
    const { protocolVersion } = version;
    return {
      protocolVersion,
      clientId: `ecp-${device}`,
      clean: true,
      keepalive: keepaliveS,
      connectTimeout: broker.protocol === "mqtt" ? connectTimeoutMs : connectTimeoutLayeredMs,
      reconnectPeriod: 0,
      ...(protocolVersion === 5 && { properties: { maximumPacketSize: packetBytesMax } }),
      will: {
        topic: topicOf(device, "status"),
        payload: Buffer.from('{"state":"offline"}'),
        qos: 1,
        retain: true,
      },
      ...(broker.username !== undefined && { username: broker.username }),
      ...(password !== undefined && { password }),
    };
  }

  #publishState(client: MqttClient, state: "online" | "offline"): void {
    const topic = topicOf(this.#options.device, "status");
    client.publish(topic, JSON.stringify({ state }), { qos: 1, retain: true }, () => undefined);
  }

  #openQueue(client: MqttClient): void {
    const topic = topicOf(this.#options.device, "record");
    const send = (record: Uint8Array, acknowledged: () => void): void => {
      client.publish(topic, Buffer.from(record), { qos: 1 }, (error) => {
        if (this.#isEnded) return;
        if (error && typeof (error as { code?: unknown }).code === "number")
          this.hangUp(`the broker refused a record: ${error.message}`);
        if (!error) acknowledged();
      });
    };
    const queue = new PublishQueue(send, () => performance.now(), this.#receiveMaximum);
    this.#queue = queue;
    this.#stallTimer = setInterval(() => {
      const stalledMs = queue.stalledMs();
      if (stalledMs !== undefined)
        this.hangUp(`the broker has acknowledged nothing for ${Math.round(stalledMs / 1_000)} s`);
      else if (queue.overtakenMs() !== undefined)
        this.hangUp("the broker has acknowledged later records and left one out");
    }, stallCheckMs);
  }

  /** Says goodbye where it is open, and ends; onClosed is not called. */
  async stop(): Promise<void> {
    const { isOpen } = this;
    this.#isEnded = true;
    this.#queue = undefined;
    clearInterval(this.#stallTimer);
    clearTimeout(this.#answerTimer);
    const client = this.#client;
    if (!client) return;
    if (isOpen) this.#publishState(client, "offline");
    await new Promise<void>((resolve) => {
      const hard = setTimeout(() => client.end(true, {}, () => resolve()), stopTimeoutMs);
      client.end(!isOpen, {}, () => {
        clearTimeout(hard);
        resolve();
      });
    });
  }
}

/** OpenSSL's errors are `thread:error:code:library:function:what:file:line:more` with a line's end: what remains is what it says. */
function sentenceOf(message: string): string {
  return message.replace(/^[0-9A-F]+:error:[0-9A-F]+:([^:]*):[^:]*:([^:]*):.*$/s, "$1: $2").trim();
}

/**
 * Between the broker and the record path: subscribes to the records of all devices, publishes receipts. Keeps trying for ever
 * with a growing, jittered delay. Each connection is a new client object, so nothing of an old one lingers in memory: what
 * was not delivered comes again, because devices keep their records until they have a receipt.
 */
import type { Socket } from "node:net";
import { setTimeout } from "node:timers/promises";
import mqtt, { type IClientOptions, type MqttClient } from "mqtt";
import { BackOff } from "../platform/back-off.ts";
import type { Log } from "../platform/log.ts";
import { guardMqttStream } from "../platform/mqtt-packet-guard.ts";
import { topicFilter, topicOf } from "../protocol/mqtt-topic.ts";
import type { OutgoingReceipt } from "./record-event.ts";

/** A record of the largest size, its topic, and what a broker may add. */
export const mqttPacketBytesMax = 65_536;
/** Client ids of nodes. A hub's is `ecp-z…`. */
export const nodeClientIdStart = "ecp-node-";
/** Receipts on their way: far below the 65,535 packet identifiers after which mqtt.js stops for ever. */
export const receiptsInFlightMax = 1_000;
const connectTimeoutMs = 10_000;
const closeTimeoutMs = 3_000;
const keepaliveS = 30;
/** A connection that lasted so long was a good one: after it, the first delay is short again. */
const stableMs = 2_000;

export interface BrokerAddress {
  readonly host: string;
  readonly port: number;
  readonly username?: string;
  readonly password?: string;
  /** Where it is known that the broker speaks 3.1.1 only. */
  readonly protocolVersion?: 4;
}

export type MqttVersion = "5" | "3.1.1";

export interface IntakeParts {
  readonly broker: BrokerAddress;
  /** At most 23 characters (MQTT 3.1.1 §3.1.3.1). The same at each start. */
  readonly clientId: string;
  /** The broker gives each record to one node of this group (MQTT 5 §4.8.2; mosquitto does so for 3.1.1 too). */
  readonly shareGroup?: string;
  readonly onMessage: (topic: string, payload: Uint8Array) => void;
  /** Subscribed, over this version of MQTT; undefined: not any more. */
  readonly onConnected?: (version: MqttVersion | undefined) => void;
  readonly log: Log;
  readonly backOff?: BackOff;
}

export class MqttIntake {
  readonly #parts: IntakeParts;
  readonly #backOff: BackOff;
  /** The newest receipts of each chain that are not on their way yet: one, or several that were given together. */
  readonly #outbox = new Map<string, OutgoingReceipt[]>();
  #client: MqttClient | undefined;
  #subscribed = false;
  #inFlight = 0;
  #retry: NodeJS.Timeout | undefined;
  #closed = false;
  #protocolVersion: 4 | 5;

  constructor(parts: IntakeParts) {
    this.#parts = parts;
    this.#protocolVersion = parts.broker.protocolVersion ?? 5;
    this.#backOff = parts.backOff ?? new BackOff({ firstMs: 500, longestMs: 30_000 });
    this.#connect();
  }

  /** Puts receipts on their way; where the broker is away they wait, the newest of each chain. */
  publish(receipts: readonly OutgoingReceipt[]): void {
    const given = new Map<string, OutgoingReceipt[]>();
    for (const receipt of receipts) {
      const key = `${receipt.device}/${receipt.epoch}`;
      const together = given.get(key);
      if (together) together.push(receipt);
      else given.set(key, [receipt]);
    }
    for (const [key, together] of given) this.#outbox.set(key, together);
    this.#send();
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    const client = this.#client;
    if (client === undefined) return;
    this.#client = undefined;
    // Receipts that are on their way are waited for, but not for ever: a broker may have stopped answering.
    const deadline = new AbortController();
    const late = setTimeout(closeTimeoutMs, undefined, { signal: deadline.signal }).catch(() => undefined);
    await Promise.race([client.endAsync(!client.connected), late]);
    deadline.abort();
    client.stream.destroy();
  }

  #connect(): void {
    const { broker, clientId, log, shareGroup } = this.#parts;
    const filter = shareGroup === undefined ? topicFilter("record") : `$share/${shareGroup}/${topicFilter("record")}`;
    const where = `${broker.host}:${broker.port}`;
    const options: IClientOptions = {
      host: broker.host,
      port: broker.port,
      protocol: "mqtt",
      protocolVersion: this.#protocolVersion,
      clientId,
      // The broker keeps records for a node that is away, if it can; nothing depends on it. Of a group another node takes them.
      clean: shareGroup !== undefined,
      ...(this.#protocolVersion === 5 && {
        properties: {
          sessionExpiryInterval: shareGroup === undefined ? 86_400 : 0,
          maximumPacketSize: mqttPacketBytesMax,
        },
      }),
      ...(broker.username !== undefined && { username: broker.username }),
      ...(broker.password !== undefined && { password: broker.password }),
      keepalive: keepaliveS,
      connectTimeout: connectTimeoutMs,
      reconnectPeriod: 0, // one client, one connection
      resubscribe: false,
      queueQoSZero: false,
    };
    const client = mqtt.connect(options);
    this.#client = client;
    let problem = "the connection was closed";
    let connected = false;
    let subscribedAtMs = Number.POSITIVE_INFINITY;
    // mqtt.js looks at the size of a packet only when it has gathered all of it.
    guardMqttStream(client.stream, { bytesMax: mqttPacketBytesMax, qosMax: 1 }, (got) => {
      problem = `the broker sent ${got}; expected: at most ${mqttPacketBytesMax} bytes, QoS 0 or 1`;
    });
    client.on("connect", () => {
      connected = true;
      // With Nagle's algorithm a receipt would wait for the other side's delayed acknowledgement (40 ms).
      (client.stream as Partial<Socket>).setNoDelay?.(true);
      client.subscribe(filter, { qos: 1 }, (error, granted) => {
        if (error || granted?.some(({ qos }) => qos > 2)) {
          problem = `the broker refused the subscription to ${filter}`;
          client.end(true);
          return;
        }
        if (client !== this.#client) return;
        this.#subscribed = true;
        subscribedAtMs = performance.now();
        const version = options.protocolVersion === 5 ? "5" : "3.1.1";
        log.info("connected to the broker", { where, mqtt: version });
        this.#parts.onConnected?.(version);
        this.#send();
      });
    });
    client.on("message", (topic, payload) => this.#parts.onMessage(topic, payload));
    client.on("error", (error) => {
      problem = error.message || ("code" in error ? String(error.code) : problem);
    });
    client.once("close", () => {
      client.end(true);
      if (client !== this.#client) return;
      this.#client = undefined;
      this.#inFlight = 0;
      if (this.#subscribed) this.#parts.onConnected?.(undefined);
      this.#subscribed = false;
      if (this.#closed) return;
      if (!connected && !isUnreachable(problem) && broker.protocolVersion === undefined) {
        // A broker that only knows 3.1.1 says so, or just hangs up: the next try speaks 3.1.1, the one after it 5 again.
        this.#protocolVersion = this.#protocolVersion === 5 ? 4 : 5;
        if (this.#protocolVersion === 4 && /protocol version/i.test(problem)) return this.#connect();
      }
      if (performance.now() - subscribedAtMs >= stableMs) this.#backOff.reset();
      const delayMs = this.#backOff.next();
      log.warn("no connection to the broker; trying again", {
        where,
        got: problem,
        tries: this.#backOff.failures,
        nextMs: delayMs,
        todo: adviceOn(problem, where),
      });
      this.#retry = globalThis.setTimeout(() => this.#connect(), delayMs);
    });
  }

  #send(): void {
    const client = this.#client;
    if (client === undefined || !this.#subscribed) return;
    for (const [key, together] of this.#outbox) {
      while (this.#inFlight < receiptsInFlightMax) {
        const receipt = together.shift();
        if (receipt) this.#publish(client, receipt);
        else break;
      }
      if (together.length > 0) return;
      this.#outbox.delete(key);
    }
  }

  #publish(client: MqttClient, { device, bytes }: OutgoingReceipt): void {
    this.#inFlight++;
    client.publish(topicOf(device, "receipt"), Buffer.from(bytes), { qos: 1 }, () => {
      if (client !== this.#client) return;
      this.#inFlight--;
      this.#send();
    });
  }
}

function isUnreachable(problem: string): boolean {
  return /ECONNREFUSED|ENOTFOUND|EHOSTUNREACH|ENETUNREACH|ETIMEDOUT|EAI_AGAIN/.test(problem);
}

function adviceOn(problem: string, where: string): string {
  if (/not authori[sz]ed|bad user name|Bad username/i.test(problem))
    return "check --username and --password-file, and the broker's list of users";
  if (problem.includes("subscription")) return "let this user read ecp/1/+/record in the broker's access list";
  return `check that the broker runs and listens at ${where}; devices keep their records meanwhile`;
}

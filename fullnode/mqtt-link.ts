/**
 * A connection to a broker that is tried for ever, with a growing, jittered delay. Each connection is a new client object, so nothing of
 * an old one lingers in memory.
 */
import type { Socket } from "node:net";
import { setTimeout } from "node:timers/promises";
import { getCACertificates } from "node:tls";
import mqtt, { type IClientOptions, type MqttClient } from "mqtt";
import { BackOff } from "../platform/back-off.ts";
import type { Log } from "../platform/log.ts";
import { guardMqttStream } from "../platform/mqtt-packet-guard.ts";

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
  /** Given: encrypted. PEM; without an authority those that Node and this machine trust. */
  readonly tls?: { readonly ca?: Buffer; readonly cert?: Buffer; readonly key?: Buffer };
}

export type MqttVersion = "5" | "3.1.1";

export interface MqttLinkParts {
  readonly broker: BrokerAddress;
  /** At most 23 characters (MQTT 3.1.1 §3.1.3.1). */
  readonly clientId: string;
  readonly filters: readonly string[];
  readonly qos: 0 | 1;
  /** How long the broker keeps messages for a client that is away, if it can; 0: not at all. */
  readonly sessionExpiryS: number;
  readonly packetBytesMax: number;
  /** Which broker it is, as the log names it: "the broker". */
  readonly name: string;
  /** What to look at where the user is refused, a subscription is, or nothing answers. */
  readonly advice: { readonly user: string; readonly subscription: string; readonly absent: string };
  readonly onMessage: (topic: string, payload: Uint8Array) => void;
  /** Subscribed, over this version of MQTT; undefined: not any more. */
  readonly onConnected: (version: MqttVersion | undefined) => void;
  readonly log: Log;
  readonly backOff?: BackOff;
}

export class MqttLink {
  readonly #parts: MqttLinkParts;
  readonly #backOff: BackOff;
  #client: MqttClient | undefined;
  #subscribed = false;
  #retry: NodeJS.Timeout | undefined;
  #closed = false;
  #protocolVersion: 4 | 5;

  constructor(parts: MqttLinkParts) {
    this.#parts = parts;
    this.#protocolVersion = parts.broker.protocolVersion ?? 5;
    this.#backOff = parts.backOff ?? new BackOff({ firstMs: 500, longestMs: 30_000 });
    this.#connect();
  }

  /** Whether something may be published. */
  get isConnected(): boolean {
    return this.#client !== undefined && this.#subscribed;
  }

  /** @param done it has left, or the broker has acknowledged it; not called where the connection was lost before */
  publish(topic: string, payload: string | Uint8Array, qos: 0 | 1, done?: () => void): void {
    const client = this.#client;
    if (client === undefined) return;
    const bytes = typeof payload === "string" ? payload : Buffer.from(payload);
    client.publish(topic, bytes, { qos }, () => {
      if (client === this.#client) done?.();
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    const client = this.#client;
    if (client === undefined) return;
    this.#client = undefined;
    // What is on its way is waited for, but not for ever: a broker may have stopped answering.
    const deadline = new AbortController();
    const late = setTimeout(closeTimeoutMs, undefined, { signal: deadline.signal }).catch(() => undefined);
    await Promise.race([client.endAsync(!client.connected), late]);
    deadline.abort();
    client.stream.destroy();
  }

  #connect(): void {
    const { broker, log, filters, qos, packetBytesMax, name } = this.#parts;
    const where = `${broker.host}:${broker.port}`;
    const client = mqtt.connect(this.#options());
    this.#client = client;
    let problem = "the connection was closed";
    let connected = false;
    let subscribedAtMs = Number.POSITIVE_INFINITY;
    // mqtt.js looks at the size of a packet only when it has gathered all of it.
    guardMqttStream(client.stream, { bytesMax: packetBytesMax, qosMax: 1 }, (got) => {
      problem = `the broker sent ${got}; expected: at most ${packetBytesMax} bytes, QoS 0 or 1`;
    });
    client.on("connect", () => {
      connected = true;
      // With Nagle's algorithm a receipt would wait for the other side's delayed acknowledgement (40 ms).
      (client.stream as Partial<Socket>).setNoDelay?.(true);
      client.subscribe([...filters], { qos }, (error, granted) => {
        if (error || granted?.some((one) => one.qos > 2)) {
          problem = `the broker refused the subscription to ${filters.join(", ")}`;
          client.end(true);
          return;
        }
        if (client !== this.#client) return;
        this.#subscribed = true;
        subscribedAtMs = performance.now();
        const version = client.options.protocolVersion === 5 ? "5" : "3.1.1";
        log.info(`connected to ${name}`, { where, mqtt: version });
        this.#parts.onConnected(version);
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
      const wasSubscribed = this.#subscribed;
      this.#subscribed = false;
      if (wasSubscribed) this.#parts.onConnected(undefined);
      if (this.#closed) return;
      if (!connected && !isUnreachable(problem) && broker.protocolVersion === undefined) {
        // A broker that only knows 3.1.1 says so, or just hangs up: the next try speaks 3.1.1, the one after it 5 again.
        this.#protocolVersion = this.#protocolVersion === 5 ? 4 : 5;
        if (this.#protocolVersion === 4 && /protocol version/i.test(problem)) return this.#connect();
      }
      if (performance.now() - subscribedAtMs >= stableMs) this.#backOff.reset();
      const delayMs = this.#backOff.next();
      log.warn(`no connection to ${name}; trying again`, {
        where,
        got: problem,
        tries: this.#backOff.failures,
        nextMs: delayMs,
        todo: this.#adviceOn(problem, where),
      });
      this.#retry = globalThis.setTimeout(() => this.#connect(), delayMs);
    });
  }

  #options(): IClientOptions {
    const { broker, clientId, sessionExpiryS, packetBytesMax } = this.#parts;
    const { host, port, username, password, tls } = broker;
    return {
      host,
      port,
      protocol: tls ? "mqtts" : "mqtt",
      protocolVersion: this.#protocolVersion,
      clientId,
      clean: sessionExpiryS === 0,
      ...(this.#protocolVersion === 5 && {
        properties: { sessionExpiryInterval: sessionExpiryS, maximumPacketSize: packetBytesMax },
      }),
      ...(username !== undefined && { username }),
      ...(password !== undefined && { password }),
      ...(tls && { ...tls, ...authoritiesOf(tls) }),
      keepalive: keepaliveS,
      connectTimeout: connectTimeoutMs,
      reconnectPeriod: 0, // one client, one connection
      resubscribe: false,
      queueQoSZero: false,
    };
  }

  #adviceOn(problem: string, where: string): string {
    const { user, subscription, absent } = this.#parts.advice;
    if (/not authori[sz]ed|bad user name|Bad username/i.test(problem)) return user;
    if (problem.includes("subscription")) return subscription;
    return `check that the broker runs and listens at ${where}; ${absent}`;
  }
}

function authoritiesOf(tls: NonNullable<BrokerAddress["tls"]>) {
  // mqtt.js hands an array on to node:tls, and its type knows only one.
  return tls.ca ? {} : { ca: [...getCACertificates("default"), ...getCACertificates("system")] as unknown as Buffer };
}

function isUnreachable(problem: string): boolean {
  return /ECONNREFUSED|ENOTFOUND|EHOSTUNREACH|ENETUNREACH|ETIMEDOUT|EAI_AGAIN/.test(problem);
}

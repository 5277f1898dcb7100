/**
 * Records to a full node over MQTT, its receipts back. Of several brokers the first that works is used, and after a while on
 * a later one the better ones are tried beside it. Connects again by itself, at a growing distance that is left to chance, so that the
 * hubs of a broker that was away do not all return in the same second.
 */
import { BackOff } from "../platform/back-off.ts";
import { addressOf } from "./broker-stream.ts";
import type { MqttConfiguration } from "./configuration.ts";
import { type BrokerVersion, MqttConnection } from "./mqtt-connection.ts";
import type { Lane } from "./send-window.ts";
import type { Uplink, UplinkPolicy } from "./uplink.ts";

/** The first delay is chance up to this; a broker on the same machine serves this hub alone. */
const reconnectFirstMs = 10_000;
const reconnectFirstLoopbackMs = 500;
const reconnectLongestMs = 120_000;
const loopbackHosts = new Set(["127.0.0.1", "::1", "localhost"]);
/** A connection that lasted so long was a good one: after it, the first delay is short again. */
const stableMs = 2_000;
/** How long a later broker is used before better ones are tried again. */
const returnAfterMs = 600_000;

export interface MqttUplinkOptions {
  /** In the order of preference; at least one. */
  readonly brokers: readonly MqttConfiguration[];
  /** Multibase part of the device's did:key. */
  readonly device: string;
  readonly onReceipt: (receipt: Uint8Array) => void;
  /** Called when a connection can be used, and with the reason when one has gone or a try has failed. */
  readonly onState: (connected: boolean, detail?: string) => void;
  readonly backOff?: BackOff;
  readonly returnAfterMs?: number;
  /** The machine has just booted, and many others of its street perhaps with it: the first try waits its chance too. */
  readonly hasJustBooted?: boolean;
}

interface Broker {
  readonly configuration: MqttConfiguration;
  readonly version: BrokerVersion;
}

/** Full jitter: any time up to the limit is as likely (of 10,000 hubs 1,500 at most in the fullest second). */
export function reconnectBackOff(
  { host, reconnectFirstMs: firstMs }: MqttConfiguration,
  random = Math.random,
): BackOff {
  const usualMs = loopbackHosts.has(host) ? reconnectFirstLoopbackMs : reconnectFirstMs;
  return new BackOff({ firstMs: firstMs ?? usualMs, longestMs: reconnectLongestMs, jitter: 1, random });
}

export class MqttUplink implements Uplink {
  readonly device: string;
  readonly #options: MqttUplinkOptions;
  readonly #brokers: readonly Broker[];
  readonly #backOff: BackOff;
  /** The broker that is used, or was tried last. */
  #place = 0;
  #connection: MqttConnection | undefined;
  /** To a better broker, while the other one is used. */
  #trial: MqttConnection | undefined;
  #timer: NodeJS.Timeout | undefined;
  #returnTimer: NodeJS.Timeout | undefined;
  #openedAtMs = 0;
  #stopped = false;

  constructor(options: MqttUplinkOptions) {
    this.#options = options;
    this.device = options.device;
    this.#brokers = options.brokers.map((configuration) => ({
      configuration,
      version: { protocolVersion: 5, isProven: false },
    }));
    this.#backOff = options.backOff ?? reconnectBackOff(this.#brokerAt(0).configuration);
  }

  #brokerAt(place: number): Broker {
    return this.#brokers[place] as Broker;
  }
  get #broker(): Broker {
    return this.#brokerAt(this.#place);
  }

  /** Of the broker that is used, or was tried last. */
  get address(): string {
    return addressOf(this.#broker.configuration);
  }
  get isConnected(): boolean {
    return this.#connection?.isOpen === true;
  }
  /** The version in use, or to be tried next: 4 is 3.1.1. */
  get protocolVersion(): 4 | 5 {
    return this.#broker.version.protocolVersion;
  }
  get policy(): UplinkPolicy {
    return { backlog: this.#broker.configuration.carries !== "newest" };
  }

  start(): void {
    if (this.#stopped) return;
    const { hasJustBooted, brokers } = this.#options;
    if (hasJustBooted && !loopbackHosts.has(brokers[0]?.host ?? "")) this.#connectLater(0);
    else this.#connect(0);
  }

  #connect(place: number): void {
    if (this.#stopped) return;
    this.#place = place;
    this.#connection = this.#open(place);
  }

  #open(place: number): MqttConnection {
    const { device, onReceipt } = this.#options;
    const { configuration, version } = this.#brokerAt(place);
    const connection = new MqttConnection({
      ...{ broker: configuration, version, device, onReceipt },
      onOpen: () => {
        if (connection === this.#trial) this.#change(connection, place);
        this.#opened();
      },
      onClosed: (reason, isOurs) => {
        if (connection === this.#trial) this.#tried(place, reason);
        else if (connection === this.#connection) this.#closed(reason, isOurs);
      },
    });
    return connection;
  }

  #opened(): void {
    this.#openedAtMs = performance.now();
    if (this.#place > 0) this.#returnLater();
    this.#options.onState(true);
  }

  #closed(reason: string | undefined, isOurs: boolean): void {
    if (this.#stopped) return;
    const openMs = this.#openedAtMs > 0 ? performance.now() - this.#openedAtMs : 0;
    this.#openedAtMs = 0;
    this.#connection = undefined;
    clearTimeout(this.#returnTimer);
    if (reason === undefined) {
      this.#connect(this.#place);
      return;
    }
    if (openMs >= stableMs) this.#backOff.reset();
    this.#options.onState(false, reason);
    if (this.#trial) return; // it decides what comes next
    // One that lets in, and then takes no records, must not keep a hub from the next one.
    const wasGood = openMs >= stableMs && !isOurs;
    this.#connectLater(wasGood ? 0 : (this.#place + 1) % this.#brokers.length);
  }

  #connectLater(place: number): void {
    this.#timer = setTimeout(() => this.#connect(place), this.#backOff.next());
  }

  #returnLater(): void {
    const delayMs = (this.#options.returnAfterMs ?? returnAfterMs) * (0.5 + Math.random());
    this.#returnTimer = setTimeout(() => this.#try(0), delayMs);
  }

  /** Tries a better broker beside the one in use, which is left only once the better one works. */
  #try(place: number): void {
    if (this.#stopped) return;
    if (place >= this.#place) {
      this.#returnLater();
      return;
    }
    this.#trial = this.#open(place);
  }

  #change(connection: MqttConnection, place: number): void {
    const before = this.#connection;
    this.#trial = undefined;
    this.#connection = connection;
    this.#place = place;
    this.#backOff.reset();
    void before?.stop();
  }

  #tried(place: number, reason: string | undefined): void {
    this.#trial = undefined;
    if (reason === undefined) this.#try(place);
    else if (this.#connection) this.#try(place + 1);
    else this.#connectLater(0);
  }

  takes(lane: Lane): boolean {
    return this.#connection?.queue?.takes(lane) === true;
  }

  /** Hands a record to the connection; false where there is none. That it arrived only a receipt can say. */
  publish(record: Uint8Array, lane: Lane, onLeft: () => void): boolean {
    const queue = this.#connection?.queue;
    if (!queue) return false;
    queue.push(record, lane, onLeft);
    return true;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#returnTimer);
    await Promise.all([this.#connection?.stop(), this.#trial?.stop()]);
    this.#connection = undefined;
  }
}

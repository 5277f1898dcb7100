/** Plain values of the hub's own readings for the home that it stands in, over a connection of its own (platform/home-link.ts). */
import { connect } from "mqtt";
import { HomeLink } from "../platform/home-link.ts";
import type { Log } from "../platform/log.ts";
import { version } from "../platform/version.ts";
import { type HomeMeter, homeAvailabilityTopic, homeDiscovery, homeValue } from "../protocol/home-assistant.ts";
import { quantityOfName } from "../protocol/quantity.ts";
import type { HomeConfiguration, MeterConfiguration } from "./configuration.ts";
import type { AgentEvent } from "./event.ts";

/** So many readings may be missing before a value counts as unavailable, and so long at least. */
const expireReadings = 3;
const expireMinS = 60;

export interface HomeValuesOptions {
  readonly home: HomeConfiguration;
  readonly meters: readonly MeterConfiguration[];
  readonly log: Log;
  readonly nowMs: () => number;
}

export class HomeValues {
  readonly #options: HomeValuesOptions;
  readonly #publishedMs = new Map<string, number>();
  /** Codes of each meter that were seen: what is described. */
  readonly #seen = new Map<number, Set<number>>();
  #link: HomeLink | undefined;
  #device = "";

  constructor(options: HomeValuesOptions) {
    this.#options = options;
  }

  /** Takes an event of the agent; `device` is the multibase name, undefined before the wallet was met. */
  take(event: AgentEvent, device: string | undefined): void {
    if (event.event !== "reading" || event.status !== "G" || device === undefined) return;
    if (device !== this.#device) this.#start(device);
    const configuration = this.#options.meters.find(({ index }) => index === event.meter);
    if (configuration === undefined) return;
    const meter = this.#meterOf(configuration);
    const seen = this.#seen.get(event.meter) ?? new Set();
    this.#seen.set(event.meter, seen);
    for (const [name, value] of Object.entries(event.values)) {
      const code = quantityOfName(name)?.code;
      if (code === undefined) continue;
      if (!seen.has(code)) {
        seen.add(code);
        this.#describe(meter, code);
      }
      const message = homeValue(meter, code, value);
      if (message && this.#isDue(message.topic)) this.#link?.publish(message.topic, message.payload);
    }
  }

  /** Not more often than asked for; a reading that comes a little early counts as on time. */
  #isDue(topic: string): boolean {
    const nowMs = this.#options.nowMs();
    const everyMs = this.#options.home.everyS * 1_000;
    const last = this.#publishedMs.get(topic);
    if (last !== undefined && nowMs - last < everyMs - Math.min(500, everyMs / 2)) return false;
    this.#publishedMs.set(topic, nowMs);
    return true;
  }

  #meterOf({ index, name, intervalS, energyIntervalS = intervalS }: MeterConfiguration): HomeMeter {
    const expireAfterS = Math.max(expireMinS, expireReadings * Math.max(energyIntervalS, this.#options.home.everyS));
    return { source: "hub", device: this.#device, meter: index, name, expireAfterS };
  }

  #describe(meter: HomeMeter, code: number): void {
    const message = homeDiscovery(meter, code, this.#device, version);
    if (message) this.#link?.publish(message.topic, message.payload, true);
  }

  #start(device: string): void {
    void this.#link?.stop();
    this.#device = device;
    const { home, meters, log } = this.#options;
    const address = `${home.broker.protocol}://${home.broker.host}:${home.broker.port}`;
    this.#link = new HomeLink({
      broker: home.broker,
      clientId: `ecp-home-${device.slice(-12)}`,
      availabilityTopic: homeAvailabilityTopic("hub", device),
      connect: ({ broker: { username, password, ca, ...where }, keepaliveS, connectTimeoutMs, ...rest }) =>
        connect({
          ...where,
          ...rest,
          protocolVersion: 4,
          keepalive: keepaliveS,
          connectTimeout: connectTimeoutMs,
          reconnectPeriod: 0,
          queueQoSZero: false,
          ...(username !== undefined && { username }),
          ...(password && { password: password() }),
          ...(ca && { ca: ca() }),
        }),
      onConnected: () => {
        log.info("home broker connected", { address });
        for (const [index, codes] of this.#seen) {
          const meter = meters.find((one) => one.index === index);
          if (meter) for (const code of codes) this.#describe(this.#meterOf(meter), code);
        }
      },
      onLost: (reason) => log.warn("no connection to the home's broker; trying again", { address, got: reason }),
    });
    this.#link.start();
  }

  async stop(): Promise<void> {
    await this.#link?.stop();
  }
}

/**
 * Plain values of chosen devices for a home, from the records that the full node has stored: the newest row of each meter, if it is
 * good. A backlog that is drained is skipped, and an epoch that is held is not shown.
 */
import mqtt from "mqtt";
import { type HomeBroker, HomeLink } from "../platform/home-link.ts";
import type { Log } from "../platform/log.ts";
import { version } from "../platform/version.ts";
import { decodeCose } from "../protocol/cose-sign1.ts";
import { type HomeMeter, homeAvailabilityTopic, homeDiscovery, homeValue } from "../protocol/home-assistant.ts";
import { clockStates, statuses } from "../protocol/reading-status.ts";
import { decodeRecordPayload } from "../protocol/record.ts";
import type { StoredEvent } from "./record-event.ts";
import type { Store } from "./store.ts";

/** Records of a device that wait to be looked at; of more the oldest are skipped: they are a backlog. */
const waitingMax = 64;
const lookEveryMs = 1_000;
/** A record comes once a batch, and may wait on its way. */
const expireSlots = 4;
const expireMinS = 7_200;

export interface NodeHomeOptions {
  readonly broker: HomeBroker;
  /** Multibase names of the devices that may be shown; others never are. */
  readonly devices: readonly string[];
}

export interface NodeHomeParts extends NodeHomeOptions {
  readonly store: Pick<Store, "device" | "recordBytes">;
  /** Tells this node's connection from others at the broker. */
  readonly nodeName: string;
  readonly log: Log;
}

interface Described {
  readonly meter: HomeMeter;
  /** When the value of each code was that is shown. */
  readonly codes: Map<number, number>;
}

export class NodeHome {
  readonly #parts: NodeHomeParts;
  readonly #link: HomeLink;
  readonly #waiting: ReadonlyMap<string, StoredEvent[]>;
  readonly #described = new Map<string, Described>();
  readonly #timer: NodeJS.Timeout;
  #looking: Promise<void> = Promise.resolve();

  constructor(parts: NodeHomeParts) {
    this.#parts = parts;
    const { broker, devices, nodeName, log } = parts;
    this.#waiting = new Map(devices.map((name) => [name, []]));
    const address = `${broker.protocol}://${broker.host}:${broker.port}`;
    this.#link = new HomeLink({
      broker,
      clientId: `ecp-home-${nodeName}`,
      availabilityTopic: homeAvailabilityTopic("node", nodeName),
      connect: ({ broker: { username, password, ca, ...where }, keepaliveS, connectTimeoutMs, ...rest }) =>
        mqtt.connect({
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
        for (const { meter, codes } of this.#described.values())
          for (const code of codes.keys()) this.#describe(meter, code);
      },
      onLost: (reason) => log.warn("no connection to the home's broker; trying again", { address, got: reason }),
    });
    this.#link.start();
    this.#timer = setInterval(() => this.#lookSoon(), lookEveryMs).unref();
  }

  /** A record was stored; `device` is its did:key. */
  stored(event: StoredEvent): void {
    const waiting = this.#waiting.get(event.device.replace(/^did:key:/, ""));
    if (waiting === undefined || event.state === "held") return;
    waiting.push(event);
    if (waiting.length > waitingMax) waiting.shift();
  }

  #lookSoon(): void {
    this.#looking = this.#looking.then(() =>
      this.#look().catch((error: Error) =>
        this.#parts.log.warn("values for the home were left out", { got: error.message }),
      ),
    );
  }

  async #look(): Promise<void> {
    for (const [name, waiting] of this.#waiting) {
      if (waiting.length === 0) continue;
      const device = await this.#parts.store.device(name);
      if (device === undefined) continue;
      for (const { epoch, sequence } of waiting.splice(0)) {
        const bytes = await this.#parts.store.recordBytes(device.id, { epoch, sequence });
        if (bytes) this.#show(name, device.meters, bytes);
      }
    }
  }

  #show(name: string, meters: readonly { readonly index: number; readonly name: string }[], bytes: Uint8Array): void {
    const content = decodeRecordPayload(decodeCose(bytes).payload);
    // The thinner rows of a LoRaWAN batch, too: where the full ones have come they are no newer, and show nothing.
    if (content.kind !== "reading" || content.clockState === clockStates.relative) return;
    const row = content.rows.findLast(({ status }) => status === statuses.good);
    if (row === undefined) return;
    const key = `${name}/${content.meter}`;
    const batchS = (content.rows.at(-1)?.timeS ?? 0) - (content.rows[0]?.timeS ?? 0);
    const expireAfterS = Math.max(expireMinS, expireSlots * Math.max(content.slotS, batchS));
    const named = meters.find(({ index }) => index === content.meter)?.name ?? `meter ${content.meter}`;
    const described = this.#described.get(key) ?? {
      meter: { source: "node", device: name, meter: content.meter, name: named, expireAfterS },
      codes: new Map<number, number>(),
    };
    this.#described.set(key, described);
    for (const [place, code] of content.codes.entries()) {
      const shownS = described.codes.get(code);
      if (shownS !== undefined && shownS >= row.timeS) continue;
      described.codes.set(code, row.timeS);
      if (shownS === undefined) this.#describe(described.meter, code);
      const value = row.values[place];
      const message = value === undefined ? undefined : homeValue(described.meter, code, value);
      if (message) this.#link.publish(message.topic, message.payload);
    }
  }

  #describe(meter: HomeMeter, code: number): void {
    const message = homeDiscovery(meter, code, this.#parts.nodeName, version);
    if (message) this.#link.publish(message.topic, message.payload, true);
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#looking;
    await this.#link.stop();
  }
}

/**
 * Downlinks that wait for their device at the network server. A Class A device hears one after each of its uplinks, so a queue there would
 * deliver what is long out of date: of SCHC answers and of receipts at most one each waits for a device. A server whose queue can be
 * replaced gets the newest in the place of what waits; at another one the newest is held here until that has gone.
 */
import type { Clock } from "../platform/clock.ts";
import type { LorawanCommand, LorawanRoute, NetworkServer, QueuedDownlink } from "./lorawan-uplink.ts";

/**
 * A SCHC answer that waits longer may meet another packet on its port. A device that gets none asks again.
 */
const answerExpiresMs = 3_600_000;
/** A receipt is never wrong later: it may wait for the next batch of a device that sends one a day. */
const receiptExpiresMs = 26 * 3_600_000;
/** After so many uplinks the server has sent what it had, or has lost it, whether it says so or not. */
const uplinksMax = 4;

export type DownlinkKind = "answer" | "receipt";

interface Waiting {
  readonly downlink: QueuedDownlink;
  /** The uplinks since, each of which could have fetched it. */
  uplinks: number;
}

interface Slot {
  waiting: Waiting | undefined;
  /** To be queued when what waits has gone. */
  next: { readonly fPort: number; readonly bytes: Uint8Array } | undefined;
}

interface DeviceQueue {
  route: LorawanRoute;
  readonly slots: Readonly<Record<DownlinkKind, Slot>>;
}

export interface DownlinkParts {
  readonly server: Pick<NetworkServer, "command" | "replaces">;
  /** Returns false where it cannot be sent now: then it is dropped, and the device asks again. */
  readonly publish: (command: LorawanCommand) => boolean;
  readonly clock: Clock;
  /** Gives a UUID. */
  readonly newId: () => string;
}

export class LorawanDownlinks {
  readonly #parts: DownlinkParts;
  /** By {@link LorawanRoute.topic}. */
  readonly #devices = new Map<string, DeviceQueue>();
  /** By DevEUI: where a modem is reached. One has one place, however many names a server gives it. */
  readonly #topics = new Map<string, string>();
  readonly #counts = { queued: 0, sent: 0, failed: 0 };

  constructor(parts: DownlinkParts) {
    this.#parts = parts;
  }

  get counts(): { readonly queued: number; readonly sent: number; readonly failed: number } {
    return { ...this.#counts };
  }

  /** Devices for which something waits. */
  get size(): number {
    return this.#devices.size;
  }

  queue(route: LorawanRoute, kind: DownlinkKind, fPort: number, bytes: Uint8Array): void {
    const before = this.#topics.get(route.devEui);
    if (before !== undefined && before !== route.topic) this.#devices.delete(before);
    this.#topics.set(route.devEui, route.topic);
    const device = this.#devices.get(route.topic) ?? {
      route,
      slots: { answer: { waiting: undefined, next: undefined }, receipt: { waiting: undefined, next: undefined } },
    };
    device.route = route;
    this.#devices.set(route.topic, device);
    const slot = device.slots[kind];
    if (slot.waiting && slot.waiting.downlink.expiresMs <= this.#parts.clock.wallMs()) slot.waiting = undefined;
    if (slot.waiting && !this.#parts.server.replaces) slot.next = { fPort, bytes };
    else this.#send(device, kind, fPort, bytes);
    this.#forgetIfEmpty(device);
  }

  /** An uplink came: whatever waits had a chance to go. */
  heard({ topic }: LorawanRoute): void {
    const device = this.#devices.get(topic);
    if (device === undefined) return;
    for (const kind of ["answer", "receipt"] as const) {
      const { waiting } = device.slots[kind];
      if (waiting && ++waiting.uplinks > uplinksMax) this.#gone(device, kind);
    }
    this.#forgetIfEmpty(device);
  }

  /** What the server says of a downlink; one of somebody else's is none of ours. */
  settled(topic: string, id: string | undefined, state: "sent" | "failed"): void {
    const device = this.#devices.get(topic);
    if (device === undefined) return;
    for (const kind of ["answer", "receipt"] as const) {
      if (id === undefined || device.slots[kind].waiting?.downlink.id !== id) continue;
      this.#counts[state]++;
      this.#gone(device, kind);
    }
    this.#forgetIfEmpty(device);
  }

  /** Lets go of what has expired. To be called now and then. */
  expire(): void {
    const nowMs = this.#parts.clock.wallMs();
    for (const device of this.#devices.values()) {
      for (const kind of ["answer", "receipt"] as const) {
        const { waiting } = device.slots[kind];
        if (waiting && waiting.downlink.expiresMs <= nowMs) this.#gone(device, kind);
      }
      this.#forgetIfEmpty(device);
    }
  }

  #gone(device: DeviceQueue, kind: DownlinkKind): void {
    const slot = device.slots[kind];
    const { next } = slot;
    slot.waiting = undefined;
    slot.next = undefined;
    if (next) this.#send(device, kind, next.fPort, next.bytes);
  }

  #send(device: DeviceQueue, kind: DownlinkKind, fPort: number, bytes: Uint8Array): void {
    const { server, publish, clock, newId } = this.#parts;
    const nowMs = clock.wallMs();
    const expiresMs = nowMs + (kind === "answer" ? answerExpiresMs : receiptExpiresMs);
    const downlink: QueuedDownlink = { id: newId(), fPort, bytes, expiresMs };
    const other = device.slots[kind === "answer" ? "receipt" : "answer"].waiting?.downlink;
    const others = other && other.expiresMs > nowMs ? [other] : [];
    if (!publish(server.command(device.route, downlink, others))) return;
    this.#counts.queued++;
    device.slots[kind].waiting = { downlink, uplinks: 0 };
  }

  #forgetIfEmpty({ route, slots }: DeviceQueue): void {
    if (slots.answer.waiting !== undefined || slots.receipt.waiting !== undefined) return;
    this.#devices.delete(route.topic);
    if (this.#topics.get(route.devEui) === route.topic) this.#topics.delete(route.devEui);
  }
}

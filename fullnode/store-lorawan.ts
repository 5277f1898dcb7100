/** What the full node keeps for LoRaWAN: which device a DevEUI is, sessions of fragments, and the lease that one node at a time holds. */
import type { Awaitable } from "./store.ts";

/** A DevEUI and the device whose records come from it. A device may have several: its modem may have been exchanged. */
export interface LorawanBinding {
  /** 16 lower-case hexadecimal digits. */
  readonly devEui: string;
  /** Multibase part of the device's did:key. */
  readonly name: string;
  readonly boundMs: number;
}

/** What is remembered of a modem's frames. */
export interface LorawanCounters {
  readonly devEui: string;
  /** 8 hexadecimal digits, or empty. */
  readonly devAddr: string;
  /** Highest frame counter since the last join; -1: none. */
  readonly fCnt: number;
  /** How often the counter began anew. */
  readonly joins: number;
  /** When its last frame came. */
  readonly lastMs: number;
  /** When a receipt was last queued for it; 0: never. */
  readonly receiptMs: number;
}

export interface LorawanSession {
  readonly devEui: string;
  readonly port: number;
  readonly state: Uint8Array;
  /** Unix milliseconds of the node's clock. */
  readonly updatedMs: number;
}

export interface LorawanChanges {
  readonly counters: readonly LorawanCounters[];
  readonly sessions: readonly LorawanSession[];
  readonly ended: readonly Pick<LorawanSession, "devEui" | "port">[];
}

export interface LorawanStore {
  /** Undefined: bound from now on, or was so already. Otherwise the name of the device that has it: unbind it first. */
  bind(devEui: string, name: string, nowMs: number): Awaitable<string | undefined>;
  /** With what is kept of its frames. Returns whether it was bound. */
  unbind(devEui: string): Awaitable<boolean>;
  /** Ascending by DevEUI. */
  bindings(): Awaitable<readonly (LorawanBinding & LorawanCounters)[]>;
  sessions(): Awaitable<readonly LorawanSession[]>;
  /** In one transaction. Of DevEUIs that are not bound any more nothing is kept. */
  save(changes: LorawanChanges): Awaitable<void>;
  /**
   * Takes a lease that is free, has run out or is the holder's own, for `ttlMs` from now. An embedded store measures by the node's clock
   * (`nowMs`), a server by its own. Returns whether the holder has it.
   */
  takeLease(name: string, holder: string, ttlMs: number, nowMs: number): Awaitable<boolean>;
  releaseLease(name: string, holder: string): Awaitable<void>;
}

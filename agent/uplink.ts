/** A way out for records: MQTT today; a radio that carries little may come behind it. */
import type { Lane } from "./send-window.ts";

/** What may travel this way. */
export interface UplinkPolicy {
  /** False: only the newest records, never what waits from before. */
  readonly backlog: boolean;
}

export interface Uplink {
  /** For people. */
  readonly address: string;
  readonly isConnected: boolean;
  readonly policy: UplinkPolicy;
  /** Whether it has room for records of that lane now, and may carry them. */
  takes(lane: Lane): boolean;
  /**
   * Hands over a record; false where there is no connection or it may not go this way. `onLeft` is called once it is out of
   * this hub's hands (a broker's PUBACK); that it arrived only a receipt can say.
   */
  publish(record: Uint8Array, lane: Lane, onLeft: () => void): boolean;
  start(): void;
  stop(): Promise<void>;
}

/** The first in the order of priority that may carry records of that lane and takes them now. */
export function uplinkFor(uplinks: readonly Uplink[], lane: Lane): Uplink | undefined {
  return uplinks.find((uplink) => (lane === "live" || uplink.policy.backlog) && uplink.takes(lane));
}

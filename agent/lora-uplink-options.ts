/** What the LoRaWAN uplink is made of: everything that it touches is given, time and chance too. */
import type { LoraModem, LoraTiming } from "../drivers/lora/modem.ts";
import type { RegionName } from "../drivers/lora/region.ts";
import type { LoraRecordSource } from "./lora-record.ts";
import type { LoraStateStore } from "./lora-state-store.ts";
import type { LoraEvent, LoraState } from "./lora-status.ts";

export interface LoraUplinkOptions {
  readonly modem: LoraModem;
  readonly region: RegionName;
  readonly source: LoraRecordSource;
  readonly timing: LoraTiming;
  readonly store: LoraStateStore;
  /** Of this boot of the machine: the monotonic clock of another one counts from elsewhere. */
  readonly bootId: string;
  /** Most airtime in any 24 hours, in seconds; absent: only the region's law counts. */
  readonly fairUseSPerDay?: number;
  /** The 41 bytes that came down; only the wallet can say what they are worth. */
  readonly onReceipt: (bytes: Uint8Array) => void;
  readonly onState: (state: LoraState) => void;
  readonly emit: (event: LoraEvent) => void;
  /** 0 to below 1, as Math.random. */
  readonly random: () => number;
  /** How long after each try a record that no receipt named is sent again; the last delay stays. Milliseconds, jitter comes on top. */
  readonly repeatDelaysMs?: readonly number[];
  /** Rejoin after so long without any downlink though receipts were due; 0: never. */
  readonly linkDeadAfterMs?: number;
}

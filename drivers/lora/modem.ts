/** A LoRaWAN modem on a serial port, whatever its dialect. */
import type { Clock } from "../../platform/clock.ts";
import type { ByteTransport } from "../byte-transport.ts";
import { SerialModem } from "./modem-driver.ts";
import type { RegionName } from "./region.ts";

export const modemFamilies = ["rui3", "lora-e5", "rn2483", "at-slave"] as const;
/** RAK's RUI3 firmware; Seeed LoRa-E5; Microchip RN2483 and RN2903; ST's LoRaWAN_AT_Slave on an STM32WL (Murata and others). */
export type ModemFamily = (typeof modemFamilies)[number];

/** The speed at which each family leaves the factory, 8N1. */
export const factoryBauds: Readonly<Record<ModemFamily, number>> = {
  rui3: 115_200,
  "lora-e5": 9_600,
  rn2483: 57_600,
  "at-slave": 9_600,
};

/** What became of one frame. */
export type SendOutcome =
  /**
   * It was on the air, and its receive windows are closed. `transmissions`: so often, where the time that it took says more than once; a server
   * may ask for that (NbTrans), and no modem tells.
   */
  | { readonly kind: "sent"; readonly transmissions?: number }
  | { readonly kind: "busy"; readonly retryInMs?: number }
  | { readonly kind: "duty-cycle"; readonly retryInMs?: number }
  /** `emptyFrameSent`: the modem sent a frame without payload instead, which cost airtime. `bytesMax`: what fits now, where it says so. */
  | { readonly kind: "too-long"; readonly bytesMax?: number; readonly emptyFrameSent: boolean }
  | { readonly kind: "not-joined" }
  | { readonly kind: "fault"; readonly detail: string; readonly transmissions?: number };

/** What became of one attempt to join. */
export interface JoinOutcome {
  /** `no-answer`: the modem sent its request and no accept came: out of range, or a wrong AppKey, to which servers are silent. */
  readonly kind: "joined" | "refused" | "no-answer" | "busy" | "duty-cycle" | "no-keys" | "fault";
  readonly detail?: string;
  readonly retryInMs?: number;
}

export interface LoraDownlink {
  readonly port: number;
  readonly bytes: Uint8Array;
  readonly rssiDbm?: number;
  readonly snrDb?: number;
}

export interface ModemKeys {
  /** 16 hexadecimal digits, most significant first. */
  readonly joinEui: string;
  /** 16 hexadecimal digits; absent: the one that the module came with. */
  readonly devEui?: string;
  /** 32 hexadecimal digits. Never logged, never part of an error. */
  readonly appKey: string;
  /** US915 and AU915: 1 to 8, the eight channels that the gateways listen to; absent: all of them. */
  readonly subBand?: number;
}

export interface LoraModem {
  readonly family: ModemFamily;
  /** The port, for messages. */
  readonly description: string;
  /** What the modem says of its firmware; empty before begin(). */
  readonly firmware: string;
  /**
   * Opens the port, sees that the modem answers, and sets what this uplink wants: LoRaWAN mode, class A, ADR on, unconfirmed. Again after
   * a loss. `joined`: a LoRa-E5, an AT_Slave and an RN2483 that has an address cannot be asked; they are joined until a frame says otherwise.
   * @throws DriverError where the port or the modem does not do
   */
  begin(): Promise<{ joined: boolean; devEui?: string }>;
  /** One attempt; the back-off is the caller's. */
  join(): Promise<JoinOutcome>;
  /** An unconfirmed frame. Resolves when its receive windows are closed; downlinks of them were reported before. */
  send(port: number, bytes: Uint8Array): Promise<SendOutcome>;
  /** As the modem says now. `bytesMax`, less what FOpts take, only where a modem can tell (LoRa-E5). @throws DriverError */
  state(): Promise<{ joined: boolean; dataRate?: number; bytesMax?: number }>;
  onDownlink(listener: (downlink: LoraDownlink) => void): void;
  /** The port went away, or the modem was reset; begin() again. At most once until then. */
  onLost(listener: (reason: string) => void): void;
  /** Writes the keys of OTAA and the region into the modem, which keeps them. @throws DriverError */
  provision(keys: ModemKeys, region: RegionName): Promise<{ devEui: string }>;
  close(): Promise<void>;
}

/** Time of this driver: a real one is made by the composition root, a virtual one by simulations. */
export interface LoraTiming {
  readonly clock: Clock;
  /** Resolves after `ms`, early on abort; never rejects. */
  readonly pause: (ms: number, signal?: AbortSignal) => Promise<void>;
}

export interface LoraModemOptions {
  readonly openTransport: () => Promise<ByteTransport>;
  readonly family: ModemFamily;
  readonly region: RegionName;
  readonly timing: LoraTiming;
  /** From the end of an uplink to the first receive window: 1 s by LoRaWAN, 5 s on The Things Stack. */
  readonly rx1DelayS?: number;
}

export function createLoraModem(options: LoraModemOptions): LoraModem {
  return new SerialModem(options);
}

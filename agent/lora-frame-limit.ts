/** How long a frame may be now: by the modem where it says so, else by the region's table, and by what it has refused as too long. */
import type { SendOutcome } from "../drivers/lora/modem.ts";
import type { RegionName } from "../drivers/lora/region.ts";
import { tableBytesMax } from "./lora-frame-cost.ts";

/** LoRaWAN 1.0.x §4.3.1.4: the most that MAC commands take from a payload. */
const fOptsBytesMax = 15;
/** The smallest limit of any region: what a frame is cut to where a modem refuses longer ones and does not say how long. */
const shortestBytes = 11;

type TooLong = Extract<SendOutcome, { kind: "too-long" }>;

export class FrameLimit {
  readonly #region: RegionName;
  #refusals = 0;
  #found: { readonly bytes: number; readonly dataRate: number | undefined } | undefined;

  constructor(region: RegionName) {
    this.#region = region;
  }

  /** Bytes of FRMPayload at that data rate. @param told what the modem says of it */
  bytesMax(dataRate: number | undefined, told: number | undefined): number {
    const longest = told ?? tableBytesMax(this.#region, dataRate);
    if (this.#found?.dataRate !== dataRate) this.#found = undefined;
    return Math.min(longest, this.#found?.bytes ?? longest);
  }

  /** A frame of that length was too long. How often in a row is the answer. */
  refused(bytes: number, { bytesMax, emptyFrameSent }: TooLong, dataRate: number | undefined): number {
    this.#refusals++;
    const shorter = this.#refusals > 2 ? shortestBytes : Math.max(shortestBytes, bytes - fOptsBytesMax);
    // The empty frame took the MAC commands along that were in the way: the same frame may go now.
    const isRoomMade = emptyFrameSent && this.#refusals === 1;
    if (bytesMax !== undefined) this.#found = { bytes: bytesMax, dataRate };
    else if (!isRoomMade) this.#found = { bytes: shorter, dataRate };
    return this.#refusals;
  }

  /** A frame went out: what was in the way has gone with it. */
  sent(): void {
    this.#refusals = 0;
    this.#found = undefined;
  }
}

/** How long a LoRa frame is on the air: Semtech SX1276 data sheet §4.1.1.7, with LoRaWAN's settings (coding rate 4/5, explicit header). */
import { dataRates, type RegionName } from "./region.ts";

/** MHDR 1, DevAddr 4, FCtrl 1, FCnt 2, FPort 1, MIC 4. */
const frameOverheadBytes = 13;
/** 8 symbols that are programmed, and 4.25 of synchronisation. */
const preambleSymbols = 12.25;
/** From here on the low data rate optimisation is on: SF11 and SF12 at 125 kHz, SF12 at 250 kHz. */
const slowSymbolMs = 16;

export interface RadioFrame {
  readonly spreadingFactor: number;
  readonly bandwidthKhz: number;
  /** The whole PHYPayload. */
  readonly phyBytes: number;
  /** Downlinks have no CRC over the payload. */
  readonly isUplink: boolean;
}

/** Milliseconds on the air, not rounded. */
export function frameAirtimeMs({ spreadingFactor, bandwidthKhz, phyBytes, isUplink }: RadioFrame): number {
  const symbolMs = 2 ** spreadingFactor / bandwidthKhz;
  const slow = symbolMs >= slowSymbolMs ? 2 : 0;
  const bits = 8 * phyBytes - 4 * spreadingFactor + 28 + (isUplink ? 16 : 0);
  const payloadSymbols = 8 + Math.max(0, Math.ceil(bits / (4 * (spreadingFactor - slow))) * 5);
  return (preambleSymbols + payloadSymbols) * symbolMs;
}

/**
 * Milliseconds on the air of an uplink of this many bytes of FRMPayload, not rounded.
 * @throws RangeError where the region has no such LoRa data rate
 */
export function airtimeMs(region: RegionName, dataRate: number, payloadBytes: number, fOptsBytes = 0): number {
  const rate = dataRates(region).find((known) => known.dataRate === dataRate);
  if (rate === undefined) throw new RangeError(`${region} has no LoRa data rate ${dataRate}`);
  return frameAirtimeMs({ ...rate, phyBytes: payloadBytes + frameOverheadBytes + fOptsBytes, isUplink: true });
}

/** What a frame costs in airtime, before it goes and after. */
import { airtimeMs, frameAirtimeMs } from "../drivers/lora/airtime.ts";
import type { ModemFamily } from "../drivers/lora/modem.ts";
import { dataRates, payloadBytesMax, type RegionName } from "../drivers/lora/region.ts";
import type { FrameCost } from "./lora-budget.ts";

/** LoRaWAN 1.0.x §4.3.1.4: the MAC commands that may ride beside a payload. */
const fOptsBytesMax = 15;
const joinRequestBytes = 23;
const slowestDataRate = 0;
/** The most repetitions that a server's ADR usually asks for; so many always fit an allowance. */
const usualTransmissionsMax = 3;

/** Of the region: the LoRa data rate of that number; the slowest where there is none, which costs the most. */
function known(region: RegionName, dataRate: number | undefined): number {
  const isKnown = dataRates(region).some((rate) => rate.dataRate === dataRate);
  return isKnown && dataRate !== undefined ? dataRate : slowestDataRate;
}

/** The longest payload at that data rate by the region's table, where the modem itself does not say. */
export function tableBytesMax(region: RegionName, dataRate: number | undefined): number {
  const rate = known(region, dataRate);
  // A modem that uses a data rate which the dwell limit forbids has been told that there is none.
  return payloadBytesMax(region, rate) ?? payloadBytesMax(region, rate, { dwell: false }) ?? 11;
}

/** The airtime with MAC commands beside the payload as long as they may be: the two together have a limit. */
function boundMs(region: RegionName, dataRate: number, bytes: number): number {
  const longest = payloadBytesMax(region, dataRate, { dwell: false, repeaterSafe: false }) ?? bytes;
  return airtimeMs(region, dataRate, Math.max(bytes, Math.min(longest, bytes + fOptsBytesMax)));
}

/**
 * Before it goes. A modem that has heard nothing for long lowers its data rate by one step with the very frame that it is given
 * (LoRaWAN 1.0.x §4.3.1.1), so the bound is that of the next slower one.
 */
export function costBefore(region: RegionName, dataRate: number | undefined, bytes: number): FrameCost {
  const rate = known(region, dataRate);
  const slower = known(region, rate - 1);
  return {
    airtimeMs: airtimeMs(region, rate, bytes),
    boundMs: Math.max(boundMs(region, rate, bytes), boundMs(region, slower, bytes)),
  };
}

/**
 * What is kept free for a frame before it goes. A server that had the last one repeated will have this one too; AT_Slave, where it has not
 * joined, sends a join request in the frame's place.
 */
export function reserveFor(family: ModemFamily, cost: FrameCost, region: RegionName, transmissions: number): FrameCost {
  const boundMs = cost.boundMs * Math.min(transmissions, usualTransmissionsMax);
  return { ...cost, boundMs: Math.max(boundMs, family === "at-slave" ? joinCost(region).boundMs : 0) };
}

/** After it has gone: at the slower one of the data rates before and after, as often as it went. */
export function costAfter(
  region: RegionName,
  before: number | undefined,
  after: number | undefined,
  bytes: number,
  transmissions = 1,
): FrameCost {
  const rate = Math.min(known(region, before), known(region, after));
  return {
    airtimeMs: transmissions * airtimeMs(region, rate, bytes),
    boundMs: transmissions * boundMs(region, rate, bytes),
  };
}

/** A join request may go at any data rate. */
export function joinCost(region: RegionName): FrameCost {
  const slowest = dataRates(region)[0];
  if (slowest === undefined) throw new Error(`${region} has no data rates`);
  const ms = frameAirtimeMs({ ...slowest, phyBytes: joinRequestBytes, isUplink: true });
  return { airtimeMs: ms, boundMs: ms };
}

/** Of any hour, the share in which a device may send on the sub-band of the default channels; undefined: the region has no such limit. */
export function dutyCycleOf(region: RegionName): number | undefined {
  return region === "EU868" || region === "AS923" ? 0.01 : undefined;
}

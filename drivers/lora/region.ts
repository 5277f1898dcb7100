/**
 * What a region allows: data rates, the largest payload at each, sub-bands with their duty cycle, and the channels of its plan.
 *
 * Sources: LoRaWAN Regional Parameters RP002-1.0.3/4 as The Things Stack's pkg/band, ChirpStack's lrwn and LoRaMac-node 4.7 have them; ETSI
 * EN 300 220 for the sub-bands of EU868. Only LoRa data rates: none of the modems is sent to FSK or LR-FHSS by the usual servers.
 */

export const regionNames = ["EU868", "US915", "AU915", "AS923"] as const;
export type RegionName = (typeof regionNames)[number];

export interface DataRate {
  readonly dataRate: number;
  readonly spreadingFactor: number;
  readonly bandwidthKhz: number;
}

export interface SubBand {
  readonly fromMhz: number;
  readonly toMhz: number;
  /** The share of any hour in which a device may send, 0.01 is 36 s. */
  readonly dutyCycle: number;
}

/** An uplink channel and the data rates that it takes. */
export interface Channel {
  readonly frequencyHz: number;
  readonly dataRateMin: number;
  readonly dataRateMax: number;
}

/** How the radio of a region works, for who has to answer a device: the simulator. */
export interface RadioPlan {
  /** EU868: the three of the law and the five that ChirpStack and The Things Stack add. US915 and AU915: all 72. */
  readonly channels: readonly Channel[];
  /** Data rates of downlinks. */
  readonly downlinkDataRates: readonly DataRate[];
  /** The data rate of the first receive window (RX1DROffset 0) after an uplink at this one. */
  readonly window1DataRate: (uplinkDataRate: number) => number;
  /** The frequency of the first window after an uplink on this channel (its place in `channels`). */
  readonly window1FrequencyHz: (channel: number) => number;
  readonly window2: { readonly frequencyHz: number; readonly dataRate: number };
}

export interface PayloadOptions {
  /**
   * The 400 ms dwell limit of AU915 and AS923; devices have to take it for on until the server says otherwise, so it is the default
   * there. Without meaning elsewhere.
   */
  readonly dwell?: boolean;
  /** At most 222 bytes, so that a repeater can pass it on; the default, and all that an RN2483 sends. */
  readonly repeaterSafe?: boolean;
}

interface Region {
  readonly dataRates: readonly DataRate[];
  /** Largest FRMPayload without FOpts, by data rate; undefined: not to be used. */
  readonly payloads: readonly (number | undefined)[];
  readonly payloadsInDwell?: readonly (number | undefined)[];
  readonly subBands: readonly SubBand[];
  readonly radio: RadioPlan;
}

const repeaterBytesMax = 222;

/** Spreading factors from `first` down to `last` at one bandwidth, as data rates from `dataRate` on. */
function ladder(dataRate: number, first: number, last: number, bandwidthKhz: number): DataRate[] {
  return Array.from({ length: first - last + 1 }, (_, step) => ({
    dataRate: dataRate + step,
    spreadingFactor: first - step,
    bandwidthKhz,
  }));
}

function row(firstHz: number, stepHz: number, count: number, dataRateMin: number, dataRateMax: number): Channel[] {
  return Array.from({ length: count }, (_, step) => ({
    frequencyHz: firstHz + step * stepHz,
    dataRateMin,
    dataRateMax,
  }));
}

const wideDownlinks = ladder(8, 12, 7, 500);
const ladderTo250 = [...ladder(0, 12, 7, 125), { dataRate: 6, spreadingFactor: 7, bandwidthKhz: 250 }];
/** 923.3 MHz and every 600 kHz, eight of them, in turn. */
const wideWindow1 = (channel: number): number => 923_300_000 + (channel % 8) * 600_000;

function sharedChannels(channels: readonly Channel[], window2: RadioPlan["window2"]): RadioPlan {
  return {
    channels,
    downlinkDataRates: ladderTo250,
    window1DataRate: (uplinkDataRate) => uplinkDataRate,
    window1FrequencyHz: (channel) => channels[channel]?.frequencyHz ?? window2.frequencyHz,
    window2,
  };
}

const regions: Readonly<Record<RegionName, Region>> = {
  EU868: {
    dataRates: ladderTo250,
    // DR4 is 242 with The Things Stack and LoRaMac-node, 222 with ChirpStack from RP002-1.0.2 on: the smaller one is taken by all.
    payloads: [51, 51, 51, 115, 222, 242, 242],
    subBands: [
      { fromMhz: 863, toMhz: 865, dutyCycle: 0.001 },
      { fromMhz: 865, toMhz: 868, dutyCycle: 0.01 },
      { fromMhz: 868, toMhz: 868.6, dutyCycle: 0.01 },
      { fromMhz: 868.7, toMhz: 869.2, dutyCycle: 0.001 },
      { fromMhz: 869.4, toMhz: 869.65, dutyCycle: 0.1 },
      { fromMhz: 869.7, toMhz: 870, dutyCycle: 0.01 },
    ],
    radio: sharedChannels([...row(868_100_000, 200_000, 3, 0, 5), ...row(867_100_000, 200_000, 5, 0, 5)], {
      frequencyHz: 869_525_000,
      dataRate: 0,
    }),
  },
  US915: {
    dataRates: [...ladder(0, 10, 7, 125), { dataRate: 4, spreadingFactor: 8, bandwidthKhz: 500 }],
    payloads: [11, 53, 125, 242, 242],
    subBands: [],
    radio: {
      channels: [...row(902_300_000, 200_000, 64, 0, 3), ...row(903_000_000, 1_600_000, 8, 4, 4)],
      downlinkDataRates: wideDownlinks,
      window1DataRate: (uplinkDataRate) => Math.min(13, 10 + uplinkDataRate),
      window1FrequencyHz: wideWindow1,
      window2: { frequencyHz: 923_300_000, dataRate: 8 },
    },
  },
  AU915: {
    dataRates: [...ladder(0, 12, 7, 125), { dataRate: 6, spreadingFactor: 8, bandwidthKhz: 500 }],
    payloads: [51, 51, 51, 115, 242, 242, 242],
    payloadsInDwell: [undefined, undefined, 11, 53, 125, 242, 242],
    subBands: [],
    radio: {
      channels: [...row(915_200_000, 200_000, 64, 0, 5), ...row(915_900_000, 1_600_000, 8, 6, 6)],
      downlinkDataRates: wideDownlinks,
      window1DataRate: (uplinkDataRate) => Math.min(13, 8 + uplinkDataRate),
      window1FrequencyHz: wideWindow1,
      window2: { frequencyHz: 923_300_000, dataRate: 8 },
    },
  },
  AS923: {
    dataRates: ladderTo250,
    payloads: [51, 51, 115, 115, 242, 242, 242],
    payloadsInDwell: [undefined, undefined, 11, 53, 125, 242, 242],
    // 1 % in some of its countries, and nobody says in which one this device is.
    subBands: [{ fromMhz: 915, toMhz: 928, dutyCycle: 0.01 }],
    radio: sharedChannels(row(923_200_000, 200_000, 2, 0, 5), { frequencyHz: 923_200_000, dataRate: 2 }),
  },
};

/** LoRa data rates of uplinks, slowest first. */
export function dataRates(region: RegionName): readonly DataRate[] {
  return regions[region].dataRates;
}

/** The largest FRMPayload in bytes with no FOpts; undefined where the region has no such data rate, or dwell forbids it. */
export function payloadBytesMax(
  region: RegionName,
  dataRate: number,
  options: PayloadOptions = {},
): number | undefined {
  const { payloads, payloadsInDwell = payloads } = regions[region];
  const bytes = ((options.dwell ?? true) ? payloadsInDwell : payloads)[dataRate];
  return bytes === undefined || options.repeaterSafe === false ? bytes : Math.min(bytes, repeaterBytesMax);
}

/** The sub-bands with a duty cycle, lowest first; none where the region has none. A device's budget holds for each by itself. */
export function subBands(region: RegionName): readonly SubBand[] {
  return regions[region].subBands;
}

export function radioPlan(region: RegionName): RadioPlan {
  return regions[region].radio;
}

/**
 * How long the batches of rows for LoRaWAN are, and when one ends. One signature serves a batch, so a longer one costs less airtime a
 * row and brings it later: an hour where frames are quick, six hours where they are slow, a day where the budget wants it.
 */
import { dataRates, type RegionName } from "../drivers/lora/region.ts";
import { packetBytesMax } from "../protocol/lorawan.ts";
import { packetAirtimeMs, typicalPacketBytes } from "./lora-load.ts";
import type { RowBatch } from "./row-sealing.ts";
import type { Sample } from "./sample-buffer.ts";

const hourS = 3_600;
const dayS = 86_400;
const automaticLengthsS = [hourS, 6 * hourS, dayS] as const;
/** Slower than this one frame of 51 bytes takes half a second and more. */
const quickSpreadingFactorMax = 9;
/** So much of a budget batches may take without loss; the rest is for what is sent again, joins and events. */
const budgetShare = 0.75;
/** 1 % of a day: what the law leaves in EU868 to a device that does not know its modem's channel. */
const lawfulDayMs = 864_000;
/** Of a record beside its rows: envelope, header and signature, with room for events of the format to come. */
const recordOverheadBytes = 160;

export interface BatchSurroundings {
  readonly region: RegionName;
  /** The modem's; undefined as long as nobody knows it. */
  readonly dataRate: number | undefined;
  readonly fairUseSPerDay: number | undefined;
  readonly slotS: number;
  /** Codes of the rows of each meter. */
  readonly meters: readonly (readonly number[])[];
}

/** Seconds that a batch covers where hub.yaml says `auto`. */
export function automaticLengthS(surroundings: BatchSurroundings): number {
  const { region, slotS, fairUseSPerDay } = surroundings;
  const rates = dataRates(region);
  const rate = rates.find(({ dataRate }) => dataRate === surroundings.dataRate) ?? rates[0];
  const isQuick = rate !== undefined && rate.spreadingFactor <= quickSpreadingFactorMax;
  const lengthsS = automaticLengthsS.filter((lengthS) => lengthS % slotS === 0 && (isQuick || lengthS > hourS));
  const limitMs = Math.min(lawfulDayMs, (fairUseSPerDay ?? Number.POSITIVE_INFINITY) * 1_000) * budgetShare;
  const affordable = lengthsS.find((lengthS) => dayAirtimeMs(surroundings, lengthS, rate?.dataRate ?? 0) <= limitMs);
  return affordable ?? Math.max(slotS, dayS);
}

/** Airtime a day without loss; infinite at a data rate that lets nothing through. */
function dayAirtimeMs({ region, slotS, meters }: BatchSurroundings, lengthS: number, dataRate: number): number {
  const batches = meters.map((codes) => {
    const packetBytes = typicalPacketBytes({ codes, rows: lengthS / slotS, slotS });
    return packetAirtimeMs(region, dataRate, packetBytes) ?? Number.POSITIVE_INFINITY;
  });
  return batches.reduce((sum, ms) => sum + ms, 0) * (dayS / lengthS);
}

/** What may be open in the wallet when a process begins: rows of that slot, of a batch no longer than that. */
export interface UnknownBatch {
  readonly slotS: number;
  readonly longestS: number;
}

export class LoraBatch implements RowBatch {
  readonly #lengthS: () => number;
  /** Of the rows since the last end, as the record has them. */
  #bytes = 0;
  #rows = 0;
  #before: Sample | undefined;
  readonly #unknown: UnknownBatch | undefined;
  /** Of rows that the process before may have sealed into the batch that is open. */
  #unknownBytes: number | undefined;

  /**
   * @param lengthS seconds that a batch is to cover now; ends lie on the clock's own multiples
   * @param unknown the wallet may have rows of an open batch from before; absent: it has none
   */
  constructor(lengthS: () => number, unknown?: UnknownBatch) {
    this.#lengthS = lengthS;
    this.#unknown = unknown;
  }

  /** At its time; before that where one more row may not fit a packet (RFC 9011's 252 tiles). */
  closes(samples: readonly Sample[]): boolean {
    const lengthS = this.#lengthS();
    this.#unknownBytes ??= this.#unknown && samples[0] ? bytesBefore(samples[0], this.#unknown) : 0;
    const bytes = this.#unknownBytes + this.#bytesWith(samples);
    const rowBytes = this.#bytesWith(samples) / Math.max(1, this.#rows + samples.length);
    const isFull = recordOverheadBytes + bytes + 2 * rowBytes > packetBytesMax;
    return isFull || samples.some(({ row }) => row.timeS % lengthS === 0);
  }

  /** Tells how many rows the batch has with these. */
  sealed(samples: readonly Sample[], closed: boolean): number {
    const rows = this.#rows + samples.length;
    if (closed) this.#unknownBytes = 0;
    this.#bytes = closed ? 0 : this.#bytesWith(samples);
    this.#rows = closed ? 0 : rows;
    this.#before = closed ? undefined : samples.at(-1);
    return rows;
  }

  #bytesWith(samples: readonly Sample[]): number {
    let before = this.#before;
    let bytes = this.#bytes;
    for (const sample of samples) {
      bytes += rowBytesOf(sample, before);
      if (sample.row.values.length > 0 || before === undefined) before = sample;
    }
    return bytes;
  }
}

/** At most, as if each row had its values whole: all slots since the longest batch that this row can be of began. */
function bytesBefore(first: Sample, { slotS, longestS }: UnknownBatch): number {
  const sinceS = (first.row.timeS - slotS + longestS) % longestS;
  return Math.floor(sinceS / slotS) * rowBytesOf(first, undefined);
}

/** A row is its differences to the one before (protocol/README.md); one that failed is a status beside them. */
function rowBytesOf({ codes, row }: Sample, before: Sample | undefined): number {
  if (row.values.length === 0) return codes.length + 4;
  return row.values.reduce((sum, value, place) => sum + integerBytes(value - (before?.row.values[place] ?? 0)), 0);
}

/** RFC 8949 §3: the head of an integer. */
function integerBytes(value: number): number {
  const magnitude = value < 0 ? -1 - value : value;
  if (magnitude < 24) return 1;
  if (magnitude < 0x100) return 2;
  if (magnitude < 0x1_0000) return 3;
  return magnitude < 0x1_0000_0000 ? 5 : 9;
}

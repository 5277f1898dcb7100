/** What a batch of rows costs on the air: its packet, the frames that it takes, their airtime. Pure; for planning, not for sending. */
import { airtimeMs } from "../drivers/lora/airtime.ts";
import { payloadBytesMax, type RegionName } from "../drivers/lora/region.ts";
import { signatureBytes } from "../protocol/cose-sign1.ts";
import { quantityOfCode } from "../protocol/quantity.ts";
import { statuses } from "../protocol/reading-status.ts";
import { encodeRecordPayload, previousBytes } from "../protocol/record.ts";
import { loraPlan } from "./configuration.ts";

/** RFC 9011 §5.6.2: tiles of 10 bytes behind 1 byte of header, windows of 63 tiles; the last tile rides in the All-1, behind its RCS. */
const tileBytes = 10;
const headerBytes = 1;
const rcsBytes = 4;
/** A device that has run for some years: sequences of three bytes and more take five in CBOR. */
const typicalSequence = 100_000;
const typicalEpoch = 0x9a3c_51e7;
const typicalTimeS = 1_800_000_000;
const ruleIdBytes = 1;

export interface BatchShape {
  /** Quantity codes of a row, ascending. */
  readonly codes: readonly number[];
  readonly rows: number;
  readonly slotS: number;
}

/**
 * Bytes of the SCHC packet of such a batch: a record as the wallet would sign it, with values as a house has them. A register that
 * rises by more in a slot than 65,535 of its unit takes two bytes more a row.
 */
export function typicalPacketBytes({ codes, rows, slotS }: BatchShape): number {
  const payload = encodeRecordPayload({
    ...{ kind: "reading", epoch: typicalEpoch, sequence: typicalSequence, previous: new Uint8Array(previousBytes) },
    ...{ clockState: 1, generation: 0, meter: 0, plan: loraPlan, slotS, codes },
    rows: Array.from({ length: rows }, (_, place) => ({
      timeS: typicalTimeS + place * slotS,
      status: statuses.good,
      values: codes.map((code) => typicalValue(code, place, slotS)),
    })),
  });
  return ruleIdBytes + payload.length + signatureBytes;
}

/** Registers in the tens of thousands of kWh that rise with 2 kW at most; other values that go up and down by some hundreds. */
function typicalValue(code: number, place: number, slotS: number): number {
  const wave = (place * 7) % 12;
  if (quantityOfCode(code)?.cumulative) return 24_000_000 + Math.round((place * 1_200 * slotS) / 3_600) + wave * 20;
  return 900 + wave * 120;
}

/** Bytes of each frame's payload. RangeError where not even one tile fits. */
export function frameBytes(packetBytes: number, payloadMax: number): number[] {
  if (packetBytes <= payloadMax) return [packetBytes];
  const perFrame = Math.floor((payloadMax - headerBytes) / tileBytes);
  if (perFrame < 1) throw new RangeError(`frames of ${payloadMax} bytes hold no tile`);
  const tiles = Math.ceil(packetBytes / tileBytes);
  const lastBytes = packetBytes - (tiles - 1) * tileBytes;
  const isLastInAll1 = headerBytes + rcsBytes + lastBytes <= payloadMax;
  const frames: number[] = [];
  for (let tile = 0; tile < tiles - 1; tile += perFrame)
    frames.push(headerBytes + Math.min(perFrame, tiles - 1 - tile) * tileBytes);
  if (!isLastInAll1) frames.push(headerBytes + lastBytes);
  return [...frames, headerBytes + rcsBytes + (isLastInAll1 ? lastBytes : 0)];
}

/** Airtime in milliseconds of a packet at that data rate, without loss; undefined where the region does not let any through. */
export function packetAirtimeMs(region: RegionName, dataRate: number, packetBytes: number): number | undefined {
  const payloadMax = payloadBytesMax(region, dataRate);
  if (payloadMax === undefined || payloadMax <= tileBytes) return undefined;
  return frameBytes(packetBytes, payloadMax).reduce((sum, bytes) => sum + airtimeMs(region, dataRate, bytes), 0);
}

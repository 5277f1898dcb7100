/** The household of the vectors and of the sizes table: 0.4 kW on the mean, some solar, registers of tens of MWh. */
import { noPrevious, type ReadingContent, type Row } from "../../protocol/record.ts";

export const epoch = 0x9c41_7b2e;
/** 2026-03-20 12:00:00 UTC. */
export const noonS = 1_774_008_000;
export const importWh = 41_237_512;
export const exportWh = 18_904_377;
/** A typical sequence is in the thousands: three bytes from 256 to 65,535. */
export const sequence = 4_711;

type Given = Partial<Omit<ReadingContent, "kind" | "rows">> & Pick<ReadingContent, "codes" | "rows">;

export function readingOf(given: Given): ReadingContent {
  return {
    kind: "reading",
    epoch,
    sequence,
    previous: noPrevious,
    clockState: 0,
    generation: 0,
    meter: 0,
    plan: 0,
    slotS: 0,
    ...given,
  };
}

export function good(timeS: number, values: readonly number[]): Row {
  return { timeS, status: 0, values };
}

/**
 * Rows of import and export energy, `slotS` apart: the household draws 0.4 kW on the mean (0.1 to 1.2 kW), its solar
 * system feeds in up to `feedInW`. Energies rise by power × time, with what is below one Wh carried on.
 */
export function energyRows(count: number, slotS: number, feedInW: number): Row[] {
  const loadW = [310, 240, 480, 1_200, 390, 100, 270, 210]; // mean 400
  const cloud = [1, 0.8, 0.4, 0.9, 1, 0.6];
  let drawnWs = 0;
  let fedWs = 0;
  const rows: Row[] = [];
  for (let i = 0; i < count; i++) {
    rows.push(good(noonS + i * slotS, [importWh + Math.floor(drawnWs / 3_600), exportWh + Math.floor(fedWs / 3_600)]));
    drawnWs += (loadW[i % loadW.length] as number) * slotS;
    fedWs += feedInW * (cloud[i % cloud.length] as number) * slotS;
  }
  return rows;
}

/** Codes 1 to 12 of a three-phase meter: powers in W, var and VA, registers in Wh, varh and VAh. */
export const twelveCodes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
export const twelveValues = [412, importWh, 0, exportWh, 96, 7_912_004, 0, 2_255_130, 423, 43_870_221, 0, 19_400_873];

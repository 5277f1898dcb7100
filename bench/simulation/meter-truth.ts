/** What a simulated meter shows at a time: a function of both, so that nobody needs to remember it. */
import { statuses } from "../../protocol/reading-status.ts";
import type { Row } from "../../protocol/record.ts";
import { worldStartS } from "./virtual-world.ts";

const wattsByMeter = [1_800, 3_600, 720] as const;
const exportedPart = 7;
/** Every so many slots nobody answers. */
const failsEvery = 13;

/** Wh imported and exported, rising with the time; a status where the meter did not answer. */
export function meterRow(meter: number, timeS: number): Row {
  if (Math.floor(timeS / 5) % failsEvery === meter + 1) return { timeS, status: statuses.timeout, values: [] };
  const wh = Math.floor(((timeS - worldStartS) * (wattsByMeter[meter % wattsByMeter.length] as number)) / 3_600);
  return { timeS, status: statuses.good, values: [10_000 + wh, 500 + Math.floor(wh / exportedPart)] };
}

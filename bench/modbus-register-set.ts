/** What the Modbus benchmark reads: an SDM630's full set of 32 floats, in blocks or one by one, and the slave that has them. */
import { planBlocks, type RegisterSpan } from "../drivers/modbus/block-plan.ts";
import { encodeRtuFrame, hasValidCrc } from "../drivers/modbus/rtu-frame.ts";
import type { WireReply } from "../simulator/paced-line-wire.ts";

/** First register of a stretch of floats, and how many: voltages, currents, powers; totals and energies; and so on. */
const stretches: readonly (readonly [address: number, floats: number])[] = [
  [0x0000, 9], // voltages, currents, active powers
  [0x0034, 1], // active power
  [0x0038, 1], // apparent power
  [0x003c, 2], // reactive power, power factor
  [0x0046, 6], // frequency, import, export, reactive import and export, apparent energy
  [0x00c8, 4], // voltages between lines and their mean
  [0x0102, 3], // current demands
  [0x015a, 6], // import and export of each phase
];

const singles: readonly RegisterSpan[] = stretches.flatMap(([first, floats]) =>
  Array.from({ length: floats }, (_, index) => ({ functionCode: 4 as const, address: first + 2 * index, count: 2 })),
);

/** The requests of one poll: five blocks, as the block plan makes them at 9600 baud, or one for each of the 32 values. */
export function requestsOf(set: "blocks" | "singles"): readonly RegisterSpan[] {
  if (set === "singles") return singles;
  return planBlocks(singles, { maxRegistersPerRequest: 60, countStep: 2, requestCostRegisters: 18 });
}

const wordAt = (address: number): number => (address * 40_503) & 0xffff;

/** Sum of the words that a poll gives, so that a wrong one shows. */
export function wordSumOf(set: "blocks" | "singles"): number {
  let sum = 0;
  for (const { address, count } of requestsOf(set)) for (let i = 0; i < count; i++) sum += wordAt(address + i);
  return sum;
}

/** Slaves of all units, each with the same registers: what they put on the line for a request. */
export function answerAsMeter(request: Uint8Array): readonly WireReply[] {
  if (request.length !== 8 || !hasValidCrc(request) || request[1] !== 4) return [];
  const address = (request[2]! << 8) | request[3]!;
  const count = (request[4]! << 8) | request[5]!;
  const pdu = new Uint8Array(2 + 2 * count);
  pdu.set([4, 2 * count]);
  const view = new DataView(pdu.buffer);
  for (let i = 0; i < count; i++) view.setUint16(2 + 2 * i, wordAt(address + i));
  return [{ bytes: encodeRtuFrame(request[0]!, pdu) }];
}

/** What of a reading goes over LoRaWAN: the registers that only rise, always, and what is chosen beside them. */
import { quantityOfCode } from "../protocol/quantity.ts";

export function isLoraCode(code: number, chosen: readonly number[]): boolean {
  return quantityOfCode(code)?.cumulative === true || chosen.includes(code);
}

export function loraCodes(codes: readonly number[], chosen: readonly number[]): number[] {
  return codes.filter((code) => isLoraCode(code, chosen));
}

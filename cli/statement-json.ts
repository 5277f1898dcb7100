/** A period statement as JSON for programs and in lines for a person. */
import { decimalText, quantityOfCode } from "../protocol/quantity.ts";
import { clockStateLetters } from "../protocol/reading-status.ts";
import type { Statement } from "../protocol/statement.ts";
import { isoTime } from "./record-json.ts";

export function statementJson(statement: Statement): Record<string, unknown> {
  const { device, meter, fromS, toS, registers, first, last, timeS, clockState } = statement;
  return {
    kind: "statement",
    device: Buffer.from(device).toString("hex"),
    meter,
    ...{ from: isoTime(fromS), to: isoTime(toS) },
    registers: registers.map(({ code, stand, rise }) => ({
      register: quantityOfCode(code)?.name ?? `code-${code}`,
      unit: quantityOfCode(code)?.unit ?? "",
      stand,
      rise,
    })),
    ...{ first, last, signed: isoTime(timeS), clock: clockStateLetters[clockState] },
  };
}

export function statementText(statement: Statement): string {
  const { meter, fromS, toS, registers, first, last, timeS, clockState } = statement;
  const place = ({ epoch, sequence }: Statement["first"]): string => `record ${sequence} of epoch ${epoch}`;
  const lines = registers.map(({ code, stand, rise }) => {
    const quantity = quantityOfCode(code);
    const { unit, decimals } = quantity?.display ?? { unit: "", decimals: 0 };
    const shown = (value: number): string => `${decimalText(value, decimals)} ${unit}`.trim();
    return `  ${quantity?.name ?? `code ${code}`}: rose by ${shown(rise)} to ${shown(stand)}\n`;
  });
  return (
    `meter ${meter}, from ${isoTime(fromS)} to ${isoTime(toS)}\n${lines.join("")}` +
    `  out of ${place(first)} to ${place(last)}; signed ${isoTime(timeS)}, clock ${clockStateLetters[clockState] ?? "?"}\n`
  );
}

/** A line and a unit given on the command line, without hub.yaml. */
import type { LineConfiguration } from "../agent/configuration.ts";
import type { MeterProfile } from "../drivers/modbus/profile.ts";
import { usageError } from "./command.ts";

export const directLineOptions = {
  serial: { type: "string" },
  baud: { type: "string" },
  parity: { type: "string" },
  tcp: { type: "string" },
  framing: { type: "string", default: "tcp" },
  unit: { type: "string" },
} as const;

export interface DirectLine {
  readonly serial?: string | undefined;
  readonly baud?: string | undefined;
  readonly parity?: string | undefined;
  readonly tcp?: string | undefined;
  readonly framing: string;
  readonly unit?: string | undefined;
}

/** The line that the options say, `factory` where they say nothing. Throws {@link CommandError}. */
export function directLine(
  command: string,
  { serial, tcp, framing, ...given }: DirectLine,
  factory: MeterProfile["factory"],
): { readonly line: LineConfiguration; readonly unit: number } {
  const number = (flag: string, text: string, min: number, max: number): number => {
    if (/^\d{1,6}$/.test(text) && Number(text) >= min && Number(text) <= max) return Number(text);
    throw usageError(command, `--${flag} ${text}; an integer from ${min} to ${max} was expected`);
  };
  const { baud = `${factory.bauds[0]}`, parity = factory.parities[0] } = given;
  const unit = number("unit", given.unit ?? `${factory.unit}`, 1, 247);
  if (serial !== undefined && tcp !== undefined) throw usageError(command, "--serial and --tcp together");
  if (tcp !== undefined) {
    const match = /^(.+?)(?::(\d{1,5}))?$/.exec(tcp);
    if (framing !== "tcp" && framing !== "rtu")
      throw usageError(command, `--framing ${framing}; tcp or rtu was expected`);
    const settings = { host: match?.[1] ?? tcp, port: Number(match?.[2] ?? 502), framing } as const;
    return { unit, line: { name: "direct", tcp: settings } };
  }
  if (serial === undefined) throw usageError(command, "--serial PATH or --tcp HOST:PORT is missing");
  if (parity !== "none" && parity !== "even" && parity !== "odd")
    throw usageError(command, `--parity ${parity}; none, even or odd was expected`);
  const settings = { path: serial, baud: number("baud", baud, 300, 230_400), parity } as const;
  return { unit, line: { name: "direct", serial: settings } };
}

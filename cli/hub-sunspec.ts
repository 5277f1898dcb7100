/** ecp sunspec: what a SunSpec device has in its models, point by point. */
import { lineOf } from "../agent/reading-path.ts";
import { DriverError } from "../drivers/failure.ts";
import type { MeterProfile } from "../drivers/modbus/profile.ts";
import { findMeterProfile } from "../drivers/modbus/profile-catalogue.ts";
import { ChainError, sunspecBases } from "../drivers/modbus/sunspec-chain.ts";
import { modelTitle, type PointValue } from "../drivers/modbus/sunspec-points.ts";
import { type SunspecSurvey, type SurveyedModel, surveySunspec } from "../drivers/modbus/sunspec-survey.ts";
import { type Command, CommandError, exit, parseCommand, usageError } from "./command.ts";
import { directLine, directLineOptions } from "./direct-line.ts";
import { jsonOption } from "./hub-options.ts";
import { formatTable } from "./table.ts";

export const hubSunspec: Command = {
  summary: "show what a SunSpec device has in its models",
  usage: `Usage: ecp sunspec --serial PATH [--baud N] [--parity none|even|odd] [--unit N] [--model ID …] [--json]
       ecp sunspec --tcp HOST:PORT [--framing tcp|rtu] [--unit N] [--model ID …] [--json]

Reads only, needs no wallet, signs nothing. Values are exact decimals, scaled by the factor that was read with them (10^…);
bit fields are hexadecimal, enumerations numbers, units as the model has them. Models 703 to 712, 801, 803 and 804 are named and not
decoded. What of it becomes a signed reading is in docs/meters.md. Exit status 1 where the device has no SunSpec models.`,

  async run(args) {
    const options = { ...jsonOption, ...directLineOptions, model: { type: "string", multiple: true } } as const;
    const { values } = parseCommand("ecp sunspec", args, options, []);
    const only = values.model?.map((text) => {
      if (/^\d{1,5}$/.test(text)) return Number(text);
      throw usageError("ecp sunspec", `--model ${text}; the number of a model was expected`);
    });
    const profile = findMeterProfile("sunspec-inverter") as MeterProfile;
    const { line, unit } = directLine("ecp sunspec", values, profile.factory);
    const bus = lineOf(line);
    const where = `${bus.description}, unit ${unit}`;
    try {
      const survey = await surveySunspec(bus, { unit, profile, ...(only && { only }) });
      if (survey === undefined)
        throw failed(
          `"SunS" at register ${sunspecBases.join(", ")}`,
          "it is nowhere",
          where,
          "switch SunSpec on at the device",
        );
      process.stdout.write(values.json ? jsonText(where, survey) : `${where}\n${text(survey)}`);
      return exit.ok;
    } catch (error) {
      if (error instanceof ChainError)
        throw failed("a chain of SunSpec models", error.message, where, "try again; then ask the maker");
      if (error instanceof DriverError)
        throw failed("a device that answers", error.message, where, "ecp scan finds out who answers, and where");
      throw error;
    } finally {
      await bus.close();
    }
  },
};

function failed(expected: string, got: string, where: string, todo: string): CommandError {
  return new CommandError(exit.failed, { expected, got, where, todo });
}

function text({ base, models, cutBy }: SunspecSurvey): string {
  return `"SunS" at register ${base}\n${models.map((model) => `\n${modelText(model)}`).join("")}${cutBy === undefined ? "" : `\nThe models have no end mark, there may be more: ${cutBy}\n`}`;
}

function modelText({
  id,
  address,
  registers,
  values,
  unsteady,
  isDecoded,
  groupsSaid,
  problem,
}: SurveyedModel): string {
  const title = modelTitle(id);
  const head = `Model ${id}${title === undefined ? "" : `, ${title}`}: register ${address}, length ${registers - 2}\n`;
  if (!isDecoded) return `${head}  ${title === undefined ? "not known here" : "its points are not decoded"}\n`;
  const shown = [
    ...values.map((value) => ({ point: value.point, cells: cellsOf(value) })),
    ...unsteady.map((point) => ({ point, cells: ["its scale factor changed while it was read", "", ""] })),
  ].sort((a, b) => a.point.offset - b.point.offset);
  const rows = shown.map(({ point: { name, group }, cells }) => [
    `  ${group === undefined ? name : `${group}.${name}`}`,
    ...cells,
  ]);
  const columns = [{ title: "  point" }, { title: "value" }, { title: "unit" }, { title: "factor" }] as const;
  const groups = new Set(values.flatMap(({ point: { group } }) => (group === undefined ? [] : [group]))).size;
  const cut =
    groupsSaid !== undefined && groups < groupsSaid
      ? `  The device says ${groupsSaid} groups; its model has room for ${groups}.\n`
      : "";
  return head + (rows.length > 0 ? formatTable(columns, rows) : "") + cut + (problem ? `  not read: ${problem}\n` : "");
}

function cellsOf({ point, value, absence, exponent }: PointValue): string[] {
  const factor = exponent === undefined ? "" : `10^${exponent}`;
  return value === undefined ? [`(${absence})`, "", factor] : [value, point.unit, factor];
}

function jsonText(where: string, { base, models, cutBy }: SunspecSurvey): string {
  return `${JSON.stringify({
    device: where,
    base,
    ...(cutBy !== undefined && { cut_by: cutBy }),
    models: models.map((model) => ({
      id: model.id,
      name: modelTitle(model.id) ?? null,
      address: model.address,
      length: model.registers - 2,
      decoded: model.isDecoded,
      ...(model.problem !== undefined && { problem: model.problem }),
      ...(model.groupsSaid !== undefined && { groups_said: model.groupsSaid }),
      points: [
        ...model.values.map(({ point, value, absence, exponent }) => ({
          ...pointJson(point),
          ...(value === undefined ? { absent: absence } : { value, ...(point.unit !== "" && { unit: point.unit }) }),
          ...(exponent !== undefined && { exponent }),
        })),
        ...model.unsteady.map((point) => ({ ...pointJson(point), absent: "scale factor changed" })),
      ],
    })),
  })}\n`;
}

function pointJson({ name, group, offset }: PointValue["point"]): { name: string; group?: number; offset: number } {
  return { name, ...(group !== undefined && { group }), offset };
}

/** ecp read: one reading now, without wallet: is the meter there, and what does it say? */

import type { LineConfiguration } from "../agent/configuration.ts";
import { lineOf } from "../agent/reading-path.ts";
import type { MeterReading } from "../drivers/modbus/meter-reader.ts";
import { ModbusMeter } from "../drivers/modbus/modbus-meter.ts";
import type { MeterProfile } from "../drivers/modbus/profile.ts";
import { decimalText, quantityOfCode } from "../protocol/quantity.ts";
import { statusLetters, statusSentences } from "../protocol/reading-status.ts";
import { type Command, exit, parseCommand, usageError } from "./command.ts";
import { type DirectLine, directLine, directLineOptions } from "./direct-line.ts";
import { readHubFile } from "./hub-configuration.ts";
import { configOption, jsonOption } from "./hub-options.ts";
import { profileNamed } from "./profile-files.ts";
import { formatTable, localTime } from "./table.ts";

interface Target {
  readonly name: string;
  readonly line: LineConfiguration;
  readonly unit: number;
  readonly profile: MeterProfile;
  readonly codes?: readonly number[];
}

export const hubRead: Command = {
  summary: "read the meters once, now, and show what they say",
  usage: `Usage: ecp read [--config hub.yaml] [--meter NAME] [--json]
       ecp read --serial PATH [--baud N] [--parity none|even|odd] --profile NAME [--unit N] [--json]
       ecp read --tcp HOST:PORT [--framing tcp|rtu] --profile NAME [--unit N] [--json]

A profile is the name of one that is built in (ecp profile list), or the path of a file; speed, parity and unit are those of the
meter's factory unless given. Needs no wallet, and signs nothing. A port that the agent has open is busy. Exit status 1 where
a meter did not answer.`,

  async run(args) {
    const { values } = parseCommand(
      "ecp read",
      args,
      {
        ...configOption,
        ...jsonOption,
        meter: { type: "string" },
        ...directLineOptions,
        profile: { type: "string" },
      },
      [],
    );
    const direct = values.serial !== undefined || values.tcp !== undefined;
    const targets = direct ? [directTarget(values)] : configuredTargets(values.config, values.meter);
    let failed = false;
    const lines = new Map(targets.map(({ line }) => [line.name, lineOf(line)]));
    for (const { name, line, unit, profile, codes } of targets) {
      const bus = lines.get(line.name) as ReturnType<typeof lineOf>;
      const reading = await new ModbusMeter(bus, profile, unit).read(codes && { codes });
      failed ||= reading.status !== 0;
      process.stdout.write(
        values.json ? jsonText(name, reading) : tableText(name, profile, unit, bus.description, reading),
      );
    }
    for (const line of lines.values()) await line.close();
    return failed ? exit.failed : exit.ok;
  },
};

function configuredTargets(config: string, only: string | undefined): Target[] {
  const { configuration, profileOf } = readHubFile(config);
  const meters = configuration.meters.filter((meter) => only === undefined || meter.name === only);
  if (meters.length === 0)
    throw usageError(
      "ecp read",
      `--meter ${only}; the meters are ${configuration.meters.map((meter) => meter.name).join(", ")}`,
    );
  return meters.map(({ name, line, unit, profile, codes }) => ({
    name,
    line: configuration.lines.find((item) => item.name === line) as LineConfiguration,
    unit,
    profile: profileOf(profile),
    ...(codes && { codes }),
  }));
}

function directTarget({ profile: id, ...given }: DirectLine & { profile?: string | undefined }): Target {
  const profile = profileNamed("ecp read", id);
  return { name: profile.models[0] ?? profile.id, profile, ...directLine("ecp read", given, profile.factory) };
}

function jsonText(name: string, reading: MeterReading): string {
  const values = reading.codes.map((code, i): [string, { value: number; unit: string; obis?: string }] => {
    const quantity = quantityOfCode(code);
    const obis = quantity?.obis === undefined ? {} : { obis: quantity.obis };
    return [quantity?.name ?? `code-${code}`, { value: reading.values[i] ?? 0, unit: quantity?.unit ?? "", ...obis }];
  });
  return `${JSON.stringify({
    meter: name,
    time: new Date().toISOString(),
    status: statusLetters[reading.status] ?? "E",
    ...(reading.detail !== undefined && { detail: reading.detail }),
    values: reading.status === 0 ? Object.fromEntries(values) : {},
  })}\n`;
}

function tableText(name: string, profile: MeterProfile, unit: number, where: string, reading: MeterReading): string {
  const title = `${name}: ${profile.make} ${profile.models[0]}, unit ${unit} on ${where}, ${localTime(Date.now())}\n`;
  if (reading.status !== 0) {
    const letter = statusLetters[reading.status] ?? "E";
    return `${title}  no reading (${letter}: ${statusSentences[letter]})\n  ${reading.detail ?? ""}\n`;
  }
  const rows = reading.codes.map((code, i) => {
    const quantity = quantityOfCode(code);
    if (!quantity) return [`code ${code}`, `${reading.values[i]}`, "", ""];
    const { unit: shown, decimals } = quantity.display;
    return [quantity.name, decimalText(reading.values[i] ?? 0, decimals), shown, quantity.obis ?? ""];
  });
  const columns = [
    { title: "quantity" },
    { title: "value", align: "right" },
    { title: "unit" },
    { title: "OBIS" },
  ] as const;
  const note = reading.detail === undefined ? "" : `  left out: ${reading.detail}\n`;
  return title + formatTable(columns, rows) + note;
}

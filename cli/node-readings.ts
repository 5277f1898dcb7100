/** ecp-node readings: the last values of a device's meters, or its newest readings as a table. */

import type { DeviceSummary, StoredRecord } from "../fullnode/store.ts";
import { openStore } from "../fullnode/store-address.ts";
import { decodeCose } from "../protocol/cose-sign1.ts";
import { didKeyOf } from "../protocol/public-key.ts";
import { decimalText, quantityOfCode } from "../protocol/quantity.ts";
import { clockStateLetters, clockStates, statusLetters, statusSentences } from "../protocol/reading-status.ts";
import { decodeRecordPayload } from "../protocol/record.ts";
import { type Command, exit, parseCommand, usageError } from "./command.ts";
import { dataOption, requireData } from "./node-command.ts";
import { findDevice } from "./node-device.ts";
import { formatTable, localTime } from "./table.ts";

const lastMax = 10_000;
/** How many records are looked through for the last reading of each meter. */
const lookBackRecords = 512;
const defaultWidth = 120;

interface Reading {
  readonly epoch: number;
  readonly sequence: number;
  readonly state: "settled" | "provisional" | "held";
  readonly meter: number;
  readonly timeS: number;
  readonly clockState: number;
  readonly status: number;
  readonly values: readonly (readonly [code: number, value: number])[];
}

export const nodeReadings: Command = {
  summary: "show the last values of a device",
  usage: `Usage: ecp-node readings DEVICE --data DIR [--last N] [--json]

DEVICE is a did:key, its part from z6Mk on, or any unique beginning of that.
Without --last: the newest reading of each meter. With --last N: the N newest readings, the newest first.
--json: one JSON object a line; values are integers in the unit beside them.`,

  async run(args) {
    const options = { ...dataOption, last: { type: "string" }, json: { type: "boolean" } } as const;
    const { values, positionals } = parseCommand("ecp-node readings", args, options, ["DEVICE"]);
    const data = requireData("ecp-node readings", values.data);
    const last = values.last === undefined ? undefined : Number(values.last);
    if (last !== undefined && !(Number.isInteger(last) && last >= 1 && last <= lastMax))
      throw usageError("ecp-node readings", `--last ${values.last}, which is not a number from 1 to ${lastMax}`);
    const store = await openStore(data);
    try {
      const device = findDevice(await store.devices(), positionals[0] as string, data);
      const newest = (await store.newestRecords(device.id, last ?? lookBackRecords)).flatMap(readingsOf);
      const readings = last === undefined ? newestOfEachMeter(newest) : newest.slice(0, last);
      const text = values.json
        ? readings.map((reading) => `${JSON.stringify(asJson(device, reading))}\n`).join("")
        : readings.length === 0
          ? `${didKeyOf(device.publicKey)}\nNo reading has come from it yet.\n`
          : last === undefined
            ? readings.map((reading) => asBlock(device, reading)).join("\n")
            : asTable(device, readings);
      process.stdout.write(text);
      return exit.ok;
    } finally {
      await store.close();
    }
  },
};

/** The rows of a record, the newest first. */
function readingsOf(record: StoredRecord): Reading[] {
  const content = decodeRecordPayload(decodeCose(record.bytes).payload);
  if (content.kind !== "reading") return [];
  const { epoch, sequence } = record;
  const { meter, clockState, codes } = content;
  const state = record.held ? "held" : record.settled ? "settled" : "provisional";
  return content.rows
    .map(({ timeS, status, values }) => ({
      ...({ epoch, sequence, state, meter, timeS, clockState, status } as const),
      values: values.map((value, i) => [codes[i] as number, value] as const),
    }))
    .reverse();
}

function newestOfEachMeter(readings: readonly Reading[]): Reading[] {
  const byMeter = new Map<number, Reading>();
  for (const reading of readings) if (!byMeter.has(reading.meter)) byMeter.set(reading.meter, reading);
  return [...byMeter.values()].sort((a, b) => a.meter - b.meter);
}

function asJson(device: DeviceSummary, reading: Reading) {
  const { timeS, clockState, status, values, ...rest } = reading;
  return {
    device: didKeyOf(device.publicKey),
    ...rest,
    meterName: meterName(device, reading.meter),
    ...(clockState === clockStates.relative ? { sinceBootS: timeS } : { time: new Date(timeS * 1000).toISOString() }),
    clock: clockStateLetters[clockState],
    status: statusLetters[status],
    values: Object.fromEntries(
      values.map(([code, value]) => [quantityOfCode(code)?.name ?? `code-${code}`, { value, unit: unitOf(code) }]),
    ),
  };
}

function asBlock(device: DeviceSummary, reading: Reading): string {
  const letter = statusLetters[reading.status] ?? "E";
  const head =
    `${meterName(device, reading.meter)} of ${didKeyOf(device.publicKey)}\n` +
    `${timeText(reading)}, record ${reading.sequence}, ${reading.state}` +
    `${letter === "G" ? "" : `, status ${letter}: ${statusSentences[letter]}`}\n\n`;
  if (reading.values.length === 0) return `${head}no values\n`;
  const rows = reading.values.map(([code, value]) => {
    const { text, unit } = shown(code, value);
    return [quantityOfCode(code)?.name ?? `code ${code}`, text, unit];
  });
  return head + formatTable([{ title: "quantity" }, { title: "value", align: "right" }, { title: "unit" }], rows);
}

/** As many quantities as the terminal is wide enough for; the rest is named below. */
function asTable(device: DeviceSummary, readings: readonly Reading[]): string {
  const codes = [...new Set(readings.flatMap(({ values }) => values.map(([code]) => code)))].sort((a, b) => a - b);
  const cells = (reading: Reading, shownCodes: readonly number[]) => {
    const values = new Map(reading.values);
    return [
      timeText(reading),
      meterName(device, reading.meter),
      `${reading.sequence}`,
      reading.state,
      statusLetters[reading.status] ?? "?",
      ...shownCodes.map((code) => {
        const value = values.get(code);
        return value === undefined ? "–" : shown(code, value).text;
      }),
    ];
  };
  const table = (shownCodes: readonly number[]) =>
    formatTable(
      [
        { title: "time" },
        { title: "meter" },
        { title: "record", align: "right" },
        { title: "state" },
        { title: "st" },
        ...shownCodes.map((code) => ({ title: columnTitle(code), align: "right" as const })),
      ],
      readings.map((reading) => cells(reading, shownCodes)),
    );
  const width = process.stdout.columns ?? defaultWidth;
  let fitting = codes.length;
  while (fitting > 1 && table(codes.slice(0, fitting)).indexOf("\n") > width) fitting--;
  const left = codes.slice(fitting).map((code) => quantityOfCode(code)?.name ?? `code ${code}`);
  const footnote = left.length === 0 ? "" : `\nnot shown: ${left.join(", ")} (--json has all)\n`;
  return `${didKeyOf(device.publicKey)}\n\n${table(codes.slice(0, fitting))}${footnote}`;
}

function shown(code: number, value: number): { text: string; unit: string } {
  const display = quantityOfCode(code)?.display ?? { unit: "", decimals: 0 };
  return { text: decimalText(value, display.decimals), unit: display.unit };
}

function unitOf(code: number): string {
  return quantityOfCode(code)?.unit ?? "";
}

function columnTitle(code: number): string {
  const quantity = quantityOfCode(code);
  if (quantity === undefined) return `code ${code}`;
  const unit = quantity.display.unit;
  return unit === "" ? quantity.name : `${quantity.name} ${unit}`;
}

function timeText({ timeS, clockState }: Reading): string {
  if (clockState === clockStates.relative) return `${timeS} s after boot`;
  return localTime(timeS * 1000);
}

function meterName(device: DeviceSummary, meter: number): string {
  return device.meters.find(({ index }) => index === meter)?.name ?? `meter ${meter}`;
}

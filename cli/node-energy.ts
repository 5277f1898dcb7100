/** ecp-node energy: what a meter counted by quarter hours, hours, days or months; and what was corrected later. */
import { Calendar, isTimeZone, type Resolution, resolutions } from "../fullnode/calendar.ts";
import { type EnergySlot, energySlots, lastEndS } from "../fullnode/energy.ts";
import type { DeviceSummary, Store } from "../fullnode/store.ts";
import { openStore } from "../fullnode/store-address.ts";
import type { SlotCorrection } from "../fullnode/store-reading.ts";
import { didKeyOf } from "../protocol/public-key.ts";
import { decimalText, quantityOfCode } from "../protocol/quantity.ts";
import { type Command, exit, parseCommand, usageError } from "./command.ts";
import { dataOption, requireData } from "./node-command.ts";
import { findDevice } from "./node-device.ts";
import { formatTable } from "./table.ts";

const command = "ecp-node energy";
const quarterS = 900;
const daySeconds = 86_400;
/** A value before the slot that is older than this makes a gap. */
const gapS = quarterS;
const correctionsMax = 10_000;
/** How far back from the newest reading a table goes where nobody says. */
const defaultSpanS: Record<Resolution, number> = {
  quarter: daySeconds,
  hour: 2 * daySeconds,
  day: 31 * daySeconds,
  month: 366 * daySeconds,
};
/** 100,000 slots, of the finest kind nearly three years. */
const slotsMax = 100_000;

const options = {
  ...dataOption,
  by: { type: "string" },
  meter: { type: "string" },
  from: { type: "string" },
  to: { type: "string" },
  "time-zone": { type: "string" },
  corrections: { type: "boolean" },
  json: { type: "boolean" },
  csv: { type: "boolean" },
} as const;

export const nodeEnergy: Command = {
  summary: "show what a meter counted by quarter hours, hours, days or months",
  usage: `Usage: ecp-node energy DEVICE --data DIR [--by quarter|hour|day|month] [--meter N] [--from TIME] [--to TIME]
                       [--time-zone ZONE] [--json|--csv]
       ecp-node energy DEVICE --data DIR --corrections [--meter N] [--json]

DEVICE is a did:key, its part from z6Mk on, or any unique beginning of that. --by day and --meter 0 unless given. Only good readings
that are settled count. A slot's energy is what the register counted since the last reading before the slot; where that was long
before, "since" says when. So slots add up to the register, whatever is missing between.
TIME is a date (its midnight) or a date with a time, 2026-03-01 or 2026-03-01T12:00+01:00, by the time zone unless it names another.
Slots that TIME cuts are shown whole. Without --from: a day of quarter hours, two of hours, a month of days or a year of months, up to
the newest reading. ZONE (Europe/Berlin) is that of the node's init unless given.
"changed late" counts how often its quarter hours changed more than an hour after their end, readings that came late included.
--corrections: quarter hours that had readings and changed so, the newest first: what was known before and after.
--json: one JSON object a line, integers in the unit beside them; --csv: a table with a header, in display units.`,

  async run(args) {
    const { values, positionals } = parseCommand(command, args, options, ["DEVICE"]);
    const data = requireData(command, values.data);
    const resolution = (values.by ?? "day") as Resolution;
    if (!resolutions.includes(resolution))
      throw usageError(command, `--by ${values.by}, not ${resolutions.join(", ")}`);
    const meter = Number(values.meter ?? 0);
    if (!(Number.isInteger(meter) && meter >= 0))
      throw usageError(command, `--meter ${values.meter}, which is no number`);
    if (values.json && values.csv) throw usageError(command, "--json and --csv together");
    const store = await openStore(data);
    try {
      const zone = values["time-zone"] ?? store.timeZone;
      if (!isTimeZone(zone)) throw usageError(command, `the time zone ${zone}, which this machine does not know`);
      const calendar = new Calendar(zone);
      const device = findDevice(await store.devices(), positionals[0] as string, data);
      if (values.corrections) {
        const all = await store.corrections(device.id, correctionsMax);
        const wanted = values.meter === undefined ? all : all.filter((one) => one.meter === meter);
        process.stdout.write(values.json ? jsonLines(wanted.map(correctionJson)) : correctionTable(wanted, calendar));
        return exit.ok;
      }
      const range = await rangeOf(store, calendar, { device: device.id, meter, resolution }, values);
      const slots = range ? await energySlots(store, calendar, { device: device.id, meter, resolution, ...range }) : [];
      const { name } = device.meters.find(({ index }) => index === meter) ?? { name: `meter ${meter}` };
      const title = `${name} of ${didKeyOf(device.publicKey)}, by ${resolution}, ${calendar.zone}`;
      process.stdout.write(
        values.json
          ? jsonLines(slots.map((slot) => slotJson(device, meter, slot)))
          : values.csv
            ? csv(slots, calendar)
            : table(title, slots, calendar),
      );
      return exit.ok;
    } finally {
      await store.close();
    }
  },
};

/** Whole slots; undefined where there is no reading. */
async function rangeOf(
  store: Store,
  calendar: Calendar,
  of: { device: number; meter: number; resolution: Resolution },
  asked: { from?: string | undefined; to?: string | undefined },
): Promise<{ fromS: number; toS: number } | undefined> {
  const { resolution } = of;
  const newestS = await lastEndS(store, of.device, of.meter);
  if (newestS === undefined) return undefined;
  const endS = asked.to === undefined ? newestS : timeOf(asked.to, "--to", calendar);
  const startS = asked.from === undefined ? endS - defaultSpanS[resolution] : timeOf(asked.from, "--from", calendar);
  if (startS >= endS) throw usageError(command, "--from, which is not before --to");
  const fromS = calendar.slotAt(resolution, startS).startS;
  const toS = calendar.slotAt(resolution, endS - 1).endS;
  const quarters = { quarter: 1, hour: 4, day: 96, month: 2_688 }[resolution];
  if ((Math.min(toS, newestS) - fromS) / quarterS / quarters > slotsMax)
    throw usageError(command, `more than ${slotsMax} slots; ask for a part with --from and --to`);
  return { fromS, toS };
}

function timeOf(text: string, option: string, calendar: Calendar): number {
  const parts = /^(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d(?::\d\d)?))?(Z|[+-]\d\d:\d\d)?$/.exec(text);
  const local = parts && Date.parse(`${parts[1]}T${parts[2] ?? "00:00"}Z`) / 1_000;
  if (!parts || local === null || Number.isNaN(local) || (parts[3] && !parts[2]))
    throw usageError(command, `${option} ${text}, which is no time such as 2026-03-01 or 2026-03-01T12:00+01:00`);
  if (parts[3]) return Date.parse(text) / 1_000;
  if (!parts[2]) return calendar.dayStartS(local / daySeconds);
  return local - calendar.offsetS(local - calendar.offsetS(local));
}

function jsonLines(objects: readonly object[]): string {
  return objects.map((object) => `${JSON.stringify(object)}\n`).join("");
}

function nameOf(code: number): string {
  return quantityOfCode(code)?.name ?? `code-${code}`;
}

function isoOf(timeS: number): string {
  return new Date(timeS * 1_000).toISOString();
}

function slotJson(device: DeviceSummary, meter: number, slot: EnergySlot): object {
  return {
    device: didKeyOf(device.publicKey),
    meter,
    start: isoOf(slot.startS),
    end: isoOf(slot.endS),
    rows: slot.rows,
    lateChanges: slot.revision,
    counted: Object.fromEntries(
      slot.advances.map(({ code, counted, sinceS, untilS, fell, exchanged }) => [
        nameOf(code),
        {
          ...{ value: counted, unit: quantityOfCode(code)?.unit, since: isoOf(sinceS), until: isoOf(untilS) },
          ...(fell && { fell }),
          ...(exchanged && { exchanged }),
        },
      ]),
    ),
    levels: Object.fromEntries(
      slot.levels.map(({ code, count, min, max, sum }) => [
        nameOf(code),
        { unit: quantityOfCode(code)?.unit ?? "", min, max, mean: sum / count, count },
      ]),
    ),
  };
}

interface Shown {
  readonly titles: readonly string[];
  readonly cells: (slot: EnergySlot) => string[];
}

/** The registers that occur, in display units. */
function registersOf(slots: readonly EnergySlot[], separator: string): Shown {
  const codes = [...new Set(slots.flatMap(({ advances }) => advances.map(({ code }) => code)))].sort((a, b) => a - b);
  return {
    titles: codes.map((code) => `${nameOf(code)}${separator}${quantityOfCode(code)?.display.unit ?? ""}`),
    cells: ({ advances }) =>
      codes.map((code) => {
        const found = advances.find((one) => one.code === code);
        return found ? decimalText(found.counted, quantityOfCode(code)?.display.decimals ?? 0) : "";
      }),
  };
}

function sinceOf({ startS, advances }: EnergySlot): number | undefined {
  const sinceS = Math.min(...advances.map((one) => one.sinceS));
  return sinceS < startS - gapS ? sinceS : undefined;
}

function table(title: string, slots: readonly EnergySlot[], calendar: Calendar): string {
  if (slots.length === 0) return `${title}\nNo settled good reading in this time.\n`;
  const { titles, cells } = registersOf(slots, " ");
  const notes = (slot: EnergySlot) => {
    const sinceS = sinceOf(slot);
    return [
      ...(sinceS === undefined ? [] : [`since ${calendar.text(sinceS)}`]),
      ...(slot.advances.some(({ exchanged }) => exchanged) ? ["meter exchanged"] : []),
      ...(slot.advances.some(({ fell }) => fell) ? ["a register fell"] : []),
      ...(slot.revision === 0 ? [] : [`changed late ${slot.revision}×`]),
    ].join(", ");
  };
  const columns = [
    { title: "from" },
    { title: "readings", align: "right" as const },
    ...titles.map((one) => ({ title: one, align: "right" as const })),
    { title: "notes" },
  ];
  const rows = slots.map((slot) => [calendar.text(slot.startS), `${slot.rows}`, ...cells(slot), notes(slot)]);
  return `${title}\n\n${formatTable(columns, rows)}`;
}

function csv(slots: readonly EnergySlot[], calendar: Calendar): string {
  const { titles, cells } = registersOf(slots, "_");
  const lines = slots.map((slot) => {
    const sinceS = sinceOf(slot);
    const since = sinceS === undefined ? "" : calendar.text(sinceS);
    const flags = [slot.advances.some(({ exchanged }) => exchanged), slot.advances.some(({ fell }) => fell)].map(
      Number,
    );
    return [
      calendar.text(slot.startS),
      calendar.text(slot.endS),
      slot.rows,
      ...cells(slot),
      since,
      ...flags,
      slot.revision,
    ];
  });
  const header = ["start", "end", "readings", ...titles, "since", "exchanged", "fell", "late_changes"];
  return [header, ...lines].map((cellsOfLine) => `${cellsOfLine.join(",")}\n`).join("");
}

function standsOf({ codes }: SlotCorrection["before"]): [string, { value: number; unit: string | undefined }][] {
  return codes
    .filter(({ code }) => quantityOfCode(code)?.cumulative)
    .map(({ code, last }) => [nameOf(code), { value: last, unit: quantityOfCode(code)?.unit }]);
}

function correctionJson({ meter, generation, endS, revision, atMs, before, after }: SlotCorrection): object {
  const known = (summary: SlotCorrection["before"]) => ({
    rows: summary.rows,
    lastStands: Object.fromEntries(standsOf(summary)),
  });
  return {
    ...{ meter, generation, start: isoOf(endS - quarterS), end: isoOf(endS), revision },
    ...{ at: new Date(atMs).toISOString(), before: known(before), after: known(after) },
  };
}

function correctionTable(corrections: readonly SlotCorrection[], calendar: Calendar): string {
  if (corrections.length === 0) return "No quarter hour has changed more than an hour after its end.\n";
  const columns = [
    ...[{ title: "quarter hour from" }, { title: "meter", align: "right" as const }, { title: "corrected at" }],
    ...[{ title: "readings", align: "right" as const }, { title: "last stand of registers" }],
  ];
  const rows = corrections.map(({ meter, endS, atMs, before, after }) => {
    const stands = new Map(standsOf(before));
    const changes = standsOf(after).flatMap(([name, { value, unit }]) => {
      const old = stands.get(name)?.value;
      return old === value ? [] : [`${name} ${old ?? "none"} → ${value} ${unit}`];
    });
    return [
      ...[calendar.text(endS - quarterS), `${meter}`, calendar.text(Math.floor(atMs / 1_000))],
      ...[`${before.rows} → ${after.rows}`, changes.join(", ") || "as before"],
    ];
  });
  return formatTable(columns, rows);
}

/** A record as JSON for people and programs: names instead of numbers on the wire, bytes in hex and base64. */
import { decimalText, quantityOfCode } from "../protocol/quantity.ts";
import { clockStateLetters, clockStates, hasValues, statusLetters } from "../protocol/reading-status.ts";
import { type DecodedRecord, eventCodes, type RecordEvent } from "../protocol/record.ts";

const eventNames = new Map<number, string>(Object.entries(eventCodes).map(([name, code]) => [code, name]));

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

export function recordJson({ content, cose, digest }: DecodedRecord, bytes: Uint8Array): Record<string, unknown> {
  const link = {
    epoch: content.epoch,
    sequence: content.sequence,
    previous: hex(content.previous),
    digest: hex(digest),
    clock: clockStateLetters[content.clockState],
    generation: content.generation,
    ...(cose.kid && { kid: hex(cose.kid) }),
  };
  const tail = { bytes: Buffer.from(bytes).toString("base64") };
  if (content.kind === "event")
    return { kind: "event", ...link, time: isoTime(content.timeS), events: content.events.map(eventJson), ...tail };
  return {
    kind: "reading",
    ...link,
    meter: content.meter,
    ...(content.plan !== 0 && { plan: content.plan }),
    slotS: content.slotS,
    rows: content.rows.map((row) => ({
      ...(isRelative(content) ? { sinceBootS: row.timeS } : { time: isoTime(row.timeS) }),
      status: statusLetters[row.status],
      values: hasValues(row.status) ? valuesJson(content.codes, row.values) : {},
    })),
    ...tail,
  };
}

/** Read before the clock was set: times count from the boot. */
function isRelative({ clockState }: DecodedRecord["content"]): boolean {
  return clockState === clockStates.relative;
}

function valuesJson(codes: readonly number[], values: readonly number[]): Record<string, number> {
  return Object.fromEntries(codes.map((code, i) => [quantityOfCode(code)?.name ?? `code-${code}`, values[i] ?? 0]));
}

function eventJson([code, ...parameters]: RecordEvent): unknown {
  return {
    event: eventNames.get(code) ?? code,
    parameters: parameters.map((parameter) => (parameter instanceof Uint8Array ? hex(parameter) : parameter)),
  };
}

export function isoTime(timeS: number): string {
  return new Date(timeS * 1_000).toISOString().replace(".000Z", "Z");
}

/** What a record says, in lines for a person. */
export function recordText({ content }: DecodedRecord): string {
  const clock = clockStateLetters[content.clockState] ?? "?";
  const head = `record ${content.sequence} of epoch ${content.epoch}, clock ${clock}${content.generation ? `, generation ${content.generation}` : ""}\n`;
  if (content.kind === "event") {
    const lines = content.events.map(([code, ...parameters]) => {
      const shown = parameters
        .map((parameter) => (parameter instanceof Uint8Array ? hex(parameter) : parameter))
        .join(" ");
      return `  ${isoTime(content.timeS)}  ${eventNames.get(code) ?? `event ${code}`} ${shown}\n`;
    });
    return head + lines.join("");
  }
  const rows = content.rows.map((row) => {
    const values = content.codes.map((code, i) => {
      const quantity = quantityOfCode(code);
      const { unit, decimals } = quantity?.display ?? { unit: "", decimals: 0 };
      return `${quantity?.name ?? `code ${code}`} ${decimalText(row.values[i] ?? 0, decimals)} ${unit}`.trim();
    });
    const letter = statusLetters[row.status] ?? "?";
    const time = isRelative(content) ? `${row.timeS} s after the boot` : isoTime(row.timeS);
    return `  ${time}  ${letter}  ${hasValues(row.status) ? values.join(", ") : "no values"}\n`;
  });
  return `${head}meter ${content.meter}, ${content.slotS === 0 ? "snapshot" : `slots of ${content.slotS} s`}\n${rows.join("")}`;
}

/** A record as JSON for people and programs: names instead of numbers on the wire, bytes in hex and base64. */

import { didKeyOf } from "../protocol/public-key.ts";
import { decimalText, quantityOfCode } from "../protocol/quantity.ts";
import { clockStateLetters, clockStates, hasValues, statusLetters } from "../protocol/reading-status.ts";
import {
  type DecodedRecord,
  epochReasons,
  eventCodes,
  type RecordContent,
  type RecordEvent,
} from "../protocol/record.ts";
import { Refusal } from "../protocol/refusal.ts";
import { certificateIn, type RotationCertificate } from "../protocol/rotation.ts";

const eventNames = new Map<number, string>(Object.entries(eventCodes).map(([name, code]) => [code, name]));
const reasonNames = new Map<number, string>(Object.entries(epochReasons).map(([name, code]) => [code, name]));

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
    return {
      kind: "event",
      ...link,
      ...timeJson(content, content.timeS),
      events: content.events.map(eventJson),
      ...tail,
    };
  return {
    kind: "reading",
    ...link,
    meter: content.meter,
    ...(content.plan !== 0 && { plan: content.plan }),
    slotS: content.slotS,
    rows: content.rows.map((row) => ({
      ...timeJson(content, row.timeS),
      status: statusLetters[row.status],
      values: hasValues(row.status) ? valuesJson(content.codes, row.values) : {},
    })),
    ...tail,
  };
}

/** Read before the clock was set: times count from the boot. */

function valuesJson(codes: readonly number[], values: readonly number[]): Record<string, number> {
  return Object.fromEntries(codes.map((code, i) => [quantityOfCode(code)?.name ?? `code-${code}`, values[i] ?? 0]));
}

function eventJson([code, ...parameters]: RecordEvent): unknown {
  return {
    event: eventNames.get(code) ?? code,
    parameters: parameters.map((parameter) => (parameter instanceof Uint8Array ? hex(parameter) : parameter)),
  };
}

/** Seconds since the boot are no date: no clock was set. */
function timeJson({ clockState }: RecordContent, timeS: number): Record<string, unknown> {
  return clockState === clockStates.relative ? { sinceBootS: timeS } : { time: isoTime(timeS) };
}

function timeText({ clockState }: RecordContent, timeS: number): string {
  return clockState === clockStates.relative ? `${timeS} s after the boot` : isoTime(timeS);
}

export function isoTime(timeS: number): string {
  return new Date(timeS * 1_000).toISOString().replace(".000Z", "Z");
}

/** What an event's parameters say; those of keys and epochs in words. */
function parametersText(content: RecordContent, [code, ...parameters]: RecordEvent): string {
  const certificate = code === eventCodes.keyRotated ? rotationOf(content) : undefined;
  if (certificate) return `to ${didKeyOf(certificate.publicKey)}, which begins epoch ${certificate.nextEpoch}`;
  const shown = parameters.map((parameter) => (parameter instanceof Uint8Array ? hex(parameter) : parameter));
  const [first, second, third] = shown;
  if (code === eventCodes.epochBegun)
    return `${reasonNames.get(first as number) ?? first}: before it epoch ${second}, known up to record ${third}`;
  if (code === eventCodes.dropped) return `records ${second} to ${third} of epoch ${first}`;
  return shown.join(" ");
}

/** What a rotation says; its form only, and nothing where that is not right: who shows it has not checked it. */
function rotationOf(content: RecordContent): RotationCertificate | undefined {
  try {
    return certificateIn(content)?.certificate;
  } catch (error) {
    if (error instanceof Refusal) return undefined;
    throw error;
  }
}

/** What a record says, in lines for a person. */
export function recordText({ content }: DecodedRecord): string {
  const clock = clockStateLetters[content.clockState] ?? "?";
  const head = `record ${content.sequence} of epoch ${content.epoch}, clock ${clock}${content.generation ? `, generation ${content.generation}` : ""}\n`;
  if (content.kind === "event") {
    const lines = content.events.map((event) => {
      const name = eventNames.get(event[0]) ?? `event ${event[0]}`;
      return `  ${timeText(content, content.timeS)}  ${`${name} ${parametersText(content, event)}`.trimEnd()}\n`;
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
    return `  ${timeText(content, row.timeS)}  ${letter}  ${hasValues(row.status) ? values.join(", ") : "no values"}\n`;
  });
  return `${head}meter ${content.meter}, ${content.slotS === 0 ? "snapshot" : `slots of ${content.slotS} s`}\n${rows.join("")}`;
}

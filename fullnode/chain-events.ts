/** What a record says of the chain itself: sequences that will never come, and that it is the last one. */
import { uint32Max } from "../protocol/field.ts";
import { type EventContent, eventCodes, type RecordContent, type RecordEvent } from "../protocol/record.ts";
import type { SequenceRange } from "./store.ts";
import type { MeterExchange } from "./store-reading.ts";

/** Sequences of an epoch that the wallet overwrote unacknowledged, the oldest first: nothing up to `last` comes any more. */
export interface DroppedRange extends SequenceRange {
  readonly epoch: number;
}

function eventsOf(content: RecordContent, code: number): readonly RecordEvent[] {
  return content.kind === "event" ? content.events.filter(([other]) => other === code) : [];
}

/** The void that a record declares; "bad-void" unless it ends just before the record itself. */
export function voidOf(content: RecordContent): SequenceRange | "bad-void" | undefined {
  const [declared, second] = eventsOf(content, eventCodes.void);
  if (declared === undefined) return undefined;
  const [, first, last, ...rest] = declared;
  if (second !== undefined || rest.length > 0 || typeof first !== "number" || typeof last !== "number")
    return "bad-void";
  return first >= 1 && first <= last && last === content.sequence - 1 ? { first, last } : "bad-void";
}

/** The dropped ranges that a record declares; undefined where one of them makes no sense. */
export function droppedOf(content: RecordContent): readonly DroppedRange[] | undefined {
  const ranges: DroppedRange[] = [];
  for (const [, epoch, first, last, ...rest] of eventsOf(content, eventCodes.dropped)) {
    const isRange =
      isUint32(epoch) && isUint32(first) && isUint32(last) && rest.length === 0 && first >= 1 && first <= last;
    if (!isRange || (epoch === content.epoch && last >= content.sequence)) return undefined;
    ranges.push({ epoch, first, last });
  }
  return ranges;
}

function isUint32(value: unknown): value is number {
  return typeof value === "number" && value >= 0 && value <= uint32Max;
}

/** Whether a record is the last one of its epoch: its key was rotated, or retired. */
export function endsEpoch(content: RecordContent): boolean {
  return eventsOf(content, eventCodes.keyRotated).length > 0 || eventsOf(content, eventCodes.keyRetired).length > 0;
}

/** The exchanges of meters that a record tells of; what makes no sense is left out. */
export function exchangesOf(content: EventContent): MeterExchange[] {
  const { epoch, sequence, generation, timeS } = content;
  return eventsOf(content, eventCodes.meterReplaced).flatMap(([, meter, , installation = 0]) =>
    isUint32(meter) && isUint32(installation) ? [{ epoch, sequence, generation, timeS, meter, installation }] : [],
  );
}

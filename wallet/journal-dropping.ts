/** What must be said of records that a full ring overwrites. */
import { type DecodedRecord, eventCodes } from "../protocol/record.ts";
import type { JournalEpochs } from "./journal-epochs.ts";

/** Whether records say that all up to this ordinal is dropped. */
export function declaresDrop(
  records: readonly { readonly decoded: DecodedRecord }[],
  dropping: number,
  epochs: JournalEpochs,
): boolean {
  const events = records.flatMap(({ decoded: { content } }) => (content.kind === "event" ? content.events : []));
  return events.some(
    ([code, epoch, , last]) =>
      code === eventCodes.dropped && epochs.ordinalOf(epoch as number, last as number) === dropping,
  );
}

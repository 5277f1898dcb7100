/** What the path of records tells of its work, and the receipts that it gives. */
import type { ClockStateLetter } from "../protocol/reading-status.ts";
import type { RefusedSample } from "./refusal-tally.ts";
import type { VerdictReason } from "./verdict.ts";

type RecordState = "settled" | "provisional" | "held";

export interface StoredEvent {
  readonly event: "stored";
  /** did:key of the device. */
  readonly device: string;
  readonly epoch: number;
  readonly sequence: number;
  readonly state: RecordState;
  /** What the device says of its clock. */
  readonly clock: ClockStateLetter;
}

export interface RefusedEvent extends RefusedSample {
  readonly event: "refused";
}

/** What became of a record, for whoever brought it and asked. */
export interface RecordAnswer {
  readonly outcome: "stored" | "duplicate" | VerdictReason;
  /** Where the record stands; undefined where its form did not hold. */
  readonly place?: { readonly epoch: number; readonly sequence: number; readonly digest: Uint8Array };
  /** The signed receipt that was given for its chain, where one was. */
  readonly receipt?: Uint8Array;
}

export interface OutgoingReceipt {
  /** Multibase name of the device. */
  readonly device: string;
  readonly epoch: number;
  readonly bytes: Uint8Array;
}

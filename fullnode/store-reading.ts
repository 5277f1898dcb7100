/**
 * What a store gives to those who read it: records, rows, quarter hours. Pages are asked for by the key of the last item; all are
 * in ascending order of their key unless said otherwise. Hours, days and months are made of quarter hours, see energy.ts.
 */
import type { SlotSummary } from "./aggregate.ts";
import type { Awaitable, CountedRow, RecordPlace, StoredRecord } from "./store.ts";

/** A meter by one generation of its clock. Its registers' history is ordered by generation, then time. */
export interface Series {
  readonly meter: number;
  readonly generation: number;
}

export interface RowKey extends Series {
  readonly timeS: number;
}

export interface StoredRow extends CountedRow, RecordPlace {}

export interface SlotKey extends Series {
  /** End of the quarter hour, in Unix seconds. */
  readonly endS: number;
}

/** A quarter hour with at least one booked row. */
export interface StoredSlot extends SlotKey {
  readonly summary: SlotSummary;
  /** How often it changed more than an hour after its end, its first row included. Depends on when records came. */
  readonly revision: number;
}

/** A quarter hour that had rows already changed more than an hour after its end. */
export interface SlotCorrection extends SlotKey {
  readonly revision: number;
  /** Unix milliseconds of the node's clock. */
  readonly atMs: number;
  readonly before: SlotSummary;
  readonly after: SlotSummary;
}

/** A settled record says that a meter was exchanged: registers before and after it have nothing to do with each other. */
export interface MeterExchange extends RecordPlace, RowKey {
  readonly installation: number;
}

export interface EvidencePlace extends RecordPlace {
  readonly digest: Uint8Array;
}

/** What is kept of a device that nobody has enrolled; the key that its name stands for has signed it. */
export interface QuarantineEntry {
  readonly name: string;
  readonly records: number;
  readonly firstReceivedMs: number;
  readonly lastReceivedMs: number;
}

export interface StoreReading {
  /** IANA name of the zone by which hours, days and months begin; "UTC" unless set. */
  readonly timeZone: string;
  recordsAfter(device: number, after: RecordPlace | undefined, limit: number): Awaitable<readonly StoredRecord[]>;
  rowsAfter(device: number, after: RowKey | undefined, limit: number): Awaitable<readonly StoredRow[]>;
  /** The meters and generations that have booked rows, ascending. */
  series(device: number): Awaitable<readonly Series[]>;
  /** Quarter hours with fromS < end ≤ toS. */
  slots(device: number, series: Series, fromS: number, toS: number, limit: number): Awaitable<readonly StoredSlot[]>;
  /** Quarter hours of a meter before one, by generation and end, the newest first. */
  slotsBefore(device: number, key: SlotKey, limit: number): Awaitable<readonly StoredSlot[]>;
  exchanges(device: number): Awaitable<readonly MeterExchange[]>;
  /** The newest first. */
  corrections(device: number, limit: number): Awaitable<readonly SlotCorrection[]>;
  evidence(device: number): Awaitable<readonly EvidencePlace[]>;
  /** Names without an enrolment, the one heard last first. */
  quarantined(limit: number): Awaitable<readonly QuarantineEntry[]>;
  /** Digests that wait for the ledger, and how many different ones they are. */
  ledgerQueue(): Awaitable<{ readonly entries: number; readonly different: number }>;
}

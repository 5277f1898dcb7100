/**
 * What the full node keeps, as one interface, so that another engine can stand behind it. Every answer may be a promise: an
 * embedded engine answers at once, a server later. All writes of one batch happen in one {@link Store.transaction}.
 */
import type { EnrolledMeter } from "../protocol/enrolment.ts";
import type { DroppedRange } from "./chain-events.ts";
import type { LorawanStore } from "./store-lorawan.ts";
import type { MeterExchange, StoreReading } from "./store-reading.ts";

export type Awaitable<T> = T | Promise<T>;

/** A device by its number in this store. */
export interface StoredDevice {
  readonly id: number;
  /** Multibase part of the did:key of its enrolment. */
  readonly name: string;
  /** The key of its name. */
  readonly publicKey: Uint8Array;
  /** Of the key of its name. */
  readonly kid: Uint8Array;
  /** The key that signs now: another than that of the name, once that was rotated. */
  readonly currentKey: Uint8Array;
  readonly softwareId: string;
  readonly meters: readonly EnrolledMeter[];
  readonly requestDigest: Uint8Array;
  readonly enrolledMs: number;
}

export interface Enrolment extends Omit<StoredDevice, "id"> {
  readonly share: Uint8Array;
  readonly request: Uint8Array;
  /** The epoch that its owner agreed to by enrolling; its key is {@link StoredDevice.currentKey}. */
  readonly epoch: number;
  /** Epochs that the request's rotations name, oldest first, none where the key was never rotated. */
  readonly earlier: readonly { readonly epoch: number; readonly publicKey: Uint8Array }[];
}

/** What the owner has said of an epoch. */
export type EpochDecision = "none" | "accepted" | "rejected";

/** A record by its place in a device's chains. */
export interface RecordPlace {
  readonly epoch: number;
  readonly sequence: number;
}

/** The record `sequence` says that all up to `last` that is not there was dropped. */
export interface DeclaredDrop {
  readonly last: number;
  readonly sequence: number;
}

/** Sequences without a gap: stored, or voided. `digest` is that of the record `last`, which is always a stored one. */
export interface Span {
  readonly first: number;
  readonly last: number;
  readonly digest: Uint8Array;
}

export interface StoredEpoch {
  readonly epoch: number;
  /** Signs all records of the epoch. */
  readonly publicKey: Uint8Array;
  /** Stored, and not settled until the owner agrees. */
  readonly held: boolean;
  readonly decision: EpochDecision;
  /** The rotation record that announced the epoch. */
  readonly parent?: RecordPlace;
  /** The last record of the epoch, settled, as it says itself. */
  readonly ended?: number;
  /** Drops within the epoch, declared by records that are not settled. */
  readonly drops: readonly DeclaredDrop[];
  /** What is not there up to here was dropped, as settled records say. */
  readonly gone: number;
  /** Up to here settling has looked; 0: nothing yet. */
  readonly settledThrough: number;
  /** Ascending, with gaps between. */
  readonly spans: readonly Span[];
  /** Records kept as evidence of a fork. */
  readonly evidence: number;
}

export interface ChangedEpoch {
  readonly settledThrough: number;
  readonly ended: number | undefined;
  /** The span from sequence 1 on. */
  readonly whole: Span | undefined;
  readonly removedFirsts: readonly number[];
  readonly changedSpans: readonly Span[];
  /** Undefined: the last one stays. */
  readonly receipt: Uint8Array | undefined;
  readonly nowMs: number;
}

/** A record in its place of the chain. */
export interface Seat {
  readonly sequence: number;
  /** The sequence that `previous` speaks of: sequence − 1, or what stands before the void that the record declares. */
  readonly predecessor: number;
  readonly digest: Uint8Array;
  readonly previous: Uint8Array;
  readonly settled: boolean;
}

export interface NewSeat extends Seat {
  /** The record as untagged COSE_Sign1 with an empty unprotected map: the bytes that the digest is of. */
  readonly bytes: Uint8Array;
  readonly receivedMs: number;
}

export interface SequenceRange {
  readonly first: number;
  readonly last: number;
}

/** What a record says of sequences that will never come. */
export interface Declared {
  readonly voided: SequenceRange | undefined;
  readonly dropped: readonly DroppedRange[];
}

export type NewEpoch = Pick<StoredEpoch, "publicKey" | "held" | "decision" | "parent">;

/** One row of one meter, as it counts. */
export interface CountedRow {
  readonly meter: number;
  readonly generation: number;
  readonly timeS: number;
  readonly slotS: number;
  readonly status: number;
  /** Whether it enters totals: rows that failed, or are implausible (M, O), are kept and do not. */
  readonly booked: boolean;
  /** Code and value in turn. */
  readonly values: readonly number[];
}

/** The key of an epoch, and what became of it. */
export interface EpochKey extends Pick<StoredEpoch, "epoch" | "publicKey" | "held" | "decision"> {
  /** The rotation record that announced the epoch. */
  readonly parent?: RecordPlace;
}

export interface StoredRecord extends Seat {
  readonly epoch: number;
  readonly held: boolean;
  readonly bytes: Uint8Array;
  readonly receivedMs: number;
}

export interface DeviceSummary extends StoredDevice {
  readonly records: number;
  readonly evidence: number;
  readonly epochs: readonly (StoredEpoch & {
    readonly lastReceivedMs: number;
    readonly records: number;
    readonly settled: number;
  })[];
}

/** A device as one look over all of them sees it. */
export interface DeviceState {
  readonly name: string;
  readonly enrolledMs: number;
  /** When its last record came; 0: none yet. */
  readonly lastReceivedMs: number;
  /** Epochs that wait for the owner's word. */
  readonly heldEpochs: number;
  /** Records that contradict its chain, and when the newest of them came (0: none). */
  readonly evidence: number;
  readonly evidenceMs: number;
  /** Records are stored, in an epoch that is not held, whose predecessors have not come. */
  readonly hasGap: boolean;
}

export interface QuarantinedRecord {
  readonly name: string;
  readonly digest: Uint8Array;
  readonly bytes: Uint8Array;
}

/** A record's place, over all devices. */
export interface StorePlace extends RecordPlace {
  readonly device: number;
}

/**
 * What the work of a transaction will touch. A server reads ahead with it, and keeps other nodes from these devices until
 * the end; work must not change devices that its scope does not name.
 */
export interface BatchScope {
  readonly devices: readonly number[];
  /** Where records are to be placed. */
  readonly places: readonly StorePlace[];
  /** Unix milliseconds of the node's clock; without it no change of a quarter hour counts as late. */
  readonly nowMs?: number;
}

/** Reads and writes of one batch; all of them happen, or none. */
export interface StoreTransaction {
  /** Devices of the scope (or all) that another process has changed since this store's last transaction with them. */
  readonly foreign: "all" | ReadonlySet<number>;
  epoch(device: number, epoch: number): Awaitable<StoredEpoch | undefined>;
  epochCount(device: number): Awaitable<number>;
  epochKeys(device: number): Awaitable<readonly EpochKey[]>;
  addEpoch(device: number, epoch: number, state: NewEpoch, nowMs: number): Awaitable<void>;
  /** Changes what is given and leaves the rest. */
  updateEpoch(device: number, epoch: number, state: Partial<NewEpoch>): Awaitable<void>;
  /** All records of an epoch leave their places and become evidence; the epoch begins anew, without a receipt. */
  evictEpoch(device: number, epoch: number, reason: string): Awaitable<void>;
  deviceName(device: number): Awaitable<string>;
  currentKey(device: number): Awaitable<Uint8Array>;
  setCurrentKey(device: number, publicKey: Uint8Array): Awaitable<void>;
  /** Writes where a chain stands, its last receipt, and the spans that changed. */
  saveEpoch(device: number, epoch: number, state: ChangedEpoch): Awaitable<void>;

  seat(device: number, epoch: number, sequence: number): Awaitable<Seat | undefined>;
  /** The highest place taken below a sequence. */
  seatBelow(device: number, epoch: number, sequence: number): Awaitable<Seat | undefined>;
  /** Adds a record with what it declares, and queues its digest for the ledger. */
  addSeat(device: number, epoch: number, seat: NewSeat, declared: Declared): Awaitable<void>;
  /** {@link StoredEpoch.drops} and {@link StoredEpoch.gone}, as they are now. */
  drops(device: number, epoch: number): Awaitable<Pick<StoredEpoch, "drops" | "gone">>;
  /** Takes a record out of its place and keeps it as evidence; with it the void and the drops that it declared. */
  unseat(device: number, epoch: number, sequence: number, reason: string): Awaitable<void>;
  /** The records whose void begins with this sequence. */
  voidsFrom(device: number, epoch: number, first: number): Awaitable<readonly number[]>;
  voids(device: number, epoch: number): Awaitable<readonly SequenceRange[]>;
  /** All places taken, ascending. */
  seats(device: number, epoch: number): Awaitable<readonly { sequence: number; digest: Uint8Array }[]>;
  /** Records not settled with `after` < sequence ≤ `through`, ascending, at most `limit`. */
  unsettled(
    device: number,
    epoch: number,
    after: number,
    through: number,
    limit: number,
  ): Awaitable<readonly (Seat & { bytes: Uint8Array })[]>;
  settle(device: number, epoch: number, sequence: number): Awaitable<void>;
  /**
   * The first row of a counting key (device, meter, clock generation, time) stays; but one with values replaces one without, and
   * one that is booked one that is not: a marked row must not keep a slot from the reading that comes when it ends.
   * What is booked by it, and was not before, enters its quarter hour (aggregate.ts) in the same transaction.
   */
  countRows(device: number, epoch: number, sequence: number, rows: readonly CountedRow[]): Awaitable<void>;
  /** A settled record tells of exchanged meters. */
  addExchange(device: number, exchange: MeterExchange): Awaitable<void>;

  evidenceDigests(device: number, epoch: number, sequence: number): Awaitable<readonly Uint8Array[]>;
  /** Evidence of one epoch, the newest first, at most `limit`. */
  evidenceSequences(device: number, epoch: number, limit: number): Awaitable<readonly [number, string][]>;
  addEvidence(
    device: number,
    epoch: number,
    record: { sequence: number; digest: Uint8Array; bytes: Uint8Array; reason: string; receivedMs: number },
  ): Awaitable<void>;
  evidenceCount(device: number): Awaitable<number>;

  lastReceipt(device: number, epoch: number): Awaitable<Uint8Array | undefined>;

  addQuarantined(record: QuarantinedRecord & { epoch: number; sequence: number; receivedMs: number }): Awaitable<void>;
  removeQuarantined(name: string, digest: Uint8Array): Awaitable<void>;
}

export interface Store extends StoreReading {
  readonly nodeName: string;
  /**
   * Runs the work in one transaction; when the promise is fulfilled, all of it survives a power cut. Work may be run again
   * from the start where another node was in its way.
   */
  transaction<T>(scope: BatchScope, work: (tx: StoreTransaction) => Promise<T>): Promise<T>;
  /**
   * Changes whenever another process has written something that concerns everyone: devices enrolled, epochs agreed to, and in
   * an embedded store anything at all. Whoever keeps copies must then drop them. See {@link StoreTransaction.foreign} for the rest.
   */
  foreignChanges(): Awaitable<number>;

  device(name: string): Awaitable<StoredDevice | undefined>;
  /** Names of enrolled devices, the newest first, at most `limit`. */
  deviceNames(limit: number): Awaitable<readonly string[]>;
  /** The keys of a device's epochs. */
  epochKeys(device: number): Awaitable<readonly EpochKey[]>;
  /** The enrolment request that a device was taken, or renewed, by. */
  enrolmentRequest(device: number): Awaitable<Uint8Array | undefined>;
  /** Adds a device, or renews it: the epoch of the request is agreed to from now on. Returns whether the device is new. */
  enrol(enrolment: Enrolment): Awaitable<boolean>;
  /** Digests of stored records, for telling duplicates before any signature is checked; in the order asked. */
  digests(places: readonly StorePlace[]): Awaitable<readonly (Uint8Array | undefined)[]>;
  /** Epochs that have stored records to settle. */
  epochsToSettle(limit: number): Awaitable<readonly { device: number; epoch: number }[]>;
  /** Quarantined records of devices that are enrolled by now. */
  releasedQuarantine(limit: number): Awaitable<readonly QuarantinedRecord[]>;
  quarantineCount(name: string): Awaitable<{ ofName: number; total: number }>;

  devices(): Awaitable<readonly DeviceSummary[]>;
  /** All devices in the order of their enrolment; cheap enough to be asked for twice a minute. */
  deviceStates(): Awaitable<readonly DeviceState[]>;
  /** The newest records of a device: latest epoch first, sequence descending. */
  newestRecords(device: number, limit: number): Awaitable<readonly StoredRecord[]>;
  /** The bytes of a stored record, as its digest is of them. */
  recordBytes(device: number, place: RecordPlace): Awaitable<Uint8Array | undefined>;
  /** DevEUIs, sessions of fragments, leases. */
  readonly lorawan: LorawanStore;
  /** Whether a failure passes (no room, no connection, another process in the way): the store is sound, and a later try may do. */
  isPassing(error: unknown): boolean;
  close(): Awaitable<void>;
}

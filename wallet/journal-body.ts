/**
 * What a commit holds, as deterministic CBOR with integer keys: 1 records, 2 pending rows, 3 the receipt that the released
 * position rests on, 4 state, 5 what is about to be dropped. State stands in the first commit of each segment and says how things stood before that
 * commit, so that a start needs to read the newest segments only. Unknown keys are left aside, so that an older version
 * still opens what a newer one wrote; what must be understood raises the format version of the blocks.
 */
import { type CborKey, type CborMap, type CborValue, decodeCbor, encodeCbor } from "../protocol/deterministic-cbor.ts";
import { asArray, asBytes, asInteger, asMap, asText, uint32Max } from "../protocol/field.ts";
import { codesMax, metersMax, type Row, recordBytesMax } from "../protocol/record.ts";
import { firstCommitBodyBytesMax } from "./journal-block.ts";
import { type EpochBase, epochsMax, type Place } from "./journal-epochs.ts";

export const commitRecordsMax = 16;
export const bootIdBytes = 16;
const commitPendingRowsMax = 64;
/** Plans of a meter that are kept apart. It bounds the state, so that the first commit of a segment always fits. */
export const plansMax = 4;
const lastRowsMax = metersMax * plansMax;

/** A row that is on disk and not yet part of a signed record. */
export interface PendingRow {
  readonly meter: number;
  readonly plan: number;
  readonly slotS: number;
  readonly generation: number;
  readonly clockState: number;
  readonly codes: readonly number[];
  readonly row: Row;
}

/** The newest row of a meter and plan. */
export interface LastRow {
  readonly meter: number;
  readonly plan: number;
  readonly generation: number;
  readonly timeS: number;
  /** Latest time of all generations: no row beyond it is known. */
  readonly latestS: number;
  /** Stands of its registers that only rise, each as the last good row that had it says. */
  readonly registers: readonly RegisterStand[];
}

/** What a register showed, and the time of that row; 0 where it is not known. */
export type RegisterStand = readonly [code: number, stand: number, timeS: number];

/** What the records say of the wallet itself. Each follows from events, see journal-history.ts. */
export interface HistoryState {
  readonly relative?: { readonly generation: number; readonly bootId: Uint8Array };
  readonly lastStarted?: { readonly softwareId: string; readonly policyDigest: Uint8Array };
  /** Installation number of each meter that was ever replaced. */
  readonly installations: ReadonlyMap<number, number>;
  /** The newest TPM counter value. */
  readonly counter?: number;
  /** All up to here are released, or sealed as dropped. */
  readonly dropped?: Place;
}

export interface JournalState extends HistoryState {
  /** Oldest first, the running one last; none in journals of before there could be several. */
  readonly epochs: readonly EpochBase[];
  /** In the running epoch. */
  readonly nextSequence: number;
  /** Digest of the newest record; 32 zero bytes before the first. */
  readonly lastDigest: Uint8Array;
  readonly generation: number;
  readonly lastRows: readonly LastRow[];
  /** Commit number of the oldest commit with a row that is still pending; 0 where none is. */
  readonly oldestPendingCommit: number;
}

export interface CommitBody {
  readonly records: readonly Uint8Array[];
  readonly pendingRows: readonly PendingRow[];
  readonly receipt?: Uint8Array;
  readonly state?: JournalState;
  /** What the next commit, at the beginning of the next segment, drops unreleased: all up to here. */
  readonly dropping?: Place;
}

export function encodeBody(body: CommitBody): Uint8Array {
  const map = new Map<number, CborValue>();
  if (body.records.length > 0) map.set(1, [...body.records]);
  if (body.pendingRows.length > 0)
    map.set(
      2,
      body.pendingRows.map(({ meter, plan, slotS, generation, clockState, codes, row }) => [
        ...[meter, plan, slotS, generation, clockState, row.timeS, row.status],
        [...codes],
        [...row.values],
      ]),
    );
  if (body.receipt) map.set(3, body.receipt);
  if (body.state) map.set(4, encodeState(body.state));
  if (body.dropping) map.set(5, [body.dropping.epoch, body.dropping.sequence]);
  return encodeCbor(map);
}

function encodeState(state: JournalState): CborMap {
  const { epochs, relative, lastStarted, installations, counter, dropped } = state;
  return new Map<number, CborValue>([
    [1, state.nextSequence],
    [2, state.lastDigest],
    [3, state.generation],
    [
      4,
      state.lastRows.map(({ meter, plan, generation, timeS, latestS, registers }) => [
        ...[meter, plan, generation, timeS, latestS],
        new Map(registers.map(([code, stand, time]): [number, CborValue] => [code, [stand, time]])),
      ]),
    ],
    [5, state.oldestPendingCommit],
    [6, epochs.map(({ epoch, base }) => [epoch, base])],
    ...optional(7, relative && [relative.generation, relative.bootId]),
    ...optional(8, lastStarted && [lastStarted.softwareId, lastStarted.policyDigest]),
    ...optional(9, installations.size > 0 ? [...installations].map((pair) => [...pair]) : undefined),
    ...optional(10, counter),
    ...optional(11, dropped && [dropped.epoch, dropped.sequence]),
  ]);
}

function optional(key: number, value: CborValue | undefined): [number, CborValue][] {
  return value === undefined ? [] : [[key, value]];
}

/** Throws Refusal on a body that is not ours, though its checksum held: it was written by other software. */
export function decodeBody(bytes: Uint8Array): CommitBody {
  const map = asMap(decodeCbor(bytes, firstCommitBodyBytesMax), "commit");
  const receipt = map.get(3);
  const state = map.get(4);
  const dropping = map.get(5);
  return {
    records: asArray(map.get(1) ?? [], "records", commitRecordsMax).map((item) =>
      asBytes(item, "record", recordBytesMax, 1),
    ),
    pendingRows: asArray(map.get(2) ?? [], "pending rows", commitPendingRowsMax).map(decodePendingRow),
    ...(receipt !== undefined && { receipt: asBytes(receipt, "receipt", 4_096, 1) }),
    ...(state !== undefined && { state: decodeState(asMap(state, "state")) }),
    ...(dropping !== undefined && { dropping: decodePlace(dropping) }),
  };
}

function decodePendingRow(value: CborValue): PendingRow {
  const items = asArray(value, "pending row", 9);
  const integer = (index: number): number => asInteger(items[index], "pending row", 0, uint32Max);
  const integers = (index: number): number[] =>
    asArray(items[index], "pending row", codesMax).map((item) =>
      asInteger(item, "pending row", Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
    );
  return {
    meter: integer(0),
    plan: integer(1),
    slotS: integer(2),
    generation: integer(3),
    clockState: integer(4),
    codes: integers(7),
    row: { timeS: integer(5), status: integer(6), values: integers(8) },
  };
}

function decodeState(state: CborMap): JournalState {
  return {
    nextSequence: asInteger(state.get(1), "next sequence", 1, uint32Max + 1),
    lastDigest: asBytes(state.get(2), "last digest", 32),
    generation: asInteger(state.get(3), "generation", 0, uint32Max),
    lastRows: asArray(state.get(4), "last rows", lastRowsMax).map((item) => {
      const [meter, plan, generation, timeS, latestS, registers] = asArray(item, "last row", 6);
      return {
        meter: asInteger(meter, "meter", 0, uint32Max),
        plan: asInteger(plan, "plan", 0, uint32Max),
        generation: asInteger(generation, "generation", 0, uint32Max),
        timeS: asInteger(timeS, "time", 0, uint32Max),
        latestS: asInteger(latestS, "latest time", 0, uint32Max),
        registers: [...asMap(registers, "registers")].map(decodeStand),
      };
    }),
    oldestPendingCommit: asInteger(state.get(5), "oldest pending commit", 0, Number.MAX_SAFE_INTEGER),
    epochs: readPairs(state.get(6), "epochs", epochsMax).map(([epoch, base]) => ({ epoch, base })),
    ...decodeHistory(state),
  };
}

function decodeStand([code, value]: [CborKey, CborValue]): RegisterStand {
  // Version 0.2.0 and before wrote the stand alone.
  const [stand, time] = asArray(typeof value === "number" ? [value, 0] : value, "register", 2);
  return [
    asInteger(code, "code", 1, 65_535),
    asInteger(stand, "stand", Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
    asInteger(time, "stand's time", 0, uint32Max),
  ];
}

function decodeHistory(state: CborMap): HistoryState {
  const relative = state.get(7);
  const started = state.get(8);
  const counter = state.get(10);
  const dropped = state.get(11);
  return {
    installations: new Map(readPairs(state.get(9), "installations", metersMax)),
    ...(relative !== undefined && { relative: decodeRelative(relative) }),
    ...(started !== undefined && { lastStarted: decodeStarted(started) }),
    ...(counter !== undefined && { counter: asInteger(counter, "counter", 0, Number.MAX_SAFE_INTEGER) }),
    ...(dropped !== undefined && { dropped: decodePlace(dropped) }),
  };
}

function decodeRelative(value: CborValue): { generation: number; bootId: Uint8Array } {
  const [generation, bootId] = asArray(value, "relative", 2);
  return {
    generation: asInteger(generation, "generation", 0, uint32Max),
    bootId: asBytes(bootId, "boot id", bootIdBytes),
  };
}

function decodeStarted(value: CborValue): { softwareId: string; policyDigest: Uint8Array } {
  const [softwareId, policyDigest] = asArray(value, "started", 2);
  return {
    softwareId: asText(softwareId, "software id", 1_024),
    policyDigest: asBytes(policyDigest, "policy digest", 32),
  };
}

function decodePlace(value: CborValue): Place {
  const [epoch, sequence] = asArray(value, "place", 2);
  return { epoch: asInteger(epoch, "epoch", 0, uint32Max), sequence: asInteger(sequence, "sequence", 0, uint32Max) };
}

/** Pairs of integers; none where the key is absent. */
function readPairs(value: CborValue | undefined, name: string, pairsMax: number): [number, number][] {
  return asArray(value ?? [], name, pairsMax).map((item) => {
    const [first, second] = asArray(item, name, 2);
    return [asInteger(first, name, 0, Number.MAX_SAFE_INTEGER), asInteger(second, name, 0, Number.MAX_SAFE_INTEGER)];
  });
}

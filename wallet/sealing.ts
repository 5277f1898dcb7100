/**
 * Sealing: from the fields of a reading to records of the chain. Checks the request against the wallet's own policy, builds
 * the canonical bytes itself, signs, and appends to the journal before it answers.
 */
import type { Clock } from "../platform/clock.ts";
import { statuses } from "../protocol/reading-status.ts";
import {
  decodeRecord,
  eventCodes,
  noPrevious,
  previousBytes,
  type RecordContent,
  type RecordEvent,
  type Row,
  recordBytesMax,
  rowsMax,
  signRecord,
} from "../protocol/record.ts";
import { type SealAnswer, type SealRequest, sealRowsMax, WalletRefusal } from "../protocol/wallet-message.ts";
import { clockStateOf, timeOf } from "./clock-state.ts";
import type { Journal, NewRecord } from "./journal.ts";
import { commitRecordsMax, type PendingRow, plansMax } from "./journal-body.ts";
import type { KnownRow } from "./journal-rows.ts";
import { sha256 } from "./journal-segments.ts";
import type { DeviceKey } from "./keystore.ts";
import type { PolicyMeter, WalletPolicy } from "./policy.ts";

/** Rows of slots of a minute and more wait in the journal for their batch; shorter ones come as a batch from the agent. */
const pendingSlotSecondsMin = 60;
/** Bytes of rows in one record, so that with all the rest it stays below its limit. */
const recordRowsBytesMax = recordBytesMax - 1_024;
/** Bytes of records in one commit, so that a receipt and pending rows fit beside them. */
const commitRecordBytesMax = 24_576;
const eventsInRecordMax = 32;
/**
 * How far a row's time may lie ahead of the wallet's clock, and the clock behind a sealed row, before either counts. The two
 * must be the same: else a row from the near future would make the clock look set back.
 */
const clockToleranceS = 2;
/** Rows that may come at once, after which the rate counts: what an agent holds back while the wallet restarts, twice. */
const burstRows = 2 * sealRowsMax;

type NewContent =
  | { kind: "event"; events: readonly RecordEvent[] }
  | (Pick<PendingRow, "meter" | "plan" | "slotS" | "codes" | "clockState"> & { kind: "reading"; rows: readonly Row[] });

export interface SealerOptions {
  readonly journal: Journal;
  readonly policy: WalletPolicy;
  readonly key: DeviceKey;
  readonly kid: Uint8Array;
  readonly clock: Clock;
  readonly clockState?: (wallMs: number) => number;
}

export class Sealer {
  readonly #options: Required<SealerOptions>;
  readonly #rates = new Map<number, { rows: number; atMs: number }>();
  /** Events that could not be sealed yet because the ring was full. */
  #deferred: RecordEvent[] = [];

  constructor(options: SealerOptions) {
    this.#options = { clockState: (wallMs) => clockStateOf(wallMs), ...options };
  }

  get clockState(): number {
    return this.#options.clockState(this.#options.clock.wallMs());
  }

  /** Seals what a restart leaves to be sealed: a void over sequences in doubt, rows that were pending, and these events. */
  begin(events: readonly RecordEvent[]): void {
    const { journal } = this.#options;
    const { lost } = journal;
    if (lost) {
      // The void's own sequence lies behind all that may have been used: none is ever used again.
      journal.skipTo(lost.last + 1);
      this.#deferred.push([eventCodes.void, lost.first, lost.last]);
    }
    this.report(events);
    try {
      this.#flushDeferred();
      this.#append(this.#closePending(() => true));
    } catch (error) {
      if (!(error instanceof WalletRefusal)) throw error;
    }
  }

  /** Seals events: now, or as soon as the ring has room again. */
  report(events: readonly RecordEvent[]): void {
    this.#deferred.push(...events);
    try {
      this.#flushDeferred();
    } catch (error) {
      if (!(error instanceof WalletRefusal)) throw error;
    }
  }

  /** Seals rows, or finds them sealed: the same rows give the same records. Throws {@link WalletRefusal}. */
  seal(request: SealRequest): SealAnswer {
    const { journal, policy } = this.#options;
    const meter = policy.meters.find((item) => item.index === request.meter);
    if (!meter) throw new WalletRefusal("unknown-meter", `${request.meter}`);
    if (meter.slotS !== request.slotS)
      throw new WalletRefusal("slot-mismatch", `${request.slotS} s instead of ${meter.slotS} s`);
    if (request.plan >= plansMax)
      throw new WalletRefusal("malformed", `plan ${request.plan}; this wallet keeps plans 0 to ${plansMax - 1} apart`);
    this.#flushDeferred();
    const known = request.rows.map((row) => this.#known(request, row));
    const fresh = request.rows.filter((_, index) => known[index] === undefined);
    const allowed = this.#allowedRows(meter);
    if (fresh.length > allowed)
      throw new WalletRefusal("rate-exceeded", `meter ${meter.index}: ${meter.rowsPerMinute} rows a minute`);
    for (const run of contiguous(fresh, request.slotS)) this.#sealRun(request, run);
    // Only what was sealed counts: a full ring must not use up the rate of the readings that wait for it.
    this.#rates.set(meter.index, { rows: allowed - fresh.length, atMs: this.#options.clock.monotonicMs() });
    if (journal.pendingRowsInTheWay) this.#append(this.#closePending(() => true));
    return { sequences: request.rows.map((row) => this.#known(request, row)?.sequence ?? 0) };
  }

  /**
   * The row as the journal has it. Throws `row-conflict` where it has it with other values in the running generation,
   * unless the clock was set back: then the same time comes a second time, and belongs to a generation of its own.
   */
  #known(request: SealRequest, row: Row): KnownRow | undefined {
    const same = (known: KnownRow): boolean =>
      (known.row.status === row.status || known.row.status === marked(row).status) &&
      equal(known.codes, request.codes) &&
      equal(known.row.values, row.values);
    const known = this.#options.journal.findRow(request.meter, request.plan, row.timeS, same);
    if (known && !same(known) && this.#standsBefore(request)) return undefined;
    if (known && !same(known))
      throw new WalletRefusal("row-conflict", `meter ${request.meter}, time ${row.timeS}, record ${known.sequence}`);
    return known;
  }

  /** Whether the wallet's own clock stands before what is sealed of this meter already. The agent has no say in it. */
  #standsBefore({ meter, plan, slotS }: SealRequest): boolean {
    const { journal, clock } = this.#options;
    const last = journal.lastRow(meter, plan);
    if (last?.generation !== journal.generation) return false;
    return clock.wallMs() / 1_000 < last.timeS - slotS - clockToleranceS;
  }

  #allowedRows(meter: PolicyMeter): number {
    const nowMs = this.#options.clock.monotonicMs();
    const rate = this.#rates.get(meter.index) ?? { rows: burstRows, atMs: nowMs };
    return Math.min(burstRows, rate.rows + ((nowMs - rate.atMs) / 60_000) * meter.rowsPerMinute);
  }

  #sealRun(request: SealRequest, given: readonly Row[]): void {
    const { journal, policy, clock } = this.#options;
    const first = given[0] as Row;
    const last = journal.lastRow(request.meter, request.plan);
    const contents: NewContent[] = [];
    const running = last?.generation === journal.generation ? last : undefined;
    const stepped = running !== undefined && this.#standsBefore(request);
    if (stepped) {
      // The clock was set back. What was sealed stays as it is; what comes now belongs to a generation of its own.
      contents.push(...this.#closePending(() => true));
      const next = journal.generation + 1;
      contents.push({
        kind: "event",
        events: [[eventCodes.clockStepped, next - 1, next, first.timeS - running.timeS]],
      });
    }
    // Late by the wallet's own clock, or from the future: sealed, since no reading is thrown away, and marked, not booked.
    const soonestS = stepped ? 0 : (running?.timeS ?? 0);
    const latestS = clock.wallMs() / 1_000 + request.slotS + clockToleranceS;
    const rows = given.map((row) => (row.timeS > soonestS && row.timeS <= latestS ? row : marked(row)));
    const base = { meter: request.meter, plan: request.plan, slotS: request.slotS, codes: request.codes };
    const clockState = this.clockState;
    if (request.slotS < pendingSlotSecondsMin || policy.sealEveryS <= request.slotS) {
      const most = policy.sealEveryS === 0 ? 1 : rowsMax;
      for (const part of inRecords(rows, request.codes.length, most))
        contents.push({ kind: "reading", ...base, clockState, rows: part });
      this.#append(contents);
      return;
    }
    // Batches longer than a slot: rows are journaled at once, and signed when their window closes.
    if (contents.length > 0) this.#append(contents);
    for (const row of rows) this.#sealOrHold({ ...base, clockState, generation: journal.generation, row });
  }

  #sealOrHold(row: PendingRow): void {
    const { journal, policy } = this.#options;
    const mine = journal.pendingRows.filter((other) => other.meter === row.meter && other.plan === row.plan);
    const previous = mine.at(-1);
    const window = (item: PendingRow): number => Math.ceil(item.row.timeS / policy.sealEveryS);
    const joins =
      previous !== undefined &&
      window(previous) === window(row) &&
      previous.row.timeS + row.slotS === row.row.timeS &&
      previous.slotS === row.slotS &&
      inRecords([...mine.map((item) => item.row), row.row], row.codes.length, rowsMax).length === 1 &&
      previous.clockState === row.clockState &&
      previous.generation === row.generation &&
      equal(previous.codes, row.codes);
    const contents = joins || mine.length === 0 ? [] : this.#closePending((other) => mine.includes(other));
    const closes = row.row.timeS % policy.sealEveryS === 0;
    if (!closes) {
      this.#append(contents, [row]);
      return;
    }
    const rows = [...(joins ? mine.map((item) => item.row) : []), row.row];
    this.#append([...contents, { ...row, kind: "reading", rows }]);
  }

  /** The records that end the batches of pending rows that are chosen. */
  #closePending(chosen: (pending: PendingRow) => boolean): NewContent[] {
    const batches: (PendingRow & { rows: Row[] })[] = [];
    for (const pending of this.#options.journal.pendingRows.filter(chosen)) {
      const open = batches.find(
        (batch) =>
          batch.meter === pending.meter &&
          batch.plan === pending.plan &&
          batch.slotS === pending.slotS &&
          batch.generation === pending.generation &&
          batch.clockState === pending.clockState &&
          equal(batch.codes, pending.codes) &&
          (batch.rows.at(-1) as Row).timeS + pending.slotS === pending.row.timeS,
      );
      if (open) open.rows.push(pending.row);
      else batches.push({ ...pending, rows: [pending.row] });
    }
    return batches.flatMap((batch) =>
      inRecords(batch.rows, batch.codes.length, rowsMax).map((rows) => ({ ...batch, kind: "reading" as const, rows })),
    );
  }

  #flushDeferred(): void {
    while (this.#deferred.length > 0) {
      this.#append([{ kind: "event", events: this.#deferred.slice(0, eventsInRecordMax) }]);
      this.#deferred = this.#deferred.slice(eventsInRecordMax);
    }
  }

  /** Signs the contents as links of the chain and appends them, the pending rows with the last of them. */
  #append(contents: readonly NewContent[], pendingRows: readonly PendingRow[] = []): void {
    const { journal } = this.#options;
    let chunk: NewRecord[] = [];
    let bytes = 0;
    for (const content of contents) {
      const record = this.#sign(content, chunk.at(-1));
      bytes += record.bytes.length;
      if (chunk.length === commitRecordsMax || (chunk.length > 0 && bytes > commitRecordBytesMax)) {
        journal.append(chunk); // point of no return
        chunk = [];
        bytes = record.bytes.length;
      }
      chunk.push(record);
    }
    if (chunk.length > 0 || pendingRows.length > 0) journal.append(chunk, pendingRows); // point of no return
  }

  /** The next link of the chain, behind `predecessor` where that is not in the journal yet. */
  #sign(content: NewContent, predecessor: NewRecord | undefined): NewRecord {
    const { key, kid, clock, journal } = this.#options;
    const digest = predecessor?.decoded.digest ?? journal.lastDigest;
    const step = content.kind === "event" && content.events.find(([code]) => code === eventCodes.clockStepped);
    const link = {
      epoch: journal.epoch,
      sequence: (predecessor?.decoded.content.sequence ?? journal.nextSequence - 1) + 1,
      previous: digest.every((byte) => byte === 0) ? noPrevious : digest.slice(0, previousBytes),
      generation: step ? (step[2] as number) : (predecessor?.decoded.content.generation ?? journal.generation),
    };
    const full: RecordContent =
      content.kind === "event"
        ? {
            ...link,
            kind: "event",
            clockState: this.clockState,
            timeS: timeOf(clock),
            events: content.events,
          }
        : {
            ...link,
            kind: "reading",
            clockState: content.clockState,
            meter: content.meter,
            plan: content.plan,
            slotS: content.slotS,
            codes: content.codes,
            rows: content.rows,
          };
    const bytes = signRecord(full, key.sign, kid);
    return { bytes, decoded: decodeRecord(bytes, sha256) };
  }
}

/** Rows in pieces that a record can hold: at most so many, and at most so many bytes. */
function inRecords(rows: readonly Row[], codes: number, most: number): Row[][] {
  const pieces: Row[][] = [];
  let last: readonly number[] = [];
  let bytes = 0;
  for (const row of rows) {
    const piece = pieces.at(-1);
    const size = rowBytes(row, last, codes);
    if (piece && piece.length < most && bytes + size <= recordRowsBytesMax) {
      piece.push(row);
      bytes += size;
    } else {
      pieces.push([row]);
      bytes = rowBytes(row, [], codes);
      last = [];
    }
    if (row.values.length > 0) last = row.values;
  }
  return pieces;
}

/** Bytes of a row behind another one, with its status (at most 4: its index and the status). */
function rowBytes(row: Row, last: readonly number[], codes: number): number {
  if (row.values.length === 0) return codes + 4;
  return row.values.reduce((sum, value, index) => sum + integerBytes(value - (last[index] ?? 0)), 4);
}

/** Length of an integer in CBOR (RFC 8949 §3). */
function integerBytes(value: number): number {
  const argument = value < 0 ? -1 - value : value;
  return argument < 24 ? 1 : argument < 0x100 ? 2 : argument < 0x1_0000 ? 3 : argument <= 0xffff_ffff ? 5 : 9;
}

/** Rows in runs whose times follow each other by the slot. */
function contiguous(rows: readonly Row[], slotS: number): Row[][] {
  const runs: Row[][] = [];
  for (const row of rows) {
    const run = runs.at(-1);
    if (run && (run.at(-1) as Row).timeS + slotS === row.timeS) run.push(row);
    else runs.push([row]);
  }
  return runs;
}

function equal(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((value, index) => value === b[index]);
}

/** The row as it is sealed where its time cannot be: M instead of G. */
function marked(row: Row): Row {
  return row.status === statuses.good ? { ...row, status: statuses.manipulated } : row;
}

/**
 * Sealing: from the fields of a reading to records of the chain. Checks the request against the wallet's own policy, builds
 * the canonical bytes itself, signs, and appends to the journal before it answers.
 */
import type { Clock } from "../platform/clock.ts";
import {
  decodeRecord,
  eventCodes,
  noPrevious,
  previousBytes,
  type RecordContent,
  type RecordEvent,
  type Row,
  signRecord,
} from "../protocol/record.ts";
import { type SealAnswer, type SealRequest, sealRowsMax, WalletRefusal } from "../protocol/wallet-message.ts";
import { clockStateOf } from "./clock-state.ts";
import { type Journal, type KnownRow, type NewRecord, sha256 } from "./journal.ts";
import { commitRecordsMax, type PendingRow } from "./journal-body.ts";
import type { DeviceKey } from "./keystore.ts";
import type { PolicyMeter, WalletPolicy } from "./policy.ts";

/** Rows of slots of a minute and more wait in the journal for their batch; shorter ones come as a batch from the agent. */
const pendingSlotSecondsMin = 60;
/** Integers in one record, so that a record of the widest values stays below its limit of bytes. */
const recordIntegersMax = 1_500;
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

  /** Seals what a restart leaves to be sealed: a void over spoilt sequences, rows that were pending, and these events. */
  begin(events: readonly RecordEvent[]): void {
    const { journal } = this.#options;
    const spoilt = journal.recovery.spoiltBlocks;
    if (spoilt > 0) {
      const first = journal.nextSequence;
      const last = first + spoilt * commitRecordsMax - 1;
      // The void's own sequence lies behind all that the spoilt blocks can have held: none is ever used again.
      journal.skipTo(last + 1);
      this.#deferred.push([eventCodes.void, first, last]);
    }
    this.#deferred.push(...events);
    try {
      this.#flushDeferred();
      this.#append(this.#closePending(() => true));
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
    this.#flushDeferred();
    const known = request.rows.map((row) => this.#known(request, row));
    const fresh = request.rows.filter((_, index) => known[index] === undefined);
    this.#spendRate(meter, fresh.length);
    for (const run of contiguous(fresh, request.slotS)) this.#sealRun(request, run);
    return {
      sequences: request.rows.map((row, index) => {
        const found = known[index] ?? journal.findRow(request.meter, request.plan, row.timeS, () => false);
        return found?.sequence ?? 0;
      }),
    };
  }

  /** The row as the journal has it. Throws `row-conflict` where it has it with other values in the running generation. */
  #known(request: SealRequest, row: Row): KnownRow | undefined {
    const same = (known: KnownRow): boolean =>
      known.row.status === row.status && equal(known.codes, request.codes) && equal(known.row.values, row.values);
    const known = this.#options.journal.findRow(request.meter, request.plan, row.timeS, same);
    if (known && !same(known))
      throw new WalletRefusal("row-conflict", `meter ${request.meter}, time ${row.timeS}, record ${known.sequence}`);
    return known;
  }

  #spendRate(meter: PolicyMeter, rows: number): void {
    if (rows === 0) return;
    const nowMs = this.#options.clock.monotonicMs();
    const rate = this.#rates.get(meter.index) ?? { rows: burstRows, atMs: nowMs };
    const allowed = Math.min(burstRows, rate.rows + ((nowMs - rate.atMs) / 60_000) * meter.rowsPerMinute);
    this.#rates.set(meter.index, { rows: rows > allowed ? allowed : allowed - rows, atMs: nowMs });
    if (rows > allowed)
      throw new WalletRefusal("rate-exceeded", `meter ${meter.index}: ${meter.rowsPerMinute} rows a minute`);
  }

  #sealRun(request: SealRequest, rows: readonly Row[]): void {
    const { journal, policy } = this.#options;
    const first = rows[0] as Row;
    const last = journal.lastRow(request.meter, request.plan);
    const contents: NewContent[] = [];
    if (last && last.generation === journal.generation && first.timeS <= last.timeS) {
      // Time went back. What was sealed stays as it is; what comes now belongs to a generation of its own.
      contents.push(...this.#closePending(() => true));
      const next = journal.generation + 1;
      contents.push({ kind: "event", events: [[eventCodes.clockStepped, next - 1, next, first.timeS - last.timeS]] });
    }
    const base = { meter: request.meter, plan: request.plan, slotS: request.slotS, codes: request.codes };
    const clockState = this.clockState;
    if (request.slotS < pendingSlotSecondsMin || policy.sealEveryS <= request.slotS) {
      const fitting = Math.max(1, Math.floor(recordIntegersMax / request.codes.length));
      const most = policy.sealEveryS === 0 ? 1 : fitting;
      for (let at = 0; at < rows.length; at += most)
        contents.push({ kind: "reading", ...base, clockState, rows: rows.slice(at, at + most) });
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
      (mine.length + 1) * row.codes.length <= recordIntegersMax &&
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
    const contents: (NewContent & { kind: "reading"; rows: Row[] })[] = [];
    for (const pending of this.#options.journal.pendingRows.filter(chosen)) {
      const open = contents.find(
        (content) =>
          content.meter === pending.meter &&
          content.plan === pending.plan &&
          content.clockState === pending.clockState &&
          equal(content.codes, pending.codes) &&
          (content.rows.at(-1) as Row).timeS + pending.slotS === pending.row.timeS,
      );
      if (open) open.rows.push(pending.row);
      else contents.push({ ...pending, kind: "reading", rows: [pending.row] });
    }
    return contents;
  }

  #flushDeferred(): void {
    if (this.#deferred.length === 0) return;
    this.#append([{ kind: "event", events: this.#deferred }]);
    this.#deferred = [];
  }

  /** Signs the contents as links of the chain and appends them, the pending rows with the last of them. */
  #append(contents: readonly NewContent[], pendingRows: readonly PendingRow[] = []): void {
    const chunks: NewContent[][] = [];
    let integers = 0;
    for (const content of contents) {
      const size = content.kind === "reading" ? content.rows.length * content.codes.length : 0;
      const chunk = chunks.at(-1);
      if (chunk && chunk.length < commitRecordsMax && integers + size <= recordIntegersMax) chunk.push(content);
      else {
        chunks.push([content]);
        integers = 0;
      }
      integers += size;
    }
    if (pendingRows.length > 0) chunks.push([]);
    for (const [index, chunk] of chunks.entries()) this.#commit(chunk, index === chunks.length - 1 ? pendingRows : []);
  }

  #commit(contents: readonly NewContent[], pendingRows: readonly PendingRow[]): void {
    const { journal } = this.#options;
    const before = journal.generation;
    const records: NewRecord[] = [];
    let generation = before;
    let previous = journal.lastDigest.every((byte) => byte === 0)
      ? noPrevious
      : journal.lastDigest.slice(0, previousBytes);
    for (const content of contents) {
      const step = content.kind === "event" && content.events.find(([code]) => code === eventCodes.clockStepped);
      if (step) generation = step[2] as number;
      const sequence = journal.nextSequence + records.length;
      const record = this.#sign(content, { epoch: journal.epoch, sequence, previous, generation });
      records.push(record);
      previous = record.decoded.digest.slice(0, previousBytes);
    }
    journal.beginGeneration(generation);
    try {
      journal.append(records, pendingRows); // point of no return
    } catch (error) {
      journal.beginGeneration(before);
      throw error;
    }
  }

  #sign(content: NewContent, link: Pick<RecordContent, "epoch" | "sequence" | "previous" | "generation">): NewRecord {
    const { key, kid, clock } = this.#options;
    const timeS = Math.floor(clock.wallMs() / 1_000);
    const full: RecordContent =
      content.kind === "event"
        ? { ...link, kind: "event", clockState: this.clockState, timeS, events: content.events }
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

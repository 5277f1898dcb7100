/**
 * Sealing: from the fields of a reading to records of the chain. Checks the request against the wallet's own policy and what
 * it sees of the clock, marks what cannot be true, signs, and appends to the journal before it answers.
 */
import type { Clock } from "../platform/clock.ts";
import { uint32Max } from "../protocol/field.ts";
import { clockStates, statuses } from "../protocol/reading-status.ts";
import { eventCodes, type RecordEvent, type Row, rowsMax } from "../protocol/record.ts";
import type { PlanTerms } from "../protocol/wallet-hello.ts";
import { type SealAnswer, type SealRequest, sealRowsMax, WalletRefusal } from "../protocol/wallet-message.ts";
import { ClockState } from "./clock-state.ts";
import type { Journal } from "./journal.ts";
import type { PendingRow } from "./journal-body.ts";
import type { KnownRow } from "./journal-rows.ts";
import type { DeviceKey } from "./keystore.ts";
import type { PolicyMeter, WalletPolicy } from "./policy.ts";
import { type NewContent, SealingChain, unlessFull } from "./sealing-chain.ts";
import { SealingGenerations } from "./sealing-generations.ts";
import { Plausibility } from "./sealing-plausibility.ts";
import { batchesOf, contiguous, equal, inRecords } from "./sealing-rows.ts";

/**
 * Rows of slots of a minute and more wait in the journal for their batch; shorter ones come as a batch from the agent. Of plans
 * that the policy lists all wait, since their batches are the wallet's.
 */
const pendingSlotSecondsMin = 60;
/** Rows that may come at once, after which the rate counts: what an agent holds back while the wallet restarts, twice. */
const burstRows = 2 * sealRowsMax;
const refusalsEveryMs = 60_000;

export interface SealerOptions {
  readonly journal: Journal;
  readonly policy: WalletPolicy;
  readonly key: DeviceKey;
  readonly kid: Uint8Array;
  readonly clock: Clock;
  /** Names this boot of the machine: 16 bytes. */
  readonly bootId: Uint8Array;
  readonly timeMarks?: string;
}

export class Sealer {
  readonly #options: SealerOptions;
  readonly #meters: ReadonlyMap<number, PolicyMeter>;
  readonly #plans: ReadonlyMap<number, PlanTerms>;
  readonly #clockState: ClockState;
  readonly #chain: SealingChain;
  readonly #generations: SealingGenerations;
  readonly #plausibility: Plausibility;
  readonly #rates = new Map<number, { rows: number; atMs: number }>();
  #refusals = 0;
  #refusalsSinceMs: number;

  constructor(options: SealerOptions) {
    const { journal, policy, clock, bootId, timeMarks } = options;
    this.#options = options;
    this.#meters = new Map(policy.meters.map((meter) => [meter.index, meter]));
    this.#plans = new Map(policy.plans.map((terms) => [terms.plan, terms]));
    const plans = [0, ...this.#plans.keys()];
    const newestS = Math.max(
      ...policy.meters.flatMap(({ index }) => plans.map((plan) => journal.lastRow(index, plan)?.timeS ?? 0)),
      0,
    );
    this.#clockState = new ClockState({ clock, newestS, ...(timeMarks !== undefined && { root: timeMarks }) });
    const dropOldest = policy.whenFull === "drop_oldest";
    this.#chain = new SealingChain({ ...options, clockState: this.#clockState, dropOldest });
    this.#generations = new SealingGenerations({ journal, clock, bootId, chain: this.#chain });
    this.#plausibility = new Plausibility(journal, clock);
    this.#refusalsSinceMs = clock.monotonicMs();
  }

  get clockState(): number {
    return this.#clockState.state();
  }

  /** Seals what a restart leaves to be sealed: a void over sequences in doubt, rows that were pending, then these events. */
  begin(events: readonly RecordEvent[]): void {
    const { journal, policy } = this.#options;
    const { lost } = journal;
    if (lost) {
      // The void's own sequence lies behind all that may have been used: none is ever used again.
      journal.skipTo(lost.last + 1);
      this.#chain.report([[eventCodes.void, lost.first, lost.last]]);
    }
    unlessFull(() => this.#chain.append(this.#chain.closePending()));
    const replaced = policy.meters.filter(({ index, installation }) => installation > journal.installation(index));
    this.#chain.report([
      ...events,
      ...replaced.map((meter): RecordEvent => {
        const { index, installation, installationReason } = meter;
        return [eventCodes.meterReplaced, index, installationReason, installation];
      }),
    ]);
  }

  /** Seals events: now, or as soon as the ring has room again. */
  report(events: readonly RecordEvent[]): void {
    this.#chain.report(events);
  }

  /** Seals one event now. Throws {@link WalletRefusal} `ring-full`. */
  sealEvent(event: RecordEvent): void {
    this.#look();
    this.#chain.flush();
    this.#chain.append([{ kind: "event", events: [event] }]);
  }

  /** Signs what is pending, so that nothing of it is left to another epoch. Throws {@link WalletRefusal} `ring-full`. */
  closePending(): void {
    this.#chain.flush();
    this.#chain.append(this.#chain.closePending());
  }

  /**
   * Begins a new epoch by this event, behind all that is pending in the running one. Where the ring is full the epoch begins with
   * the first record that has room; false where not even what is pending could be signed.
   */
  beginEpoch(event: RecordEvent): boolean {
    this.#look();
    if (!unlessFull(() => this.closePending())) return false;
    this.#chain.beginEpoch(event);
    return true;
  }

  /** A request was refused: it becomes part of one count a minute. */
  refused(): void {
    this.#refusals = Math.min(uint32Max, this.#refusals + 1);
  }

  /** To be called every few seconds: steps of the clock are seen, refusals are sealed. Writes nothing where there is nothing. */
  tick(): void {
    this.#look();
    const nowMs = this.#options.clock.monotonicMs();
    if (nowMs - this.#refusalsSinceMs < refusalsEveryMs) return;
    this.#refusalsSinceMs = nowMs;
    this.#sealRefusals();
  }

  /** Ends: counts are sealed, and that it was told to stop. */
  stop(): void {
    this.#look();
    this.#sealRefusals();
    this.#chain.report([[eventCodes.stopped]]);
  }

  #sealRefusals(): void {
    if (this.#refusals === 0) return;
    const count = this.#refusals;
    // While the ring is full they add up.
    if (unlessFull(() => this.sealEvent([eventCodes.refusals, count]))) this.#refusals -= count;
  }

  #look(): void {
    const stepS = this.#clockState.look();
    if (stepS !== 0) this.#generations.stepped(stepS);
    unlessFull(() => this.#generations.sealStep());
  }

  /** Seals rows, or finds them sealed: the same rows give the same records. Throws {@link WalletRefusal}. */
  seal(request: SealRequest): SealAnswer {
    const meter = this.#meters.get(request.meter);
    if (!meter) throw new WalletRefusal("unknown-meter", `${request.meter}`);
    const terms = this.#termsOf(meter, request.plan);
    if (terms.slotS !== request.slotS)
      throw new WalletRefusal("slot-mismatch", `${request.slotS} s instead of ${terms.slotS} s`);
    this.#look();
    this.#generations.sealStep();
    this.#chain.flush();
    const known = request.rows.map((row) => this.#known(request, row));
    const fresh = request.rows.filter((_, index) => known[index] === undefined);
    if (fresh.length > 0) {
      const allowed = this.#allowedRows(meter);
      if (fresh.length > allowed)
        throw new WalletRefusal("rate-exceeded", `meter ${meter.index}: ${meter.rowsPerMinute} rows a minute`);
      for (const run of contiguous(fresh, request.slotS)) this.#sealRun(meter, terms, request, run);
      // Only what was sealed counts: a full ring must not use up the rate of the readings that wait for it.
      this.#rates.set(meter.index, { rows: allowed - fresh.length, atMs: this.#options.clock.monotonicMs() });
    }
    if (request.closes) this.#close(request);
    const isFinal = (row: KnownRow | undefined): boolean => row !== undefined && row.sequence > 0;
    return this.#answer(
      request.rows.map((row, index) => (isFinal(known[index]) ? known[index] : this.#known(request, row))),
    );
  }

  /** How the rows of a plan are sealed. Throws {@link WalletRefusal} `unknown-plan`. */
  #termsOf({ slotS }: PolicyMeter, plan: number): PlanTerms {
    const { policy } = this.#options;
    const terms = plan === 0 ? { plan, slotS, sealEveryS: policy.sealEveryS } : this.#plans.get(plan);
    if (!terms) throw new WalletRefusal("unknown-plan", `${plan}`);
    return terms;
  }

  /** Signs what waits of a meter and plan. */
  #close({ meter, plan }: SealRequest): void {
    const { pendingRows } = this.#options.journal;
    this.#chain.append(batchesOf(pendingRows.filter((row) => row.meter === meter && row.plan === plan)));
  }

  #answer(known: readonly (KnownRow | undefined)[]): SealAnswer {
    const { epoch } = this.#options.journal;
    const earlier = known.flatMap((row, index): [number, number][] =>
      row && row.sequence > 0 && row.epoch !== epoch ? [[index, row.epoch]] : [],
    );
    return { sequences: known.map((row) => row?.sequence ?? 0), ...(earlier.length > 0 && { earlier }) };
  }

  /**
   * The row as the journal has it. Throws `row-conflict` where it has it with other values in the generation that it belongs
   * to, unless the clock was set back: then the same time comes a second time, and belongs to a generation of its own.
   */
  #known(request: SealRequest, row: Row): KnownRow | undefined {
    if (this.#generations.isNew(request, row)) return undefined;
    const running = this.#generations.of(request);
    const same = (known: KnownRow): boolean =>
      this.#generations.isOf(request, known) &&
      (known.row.status === row.status || (row.status === statuses.good && markedStatuses.has(known.row.status))) &&
      equal(known.codes, request.codes) &&
      equal(known.row.values, row.values);
    const known = this.#options.journal.findRow(request.meter, request.plan, row.timeS, same, running ?? -1);
    if (known && !same(known) && this.#generations.standsBefore(request)) return undefined;
    if (known && !same(known))
      throw new WalletRefusal("row-conflict", `meter ${request.meter}, time ${row.timeS}, record ${known.sequence}`);
    return known;
  }

  #allowedRows(meter: PolicyMeter): number {
    const nowMs = this.#options.clock.monotonicMs();
    const rate = this.#rates.get(meter.index) ?? { rows: burstRows, atMs: nowMs };
    return Math.min(burstRows, rate.rows + ((nowMs - rate.atMs) / 60_000) * meter.rowsPerMinute);
  }

  #sealRun(meter: PolicyMeter, { sealEveryS }: PlanTerms, request: SealRequest, given: readonly Row[]): void {
    const { plan, slotS, codes, relative } = request;
    const { generation, contents: before } = this.#generations.begin(request, given[0] as Row);
    const contents: NewContent[] = [...before];
    const timely = this.#generations.marked(request, generation, given);
    const clockState = relative ? clockStates.relative : this.clockState;
    // What was read by no clock's time is kept, and neither booked nor held against what was.
    const judged = relative ? undefined : this.#plausibility.judge(meter, plan, codes, timely);
    if (judged && judged.events.length > 0) contents.push({ kind: "event", events: judged.events });
    const rows = judged?.rows ?? timely;
    const base = { meter: meter.index, plan, slotS, codes, clockState, generation };
    if ((plan === 0 && slotS < pendingSlotSecondsMin) || sealEveryS <= slotS) {
      for (const part of inRecords(rows, codes.length, sealEveryS === 0 ? 1 : rowsMax))
        contents.push({ kind: "reading", ...base, rows: part });
      this.#chain.append(contents);
    } else {
      // Batches longer than a slot: rows are journaled at once, and signed when their window closes.
      if (contents.length > 0) this.#chain.append(contents);
      for (const row of rows) this.#sealOrHold({ ...base, row }, sealEveryS);
    }
    judged?.keep();
    this.#generations.sealed(request, rows);
  }

  #sealOrHold(row: PendingRow, sealEveryS: number): void {
    const { journal } = this.#options;
    const mine = journal.pendingRows.filter((other) => other.meter === row.meter && other.plan === row.plan);
    const previous = mine.at(-1);
    const window = (item: PendingRow): number => Math.ceil(item.row.timeS / sealEveryS);
    const joins =
      previous !== undefined &&
      window(previous) === window(row) &&
      previous.row.timeS + row.slotS === row.row.timeS &&
      previous.slotS === row.slotS &&
      inRecords([...mine.map((item) => item.row), row.row], row.codes.length, rowsMax).length === 1 &&
      previous.clockState === row.clockState &&
      previous.generation === row.generation &&
      equal(previous.codes, row.codes);
    const contents = joins || mine.length === 0 ? [] : batchesOf(mine);
    const closes = row.row.timeS % sealEveryS === 0;
    if (!closes) {
      this.#chain.append(contents, [row]);
      return;
    }
    const rows = [...(joins ? mine.map((item) => item.row) : []), row.row];
    this.#chain.append([...contents, { ...row, kind: "reading", rows }]);
  }
}

/** A good row may have been sealed with one of these instead. */
const markedStatuses: ReadonlySet<number> = new Set([statuses.manipulated, statuses.outOfRange]);

/**
 * A device's chain of records in one epoch: which place a record takes, and up to where the chain is whole.
 *
 * A record takes the place of its sequence unless the chain contradicts it: another record stands there, or its predecessor
 * (the record that its `previous` speaks of) is there with another digest, or the epoch has ended before it. Then it is
 * evidence: kept, never booked, and the first one stays. A record that came before its predecessor waits in its place; if the
 * predecessor then contradicts it, it leaves the place and becomes evidence too. So where places touch, their chain is whole,
 * whatever the order of arrival.
 */
import assert from "node:assert/strict";
import { decodeCose } from "../protocol/cose-sign1.ts";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { clockStates, statuses } from "../protocol/reading-status.ts";
import { decodeRecordPayload, type EventContent, previousBytes, type RecordContent } from "../protocol/record.ts";
import { type DroppedRange, droppedOf, endsEpoch, exchangesOf } from "./chain-events.ts";
import { spanAt, spansOf, withoutGone, withSpan } from "./chain-spans.ts";
import type {
  Awaitable,
  CountedRow,
  DeclaredDrop,
  SequenceRange,
  Span,
  StoredEpoch,
  StoreTransaction,
} from "./store.ts";

/** A limit, so that a chain which closes after long does not hold up everyone: the rest is settled by the next batches. */
export const settledPerBatchMax = 2_000;
/**
 * Rows that a transaction counts, give or take a record: few bytes can hold many rows, and those far apart as many quarter hours.
 * As many as records of an hour's minutes have in the largest batch.
 */
export const rowsPerBatchMax = 131_072;
/**
 * Runs of records with gaps between that a chain may have: a hub has few, what is on its way. Each record costs time in proportion to
 * them, so one that sends every second record only must not hold up everyone.
 */
export const spansMax = 4_096;
export const evidencePerDeviceMax = 10_000;

/** A record whose signature holds, as it arrives at its chain. */
export interface Arrival {
  readonly content: RecordContent;
  readonly digest: Uint8Array;
  readonly bytes: Uint8Array;
  readonly receivedMs: number;
  readonly voided?: SequenceRange | undefined;
  readonly dropped: readonly DroppedRange[];
}

export type EvidenceReason = "fork" | "epoch-ended";
export type Placement = "stored" | "duplicate" | EvidenceReason | "evidence-full" | "too-many-gaps";

export class Chain {
  readonly device: number;
  readonly epoch: number;
  #publicKey!: Uint8Array;
  #held!: boolean;
  #ended: number | undefined;
  #spans!: readonly Span[];
  #saved!: readonly Span[];
  #settledThrough!: number;
  #evidence!: number;
  /** Declared within this epoch by records that are not settled. */
  #drops!: readonly DeclaredDrop[];
  /** What is not there up to here was dropped, and does not come any more. */
  #gone!: number;
  /** The last settled record in the unbroken part; −1 where that is not known without asking the store. */
  #settledTip = -1;
  /** Settled records of events that concern other epochs, too. */
  #effects: EventContent[] = [];

  constructor(device: number, stored: StoredEpoch) {
    this.device = device;
    this.epoch = stored.epoch;
    this.reload(stored);
  }

  /** Takes over what the store says, after something else than records has changed the epoch. */
  reload(stored: StoredEpoch): void {
    this.#publicKey = stored.publicKey;
    this.#held = stored.held;
    this.#ended = stored.ended;
    this.#spans = stored.spans;
    this.#saved = stored.spans;
    this.#settledThrough = stored.settledThrough;
    this.#evidence = stored.evidence;
    this.#drops = stored.drops;
    this.#gone = stored.gone;
    this.#settledTip = -1;
    this.#passGone();
    if (this.#settledThrough === 0 && this.through === 0) this.#settledTip = 0;
  }

  get publicKey(): Uint8Array {
    return this.#publicKey;
  }

  get held(): boolean {
    return this.#held;
  }

  /** All up to here are stored, voided or dropped. */
  get through(): number {
    return throughOf(this.#spans);
  }

  get spans(): readonly Span[] {
    return this.#spans;
  }

  get evidence(): number {
    return this.#evidence;
  }

  get settledThrough(): number {
    return this.#settledThrough;
  }

  /** Whether a record of this sequence may be stored already. */
  mayHold(sequence: number): boolean {
    return spanAt(this.#spans, sequence) !== undefined;
  }

  /** Settled records, since the last call, with events that concern other epochs. */
  takeEffects(): EventContent[] {
    return this.#effects.splice(0);
  }

  /** Passes what a settled record of another epoch declares as dropped. Returns whether the chain is whole further than it was saved. */
  drop(last: number): boolean {
    this.#gone = Math.max(this.#gone, last);
    this.#passGone();
    return this.through !== throughOf(this.#saved);
  }

  /** Gives a record its place, or keeps it as evidence. */
  place(tx: StoreTransaction, arrival: Arrival): Awaitable<Placement> {
    if (this.#spans.length >= spansMax && !this.#touches(arrival)) return "too-many-gaps";
    return this.#placePlainly(tx, arrival) ?? this.#placeWithCare(tx, arrival);
  }

  /** Whether a record makes a span longer, or stands in one. What follows the unbroken part always does. */
  #touches({ content: { sequence }, voided }: Arrival): boolean {
    const first = voided?.first ?? sequence;
    return first === 1 || [first - 1, sequence, sequence + 1].some((one) => this.mayHold(one));
  }

  /**
   * The same for nearly all records, and without asking the store: readings where nothing was ever dropped or contradicted, whose place
   * and the one behind it are free, and whose predecessor is not there yet or is the last of its span. Undefined: not such a one.
   */
  #placePlainly(tx: StoreTransaction, arrival: Arrival): Awaitable<Placement> | undefined {
    const { content, digest, bytes, receivedMs, voided, dropped } = arrival;
    const { sequence, previous } = content;
    const isPlain = content.kind === "reading" && voided === undefined && dropped.length === 0;
    if (!isPlain || this.#evidence > 0 || this.#ended !== undefined || this.#gone > 0 || this.#drops.length > 0)
      return undefined;
    const predecessor = sequence - 1;
    const before = spanAt(this.#spans, predecessor);
    if (before !== undefined && (before.last !== predecessor || !follows(previous, before.digest))) return undefined;
    if (this.mayHold(sequence) || this.mayHold(sequence + 1) || sequence <= this.#settledThrough) return undefined;
    const settled = !this.held && predecessor === this.through && this.#settledTip === predecessor;
    const seat = { sequence, predecessor, digest, previous, settled, bytes, receivedMs };
    const adding = tx.addSeat(this.device, this.epoch, seat, { voided, dropped });
    this.#spans = withSpan(this.#spans, { first: sequence, last: sequence, digest });
    if (!settled) return adding instanceof Promise ? adding.then(() => "stored") : "stored";
    this.#settledThrough = sequence;
    this.#settledTip = sequence;
    const counting = tx.countRows(this.device, this.epoch, sequence, countedRows(content));
    if (!(adding instanceof Promise || counting instanceof Promise)) return "stored";
    return Promise.all([adding, counting]).then(() => "stored");
  }

  async #placeWithCare(tx: StoreTransaction, arrival: Arrival): Promise<Placement> {
    const { content, digest, voided, dropped } = arrival;
    const { device, epoch } = this;
    const { sequence } = content;
    const predecessor = voided ? voided.first - 1 : sequence - 1;

    if (this.mayHold(sequence)) {
      const seat = await tx.seat(device, epoch, sequence);
      if (seat && equalBytes(seat.digest, digest)) return "duplicate";
      if (seat) return this.#keepAsEvidence(tx, arrival, "fork");
    }
    if (this.#ended !== undefined && sequence > this.#ended) return this.#keepAsEvidence(tx, arrival, "epoch-ended");
    const before = await this.#digestsAt(tx, predecessor);
    if (before.seated !== undefined && !follows(content.previous, before.seated))
      return this.#keepAsEvidence(tx, arrival, "fork");
    if (before.seated === undefined && before.evidence.some((other) => follows(content.previous, other)))
      return this.#keepAsEvidence(tx, arrival, "fork");
    // Where it was dropped, or voided, what follows it stands already, and stays.
    if (sequence < this.through && (await this.#isContradicted(tx, sequence, digest)))
      return this.#keepAsEvidence(tx, arrival, "fork");

    const highest = this.#spans.at(-1)?.last ?? 0;
    // In order, on a chain that is settled so far: settled at once. The rule of settle(), without reading back.
    const settled = !this.held && predecessor === this.through && this.#settledTip === predecessor;
    const seat = { sequence, predecessor, digest, previous: content.previous, settled };
    const { bytes, receivedMs } = arrival;
    await tx.addSeat(device, epoch, { ...seat, bytes, receivedMs }, { voided, dropped });
    const late = sequence <= this.#settledThrough; // within a void or a drop, or it would have stood there
    this.#spans = withSpan(this.#spans, { first: voided?.first ?? sequence, last: sequence, digest });
    const declared = dropped.filter((range) => range.epoch === epoch);
    this.#drops = [...this.#drops, ...declared.map(({ last }) => ({ last, sequence }))];
    this.#passGone();
    if (settled) {
      await this.#book(tx, content);
      this.#settledThrough = sequence;
      this.#settledTip = sequence;
    }
    if (sequence < highest) await this.#removeContradicted(tx, sequence, digest);
    if (late && !this.held) await this.#settleLate(tx, sequence);
    return "stored";
  }

  /**
   * Settles what has become whole, in the order of the chain: at most `limit` records, and as many rows as `budget` has left. Returns
   * whether more is left.
   */
  async settle(tx: StoreTransaction, limit: number, budget: { rows: number }): Promise<boolean> {
    if (this.held || this.#settledThrough >= this.through) return false;
    if (budget.rows <= 0) return true;
    const { device, epoch } = this;
    const through = this.through;
    const records = await tx.unsettled(device, epoch, this.#settledThrough, through, limit);
    let looked = 0;
    while (looked < records.length && budget.rows > 0) {
      const record = records[looked++];
      if (record && this.#ended === undefined) budget.rows -= (await this.#settleOne(tx, record)) ?? 0;
    }
    const last = records[looked - 1];
    const isAll = looked === records.length && records.length < limit;
    this.#settledThrough = this.#ended ?? (isAll || last === undefined ? through : last.sequence);
    const tip = await tx.seat(device, epoch, this.#settledThrough);
    this.#settledTip = tip?.settled ? tip.sequence : -1;
    return this.#settledThrough < this.through;
  }

  /** Writes where the chain stands, after the records of a batch, with the receipt for them. */
  async save(tx: StoreTransaction, nowMs: number, receipt?: Uint8Array): Promise<void> {
    const was = new Map(this.#saved.map((span) => [span.first, span.last]));
    const kept = new Set(this.#spans.map((span) => span.first));
    await tx.saveEpoch(this.device, this.epoch, {
      settledThrough: this.#settledThrough,
      ended: this.#ended,
      whole: this.#spans[0]?.first === 1 ? this.#spans[0] : undefined,
      removedFirsts: this.#saved.filter(({ first }) => first !== 1 && !kept.has(first)).map(({ first }) => first),
      changedSpans: this.#spans.filter(({ first, last }) => first !== 1 && was.get(first) !== last),
      receipt,
      nowMs,
    });
    this.#saved = this.#spans;
  }

  /**
   * A drop within this epoch counts once all from it to the record that declares it is there. So the digest at `through` hangs
   * on that record, and releases nothing in a wallet that has not declared it.
   */
  #passGone(): void {
    for (const { last, sequence } of this.#drops) {
      const span = this.#spans.find((one) => one.first <= sequence && sequence <= one.last);
      if (span && span.first <= last + 1) this.#gone = Math.max(this.#gone, last);
    }
    this.#spans = withoutGone(this.#spans, this.#gone);
  }

  /** What stands at a sequence: the record in its place, or the records that are evidence of a fork there. */
  async #digestsAt(
    tx: StoreTransaction,
    sequence: number,
  ): Promise<{ seated: Uint8Array | undefined; evidence: readonly Uint8Array[] }> {
    if (sequence === 0) return { seated: undefined, evidence: [] };
    const span = this.#spans.find((item) => item.last === sequence);
    if (span) return { seated: span.digest, evidence: [] };
    const seat = spanAt(this.#spans, sequence) ? await tx.seat(this.device, this.epoch, sequence) : undefined;
    if (seat) return { seated: seat.digest, evidence: [] };
    const evidence = this.#evidence > 0 ? await tx.evidenceDigests(this.device, this.epoch, sequence) : [];
    return { seated: undefined, evidence };
  }

  async #keepAsEvidence(tx: StoreTransaction, arrival: Arrival, reason: EvidenceReason): Promise<Placement> {
    const { content, digest, bytes, receivedMs } = arrival;
    const { device, epoch } = this;
    const known = this.#evidence > 0 ? await tx.evidenceDigests(device, epoch, content.sequence) : [];
    if (known.some((other) => equalBytes(other, digest))) return reason;
    if ((await tx.evidenceCount(device)) >= evidencePerDeviceMax) return "evidence-full";
    await tx.addEvidence(device, epoch, { sequence: content.sequence, digest, bytes, reason, receivedMs });
    this.#evidence++;
    // Records that wait for a predecessor with this digest have it now, and it is not of the chain.
    await this.#removeFollowersOf(tx, content.sequence, digest);
    return reason;
  }

  /** Whether what stands in the whole part behind a sequence speaks of another record than this one. */
  async #isContradicted(tx: StoreTransaction, sequence: number, digest: Uint8Array): Promise<boolean> {
    const followers = await this.#followersOf(tx, sequence);
    return followers.some((one) => one.sequence <= this.through && !follows(one.previous, digest));
  }

  /** Records that stand behind a new one and speak of another than it leave their places. */
  async #removeContradicted(tx: StoreTransaction, sequence: number, digest: Uint8Array): Promise<void> {
    for (const follower of await this.#followersOf(tx, sequence))
      if (!follows(follower.previous, digest)) await this.#unseat(tx, follower.sequence, follower.digest);
  }

  async #removeFollowersOf(tx: StoreTransaction, sequence: number, digest: Uint8Array): Promise<void> {
    for (const follower of await this.#followersOf(tx, sequence))
      if (follower.sequence > this.through && follows(follower.previous, digest))
        await this.#unseat(tx, follower.sequence, follower.digest);
  }

  async #followersOf(tx: StoreTransaction, sequence: number) {
    const declaring = await tx.voidsFrom(this.device, this.epoch, sequence + 1);
    const candidates = [sequence + 1, ...declaring];
    const seats = await Promise.all(candidates.map((candidate) => tx.seat(this.device, this.epoch, candidate)));
    return seats.filter((seat) => seat !== undefined).filter((seat) => seat.predecessor === sequence);
  }

  async #unseat(tx: StoreTransaction, sequence: number, digest: Uint8Array): Promise<void> {
    const { device, epoch } = this;
    const seat = await tx.seat(device, epoch, sequence);
    assert(seat && !seat.settled, "a settled record has its predecessor, so nothing can contradict it");
    await tx.unseat(device, epoch, sequence, "fork");
    this.#evidence++;
    await this.#readAgain(tx);
    await this.#removeFollowersOf(tx, sequence, digest);
  }

  /** The spans anew, after records have left their places. */
  async #readAgain(tx: StoreTransaction): Promise<void> {
    const { device, epoch } = this;
    this.#spans = spansOf(await tx.seats(device, epoch), await tx.voids(device, epoch));
    const { drops, gone } = await tx.drops(device, epoch);
    this.#drops = drops;
    this.#gone = gone;
    this.#passGone();
  }

  /** Nothing behind the epoch's last record is part of it. */
  async #end(tx: StoreTransaction, sequence: number): Promise<void> {
    const { device, epoch } = this;
    this.#ended = sequence;
    if ((this.#spans.at(-1)?.last ?? 0) <= sequence) return;
    for (const seat of await tx.seats(device, epoch)) {
      if (seat.sequence <= sequence) continue;
      await tx.unseat(device, epoch, seat.sequence, "epoch-ended");
      this.#evidence++;
    }
    await this.#readAgain(tx);
  }

  /** A record within a void or a drop that came after all (it wins), and those that waited for it there. */
  async #settleLate(tx: StoreTransaction, sequence: number): Promise<void> {
    for (let next = sequence; next <= this.#settledThrough; next++) {
      const [record] = await tx.unsettled(this.device, this.epoch, next - 1, next, 1);
      if (record === undefined || (await this.#settleOne(tx, record)) === undefined) return;
    }
  }

  /** Gives how many rows it has; undefined: it cannot be settled. */
  async #settleOne(
    tx: StoreTransaction,
    record: { sequence: number; predecessor: number; bytes: Uint8Array },
  ): Promise<number | undefined> {
    if (!(await this.#isSettledAt(tx, record.predecessor))) return undefined;
    await tx.settle(this.device, this.epoch, record.sequence);
    const content = decodeRecordPayload(decodeCose(record.bytes).payload);
    await this.#book(tx, content);
    return content.kind === "reading" ? content.rows.length : 0;
  }

  /** Whether the chain is settled at a sequence; where that was dropped, at the next one below that was not. */
  async #isSettledAt(tx: StoreTransaction, sequence: number): Promise<boolean> {
    if (sequence === 0) return true;
    const { device, epoch } = this;
    const seat = await tx.seat(device, epoch, sequence);
    if (seat) return seat.settled;
    if (sequence > this.#gone) return false;
    const below = await tx.seatBelow(device, epoch, sequence);
    return below === undefined || below.settled;
  }

  /** What a settled record brings about. */
  async #book(tx: StoreTransaction, content: RecordContent): Promise<void> {
    if (content.kind === "reading") {
      await tx.countRows(this.device, this.epoch, content.sequence, countedRows(content));
      return;
    }
    for (const exchange of exchangesOf(content)) await tx.addExchange(this.device, exchange);
    // Where later records are settled, a rotation within a void or a drop comes too late to end anything.
    const isLast = endsEpoch(content) && content.sequence > this.#settledThrough;
    if (isLast) await this.#end(tx, content.sequence);
    const dropped = droppedOf(content) ?? [];
    if (isLast || dropped.length > 0) this.#effects.push(content);
  }
}

function throughOf([first]: readonly Span[]): number {
  return first?.first === 1 ? first.last : 0;
}

/** Whether `previous` speaks of the record with this digest. */
function follows(previous: Uint8Array, digest: Uint8Array): boolean {
  return equalBytes(previous, digest.subarray(0, previousBytes));
}

function countedRows(content: RecordContent & { kind: "reading" }): CountedRow[] {
  const { meter, generation, slotS, codes, rows, clockState } = content;
  // Seconds since a boot are no time that a value could be booked for.
  const isTimed = clockState !== clockStates.relative;
  return rows.map(({ timeS, status, values }) => {
    const pairs: number[] = [];
    for (let i = 0; i < values.length; i++) pairs.push(codes[i] as number, values[i] as number);
    return { meter, generation, timeS, slotS, status, booked: isTimed && status === statuses.good, values: pairs };
  });
}

/**
 * A device's chain of records in one epoch: which place a record takes, and up to where the chain is whole.
 *
 * A record takes the place of its sequence unless the chain contradicts it: another record stands there, or its predecessor
 * (the record that its `previous` speaks of) is there with another digest. Then it is a fork: kept as evidence, never booked,
 * and the first one stays. A record that came before its predecessor waits in its place; if the predecessor then contradicts
 * it, it leaves the place and becomes evidence too. So where places touch, their chain is whole, whatever the order of arrival.
 */
import assert from "node:assert/strict";
import { decodeCose } from "../protocol/cose-sign1.ts";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { hasValues, statuses } from "../protocol/reading-status.ts";
import { decodeRecordPayload, eventCodes, previousBytes, type RecordContent } from "../protocol/record.ts";
import type { CountedRow, SequenceRange, Span, StoredEpoch, StoreTransaction } from "./store.ts";

/** A limit, so that a chain which closes after long does not hold up everyone: the rest is settled by the next batches. */
export const settledPerBatchMax = 2_000;
export const evidencePerDeviceMax = 10_000;

/** A record whose signature holds, as it arrives at its chain. */
export interface Arrival {
  readonly content: RecordContent;
  readonly digest: Uint8Array;
  readonly bytes: Uint8Array;
  readonly receivedMs: number;
  readonly voided?: SequenceRange;
}

export type Placement = "stored" | "duplicate" | "fork" | "evidence-full";

/** The void that a record declares; "bad-void" unless it ends just before the record itself. */
export function voidOf(content: RecordContent): SequenceRange | "bad-void" | undefined {
  if (content.kind === "reading") return undefined;
  const [declared, second] = content.events.filter(([code]) => code === eventCodes.void);
  if (declared === undefined) return undefined;
  const [, first, last, ...rest] = declared;
  if (second !== undefined || rest.length > 0 || typeof first !== "number" || typeof last !== "number")
    return "bad-void";
  return first >= 1 && first <= last && last === content.sequence - 1 ? { first, last } : "bad-void";
}

export class Chain {
  readonly device: number;
  readonly epoch: number;
  readonly held: boolean;
  #spans: Span[];
  #saved: readonly Span[];
  #settledThrough: number;
  #evidence: number;
  /** The last settled record in the unbroken part; −1 where that is not known without asking the store. */
  #settledTip = -1;

  constructor(device: number, stored: StoredEpoch) {
    this.device = device;
    this.epoch = stored.epoch;
    this.held = stored.held;
    this.#spans = [...stored.spans];
    this.#saved = stored.spans;
    this.#settledThrough = stored.settledThrough;
    this.#evidence = stored.evidence;
    if (this.#settledThrough === 0 && this.through === 0) this.#settledTip = 0;
  }

  /** All up to here are stored, or voided. */
  get through(): number {
    const first = this.#spans[0];
    return first?.first === 1 ? first.last : 0;
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
    const last = this.#spans.at(-1);
    return last !== undefined && sequence <= last.last;
  }

  /** Gives a record its place, or keeps it as evidence. */
  async place(tx: StoreTransaction, arrival: Arrival): Promise<Placement> {
    const { content, digest, voided } = arrival;
    const { device, epoch } = this;
    const { sequence } = content;
    const predecessor = voided ? voided.first - 1 : sequence - 1;

    if (this.mayHold(sequence)) {
      const seat = await tx.seat(device, epoch, sequence);
      if (seat && equalBytes(seat.digest, digest)) return "duplicate";
      if (seat) return this.#keepAsEvidence(tx, arrival);
    }
    const before = await this.#digestsAt(tx, predecessor);
    if (before.seated !== undefined && !follows(content.previous, before.seated))
      return this.#keepAsEvidence(tx, arrival);
    if (before.seated === undefined && before.evidence.some((other) => follows(content.previous, other)))
      return this.#keepAsEvidence(tx, arrival);

    const highest = this.#spans.at(-1)?.last ?? 0;
    // In order, on a chain that is settled so far: settled at once. The rule of settle(), without reading back.
    const settled = !this.held && predecessor === this.through && this.#settledTip === predecessor;
    const seat = { sequence, predecessor, digest, previous: content.previous, settled };
    await tx.addSeat(device, epoch, { ...seat, bytes: arrival.bytes, receivedMs: arrival.receivedMs }, voided);
    const late = sequence <= this.#settledThrough; // within a void, or it would have stood there
    this.#spans = withSpan(this.#spans, { first: voided?.first ?? sequence, last: sequence, digest });
    if (settled) {
      await countRows(tx, device, epoch, content);
      this.#settledThrough = sequence;
      this.#settledTip = sequence;
    }
    if (sequence < highest) await this.#removeContradicted(tx, sequence, digest);
    if (late && !this.held) await this.#settleLate(tx, sequence);
    return "stored";
  }

  /** Settles what has become whole, in the order of the chain, at most `limit` records. Returns whether more is left. */
  async settle(tx: StoreTransaction, limit: number): Promise<boolean> {
    if (this.held || this.#settledThrough >= this.through) return false;
    const { device, epoch } = this;
    const through = this.through;
    const records = await tx.unsettled(device, epoch, this.#settledThrough, through, limit);
    for (const record of records) await this.#settleOne(tx, record);
    const last = records.at(-1);
    this.#settledThrough = records.length < limit || last === undefined ? through : last.sequence;
    const tip = await tx.seat(device, epoch, this.#settledThrough);
    this.#settledTip = tip?.settled ? tip.sequence : -1;
    return this.#settledThrough < through;
  }

  /** Writes where the chain stands, after the records of a batch, with the receipt for them. */
  async save(tx: StoreTransaction, nowMs: number, receipt?: Uint8Array): Promise<void> {
    const was = new Map(this.#saved.map((span) => [span.first, span.last]));
    const kept = new Set(this.#spans.map((span) => span.first));
    await tx.saveEpoch(this.device, this.epoch, {
      settledThrough: this.#settledThrough,
      whole: this.#spans[0]?.first === 1 ? this.#spans[0] : undefined,
      removedFirsts: this.#saved.filter(({ first }) => first !== 1 && !kept.has(first)).map(({ first }) => first),
      changedSpans: this.#spans.filter(({ first, last }) => first !== 1 && was.get(first) !== last),
      receipt,
      nowMs,
    });
    this.#saved = this.#spans;
  }

  /** What stands at a sequence: the record in its place, or the records that are evidence of a fork there. */
  async #digestsAt(
    tx: StoreTransaction,
    sequence: number,
  ): Promise<{ seated: Uint8Array | undefined; evidence: readonly Uint8Array[] }> {
    if (sequence === 0) return { seated: undefined, evidence: [] };
    const span = this.#spans.find((item) => item.last === sequence);
    if (span) return { seated: span.digest, evidence: [] };
    const seat = this.mayHold(sequence) ? await tx.seat(this.device, this.epoch, sequence) : undefined;
    if (seat) return { seated: seat.digest, evidence: [] };
    const evidence = this.#evidence > 0 ? await tx.evidenceDigests(this.device, this.epoch, sequence) : [];
    return { seated: undefined, evidence };
  }

  async #keepAsEvidence(tx: StoreTransaction, arrival: Arrival): Promise<Placement> {
    const { content, digest, bytes, receivedMs } = arrival;
    const { device, epoch } = this;
    const known = this.#evidence > 0 ? await tx.evidenceDigests(device, epoch, content.sequence) : [];
    if (known.some((other) => equalBytes(other, digest))) return "fork";
    if ((await tx.evidenceCount(device)) >= evidencePerDeviceMax) return "evidence-full";
    await tx.addEvidence(device, epoch, { sequence: content.sequence, digest, bytes, reason: "fork", receivedMs });
    this.#evidence++;
    // Records that wait for a predecessor with this digest have it now, and it is not of the chain.
    await this.#removeFollowersOf(tx, content.sequence, digest);
    return "fork";
  }

  /** Records that stand behind a new one and speak of another than it leave their places. */
  async #removeContradicted(tx: StoreTransaction, sequence: number, digest: Uint8Array): Promise<void> {
    for (const follower of await this.#followersOf(tx, sequence))
      if (!follows(follower.previous, digest)) await this.#unseat(tx, follower.sequence, follower.digest);
  }

  async #removeFollowersOf(tx: StoreTransaction, sequence: number, digest: Uint8Array): Promise<void> {
    for (const follower of await this.#followersOf(tx, sequence))
      if (follows(follower.previous, digest)) await this.#unseat(tx, follower.sequence, follower.digest);
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
    this.#spans = spansOf(await tx.seats(device, epoch), await tx.voids(device, epoch));
    await this.#removeFollowersOf(tx, sequence, digest);
  }

  /** A record within a void that came after all (it wins), and those that waited for it there. */
  async #settleLate(tx: StoreTransaction, sequence: number): Promise<void> {
    for (let next = sequence; next <= this.#settledThrough; next++) {
      const [record] = await tx.unsettled(this.device, this.epoch, next - 1, next, 1);
      if (record === undefined || !(await this.#settleOne(tx, record))) return;
    }
  }

  async #settleOne(
    tx: StoreTransaction,
    record: { sequence: number; predecessor: number; bytes: Uint8Array },
  ): Promise<boolean> {
    const { device, epoch } = this;
    const before = record.predecessor === 0 ? undefined : await tx.seat(device, epoch, record.predecessor);
    if (record.predecessor !== 0 && !before?.settled) return false;
    await tx.settle(device, epoch, record.sequence);
    await countRows(tx, device, epoch, decodeRecordPayload(decodeCose(record.bytes).payload));
    return true;
  }
}

/** Whether `previous` speaks of the record with this digest. */
function follows(previous: Uint8Array, digest: Uint8Array): boolean {
  return equalBytes(previous, digest.subarray(0, previousBytes));
}

/** The spans with one more, joined where they touch or overlap. */
function withSpan(spans: readonly Span[], added: Span): Span[] {
  const last = spans.at(-1);
  if (last === undefined || last.last < added.first - 1) return [...spans, added];
  if (last.last === added.first - 1) return [...spans.slice(0, -1), { ...added, first: last.first }];
  const before = spans.filter((span) => span.last < added.first - 1);
  const after = spans.filter((span) => span.first > added.last + 1);
  const touching = spans.slice(before.length, spans.length - after.length);
  const end = [...touching, added].reduce((a, b) => (b.last > a.last ? b : a));
  const first = Math.min(added.first, touching[0]?.first ?? added.first);
  return [...before, { ...end, first }, ...after];
}

/** The same spans, made of all the records and voids of an epoch. */
export function spansOf(
  seats: readonly { readonly sequence: number; readonly digest: Uint8Array }[],
  voids: readonly SequenceRange[],
): Span[] {
  const firstOf = new Map<number, number>(); // by the record that declares the void
  for (const { first, last } of voids) firstOf.set(last + 1, Math.min(first, firstOf.get(last + 1) ?? first));
  return seats.reduce<Span[]>(
    (spans, { sequence, digest }) =>
      withSpan(spans, { first: firstOf.get(sequence) ?? sequence, last: sequence, digest }),
    [],
  );
}

async function countRows(tx: StoreTransaction, device: number, epoch: number, content: RecordContent): Promise<void> {
  if (content.kind !== "reading") return;
  const { meter, generation, slotS, codes, rows, sequence } = content;
  for (const { timeS, status, values } of rows) {
    const row: CountedRow = {
      meter,
      generation,
      timeS,
      slotS,
      status,
      booked: hasValues(status) && status !== statuses.manipulated && status !== statuses.outOfRange,
      values: values.flatMap((value, i) => [codes[i] as number, value]),
    };
    await tx.countRow(device, epoch, sequence, row);
  }
}

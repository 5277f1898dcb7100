/**
 * The path of one record through the full node, top to bottom:
 *
 *   push → decode → registry → duplicate? → verify (thread pool) → place in the chain → settle → receipt → publish
 *          └──────────── examine(), a batch at a time ─────────┘   └── commit(), one transaction ──┘
 *
 * Batches form by themselves: what has come while the last batch was worked on is the next one. While one batch is
 * committed, the signatures of the next are already being verified.
 */
import { setImmediate as immediate } from "node:timers/promises";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { clockStateLetters } from "../protocol/reading-status.ts";
import { type EventContent, recordBytesMax } from "../protocol/record.ts";
import { certificateIn } from "../protocol/rotation.ts";
import { type Arrival, Chain, type Placement, settledPerBatchMax } from "./chain.ts";
import { droppedOf } from "./chain-events.ts";
import { EarlyRecords } from "./early-records.ts";
import type { NodeKeys } from "./node-keys.ts";
import { buildReceipt, receiptAgain, sealReceipt, withKept } from "./receipt-building.ts";
import type { OutgoingReceipt, RefusedEvent, StoredEvent } from "./record-event.ts";
import { type Examined, type Message, RecordExamination, type Refused } from "./record-examination.ts";
import { RefusalTally } from "./refusal-tally.ts";
import type { KnownDevice, Registry } from "./registry.ts";
import type { BatchScope, Store, StorePlace, StoreTransaction } from "./store.ts";
import { isPassingStoreError } from "./store-sqlite-failure.ts";
import { announce, epochsPerDeviceMax, rejectedKeys, succeed } from "./succession.ts";
import { type VerdictReason, verdictSentences } from "./verdict.ts";

export const batchRecordsMax = 512;
export const queuedRecordsMax = 20_000;
const cachedChainsMax = 50_000;
const adoptedPerTurnMax = 512;

export interface RecordPathParts {
  readonly store: Store;
  readonly registry: Registry;
  readonly keys: NodeKeys;
  readonly clock: Clock;
  readonly log: Log;
  /** Sends receipts; must not throw, and need not succeed: a device that gets none sends its records again. */
  readonly publish: (receipts: readonly OutgoingReceipt[]) => void;
  readonly report: (event: StoredEvent | RefusedEvent) => void;
  /** A failure after which nothing may be promised any more: the process should end and start again. */
  readonly fail: (error: unknown) => void;
}

/** What a batch brings to one chain. */
interface Group {
  readonly device: KnownDevice;
  readonly sequences: Set<number>;
  /** The records that are kept, in the chain or as evidence. */
  readonly kept: Arrival[];
  changed: boolean;
  /** Some of it was there already. */
  repeated: boolean;
}

export interface RecordCounts {
  readonly stored: number;
  readonly duplicates: number;
  readonly receipts: number;
  readonly refused: Partial<Record<VerdictReason, number>>;
  /** Messages that wait. */
  readonly queued: number;
}

export class RecordPath {
  readonly #parts: RecordPathParts;
  readonly #queue: Message[] = [];
  readonly #chains = new Map<string, Chain>();
  readonly #examination: RecordExamination;
  readonly #early = new EarlyRecords<Message>();
  readonly #refusals: RefusalTally;
  readonly #counts = { stored: 0, duplicates: 0, receipts: 0 };
  #working: Promise<void> | undefined;
  #stopped = false;
  #foreignChanges = -1;
  /** What was known of the store was dropped, and is to be read again. */
  #lookAgain = false;
  /** Chains that have more to settle than one batch may. */
  readonly #unsettled = new Set<Chain>();

  constructor(parts: RecordPathParts) {
    this.#parts = parts;
    this.#examination = new RecordExamination(parts.store, parts.registry);
    this.#refusals = new RefusalTally(parts.clock, (sample) => {
      parts.log.warn("refused", { detail: verdictSentences[sample.reason], ...sample });
      parts.report({ event: "refused", ...sample });
    });
  }

  /** Takes a message from the broker. Returns at once: whoever delivers must not be held up. */
  push(topic: string, payload: Uint8Array): void {
    if (this.#stopped) return;
    // Size before anything else: what is too long is never queued.
    if (payload.length > recordBytesMax) this.#refusals.add("too-large", topic, `${payload.length} bytes`);
    else if (this.#queue.length >= queuedRecordsMax) this.#refusals.add("queue-full", topic);
    else {
      this.#queue.push({ topic, payload, receivedMs: this.#parts.clock.wallMs() });
      this.#wake();
    }
  }

  /** Looks for what other processes have changed: devices enrolled, epochs agreed to. For calling now and then. */
  lookAround(): void {
    if (!this.#stopped) this.#wake();
  }

  /** Fulfilled when all that was pushed has been worked on. */
  async idle(): Promise<void> {
    while (this.#working) await this.#working;
  }

  /** Takes nothing more, and finishes what it has. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.idle();
    this.#refusals.flush();
  }

  get counts(): RecordCounts {
    return { ...this.#counts, refused: this.#refusals.totals, queued: this.#queue.length };
  }

  #wake(): void {
    this.#working ??= this.#work()
      .catch((error) => this.#parts.fail(error))
      .finally(() => {
        this.#working = undefined;
        if (this.#queue.length > 0) this.#wake();
      });
  }

  async #work(): Promise<void> {
    let examined = this.#examine(this.#queue.splice(0, batchRecordsMax));
    for (;;) {
      await this.#noticeForeignChanges();
      const batch = await this.#withoutRefused(await examined);
      const next = this.#queue.splice(0, batchRecordsMax);
      examined = this.#examine(next); // before the commit blocks this thread: the pool verifies meanwhile
      await this.#commit(batch);
      await immediate(); // sockets and timers have their turn, however much there is to do
      if (next.length === 0 && this.#queue.length === 0 && this.#unsettled.size === 0 && !this.#lookAgain) return;
    }
  }

  async #noticeForeignChanges(): Promise<void> {
    const { store } = this.#parts;
    const changes = await store.foreignChanges();
    if (changes === this.#foreignChanges) return;
    this.#forgetChains();
    this.#foreignChanges = changes;
    this.#lookAgain = false;
    for (const { device, epoch } of await store.epochsToSettle(cachedChainsMax)) {
      const chain = await store.transaction({ devices: [device], places: [] }, (tx) => {
        this.#forgetForeign(tx);
        return this.#knownChain(tx, device, epoch);
      });
      if (chain) this.#unsettled.add(chain);
    }
    this.#pushAgain(this.#early.takeAll());
    const adopted = await store.releasedQuarantine(adoptedPerTurnMax);
    if (adopted.length === adoptedPerTurnMax) this.#foreignChanges = -1; // there may be more
    for (const record of adopted)
      this.#queue.push({
        topic: `ecp/1/${record.name}/record`,
        payload: record.bytes,
        receivedMs: this.#parts.clock.wallMs(),
        adopted: record,
      });
  }

  #forgetChains(): void {
    this.#parts.registry.forget();
    this.#chains.clear();
    this.#unsettled.clear();
    this.#foreignChanges = -1;
    this.#lookAgain = true;
  }

  /** What others have changed of the devices of a batch; nobody can while the transaction runs. */
  #forgetForeign({ foreign }: StoreTransaction): void {
    if (foreign === "all") this.#forgetChains();
    else if (foreign.size > 0)
      for (const [key, chain] of this.#chains)
        if (foreign.has(chain.device)) {
          this.#chains.delete(key);
          this.#unsettled.delete(chain);
          this.#lookAgain = true;
        }
  }

  #scopeOf(batch: readonly (Examined | Refused)[]): BatchScope {
    const devices = new Set([...this.#unsettled].map(({ device }) => device));
    const places: StorePlace[] = [];
    for (const record of batch) {
      if ("refused" in record || record.device === undefined) continue;
      devices.add(record.device.id);
      places.push({ device: record.device.id, epoch: record.content.epoch, sequence: record.content.sequence });
    }
    return { devices: [...devices], places };
  }

  #pushAgain(messages: readonly Message[]): void {
    for (const message of messages) this.#queue.push({ ...message, early: true });
  }

  /** Decode, registry, signature. The signatures of a batch are verified together, on the thread pool. */
  async #examine(messages: readonly Message[]): Promise<(Examined | Refused)[]> {
    const mayHold = (device: number, epoch: number, sequence: number) =>
      this.#chains.get(chainKey(device, epoch))?.mayHold(sequence) ?? true;
    return await Promise.all(messages.map((message) => this.#examination.examine(message, mayHold)));
  }

  /** Counts what is refused of a batch; gives the rest, and those that are to leave the quarantine. */
  async #withoutRefused(batch: readonly (Examined | Refused)[]): Promise<(Examined | Refused)[]> {
    const kept: (Examined | Refused)[] = [];
    for (const record of batch) {
      if (!("refused" in record) || record.message.adopted) kept.push(record);
      if (!("refused" in record)) continue;
      const { refused, message, detail, early } = record;
      if (early && !message.early && !message.adopted) {
        // The batch before may have brought the rotation while this one was examined.
        const now = (await this.#parts.registry.device(early.name))?.keys.get(early.epoch);
        if (now && !equalBytes(now.publicKey, early.publicKey)) {
          this.#pushAgain([message]);
          continue;
        }
        this.#early.keep(early.name, early.epoch, message);
      }
      this.#refusals.add(refused, message.topic, detail);
    }
    return kept;
  }

  /** Places a batch and writes its receipts, in one transaction; publishes them after it. */
  async #commit(batch: readonly (Examined | Refused)[]): Promise<void> {
    if (batch.length === 0 && this.#unsettled.size === 0) return;
    const { store, registry, publish, report, log, clock } = this.#parts;
    const nowMs = clock.wallMs();
    // Between batches only: within one, two objects for one chain would not know of each other.
    if (this.#chains.size > cachedChainsMax) this.#forgetChains();
    try {
      const { receipts, events, refused, duplicates, announced } = await store.transaction(
        { ...this.#scopeOf(batch), nowMs },
        (tx) => {
          this.#forgetForeign(tx);
          return this.#place(tx, batch, nowMs);
        },
      );
      // POINT OF NO RETURN, passed: records, ledger queue and receipts are on disk. What the receipts promise is kept.
      this.#counts.stored += events.length;
      this.#counts.duplicates += duplicates;
      this.#counts.receipts += receipts.length;
      publish(receipts);
      for (const event of events) report(event);
      for (const { reason, message } of refused) this.#refusals.add(reason, message.topic);
      for (const { device, epoch } of announced) {
        registry.forgetDevice(device);
        this.#pushAgain(this.#early.take(device, epoch));
      }
    } catch (error) {
      // Nothing of the batch is stored and nothing was promised: the devices send it again.
      this.#forgetChains();
      this.#lookAgain = false; // not before the next wake: what failed now would fail at once again
      if (!isPassingStoreError(error)) throw error;
      log.error("the store could not take a batch", {
        records: batch.length,
        got: (error as Error).message,
        todo: "free space on the data folder's disk; devices keep their records and send them again",
      });
    }
  }

  async #place(tx: StoreTransaction, batch: readonly (Examined | Refused)[], nowMs: number) {
    const events: (StoredEvent & { chain: Chain })[] = [];
    const refused: { reason: VerdictReason; message: Message }[] = [];
    const announced: { device: string; epoch: number }[] = [];
    const touched = new Map<Chain, Group>();
    let duplicates = 0;
    for (const record of batch) {
      const { message } = record;
      if (message.adopted) await tx.removeQuarantined(message.adopted.name, message.adopted.digest);
      if ("refused" in record) continue;
      const { device, content } = record;
      if (device === undefined) {
        const { name, digest, bytes, receivedMs } = record;
        const { epoch, sequence } = content;
        await tx.addQuarantined({ name, digest, bytes, epoch, sequence, receivedMs });
        refused.push({ reason: "unknown-device", message });
        continue;
      }
      const chain = await this.#chainFor(tx, device, record, nowMs);
      if (!(chain instanceof Chain)) {
        refused.push({ reason: chain, message });
        continue;
      }
      if (!device.keys.has(content.epoch)) announced.push({ device: device.name, epoch: content.epoch });
      const evidenceBefore = chain.evidence;
      const placement = await chain.place(tx, record);
      const group: Group = touched.get(chain) ?? {
        device,
        sequences: new Set(),
        kept: [],
        changed: false,
        repeated: false,
      };
      touched.set(chain, group);
      group.sequences.add(content.sequence);
      const newEvidence = chain.evidence - evidenceBefore;
      group.changed ||= placement === "stored" || newEvidence > 0;
      if (placement !== "evidence-full") group.kept.push(record);
      group.repeated ||= placement === "duplicate";
      if (placement === "duplicate") duplicates++;
      else if (placement !== "stored") refused.push({ reason: placement, message });
      else {
        const { epoch, sequence, clockState } = content;
        const clock = clockStateLetters[clockState] ?? "U";
        events.push({ event: "stored", device: device.did, epoch, sequence, state: "held", clock, chain });
      }
      // Records that waited for this one, and speak of another, are evidence from now on: a conflict as if they came just now.
      const left = placement === "stored" ? newEvidence : newEvidence - 1;
      for (let i = 0; i < left; i++) refused.push({ reason: "fork", message });
      const next = await this.#announce(tx, record, placement, nowMs);
      if (next !== undefined) announced.push({ device: device.name, epoch: next });
    }
    const passed = await this.#settle(tx, touched, announced, nowMs);
    const receipts = await this.#receipts(tx, touched, nowMs);
    for (const chain of passed) if (!touched.has(chain)) receipts.push(await this.#receiptFor(tx, chain, nowMs));
    return { receipts, refused, duplicates, announced, events: events.map(withState) };
  }

  async #receipts(tx: StoreTransaction, touched: ReadonlyMap<Chain, Group>, nowMs: number): Promise<OutgoingReceipt[]> {
    const { keys } = this.#parts;
    const receipts: OutgoingReceipt[] = [];
    for (const [chain, { device, sequences, kept, changed, repeated }] of touched) {
      const { epoch } = chain;
      // An older card sends again what the node has, and more than it: `through` and ranges tell it nothing that it could check.
      const isKeptNamed = chain.evidence > 0 || (repeated && device.keys.size > 1);
      const again = changed || isKeptNamed ? undefined : await receiptAgain(tx, chain, sequences);
      if (again) {
        receipts.push({ device: device.name, epoch, bytes: again });
        continue;
      }
      const receipt = await buildReceipt(tx, chain, device.kid, sequences, Math.floor(nowMs / 1000));
      const named = isKeptNamed ? withKept(receipt, kept) : [receipt];
      const sealed = named.map((one) => sealReceipt(one, keys));
      // Where nothing is new they cost signatures, and no write.
      if (changed || !isKeptNamed) await chain.save(tx, nowMs, sealed.at(-1));
      receipts.push(...sealed.map((bytes) => ({ device: device.name, epoch, bytes })));
    }
    return receipts;
  }

  /** A receipt for a chain that is whole further than before by what another epoch says. */
  async #receiptFor(tx: StoreTransaction, chain: Chain, nowMs: number): Promise<OutgoingReceipt> {
    const name = await tx.deviceName(chain.device);
    const device = await this.#parts.registry.device(name);
    if (device === undefined) throw new Error(`the device ${name} has records and is not in the registry`);
    const receipt = await buildReceipt(tx, chain, device.kid, new Set(), Math.floor(nowMs / 1000));
    const bytes = sealReceipt(receipt, this.#parts.keys);
    await chain.save(tx, nowMs, bytes);
    return { device: name, epoch: chain.epoch, bytes };
  }

  /** The epoch that a rotation in this record has made known, if any. */
  async #announce(
    tx: StoreTransaction,
    { device, content, rotation }: Examined,
    placement: Placement,
    nowMs: number,
  ): Promise<number | undefined> {
    if (device === undefined || rotation === undefined) return undefined;
    if (placement === "duplicate" || placement === "evidence-full") return undefined;
    const { epoch, sequence } = content;
    const parent = placement === "stored" ? { epoch, sequence } : undefined;
    await this.#chains.get(chainKey(device.id, rotation.nextEpoch))?.save(tx, nowMs);
    const isNew = await announce(tx, device.id, rotation, parent, nowMs);
    if (isNew) await this.#reload(tx, device.id, rotation.nextEpoch);
    return isNew ? rotation.nextEpoch : undefined;
  }

  /**
   * Settles what a batch has closed, and a part of what earlier ones left; and what follows of it for other epochs. Gives the
   * chains that are whole further than before by what another epoch says.
   */
  async #settle(
    tx: StoreTransaction,
    touched: ReadonlyMap<Chain, Group>,
    announced: { device: string; epoch: number }[],
    nowMs: number,
  ): Promise<ReadonlySet<Chain>> {
    const chains = [...new Set([...touched.keys(), ...this.#unsettled])];
    const passed = new Set<Chain>();
    for (const chain of chains) {
      const before = chain.settledThrough;
      const more = await chain.settle(tx, settledPerBatchMax);
      if (more) this.#unsettled.add(chain);
      else this.#unsettled.delete(chain);
      if (chain.settledThrough !== before && !touched.get(chain)?.changed) await chain.save(tx, nowMs);
      for (const content of chain.takeEffects()) {
        for (const range of droppedOf(content) ?? []) {
          if (range.epoch === chain.epoch) continue;
          const other = await this.#knownChain(tx, chain.device, range.epoch);
          if (!other?.drop(range.last)) continue;
          passed.add(other);
          chains.push(other);
          const otherGroup = touched.get(other);
          if (otherGroup) otherGroup.changed = true;
        }
        const next = await this.#succeed(tx, chain, content, nowMs);
        if (next === undefined) continue;
        announced.push({ device: await tx.deviceName(chain.device), epoch: next.epoch });
        chains.push(next);
      }
    }
    return passed;
  }

  /** The chain of the new key, after a settled rotation. */
  async #succeed(tx: StoreTransaction, chain: Chain, content: EventContent, nowMs: number): Promise<Chain | undefined> {
    const certificate = certificateIn(content)?.certificate;
    if (certificate === undefined) return undefined;
    const { epoch, sequence } = content;
    await this.#chains.get(chainKey(chain.device, certificate.nextEpoch))?.save(tx, nowMs);
    if (!(await succeed(tx, chain.device, certificate, { epoch, sequence }, nowMs))) return undefined;
    await this.#reload(tx, chain.device, certificate.nextEpoch);
    return await this.#knownChain(tx, chain.device, certificate.nextEpoch);
  }

  async #reload(tx: StoreTransaction, device: number, epoch: number): Promise<void> {
    const stored = await tx.epoch(device, epoch);
    if (stored) this.#chains.get(chainKey(device, epoch))?.reload(stored);
  }

  async #knownChain(tx: StoreTransaction, device: number, epoch: number): Promise<Chain | undefined> {
    const key = chainKey(device, epoch);
    const cached = this.#chains.get(key);
    if (cached) return cached;
    const stored = await tx.epoch(device, epoch);
    if (stored === undefined) return undefined;
    const chain = new Chain(device, stored);
    this.#chains.set(key, chain);
    return chain;
  }

  /** The chain that a record is for. An epoch that nobody has announced is held, and must be of the key that the device has now. */
  async #chainFor(
    tx: StoreTransaction,
    { id }: KnownDevice,
    { content: { epoch }, signedBy }: Examined,
    nowMs: number,
  ): Promise<Chain | VerdictReason> {
    const known = await this.#knownChain(tx, id, epoch);
    if (known) return equalBytes(known.publicKey, signedBy) ? known : "unknown-key";
    const allowed = [await tx.currentKey(id), ...rejectedKeys(await tx.epochKeys(id))];
    if (!allowed.some((key) => equalBytes(key, signedBy))) return "old-key";
    if ((await tx.epochCount(id)) >= epochsPerDeviceMax) return "too-many-epochs";
    await tx.addEpoch(id, epoch, { publicKey: signedBy, held: true, decision: "none" }, nowMs);
    return (await this.#knownChain(tx, id, epoch)) as Chain;
  }
}

function chainKey(device: number, epoch: number): string {
  return `${device}:${epoch}`;
}

function withState({ chain, ...event }: StoredEvent & { chain: Chain }): StoredEvent {
  const state = chain.held ? "held" : event.sequence <= chain.settledThrough ? "settled" : "provisional";
  return { ...event, state };
}

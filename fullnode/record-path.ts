/**
 * The path of one record through the full node, top to bottom:
 *
 *   push → decode → registry → duplicate? → verify (thread pool) → place in the chain → settle → receipt → publish
 *          └──────────── examine(), a batch at a time ─────────┘   └── commit(), one transaction ──┘
 *
 * Batches form by themselves: what has come while the last batch was worked on is the next one. While one batch is
 * committed, the signatures of the next are already being verified.
 */
import { type KeyObject, verify } from "node:crypto";
import { setImmediate as immediate } from "node:timers/promises";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import { type CoseSign1, contentTypes, decodeCose, encodeCose, toBeSigned } from "../protocol/cose-sign1.ts";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { parseTopic } from "../protocol/mqtt-topic.ts";
import { vetPublicKey } from "../protocol/public-key.ts";
import { decodeRecordPayload, recordBytesMax } from "../protocol/record.ts";
import { Refusal } from "../protocol/refusal.ts";
import { type Arrival, Chain, settledPerBatchMax, voidOf } from "./chain.ts";
import { type NodeKeys, sha256 } from "./node-keys.ts";
import { buildReceipt, receiptAgain, sealReceipt } from "./receipt-building.ts";
import { RefusalTally, type RefusedSample } from "./refusal-tally.ts";
import { type KnownDevice, keyOfName, type Registry } from "./registry.ts";
import type { QuarantinedRecord, Store, StoreTransaction } from "./store.ts";
import { isPassingStoreError } from "./store-sqlite-failure.ts";
import { type VerdictReason, verdictSentences } from "./verdict.ts";

export const batchRecordsMax = 512;
export const queuedRecordsMax = 20_000;
export const quarantinePerNameMax = 64;
export const quarantineTotalMax = 4_096;
export const epochsPerDeviceMax = 256;
const cachedChainsMax = 50_000;
const cachedTopicsMax = 50_000;
const adoptedPerTurnMax = 512;

export type RecordState = "settled" | "provisional" | "held";

export interface StoredEvent {
  readonly event: "stored";
  /** did:key of the device. */
  readonly device: string;
  readonly epoch: number;
  readonly sequence: number;
  readonly state: RecordState;
}

export interface RefusedEvent extends RefusedSample {
  readonly event: "refused";
}

export interface OutgoingReceipt {
  /** Multibase name of the device. */
  readonly device: string;
  readonly epoch: number;
  readonly bytes: Uint8Array;
}

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

interface Message {
  readonly topic: string;
  readonly payload: Uint8Array;
  readonly receivedMs: number;
  /** Set where the record comes out of quarantine. */
  readonly adopted?: QuarantinedRecord;
}

/** A record whose signature holds. */
interface Examined extends Arrival {
  readonly message: Message;
  readonly name: string;
  /** Undefined: nobody has enrolled it. */
  readonly device: KnownDevice | undefined;
}

export interface RecordCounts {
  readonly stored: number;
  readonly duplicates: number;
  readonly receipts: number;
  readonly refused: Partial<Record<VerdictReason, number>>;
}

export class RecordPath {
  readonly #parts: RecordPathParts;
  readonly #queue: Message[] = [];
  readonly #chains = new Map<string, Chain>();
  readonly #namesByTopic = new Map<string, string>();
  readonly #refusals: RefusalTally;
  readonly #counts = { stored: 0, duplicates: 0, receipts: 0 };
  #working: Promise<void> | undefined;
  #stopped = false;
  #foreignChanges = -1;
  /** Chains that have more to settle than one batch may. */
  readonly #unsettled = new Set<Chain>();

  constructor(parts: RecordPathParts) {
    this.#parts = parts;
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
    return { ...this.#counts, refused: this.#refusals.totals };
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
      const batch = await examined;
      const next = this.#queue.splice(0, batchRecordsMax);
      examined = this.#examine(next); // before the commit blocks this thread: the pool verifies meanwhile
      await this.#commit(batch);
      await immediate(); // sockets and timers have their turn, however much there is to do
      if (next.length === 0 && this.#queue.length === 0 && this.#unsettled.size === 0) return;
    }
  }

  async #noticeForeignChanges(): Promise<void> {
    const { store, registry } = this.#parts;
    const changes = await store.foreignChanges();
    if (changes === this.#foreignChanges) return;
    this.#foreignChanges = changes;
    registry.forget();
    this.#chains.clear();
    this.#unsettled.clear();
    for (const { device, epoch } of await store.epochsToSettle(cachedChainsMax)) {
      const chain = await store.transaction((tx) => this.#chain(tx, device, epoch, 0));
      if (chain) this.#unsettled.add(chain);
    }
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

  /** Decode, registry, signature. The signatures of a batch are verified together, on the thread pool. */
  async #examine(messages: readonly Message[]): Promise<Examined[]> {
    const examined = await Promise.all(
      messages.map(async (message) => {
        try {
          return await this.#examineOne(message);
        } catch (error) {
          if (!(error instanceof Refusal)) throw error;
          this.#refusals.add(error.reason, message.topic, error.message);
          return undefined;
        }
      }),
    );
    return examined.filter((record) => record !== undefined);
  }

  async #examineOne(message: Message): Promise<Examined | undefined> {
    const name = this.#nameOf(message.topic);
    if (name === undefined) return this.#refuse("unknown-topic", message);
    const cose = decodeCose(message.payload, contentTypes.record, recordBytesMax);
    const content = decodeRecordPayload(cose.payload);
    const voided = voidOf(content);
    if (voided === "bad-void") return this.#refuse("bad-void", message);
    // The form without tag and kid: what a broker adds or changes outside the signature is not stored.
    const { protectedHeader, payload, signature } = cose;
    const bytes = encodeCose({ protectedHeader, payload, signature });
    const digest = sha256(bytes);
    const { receivedMs } = message;
    const device = await this.#parts.registry.device(name);
    const record = { message, name, device, content, bytes, digest, receivedMs, ...(voided && { voided }) };
    if (device === undefined) return (await this.#isStrangersOwn(record, cose)) ? record : undefined;

    // The digest covers the signature, so a record that is stored with this digest has been verified.
    const chain = this.#chains.get(chainKey(device.id, content.epoch));
    if (chain === undefined || chain.mayHold(content.sequence)) {
      const stored = await this.#parts.store.digest(device.id, content.epoch, content.sequence);
      if (stored && equalBytes(stored, digest)) return record;
    }
    if (await holds(cose, device.key)) return record;
    // The kid is a hint that anyone may have changed: it only says which refusal helps most.
    const signedByOther = cose.kid !== undefined && !equalBytes(cose.kid, device.kid);
    return this.#refuse(signedByOther ? "wrong-device" : "signature-invalid", message);
  }

  /** Whether a record of a device that nobody enrolled is signed by the key that its topic names, and there is room for it. */
  async #isStrangersOwn(record: Examined, cose: CoseSign1): Promise<boolean> {
    const { ofName, total } = await this.#parts.store.quarantineCount(record.name);
    if (ofName >= quarantinePerNameMax || total >= quarantineTotalMax) {
      this.#refuse("quarantine-full", record.message);
      return false;
    }
    const { publicKey, key } = keyOfName(record.name);
    if (await holds(cose, key)) {
      vetPublicKey(publicKey);
      return true;
    }
    this.#refuse("signature-invalid", record.message);
    return false;
  }

  /** Places a batch and writes its receipts, in one transaction; publishes them after it. */
  async #commit(batch: readonly Examined[]): Promise<void> {
    if (batch.length === 0 && this.#unsettled.size === 0) return;
    const { store, publish, report, log, clock } = this.#parts;
    const nowMs = clock.wallMs();
    // Between batches only: within one, two objects for one chain would not know of each other.
    if (this.#chains.size > cachedChainsMax) this.#chains.clear();
    try {
      const { receipts, events, refused, duplicates } = await store.transaction((tx) => this.#place(tx, batch, nowMs));
      // POINT OF NO RETURN, passed: records, ledger queue and receipts are on disk. What the receipts promise is kept.
      this.#counts.stored += events.length;
      this.#counts.duplicates += duplicates;
      this.#counts.receipts += receipts.length;
      publish(receipts);
      for (const event of events) report(event);
      for (const { reason, message } of refused) this.#refusals.add(reason, message.topic);
    } catch (error) {
      // Nothing of the batch is stored and nothing was promised: the devices send it again.
      this.#chains.clear();
      this.#unsettled.clear();
      this.#foreignChanges = -1; // read again what there is to settle
      if (!isPassingStoreError(error)) throw error;
      log.error("the store could not take a batch", {
        records: batch.length,
        got: (error as Error).message,
        todo: "free space on the data folder's disk; devices keep their records and send them again",
      });
    }
  }

  async #place(tx: StoreTransaction, batch: readonly Examined[], nowMs: number) {
    const events: (StoredEvent & { chain: Chain })[] = [];
    const refused: { reason: VerdictReason; message: Message }[] = [];
    const touched = new Map<Chain, { device: KnownDevice; sequences: Set<number>; changed: boolean }>();
    let duplicates = 0;
    for (const record of batch) {
      const { device, content, message } = record;
      if (device === undefined) {
        const { name, digest, bytes, receivedMs } = record;
        const { epoch, sequence } = content;
        await tx.addQuarantined({ name, digest, bytes, epoch, sequence, receivedMs });
        refused.push({ reason: "unknown-device", message });
        continue;
      }
      if (message.adopted) await tx.removeQuarantined(message.adopted.name, message.adopted.digest);
      const chain = await this.#chain(tx, device.id, content.epoch, nowMs);
      if (chain === undefined) {
        refused.push({ reason: "too-many-epochs", message });
        continue;
      }
      const evidenceBefore = chain.evidence;
      const placement = await chain.place(tx, record);
      const group = touched.get(chain) ?? { device, sequences: new Set(), changed: false };
      touched.set(chain, group);
      group.sequences.add(content.sequence);
      group.changed ||= placement === "stored" || chain.evidence !== evidenceBefore;
      if (placement === "duplicate") duplicates++;
      else if (placement !== "stored") refused.push({ reason: placement, message });
      else {
        const { epoch, sequence } = content;
        events.push({ event: "stored", device: device.did, epoch, sequence, state: "held", chain });
      }
    }
    await this.#settle(tx, touched, nowMs);
    const receipts: OutgoingReceipt[] = [];
    for (const [chain, { device, sequences, changed }] of touched) {
      let bytes = changed ? undefined : await receiptAgain(tx, chain, sequences);
      if (bytes === undefined) {
        const receipt = await buildReceipt(tx, chain, device.kid, sequences, Math.floor(nowMs / 1000));
        bytes = sealReceipt(receipt, this.#parts.keys);
        await chain.save(tx, nowMs, bytes);
      }
      receipts.push({ device: device.name, epoch: chain.epoch, bytes });
    }
    return { receipts, refused, duplicates, events: events.map(withState) };
  }

  /** Settles what a batch has closed, and a part of what earlier ones left. */
  async #settle(tx: StoreTransaction, touched: ReadonlyMap<Chain, unknown>, nowMs: number): Promise<void> {
    for (const chain of new Set([...touched.keys(), ...this.#unsettled])) {
      const before = chain.settledThrough;
      const more = await chain.settle(tx, settledPerBatchMax);
      if (more) this.#unsettled.add(chain);
      else this.#unsettled.delete(chain);
      if (chain.settledThrough !== before && !touched.has(chain)) await chain.save(tx, nowMs);
    }
  }

  /** The chain of an epoch; a new epoch that the owner has not agreed to is held. Undefined: the device has too many. */
  async #chain(tx: StoreTransaction, device: number, epoch: number, nowMs: number): Promise<Chain | undefined> {
    const key = chainKey(device, epoch);
    const cached = this.#chains.get(key);
    if (cached) return cached;
    let stored = await tx.epoch(device, epoch);
    if (stored === undefined) {
      if ((await tx.epochCount(device)) >= epochsPerDeviceMax) return undefined;
      await tx.addEpoch(device, epoch, true, nowMs);
      stored = { epoch, held: true, settledThrough: 0, spans: [], evidence: 0 };
    }
    const chain = new Chain(device, stored);
    this.#chains.set(key, chain);
    return chain;
  }

  #nameOf(topic: string): string | undefined {
    const known = this.#namesByTopic.get(topic);
    if (known !== undefined) return known;
    const parsed = parseTopic(topic);
    if (parsed?.kind !== "record") return undefined;
    if (this.#namesByTopic.size >= cachedTopicsMax) this.#namesByTopic.clear();
    this.#namesByTopic.set(topic, parsed.device);
    return parsed.device;
  }

  #refuse(reason: VerdictReason, message: Message): undefined {
    this.#refusals.add(reason, message.topic);
    return undefined;
  }
}

function chainKey(device: number, epoch: number): string {
  return `${device}:${epoch}`;
}

function withState({ chain, ...event }: StoredEvent & { chain: Chain }): StoredEvent {
  const state = chain.held ? "held" : event.sequence <= chain.settledThrough ? "settled" : "provisional";
  return { ...event, state };
}

/** Ed25519 on the thread pool: the event loop goes on meanwhile (RFC 8032 §5.1.7 as OpenSSL does it, on vetted keys). */
function holds(cose: CoseSign1, key: KeyObject): Promise<boolean> {
  const message = toBeSigned(cose.protectedHeader, cose.payload);
  return new Promise((resolve, reject) => {
    verify(null, message, key, cose.signature, (error, valid) => (error ? reject(error) : resolve(valid)));
  });
}

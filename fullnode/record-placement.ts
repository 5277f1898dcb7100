/**
 * Places a batch of examined records in the chains of their devices, settles what has become whole, and writes the receipts: all
 * within one transaction of the store. Keeps the chains that it knows between batches.
 */
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { clockStateLetters } from "../protocol/reading-status.ts";
import type { EventContent } from "../protocol/record.ts";
import { certificateIn } from "../protocol/rotation.ts";
import { type Arrival, Chain, type Placement, rowsPerBatchMax, settledPerBatchMax } from "./chain.ts";
import { droppedOf } from "./chain-events.ts";
import type { NodeKeys } from "./node-keys.ts";
import { buildReceipt, receiptAgain, sealReceipt, withKept } from "./receipt-building.ts";
import type { OutgoingReceipt, RecordAnswer, StoredEvent } from "./record-event.ts";
import type { Examined, Message, Refused } from "./record-examination.ts";
import type { KnownDevice, Registry } from "./registry.ts";
import type { BatchScope, StorePlace, StoreTransaction } from "./store.ts";
import { announce, epochsPerDeviceMax, rejectedKeys, succeed } from "./succession.ts";
import type { VerdictReason } from "./verdict.ts";

export const cachedChainsMax = 50_000;

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

export interface PlacedAnswer {
  readonly message: Message;
  readonly outcome: RecordAnswer["outcome"];
  readonly device: string;
  readonly place: NonNullable<RecordAnswer["place"]>;
}

/** What came of a batch, to be told once it is on disk. */
export interface Placed {
  readonly receipts: readonly OutgoingReceipt[];
  readonly events: readonly StoredEvent[];
  readonly refused: readonly { readonly reason: VerdictReason; readonly message: Message }[];
  readonly duplicates: number;
  /** For the messages whose sender wants to know. */
  readonly answers: readonly PlacedAnswer[];
  /** Epochs whose keys are known from now on. */
  readonly announced: readonly { readonly device: string; readonly epoch: number }[];
}

export class RecordPlacement {
  readonly #keys: NodeKeys;
  readonly #registry: Registry;
  readonly #chains = new Map<string, Chain>();
  /** Chains that have more to settle than one batch may. */
  readonly #unsettled = new Set<Chain>();

  constructor(keys: NodeKeys, registry: Registry) {
    this.#keys = keys;
    this.#registry = registry;
  }

  get cachedChains(): number {
    return this.#chains.size;
  }

  /** Whether chains are left that are whole further than they are settled. */
  get hasUnsettled(): boolean {
    return this.#unsettled.size > 0;
  }

  /** Whether a record may be stored already, for all that is known without the store. */
  mayHold(device: number, epoch: number, sequence: number): boolean {
    return this.#chains.get(chainKey(device, epoch))?.mayHold(sequence) ?? true;
  }

  forgetAll(): void {
    this.#chains.clear();
    this.#unsettled.clear();
  }

  /** Returns whether something of them was left to settle. */
  forgetDevices(devices: ReadonlySet<number>): boolean {
    let found = false;
    for (const [key, chain] of this.#chains) {
      if (!devices.has(chain.device)) continue;
      this.#chains.delete(key);
      if (this.#unsettled.delete(chain)) found = true;
    }
    return found;
  }

  /** An epoch that has stored records to settle. */
  async addUnsettled(tx: StoreTransaction, device: number, epoch: number): Promise<void> {
    const chain = await this.#knownChain(tx, device, epoch);
    if (chain) this.#unsettled.add(chain);
  }

  scopeOf(batch: readonly (Examined | Refused)[]): BatchScope {
    const devices = new Set([...this.#unsettled].map(({ device }) => device));
    const places: StorePlace[] = [];
    for (const record of batch) {
      if ("refused" in record || record.device === undefined) continue;
      devices.add(record.device.id);
      places.push({ device: record.device.id, epoch: record.content.epoch, sequence: record.content.sequence });
    }
    return { devices: [...devices], places };
  }

  async place(tx: StoreTransaction, batch: readonly (Examined | Refused)[], nowMs: number): Promise<Placed> {
    const events: (StoredEvent & { chain: Chain })[] = [];
    const refused: { reason: VerdictReason; message: Message }[] = [];
    const announced: { device: string; epoch: number }[] = [];
    const answers: PlacedAnswer[] = [];
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
        addAnswer(answers, record, "unknown-device");
        continue;
      }
      const chain = this.#chainNow(device, record) ?? (await this.#chainFor(tx, device, record, nowMs));
      if (!(chain instanceof Chain)) {
        refused.push({ reason: chain, message });
        addAnswer(answers, record, chain);
        continue;
      }
      if (!device.keys.has(content.epoch)) announced.push({ device: device.name, epoch: content.epoch });
      const evidenceBefore = chain.evidence;
      const placing = chain.place(tx, record);
      const placement = placing instanceof Promise ? await placing : placing;
      let group = touched.get(chain);
      if (group === undefined) {
        group = { device, sequences: new Set(), kept: [], changed: false, repeated: false };
        touched.set(chain, group);
      }
      group.sequences.add(content.sequence);
      const newEvidence = chain.evidence - evidenceBefore;
      group.changed ||= placement === "stored" || newEvidence > 0;
      if (!isLeft(placement)) group.kept.push(record);
      group.repeated ||= placement === "duplicate";
      addAnswer(answers, record, placement);
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
      if (record.rotation === undefined) continue;
      const next = await this.#announce(tx, record, placement, nowMs);
      if (next !== undefined) announced.push({ device: device.name, epoch: next });
    }
    const passed = await this.#settle(tx, touched, announced, nowMs);
    const receipts = await this.#receipts(tx, touched, nowMs);
    for (const chain of passed) if (!touched.has(chain)) receipts.push(await this.#receiptFor(tx, chain, nowMs));
    return { receipts, refused, duplicates, announced, answers, events: events.map(withState) };
  }

  async #receipts(tx: StoreTransaction, touched: ReadonlyMap<Chain, Group>, nowMs: number): Promise<OutgoingReceipt[]> {
    const keys = this.#keys;
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
    const device = await this.#registry.device(name);
    if (device === undefined) throw new Error(`the device ${name} has records and is not in the registry`);
    const receipt = await buildReceipt(tx, chain, device.kid, new Set(), Math.floor(nowMs / 1000));
    const bytes = sealReceipt(receipt, this.#keys);
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
    if (placement === "duplicate" || isLeft(placement)) return undefined;
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
    const chains = [...new Set([...this.#unsettled, ...touched.keys()])];
    const budget = { rows: rowsPerBatchMax };
    const passed = new Set<Chain>();
    for (const chain of chains) {
      const before = chain.settledThrough;
      const more = await chain.settle(tx, settledPerBatchMax, budget);
      // Whoever has had a turn waits behind the others.
      if (!more || chain.settledThrough !== before) this.#unsettled.delete(chain);
      if (more) this.#unsettled.add(chain);
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

  /** The chain that a record is for, where it is known and of the key that signed. */
  #chainNow({ id }: KnownDevice, { content, signedBy }: Examined): Chain | undefined {
    const known = this.#chains.get(chainKey(id, content.epoch));
    return known && (known.publicKey === signedBy || equalBytes(known.publicKey, signedBy)) ? known : undefined;
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

function addAnswer(
  answers: PlacedAnswer[],
  { message, name, content, digest }: Examined,
  outcome: RecordAnswer["outcome"],
): void {
  if (!message.answered) return;
  const { epoch, sequence } = content;
  answers.push({ message, outcome, device: name, place: { epoch, sequence, digest } });
}

/** Whether a record was not kept at all. */
function isLeft(placement: Placement): boolean {
  return placement === "evidence-full" || placement === "too-many-gaps";
}

function chainKey(device: number, epoch: number): string {
  return `${device}:${epoch}`;
}

function withState({ chain, ...event }: StoredEvent & { chain: Chain }): StoredEvent {
  const state = chain.held ? "held" : event.sequence <= chain.settledThrough ? "settled" : "provisional";
  return { ...event, state };
}

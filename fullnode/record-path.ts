/**
 * The path of one record through the full node, top to bottom:
 *
 *   push → queue of its device → form → registry → duplicate? → verify (thread pool) → place in the chain → settle → receipt → publish
 *                                └──────────── RecordExamination, in slices ───────┘   └── RecordPlacement, one transaction ──┘
 *
 * Slices of what waits are examined ahead, so that the thread pool always has signatures to verify, even while this thread places a
 * batch and waits for the disk. Batches form by themselves: what has been verified by then, the more the more there is to do.
 */
import { setImmediate as immediate, setTimeout as pause } from "node:timers/promises";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { encryptedRecordBytesMax } from "../protocol/encrypted-record.ts";
import { topicOf } from "../protocol/mqtt-topic.ts";
import { rowsPerBatchMax } from "./chain.ts";
import { DeviceQueues, junkCosts } from "./device-queues.ts";
import { EarlyRecords } from "./early-records.ts";
import type { NodeKeys } from "./node-keys.ts";
import type { OutgoingReceipt, RefusedEvent, StoredEvent } from "./record-event.ts";
import { type Examined, type Message, RecordExamination, type Refused, type Slice } from "./record-examination.ts";
import { cachedChainsMax, type Placed, RecordPlacement } from "./record-placement.ts";
import { RefusalTally } from "./refusal-tally.ts";
import type { Registry } from "./registry.ts";
import { SealedEnvelopes } from "./sealed-envelope.ts";
import type { Store, StoreTransaction } from "./store.ts";
import { type VerdictReason, verdictSentences } from "./verdict.ts";

export const batchRecordsMax = 2_048;
/** Verified but not placed, or on their way through the thread pool: more than this does not keep it busier. */
const examinedAheadMax = 2_048;
/** Of suspects: nobody else's records wait behind more of theirs. */
const suspectsAheadMax = 64;
const sliceRecordsMax = 128;
/** Where more is waiting, so many records are placed together: receipts and places on the disk are shared by them. */
const batchRecordsWanted = 1_024;
const passingFailurePauseMs = 500;
const adoptedPerTurnMax = 512;
const knownDevicesMax = 1_000_000;
/** Upper bounds of the histogram of times from arrival to receipt. */
export const receiptSecondsBounds = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60] as const;

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

export interface RecordCounts {
  readonly stored: number;
  readonly duplicates: number;
  readonly receipts: number;
  readonly refused: Partial<Record<VerdictReason, number>>;
  /** Messages that wait to be examined. */
  readonly queued: number;
  /** Records whose form, device and signature held. */
  readonly verified: number;
  readonly batches: number;
  /** Times from the arrival of a record to its receipt on disk; `counts` are those up to each of {@link receiptSecondsBounds}, and beyond. */
  readonly receiptSeconds: { readonly counts: readonly number[]; readonly sum: number };
}

export class RecordPath {
  readonly #parts: RecordPathParts;
  readonly #queues: DeviceQueues<Message>;
  /** Of enrolled devices; undefined until they have been read for the first time. */
  #knownTopics: Set<string> | undefined;
  readonly #placement: RecordPlacement;
  readonly #examination: RecordExamination;
  readonly #early = new EarlyRecords<Message>();
  readonly #refusals: RefusalTally;
  readonly #counts = { stored: 0, duplicates: 0, receipts: 0, verified: 0, batches: 0 };
  readonly #receiptSeconds = { counts: new Array<number>(receiptSecondsBounds.length + 1).fill(0), sum: 0 };
  /** Examined ahead, the oldest first. */
  readonly #slices: Slice[] = [];
  /** How many records they are. */
  #ahead = 0;
  /** Records of the quarantine that are on their way. */
  #adopted = 0;
  #working: Promise<void> | undefined;
  /** The store has given no answer; what waits is kept until it does. */
  #isAway = false;
  #stopped = false;
  #foreignChanges = -1;
  /** What was known of the store was dropped, and is to be read again. */
  #lookAgain = false;

  constructor(parts: RecordPathParts) {
    const { store, registry, keys, clock } = parts;
    this.#parts = parts;
    this.#placement = new RecordPlacement(keys, registry);
    this.#queues = new DeviceQueues(
      clock,
      (topic) => this.#knownTopics?.has(topic) ?? true,
      ({ topic, answered }) => {
        this.#refusals.add("queue-full", topic);
        answered?.({ outcome: "queue-full" });
      },
    );
    const mayHold = this.#placement.mayHold.bind(this.#placement);
    this.#examination = new RecordExamination(store, registry, mayHold, new SealedEnvelopes(keys));
    this.#refusals = new RefusalTally(clock, (sample) => {
      parts.log.warn("refused", { detail: verdictSentences[sample.reason], ...sample });
      parts.report({ event: "refused", ...sample });
    });
  }

  /** Takes a message from the broker. Returns at once: whoever delivers must not be held up. */
  push(topic: string, payload: Uint8Array, answered?: Message["answered"]): void {
    if (this.#stopped) return;
    const refuse = (outcome: VerdictReason, detail?: string) => {
      this.#refusals.add(outcome, topic, detail);
      answered?.({ outcome });
    };
    // Size before anything else: what is too long is never queued.
    if (payload.length > encryptedRecordBytesMax) refuse("too-large", `${payload.length} bytes`);
    else if (
      !this.#queues.add({ topic, payload, receivedMs: this.#parts.clock.wallMs(), ...(answered && { answered }) })
    )
      refuse("queue-full");
    else this.#wake();
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
    const { counts, sum } = this.#receiptSeconds;
    const receiptSeconds = { counts: [...counts], sum };
    return { ...this.#counts, refused: this.#refusals.totals, queued: this.#queues.length, receiptSeconds };
  }

  #wake(): void {
    this.#working ??= this.#work()
      .catch((error) => this.#endOrWait(error))
      .finally(() => {
        this.#working = undefined;
        if (this.#queues.length > 0 && !(this.#stopped && this.#isAway)) this.#wake();
      });
  }

  /** A server that is away for a while ends nothing: what was in hand comes again. */
  async #endOrWait(error: unknown): Promise<void> {
    const { store, fail, log } = this.#parts;
    if (!store.isPassing(error)) return fail(error);
    this.#forgetChains();
    this.#lookAgain = false;
    this.#slices.length = 0;
    this.#ahead = 0;
    this.#adopted = 0;
    if (!this.#isAway)
      log.error("the store gives no answer", {
        got: (error as Error).message,
        todo: "check that the database server runs; devices keep their records and send them again",
      });
    this.#isAway = true;
    await pause(passingFailurePauseMs);
  }

  async #work(): Promise<void> {
    await immediate(); // what has come at once goes together
    for (;;) {
      await this.#noticeForeignChanges();
      await this.#examineAhead();
      const batch = await this.#withoutRefused(await this.#verified());
      await this.#examineAhead(); // before the commit blocks this thread: the pool verifies meanwhile
      await this.#commit(batch);
      await immediate(); // sockets and timers have their turn, however much there is to do
      if (this.#slices.length === 0 && this.#queues.length === 0 && !this.#placement.hasUnsettled && !this.#lookAgain)
        return;
    }
  }

  /** Puts signatures into the thread pool until it has enough to do for a while. */
  async #examineAhead(): Promise<void> {
    while (this.#ahead < examinedAheadMax && this.#queues.length > 0) {
      const messages = this.#queues.take(sliceRecordsMax, Math.max(0, suspectsAheadMax - this.#ahead));
      if (messages.length === 0) break; // suspects have their turn when there is nothing else to do
      this.#ahead += messages.length;
      this.#slices.push(await this.#examination.begin(messages));
    }
  }

  /** The records that are examined by now, in the order of their slices; waits for the first, and where more is coming for more. */
  async #verified(): Promise<(Examined | Refused)[]> {
    const batch: (Examined | Refused)[] = [];
    let rows = 0;
    for (let slice = this.#slices[0]; slice !== undefined; slice = this.#slices[0]) {
      const isEnough = batch.length >= batchRecordsWanted || (batch.length > 0 && !this.#queues.hasTrusted);
      if (batch.length + slice.results.length > batchRecordsMax && batch.length > 0) break;
      if (slice.pending > 0 && isEnough) break;
      await slice.done;
      let taken = 0;
      while (taken < slice.results.length && rows < rowsPerBatchMax) {
        const result = slice.results[taken++] as Examined | Refused;
        if (!("refused" in result) && result.content.kind === "reading") rows += result.content.rows.length;
        batch.push(result);
      }
      this.#ahead -= taken;
      if (taken < slice.results.length) {
        slice.results.splice(0, taken); // the rest is for the next batch
        break;
      }
      this.#slices.shift();
      if (this.#ahead < examinedAheadMax / 2) await this.#examineAhead();
    }
    return batch;
  }

  async #noticeForeignChanges(): Promise<void> {
    const { store, clock } = this.#parts;
    const changes = await store.foreignChanges();
    this.#isAway = false;
    if (changes === this.#foreignChanges) return;
    this.#forgetChains();
    this.#foreignChanges = changes;
    this.#lookAgain = false;
    const names = await store.deviceNames(knownDevicesMax);
    this.#knownTopics = new Set(names.map((name) => topicOf(name, "record")));
    for (const { device, epoch } of await store.epochsToSettle(cachedChainsMax))
      await store.transaction({ devices: [device], places: [] }, async (tx) => {
        this.#forgetForeign(tx);
        await this.#placement.addUnsettled(tx, device, epoch);
      });
    this.#pushAgain(this.#early.takeAll());
    if (this.#adopted > 0) return; // once they are placed, the rest is looked for
    const adopted = await store.releasedQuarantine(adoptedPerTurnMax);
    this.#adopted = adopted.length;
    for (const record of adopted)
      this.#queues.addFirst({
        topic: topicOf(record.name, "record"),
        payload: record.bytes,
        receivedMs: clock.wallMs(),
        adopted: record,
      });
  }

  #forgetChains(): void {
    this.#parts.registry.forget();
    this.#placement.forgetAll();
    this.#foreignChanges = -1;
    this.#lookAgain = true;
  }

  /** What others have changed of the devices of a batch; nobody can while the transaction runs. */
  #forgetForeign({ foreign }: StoreTransaction): void {
    if (foreign === "all") this.#forgetChains();
    else if (foreign.size > 0 && this.#placement.forgetDevices(foreign)) {
      this.#foreignChanges = -1; // what is left to settle of them is read anew, behind this batch
      this.#lookAgain = true;
    }
  }

  #pushAgain(messages: readonly Message[]): void {
    for (const message of messages) this.#queues.addFirst({ ...message, early: true });
  }

  /** Counts what is refused of a batch; gives the rest, and those that are to leave the quarantine. */
  async #withoutRefused(batch: readonly (Examined | Refused)[]): Promise<(Examined | Refused)[]> {
    const kept: (Examined | Refused)[] = [];
    for (const record of batch) {
      if (!("refused" in record)) {
        this.#counts.verified++;
        if (record.device) this.#knownTopics?.add(record.message.topic);
        kept.push(record);
        continue;
      }
      if (record.message.adopted) kept.push(record);
      const { refused, message, detail, early } = record;
      this.#queues.charge(message.topic, early || costly.has(refused) ? junkCosts.badSignature : junkCosts.badForm);
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
      message.answered?.({ outcome: refused });
    }
    return kept;
  }

  /** Places a batch and writes its receipts, in one transaction; publishes them after it. */
  async #commit(batch: readonly (Examined | Refused)[]): Promise<void> {
    const placement = this.#placement;
    if (batch.length === 0 && !placement.hasUnsettled) return;
    const { store, log, clock } = this.#parts;
    const nowMs = clock.wallMs();
    // Between batches only: within one, two objects for one chain would not know of each other.
    if (placement.cachedChains > cachedChainsMax) this.#forgetChains();
    let tries = 0;
    try {
      const placed = await store.transaction({ ...placement.scopeOf(batch), nowMs }, (tx) => {
        // What a try that came to nothing has left in the chains is not in the store.
        if (tries++ > 0) this.#forgetChains();
        this.#forgetForeign(tx);
        return placement.place(tx, batch, nowMs);
      });
      // POINT OF NO RETURN, passed: records, ledger queue and receipts are on disk. What the receipts promise is kept.
      this.#tell(placed);
      this.#count(batch, placed);
    } catch (error) {
      // Nothing of the batch is stored and nothing was promised: the devices send it again.
      this.#forgetChains();
      this.#lookAgain = false; // not before the next wake: what failed now would fail at once again
      if (!store.isPassing(error)) throw error;
      log.error("the store could not take a batch", {
        records: batch.length,
        got: (error as Error).message,
        todo: "free space on the store's disk, or look at its server; devices keep their records and send them again",
      });
    } finally {
      for (const { message } of batch) if (message.adopted && --this.#adopted === 0) this.#foreignChanges = -1;
    }
  }

  #tell({ receipts, events, refused, announced, answers }: Placed): void {
    const { registry, publish, report } = this.#parts;
    // First: whoever is answered must not find a device as it was before its key was rotated.
    for (const { device } of announced) registry.forgetDevice(device);
    publish(receipts);
    for (const { message, outcome, device, place } of answers) {
      const given = receipts.findLast((receipt) => receipt.device === device && receipt.epoch === place.epoch);
      message.answered?.({ outcome, place, ...(given && { receipt: given.bytes }) });
    }
    for (const event of events) report(event);
    for (const { reason, message } of refused) this.#refusals.add(reason, message.topic);
    for (const { device, epoch } of announced) this.#pushAgain(this.#early.take(device, epoch));
  }

  #count(batch: readonly (Examined | Refused)[], { receipts, events, duplicates }: Placed): void {
    this.#counts.batches++;
    this.#counts.stored += events.length;
    this.#counts.duplicates += duplicates;
    this.#counts.receipts += receipts.length;
    const nowMs = this.#parts.clock.wallMs();
    const { counts } = this.#receiptSeconds;
    for (const { message } of batch) {
      const seconds = Math.max(0, nowMs - message.receivedMs) / 1_000;
      this.#receiptSeconds.sum += seconds;
      const bound = receiptSecondsBounds.findIndex((upTo) => seconds <= upTo);
      const at = bound < 0 ? receiptSecondsBounds.length : bound;
      counts[at] = (counts[at] ?? 0) + 1;
    }
  }
}

/** Refusals that cost a verification, or as much. */
const costly: ReadonlySet<VerdictReason> = new Set<VerdictReason>([
  "signature-invalid",
  "wrong-device",
  "bad-rotation",
  "cannot-decrypt",
  "bad-nonce",
  "bad-padding",
]);

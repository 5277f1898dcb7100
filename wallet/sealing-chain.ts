/**
 * The chain that the wallet seals: each record signed as the next link, and journaled. Events that found the ring full wait
 * here until it has room.
 */
import { randomInt } from "node:crypto";
import type { Clock } from "../platform/clock.ts";
import { uint32Max } from "../protocol/field.ts";
import {
  eventCodes,
  metersMax,
  noPrevious,
  previousBytes,
  type RecordContent,
  type RecordEvent,
  sealRecord,
} from "../protocol/record.ts";
import { WalletRefusal } from "../protocol/wallet-message.ts";
import { type ClockState, timeOf } from "./clock-state.ts";
import type { Journal, NewRecord } from "./journal.ts";
import { commitRecordsMax, type PendingRow } from "./journal-body.ts";
import { sha256 } from "./journal-segments.ts";
import type { DeviceKey } from "./keystore.ts";
import { batchesOf, type NewReading } from "./sealing-rows.ts";

/** Bytes of records in one commit, so that a receipt and pending rows fit beside them. */
const commitRecordBytesMax = 24_576;
const eventsInRecordMax = 32;
/** Events that wait for room; of more the newest go. A start gives one for each meter at most, and steps of the clock wait elsewhere. */
const deferredMax = 2 * metersMax;

export type NewContent = NewReading | { readonly kind: "event"; readonly events: readonly RecordEvent[] };

export interface SealingChainOptions {
  readonly journal: Journal;
  readonly key: DeviceKey;
  /** kid of the key that signs. */
  readonly kid: Uint8Array;
  readonly clock: Clock;
  readonly clockState: Pick<ClockState, "state">;
  /** Overwrite the oldest records that nobody has acknowledged, with an event that says so, rather than refuse. */
  readonly dropOldest: boolean;
}

export class SealingChain {
  readonly #options: SealingChainOptions;
  #deferred: RecordEvent[] = [];
  /** What the first record of the running epoch says, while that is not sealed. */
  #opening: RecordEvent | undefined;

  constructor(options: SealingChainOptions) {
    this.#options = options;
  }

  /** Seals events now, or as soon as the ring has room again. */
  report(events: readonly RecordEvent[]): void {
    this.#deferred.push(...events);
    if (this.#deferred.length > deferredMax) this.#deferred = this.#deferred.slice(0, deferredMax);
    unlessFull(() => this.flush());
  }

  /** Seals what waits. Throws {@link WalletRefusal} `ring-full`. */
  flush(): void {
    while (this.#deferred.length > 0) {
      this.append([{ kind: "event", events: this.#deferred.slice(0, eventsInRecordMax) }]);
      this.#deferred = this.#deferred.slice(eventsInRecordMax);
    }
  }

  /** The records that end all batches of pending rows. */
  closePending(): NewReading[] {
    return batchesOf(this.#options.journal.pendingRows);
  }

  /** Begins a new epoch, whose first record is this event, now or as soon as the ring has room. */
  beginEpoch(event: RecordEvent): void {
    const { journal } = this.#options;
    const known = journal.epochs.map(({ epoch }) => epoch);
    let epoch = known[0] as number;
    while (known.includes(epoch)) epoch = randomInt(1, uint32Max);
    journal.beginEpoch(epoch);
    this.#opening = event;
    unlessFull(() => this.append([]));
  }

  /**
   * Signs the contents as links of the chain and appends them, the pending rows with the last of them. Throws
   * {@link WalletRefusal} `ring-full`; what was appended before that stays.
   */
  append(contents: readonly NewContent[], pendingRows: readonly PendingRow[] = []): void {
    if (this.#opening) {
      const opening: NewContent = { kind: "event", events: [this.#opening] };
      this.#commit([opening], [this.#sign(opening, undefined)], []);
      this.#opening = undefined;
    }
    let chunk: NewContent[] = [];
    let records: NewRecord[] = [];
    let bytes = 0;
    for (const content of contents) {
      let record = this.#sign(content, records.at(-1));
      bytes += record.bytes.length;
      if (chunk.length === commitRecordsMax || (chunk.length > 0 && bytes > commitRecordBytesMax)) {
        if (this.#commit(chunk, records, [])) record = this.#sign(content, undefined);
        [chunk, records, bytes] = [[], [], record.bytes.length];
      }
      chunk.push(content);
      records.push(record);
    }
    if (chunk.length > 0 || pendingRows.length > 0) this.#commit(chunk, records, pendingRows);
    this.#clearTheWay();
  }

  /**
   * Rows that still wait in the segment that is overwritten next are signed now, while there is room: events alone fill segments
   * too, and once the ring is full nothing can be signed any more.
   */
  #clearTheWay(): void {
    if (this.#options.journal.pendingRowsInTheWay) unlessFull(() => this.append(this.closePending()));
  }

  /** Appends one commit, and makes room for it where the policy says so: then the records are signed anew. Tells whether. */
  #commit(contents: readonly NewContent[], records: readonly NewRecord[], pendingRows: readonly PendingRow[]): boolean {
    const { journal } = this.#options;
    try {
      journal.append(records, pendingRows); // point of no return
      return false;
    } catch (error) {
      // A void is valid only in the record right behind what it voids: that is now the one that tells of the drop.
      if (!(error instanceof WalletRefusal && this.#dropOldest(contents.flatMap(voidsOf)))) throw error;
    }
    const again: NewRecord[] = [];
    for (const content of contents.flatMap(withoutVoids)) again.push(this.#sign(content, again.at(-1)));
    if (again.length > 0 || pendingRows.length > 0) journal.append(again, pendingRows); // point of no return
    return true;
  }

  /** Overwrites the oldest segment by a commit that says which records went with it, behind these voids. */
  #dropOldest(voids: readonly RecordEvent[]): boolean {
    const { journal, dropOldest } = this.#options;
    const dropped = dropOldest ? (journal.dropOldest() ?? []) : [];
    if (dropped.length === 0) return false;
    const events = dropped.map(({ epoch, first, last }): RecordEvent => [eventCodes.dropped, epoch, first, last]);
    journal.append([this.#sign({ kind: "event", events: [...voids, ...events] }, undefined)]); // point of no return
    return true;
  }

  /** The next link of the chain, behind `predecessor` where that is not in the journal yet. */
  #sign(content: NewContent, predecessor: NewRecord | undefined): NewRecord {
    const { key, kid, clock, journal, clockState } = this.#options;
    const digest = predecessor?.decoded.digest ?? journal.lastDigest;
    const link = {
      epoch: journal.epoch,
      sequence: (predecessor?.decoded.content.sequence ?? journal.nextSequence - 1) + 1,
      previous: digest.every((byte) => byte === 0) ? noPrevious : digest.slice(0, previousBytes),
    };
    const running = Math.max(predecessor?.decoded.content.generation ?? 0, journal.generation);
    const full: RecordContent =
      content.kind === "reading"
        ? { ...link, ...content }
        : {
            ...link,
            kind: "event",
            // A step of the clock is of the generation that it begins.
            generation: content.events.reduce(
              (most, [code, , next]) => (code === eventCodes.clockStepped ? Math.max(most, next as number) : most),
              running,
            ),
            clockState: clockState.state(),
            timeS: timeOf(clock),
            events: content.events,
          };
    return sealRecord(full, key.sign, kid, sha256);
  }
}

function voidsOf(content: NewContent): readonly RecordEvent[] {
  return content.kind === "event" ? content.events.filter(([code]) => code === eventCodes.void) : [];
}

function withoutVoids(content: NewContent): NewContent[] {
  if (content.kind !== "event") return [content];
  const events = content.events.filter(([code]) => code !== eventCodes.void);
  return events.length > 0 ? [{ ...content, events }] : [];
}

/** Runs what may find the ring full: then it is tried again later. */
export function unlessFull(action: () => void): boolean {
  try {
    action();
    return true;
  } catch (error) {
    if (error instanceof WalletRefusal && error.reason === "ring-full") return false;
    throw error;
  }
}

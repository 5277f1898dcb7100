/** A journal by itself: records are signed and appended here, without a wallet's policy between. */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { TestContext } from "node:test";
import { kidOf } from "../../protocol/public-key.ts";
import {
  decodeRecord,
  eventCodes,
  noPrevious,
  previousBytes,
  type RecordEvent,
  recordBytesMax,
  signRecord,
} from "../../protocol/record.ts";
import { Journal, type NewRecord } from "../../wallet/journal.ts";
import { JournalRing } from "../../wallet/journal-ring.ts";
import { type DeviceKey, deviceKeyOf } from "../../wallet/keystore.ts";
import { epoch, segmentBlocks, sha256, startS } from "./wallet-fixture.ts";

export const stopped: RecordEvent = [eventCodes.stopped];

export class JournalFixture {
  readonly folder: string;
  key: DeviceKey = deviceKeyOf(new Uint8Array(32).fill(7));
  journal: Journal;
  timeS = startS;
  /** Digest by epoch and sequence of all that was ever appended and acknowledged. */
  readonly acknowledged = new Map<string, string>();
  #open = true;

  constructor(t: TestContext, segments = 3, blocks = segmentBlocks) {
    const parent = mkdtempSync(path.join(tmpdir(), "ecp-journal-test-"));
    this.folder = path.join(parent, "journal");
    Journal.create(this.folder, epoch, segments, blocks);
    this.journal = new Journal(this.folder);
    t.after(() => {
      this.close();
      rmSync(parent, { recursive: true, force: true });
    });
  }

  /** The next link of the chain. */
  record(events: readonly RecordEvent[], before?: NewRecord): NewRecord {
    const { journal, key } = this;
    const digest = before?.decoded.digest ?? journal.lastDigest;
    const bytes = signRecord(
      {
        kind: "event",
        epoch: journal.epoch,
        sequence: (before?.decoded.content.sequence ?? journal.nextSequence - 1) + 1,
        previous: digest.every((byte) => byte === 0) ? noPrevious : digest.slice(0, previousBytes),
        generation: journal.generation,
        clockState: 0,
        timeS: this.timeS,
        events,
      },
      key.sign,
      kidOf(key.publicKey, sha256),
    );
    return { bytes, decoded: decodeRecord(bytes, sha256) };
  }

  /** Seals one record by itself. */
  append(events: readonly RecordEvent[] = [stopped]): NewRecord {
    return this.appendAll([this.record(events)])[0] as NewRecord;
  }

  appendAll(records: readonly NewRecord[]): readonly NewRecord[] {
    this.journal.append(records);
    for (const { decoded } of records) {
      const place = `${decoded.content.epoch}/${decoded.content.sequence}`;
      const digest = Buffer.from(decoded.digest).toString("hex");
      assert.equal(this.acknowledged.get(place), undefined, `${place} a second time`);
      this.acknowledged.set(place, digest);
    }
    return records;
  }

  /** What a start has to void is voided. */
  begin(): void {
    const { lost } = this.journal;
    if (lost === undefined) return;
    this.journal.skipTo(lost.last + 1);
    this.append([[eventCodes.void, lost.first, lost.last]]);
  }

  /** Digests by epoch and sequence of all that can be read back; the chain is checked where nothing is missing. */
  contents(): Map<string, string> {
    const found = new Map<string, string>();
    let last: { epoch: number; sequence: number; digest: Uint8Array } | undefined;
    for (const { epoch: of, first, last: end } of this.journal.epochs)
      for (const [sequence, bytes] of this.journal.records(first, end, Number.POSITIVE_INFINITY, of)) {
        const { content, digest } = decodeRecord(bytes, sha256);
        assert.deepEqual([content.epoch, content.sequence], [of, sequence]);
        const follows = last && (last.epoch === of ? last.sequence + 1 === sequence : sequence === 1);
        if (last && follows)
          assert.deepEqual(content.previous, last.digest.slice(0, previousBytes), `${of}/${sequence}`);
        found.set(`${of}/${sequence}`, Buffer.from(digest).toString("hex"));
        last = { epoch: of, sequence, digest };
      }
    return found;
  }

  /** The events of this code that can be read back, oldest first. */
  eventsOf(code: number): RecordEvent[] {
    return this.journal.epochs.flatMap(({ epoch: of, first, last }) =>
      this.journal.records(first, last, Number.POSITIVE_INFINITY, of).flatMap(([, bytes]) => {
        const { content } = decodeRecord(bytes, sha256);
        return content.kind === "event" ? content.events.filter(([other]) => other === code) : [];
      }),
    );
  }

  receipt(name: string): Uint8Array {
    return new Uint8Array(Buffer.from(name)).slice(0, recordBytesMax);
  }

  /** Everything that is there is released, in the order of the epochs. */
  releaseAll(): void {
    for (const { epoch: of, last } of this.journal.epochs)
      if (last > 0) this.journal.release(last, this.receipt(`${of}/${last}`), of);
  }

  close(): void {
    if (this.#open) this.journal.close();
    this.#open = false;
  }

  reopen(): void {
    this.close();
    this.journal = new Journal(this.folder);
    this.#open = true;
  }

  files(): string[] {
    return readdirSync(this.folder)
      .sort()
      .map((name) => path.join(this.folder, name));
  }

  image(): Buffer[] {
    return this.files().map((file) => readFileSync(file));
  }

  /** Puts these bytes on disk and opens the journal anew. */
  start(image: readonly Buffer[]): void {
    this.close();
    for (const [index, file] of this.files().entries()) writeFileSync(file, image[index] as Buffer);
    this.reopen();
  }
}

export interface RingWrite {
  /** All segments before this write. */
  readonly before: readonly Buffer[];
  readonly segment: number;
  readonly block: number;
  readonly bytes: Buffer;
}

/** The writes that an action makes, each with the image before it. */
export function writesOf(fixture: JournalFixture, action: () => void): RingWrite[] {
  const writes: RingWrite[] = [];
  const { write } = JournalRing.prototype;
  JournalRing.prototype.write = function (this: JournalRing, segment: number, block: number, bytes: Buffer): void {
    writes.push({ before: fixture.image(), segment, block, bytes: Buffer.from(bytes) });
    write.call(this, segment, block, bytes);
  };
  try {
    action();
  } finally {
    JournalRing.prototype.write = write;
  }
  return writes;
}

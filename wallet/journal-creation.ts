/** Making a journal: the ring and its first commit. */
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { syncFolder } from "../platform/durable-file.ts";
import { encodeCommit } from "./journal-block.ts";
import { encodeBody, type JournalState } from "./journal-body.ts";
import { type JournalDisk, JournalError, JournalRing, segmentBlocksDefault } from "./journal-ring.ts";

/** What a journal goes on from that is not a device's first. */
export interface JournalOrigin {
  /** Clock generation to go on with. */
  readonly generation?: number;
  /** Digest of the last record known of the chain. */
  readonly lastDigest?: Uint8Array;
  /** What the TPM's counter says. */
  readonly counter?: number;
}

/**
 * Makes ring and first commit. Needs fsync: not under Node's permission
 * model. Throws {@link JournalError} where something is there already.
 */
export function createJournal(
  folder: string,
  epoch: number,
  segments: number,
  segmentBlocks: number = segmentBlocksDefault,
  origin: JournalOrigin = {},
): void {
  if (existsSync(folder)) throw new JournalError(`${folder} is there already; it was left as it is`);
  const aside = `${folder}.new`;
  rmSync(aside, { recursive: true, force: true }); // of a creation that was cut short
  mkdirSync(aside, { mode: 0o700 });
  JournalRing.preallocate(aside, segments, segmentBlocks);
  const ring = JournalRing.open(aside);
  writeFirstCommit(ring, epoch, origin);
  ring.close();
  renameSync(aside, folder);
  syncFolder(dirname(folder));
}

/** Makes the journal of an empty disk. */
export function writeFirstCommit(
  disk: JournalDisk,
  epoch: number,
  { generation = 0, lastDigest = new Uint8Array(32), counter }: JournalOrigin = {},
): void {
  const state: JournalState = {
    epochs: [{ epoch, base: 0 }],
    nextSequence: 1,
    lastDigest,
    generation,
    lastRows: [],
    oldestPendingCommit: 0,
    installations: new Map(),
    ...(counter !== undefined && { counter }),
  };
  const body = encodeBody({ records: [], pendingRows: [], state });
  const header = { segment: 0, generation: 1, block: 0, commitNumber: 0, records: 0, pendingRows: 0, epoch };
  const rest = { firstSequence: 1, releasedEpoch: epoch, releasedThrough: 0, previousHash: new Uint8Array(32) };
  disk.write(0, 0, encodeCommit({ ...header, ...rest }, body));
}

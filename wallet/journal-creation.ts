/** Making a journal: the ring and its first commit. */
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { syncFolder } from "../platform/durable-file.ts";
import { encodeCommit } from "./journal-block.ts";
import { encodeBody, type JournalState } from "./journal-body.ts";
import { JournalError, JournalRing, segmentBlocksDefault } from "./journal-ring.ts";

/**
 * Makes ring and first commit; `generation` is the clock generation to go on with. Needs fsync: not under Node's permission
 * model. Throws {@link JournalError} where something is there already.
 */
export function createJournal(
  folder: string,
  epoch: number,
  segments: number,
  segmentBlocks: number = segmentBlocksDefault,
  generation = 0,
): void {
  if (existsSync(folder)) throw new JournalError(`${folder} is there already; it was left as it is`);
  const aside = `${folder}.new`;
  rmSync(aside, { recursive: true, force: true }); // of a creation that was cut short
  mkdirSync(aside, { mode: 0o700 });
  JournalRing.preallocate(aside, segments, segmentBlocks);
  const ring = JournalRing.open(aside);
  const state: JournalState = {
    epochs: [{ epoch, base: 0 }],
    nextSequence: 1,
    lastDigest: new Uint8Array(32),
    generation,
    lastRows: [],
    oldestPendingCommit: 0,
    installations: new Map(),
  };
  const body = encodeBody({ records: [], pendingRows: [], state });
  const header = { segment: 0, generation: 1, block: 0, commitNumber: 0, records: 0, pendingRows: 0, epoch };
  const rest = { firstSequence: 1, releasedEpoch: epoch, releasedThrough: 0, previousHash: new Uint8Array(32) };
  ring.write(0, 0, encodeCommit({ ...header, ...rest }, body));
  ring.close();
  renameSync(aside, folder);
  syncFolder(dirname(folder));
}

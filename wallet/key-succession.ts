/**
 * Which key the journal's end says is the device's, and the records with which a key begins and ends: a rotation, a
 * retirement, an epoch after a restore. The journal alone decides; the files in the folder follow it.
 */
import type { Clock } from "../platform/clock.ts";
import { verifyCose } from "../protocol/cose-sign1.ts";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { kidOf } from "../protocol/public-key.ts";
import {
  type DecodedRecord,
  decodeRecord,
  eventCodes,
  previousBytes,
  type RecordEvent,
  recordBytesMax,
  signRecord,
} from "../protocol/record.ts";
import { Refusal } from "../protocol/refusal.ts";
import { type RotationCertificate, rotationIn, signRotation } from "../protocol/rotation.ts";
import { timeOf } from "./clock-state.ts";
import type { Journal, NewRecord } from "./journal.ts";
import { JournalError } from "./journal-ring.ts";
import { sha256 } from "./journal-segments.ts";
import type { DeviceKey, KeyFile } from "./keystore.ts";
import { verifyEd25519 } from "./verification.ts";

/** How far back the newest record is looked for behind sequences that were voided or lie in a hole. */
const lookBackMax = 4_096;

/** The newest record that can be read, of whatever epoch; undefined in a journal without records. */
export function newestRecord(journal: Journal): DecodedRecord | undefined {
  for (const { epoch, first, last } of [...journal.epochs].reverse())
    for (let to = last; to >= Math.max(1, first, last - lookBackMax); to--) {
      const [found] = journal.records(to, to, recordBytesMax, epoch);
      if (found) return decodeRecord(found[1], sha256);
    }
  return undefined;
}

/** What the journal's newest record says of the key that has signed it. */
export interface KeyEnd {
  /** It was rotated: the next record is another key's, of another epoch. */
  readonly rotated?: RotationCertificate;
  /** Nothing may be signed any more. */
  readonly retired: boolean;
}

function keyEndOf(record: DecodedRecord, nameKey: Uint8Array): KeyEnd {
  const { content } = record;
  const rotated = rotationIn(record, kidOf(nameKey, sha256), verifyEd25519);
  const retired = content.kind === "event" && content.events.some(([code]) => code === eventCodes.keyRetired);
  return { retired, ...(rotated && { rotated }) };
}

/**
 * The key of two that the journal's newest record is signed by, or was rotated to; the first where there is no record yet.
 * Throws {@link JournalError} where it is neither: then journal and key are of two wallets.
 */
export function keyOfJournal<T extends KeyFile>(journal: Journal, keys: readonly T[]): KeyEnd & { readonly key: T } {
  const newest = newestRecord(journal);
  const [first] = keys;
  if (newest === undefined && first) return { key: first, retired: false };
  for (const key of keys) {
    const end = newest && endWith(newest, key);
    if (end) return { key, ...end };
  }
  throw new JournalError(
    "the journal's newest record is not signed by the key at hand: key and journal are of different wallets, or of different times; put back those that belong together",
  );
}

/** What the record says where this key is the one that goes on from it. */
function endWith(record: DecodedRecord, key: KeyFile): KeyEnd | undefined {
  try {
    const end = keyEndOf(record, key.nameKey);
    if (end.rotated) return equalBytes(end.rotated.publicKey, key.publicKey) ? end : undefined;
    verifyCose(record.cose, key.publicKey, verifyEd25519);
    return end;
  } catch (error) {
    if (error instanceof Refusal) return undefined;
    throw error;
  }
}

/** Where the next record stands, and what it links to. */
export interface NextPlace {
  readonly epoch: number;
  readonly sequence: number;
  readonly previous: Uint8Array;
}

/** The next link of the chain: events that may name their own place. */
export function nextEventRecord(
  journal: Journal,
  key: DeviceKey,
  { clock, clockState }: { readonly clock: Clock; readonly clockState: number },
  eventsAt: (place: NextPlace) => readonly RecordEvent[],
): NewRecord {
  const { epoch, nextSequence: sequence, lastDigest, generation } = journal;
  const place = { epoch, sequence, previous: lastDigest.slice(0, previousBytes) };
  const link = { ...place, kind: "event", generation, clockState, timeS: timeOf(clock) } as const;
  const bytes = signRecord({ ...link, events: eventsAt(place) }, key.sign, kidOf(key.publicKey, sha256));
  return { bytes, decoded: decodeRecord(bytes, sha256) };
}

/** The event that ends the old key's epoch: the new key's certificate for this very place. */
export function rotationEvent(nameKey: Uint8Array, next: DeviceKey, nextEpoch: number, place: NextPlace): RecordEvent {
  const { publicKey, share } = next;
  const certificate = { device: kidOf(nameKey, sha256), ...place, nextEpoch, publicKey, share };
  return [eventCodes.keyRotated, signRotation(certificate, next.sign)];
}

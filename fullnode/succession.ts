/**
 * How epochs follow each other when a key is rotated. A rotation record announces the epoch of the new key as soon as the record is
 * there, so that the new key's records can be verified and stored; the epoch is held until the record is settled. A key is
 * rotated once: of two rotations that contradict each other the first one settled counts, and the other's epoch stays held.
 */
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import type { RotationCertificate } from "../protocol/rotation.ts";
import type { EpochKey, RecordPlace, StoredEpoch, StoreTransaction } from "./store.ts";

export const epochsPerDeviceMax = 256;

/**
 * Makes the epoch known that a certificate names. `parent` is the place of its record; undefined where the record is evidence,
 * and the epoch then waits for its owner. Returns whether anything has changed.
 */
export async function announce(
  tx: StoreTransaction,
  device: number,
  { nextEpoch, publicKey }: RotationCertificate,
  parent: RecordPlace | undefined,
  nowMs: number,
): Promise<boolean> {
  const known = await tx.epoch(device, nextEpoch);
  if (known === undefined) {
    if ((await tx.epochCount(device)) >= epochsPerDeviceMax) return false;
    const state = { publicKey, held: true, decision: "none" as const, ...(parent && { parent }) };
    await tx.addEpoch(device, nextEpoch, state, nowMs);
    return true;
  }
  if (parent === undefined || known.parent !== undefined) return false;
  // Both keys have signed the announcement: an epoch of that number that somebody only began gives way.
  if (!(await takeOver(tx, device, known, publicKey))) return false;
  await tx.updateEpoch(device, nextEpoch, { parent });
  return true;
}

/** The rotation record at `parent` is settled: the new key is the device's. Returns whether anything has changed. */
export async function succeed(
  tx: StoreTransaction,
  device: number,
  certificate: RotationCertificate,
  parent: RecordPlace,
  nowMs: number,
): Promise<boolean> {
  const { nextEpoch, publicKey } = certificate;
  if ((await tx.epoch(device, nextEpoch)) === undefined) await announce(tx, device, certificate, parent, nowMs);
  const [ended, next] = [await tx.epoch(device, parent.epoch), await tx.epoch(device, nextEpoch)];
  if (ended === undefined || next === undefined) return false;
  const current = await tx.currentKey(device);
  const isCurrent = equalBytes(current, ended.publicKey);
  // The new key is the device's already where an enrolment request, or the owner, was faster.
  if (!isCurrent && !equalBytes(current, publicKey)) return false;
  if (!(await takeOver(tx, device, next, publicKey))) return false;
  await tx.setCurrentKey(device, publicKey);
  await tx.updateEpoch(device, nextEpoch, { parent, held: next.decision === "rejected" });
  return true;
}

/** Gives an epoch its key. False where it has another one and is not merely held. */
async function takeOver(
  tx: StoreTransaction,
  device: number,
  { epoch, held, decision, publicKey: before }: StoredEpoch,
  publicKey: Uint8Array,
): Promise<boolean> {
  if (equalBytes(before, publicKey)) return true;
  if (!held || decision !== "none") return false;
  await tx.evictEpoch(device, epoch, "other-key");
  await tx.updateEpoch(device, epoch, { publicKey });
  return true;
}

/**
 * What the owner says of an epoch: accepted ones are settled from now on, rejected ones no further. A key that a rotation
 * announced is the device's for as long as one of its epochs counts. Returns whether anything has changed.
 */
export async function decide(
  tx: StoreTransaction,
  device: number,
  { epoch, decision: before, publicKey }: StoredEpoch,
  decision: "accepted" | "rejected",
): Promise<boolean> {
  if (before === decision) return false;
  await tx.updateEpoch(device, epoch, { decision, held: decision === "rejected" });
  const epochs = await tx.epochKeys(device);
  const announced = epochs.find((one) => one.parent !== undefined && equalBytes(one.publicKey, publicKey));
  const ended = epochs.find((one) => one.epoch === announced?.parent?.epoch);
  if (ended === undefined) return true;
  const current = await tx.currentKey(device);
  const counts = epochs.some((one) => !one.held && equalBytes(one.publicKey, publicKey));
  if (counts && equalBytes(current, ended.publicKey)) await tx.setCurrentKey(device, publicKey);
  if (!counts && equalBytes(current, publicKey)) await tx.setCurrentKey(device, ended.publicKey);
  return true;
}

/**
 * The keys that only rejected epochs have: of a rotation that the owner took back, or of a stolen hub whose backup has the same
 * key. They may begin epochs, which are held, so that the owner can still say which of them is the device's.
 */
export function rejectedKeys(epochs: readonly EpochKey[]): Uint8Array[] {
  return epochs
    .filter(({ decision, parent }) => decision === "rejected" && parent !== undefined)
    .map(({ publicKey }) => publicKey);
}

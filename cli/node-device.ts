/** Devices and epochs of a full node, as people name them. */
import type { DeviceSummary, Store } from "../fullnode/store.ts";
import { decodeCose } from "../protocol/cose-sign1.ts";
import { uint32Max } from "../protocol/field.ts";
import { decodeRecordPayload, epochReasons, eventCodes } from "../protocol/record.ts";
import { CommandError, exit, usageError } from "./command.ts";

export type EpochSummary = DeviceSummary["epochs"][number];

/**
 * The device that a did:key, its part from z6Mk on, or a unique beginning of that names. Where something is decided by it, the
 * beginning must have `lengthMin` characters.
 */
export function findDevice(
  devices: readonly DeviceSummary[],
  wanted: string,
  data: string,
  lengthMin = 1,
): DeviceSummary {
  const start = wanted.replace(/^did:key:/, "");
  const found = devices.filter(({ name }) => name.startsWith(start));
  if (found.length === 1 && start.length >= lengthMin) return found[0] as DeviceSummary;
  const got =
    start.length < lengthMin
      ? `${wanted}, of fewer than ${lengthMin} characters`
      : found.length === 0
        ? `${wanted}, which is none of ${devices.length}`
        : `${wanted}, which fits ${found.length}`;
  throw new CommandError(exit.unknown, {
    expected: "the name of one enrolled device, or a unique beginning of it",
    got,
    where: data,
    todo: `ecp-node devices --data ${data} lists them`,
  });
}

export function findEpoch(device: DeviceSummary, wanted: string, command: string, data: string): EpochSummary {
  const number = /^(\d{1,10}|0x[0-9a-f]{1,8})$/i.test(wanted) ? Number(wanted) : Number.NaN;
  if (!(number <= uint32Max)) throw usageError(command, `the epoch ${wanted}, which is no number of 32 bits`);
  const found = device.epochs.find(({ epoch }) => epoch === number);
  if (found) return found;
  throw new CommandError(exit.unknown, {
    expected: "an epoch of this device",
    got: `${wanted}, which is none of ${device.epochs.length}`,
    where: data,
    todo: `ecp-node epoch list ${device.name} --data ${data} lists them`,
  });
}

/** What an epoch is to the node. */
export function epochState({ held, decision, ended }: EpochSummary): string {
  const end = ended === undefined ? "" : `, ended with record ${ended}`;
  if (decision === "rejected") return `rejected${end}`;
  return held ? `HELD${end}` : `booked${end}`;
}

/** Why an epoch began, as far as the node knows. */
export async function epochCause(store: Store, device: DeviceSummary, epoch: EpochSummary): Promise<string> {
  if (epoch.parent) return `the key was rotated by record ${epoch.parent.sequence} of epoch ${epoch.parent.epoch}`;
  const bytes = await store.recordBytes(device.id, { epoch: epoch.epoch, sequence: 1 });
  const content = bytes && decodeRecordPayload(decodeCose(bytes).payload);
  const begun = content?.kind === "event" ? content.events.find(([code]) => code === eventCodes.epochBegun) : undefined;
  if (begun) {
    const [, reason, before, last] = begun;
    const words = causeWords[reason as number] ?? `reason ${reason}`;
    return `${words}; before it epoch ${before}, known up to record ${last}`;
  }
  if (epoch.decision === "accepted") return "enrolled, or accepted by the owner";
  if (epoch.decision === "rejected") return "the owner said so";
  return bytes ? "nobody announced it" : "its first record has not come";
}

const causeWords: Record<number, string> = {
  [epochReasons.restored]: "restored from a backup",
  [epochReasons.contradicted]: "this node has other records: an older card, or two cards of one key",
  [epochReasons.olderCard]: "an older card, as the hub's TPM says",
};

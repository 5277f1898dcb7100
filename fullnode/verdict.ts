/** Why the full node did not book a message: the refusals of protocol/ and its own, each with its one sentence. */
import { type RefusalReason, refusalSentences } from "../protocol/refusal.ts";

const nodeSentences = {
  "unknown-topic": "the topic is not ecp/1/<device>/record",
  "unknown-device": "no enrolled device has this name; the record is in quarantine until the device is enrolled",
  "quarantine-full": "no enrolled device has this name, and the quarantine is full: the record was not kept",
  "wrong-device": "the record was signed by another key than that of the device which the topic names",
  "old-key": "the record begins an epoch, and was signed by a key that the device has rotated away from",
  "unknown-key":
    "the record was signed by a key that is not the device's, or not yet: the rotation that announces it has not come",
  "bad-dropped": "a dropped range must be one of sequences, and end before the record that declares it",
  "bad-rotation": "the certificate of a key's rotation does not hold for the record that it is in",
  "bad-void": "a void must end just before the record that declares it",
  "too-many-epochs": "the device has begun more epochs than a node keeps",
  fork: "another record stands at this place of the chain; this one is kept as evidence and not booked",
  "epoch-ended": "the epoch has ended before this record, which is kept as evidence and not booked",
  "evidence-full":
    "another record stands at this place of the chain, and the device's evidence is full: it was not kept",
  "too-many-gaps":
    "too many records before this one are missing: it was not kept, and is taken once some of them have come",
  "queue-full": "more records came than the node can take; the device sends it again",
} as const;

export const verdictSentences = { ...refusalSentences, ...nodeSentences } as const;
export type VerdictReason = RefusalReason | keyof typeof nodeSentences;

/**
 * Records in the form for LoRaWAN, where every byte is air: without the tag and the kid that a broker needs. Who operates the LoRaWAN
 * network server can read them, so only those leave that the operator's policy means for it.
 */
import { encodeCose } from "../protocol/cose-sign1.ts";
import { decodeRecord, type RecordContent } from "../protocol/record.ts";
import type { ReadAnswer } from "../protocol/wallet-message.ts";
import type { Journal } from "./journal.ts";
import { sha256 } from "./journal-segments.ts";
import type { WalletPolicy } from "./policy.ts";

/** The full plan is out of use when its newest row is older than this, against the newest row of a listed plan. */
const outOfUseS = 86_400;

export interface BareReadingOptions {
  readonly journal: Journal;
  readonly policy: WalletPolicy;
  /** Records leave as they are anyway. */
  readonly isPlain: boolean;
}

/** Those of the records that may leave bare, without tag and kid, and the sequences of the others. */
export function bareRecords(
  records: readonly (readonly [sequence: number, record: Uint8Array])[],
  options: BareReadingOptions,
): ReadAnswer {
  const mayLeaveAll = options.isPlain && options.policy.plans.length > 0 && !isFullPlanInUse(options);
  const bare: [number, Uint8Array][] = [];
  const withheld: number[] = [];
  for (const [sequence, bytes] of records) {
    const { cose, content } = decodeRecord(bytes, sha256);
    if (mayLeaveAll || mayLeave(content, options.policy)) {
      const { protectedHeader, payload, signature } = cose;
      bare.push([sequence, encodeCose({ protectedHeader, payload, signature })]);
    } else withheld.push(sequence);
  }
  return { records: bare, withheld };
}

/** Events tell nothing of what is consumed. */
function mayLeave(content: RecordContent, { plans }: WalletPolicy): boolean {
  return plans.length > 0 && (content.kind === "event" || plans.some(({ plan }) => plan === content.plan));
}

/** Whether rows of plan 0 are sealed these days: else what is left of them has no other way than this. */
function isFullPlanInUse({ journal, policy }: BareReadingOptions): boolean {
  const newestS = (plan: number): number =>
    Math.max(0, ...policy.meters.map(({ index }) => journal.lastRow(index, plan)?.latestS ?? 0));
  const fullS = newestS(0);
  return fullS > 0 && fullS + outOfUseS >= Math.max(0, ...policy.plans.map(({ plan }) => newestS(plan)));
}

/**
 * What may stand in records that a policy seals, told again from the outside, by somebody who sees each signature as it is made and
 * has a clock of his own. It knows nothing of how the wallet decides.
 */

import { contentTypes, decodeCose } from "../protocol/cose-sign1.ts";
import { type CborValue, decodeCbor } from "../protocol/deterministic-cbor.ts";
import { quantityOfCode } from "../protocol/quantity.ts";
import { clockStates, statuses } from "../protocol/reading-status.ts";
import { decodeRecordPayload, eventCodes, type ReadingContent, type RecordContent } from "../protocol/record.ts";
import type { PlanTerms } from "../protocol/wallet-hello.ts";
import type { PolicyMeter } from "../wallet/policy.ts";

const toleranceS = 2;
const burstRows = 120;
const keyUsesAMinute = 6;
/** What the wallet grants where it cannot know how long it was off: after a start under a clock that was set back. */
const unknownHours = 24;

interface Seen {
  timeS: number;
  generation: number;
  stands: Map<number, number>;
  firstStands: Map<number, number>;
  firstTrueS: number;
}

export class SealedJudge {
  /** What was sealed against the policy, by rule. */
  readonly offences = new Map<string, number>();
  readonly counts = { rows: 0, marked: 0, records: 0, otherSignatures: 0, refusalsTold: 0, leftBare: 0, discarded: 0 };
  readonly #meters: readonly PolicyMeter[];
  readonly #plans: readonly PlanTerms[];
  readonly #clock: { wallMs(): number; monotonicMs(): number };
  readonly #seen = new Map<string, Seen>();
  readonly #slots = new Set<string>();
  readonly #rowsAt = new Map<number, { firstMs: number; rows: number }>();
  #uses: number[] = [];
  #lastSequence = 0;
  #nextOf: () => number = () => 1;
  /** For the request that is being answered. */
  #signed: RecordContent[] = [];
  /** Starts of the wallet: what it knew in memory only is forgotten then, and granted anew. */
  starts = 0;

  constructor(
    meters: readonly PolicyMeter[],
    plans: readonly PlanTerms[],
    clock: { wallMs(): number; monotonicMs(): number },
  ) {
    this.#meters = meters;
    this.#plans = plans;
    this.#clock = clock;
  }

  /** It watches from behind this sequence on. `nextOf` tells which one the journal has room for next. */
  began(sequence: number, nextOf: () => number): void {
    this.#lastSequence = sequence;
    this.#nextOf = nextOf;
  }

  get total(): number {
    return [...this.offences.values()].reduce((sum, count) => sum + count, 0);
  }

  #offence(rule: string): void {
    this.offences.set(rule, (this.offences.get(rule) ?? 0) + 1);
  }

  /** A message that the key signs: the Sig_structure of RFC 9052 §4.4. */
  signed(message: Uint8Array): void {
    const [context, header, , payload] = decodeCbor(message, 65_536) as CborValue[];
    const contentType = (decodeCbor(header as Uint8Array, 100) as Map<number, CborValue>).get(3);
    if (context !== "Signature1") this.#offence("signs something that is no COSE_Sign1");
    if (contentType === contentTypes.record) {
      const content = decodeRecordPayload(Uint8Array.from(payload as Uint8Array));
      // What was signed and found the ring full was discarded with its signature: nobody has seen it, and the journal goes on before it.
      if (content.sequence === this.#nextOf()) this.#discard(content.sequence);
      if (content.sequence !== this.#lastSequence + 1) this.#offence("a sequence that does not follow");
      this.#lastSequence = content.sequence;
      this.#signed.push(content);
    } else if (contentType === contentTypes.enrolmentRequest || contentType === contentTypes.statement) {
      this.counts.otherSignatures++;
      const nowMs = this.#clock.monotonicMs();
      this.#uses = [...this.#uses.filter((ms) => nowMs - ms < 60_000), nowMs];
      if (this.#uses.length > keyUsesAMinute * (1 + this.starts)) this.#offence("the key is used too often");
    } else this.#offence(`signs content of type ${contentType}`);
  }

  /** A request has been answered: what was signed for it is in the journal by now, or nowhere. */
  answered(): void {
    this.#discard(this.#nextOf());
    for (const content of this.#signed) {
      this.counts.records++;
      if (content.kind === "reading") this.#reading(content);
      else
        for (const [code, count] of content.events)
          if (code === eventCodes.refusals) this.counts.refusalsTold += count as number;
    }
    this.#signed = [];
  }

  #discard(from: number): void {
    const kept = this.#signed.filter(({ sequence }) => sequence < from);
    if (kept.length === this.#signed.length) return;
    this.counts.discarded += this.#signed.length - kept.length;
    this.#signed = kept;
    this.#lastSequence = from - 1;
  }

  /** A record that left the wallet bare: only what the policy lists for such an uplink, and events, may. */
  leftBare(record: Uint8Array): void {
    const content = decodeRecordPayload(decodeCose(record, contentTypes.record).payload);
    this.counts.leftBare++;
    if (content.kind === "reading" && !this.#plans.some(({ plan }) => plan === content.plan))
      this.#offence("a record of the full plan leaves bare");
  }

  #reading(content: ReadingContent): void {
    const meter = this.#meters.find(({ index }) => index === content.meter);
    if (meter === undefined) {
      this.#offence("a meter that the policy does not name");
      return;
    }
    const terms = content.plan === 0 ? meter : this.#plans.find(({ plan }) => plan === content.plan);
    if (terms === undefined) this.#offence("a plan that the policy does not list");
    else if (terms.slotS !== content.slotS) this.#offence("another slot");
    this.#rate(meter, content.rows.length);
    for (const row of content.rows) {
      this.counts.rows++;
      if (row.status !== statuses.good) this.counts.marked++;
      const slot = `${content.meter}/${content.plan}/${content.generation}/${row.timeS}`;
      // Only what a full node books must count once: not what is marked, nor what has no clock's time. It may come again once the
      // ring has forgotten it.
      if (row.status !== statuses.good || content.clockState === clockStates.relative) continue;
      if (this.#slots.has(slot)) this.#offence("a slot twice");
      this.#slots.add(slot);
      this.#good(meter, content, row);
    }
  }

  #good(meter: PolicyMeter, content: ReadingContent, row: { timeS: number; values: readonly number[] }): void {
    const key = `${content.meter}/${content.plan}`;
    if (row.timeS > this.#clock.wallMs() / 1_000 + content.slotS + toleranceS)
      this.#offence("a good row of the future");
    const trueS = row.timeS - (this.#clock.wallMs() - this.#clock.monotonicMs()) / 1_000;
    const seen = this.#seen.get(key) ?? {
      timeS: 0,
      generation: -1,
      stands: new Map(),
      firstStands: new Map(),
      firstTrueS: trueS,
    };
    this.#seen.set(key, seen);
    if (seen.generation === content.generation && row.timeS <= seen.timeS) this.#offence("a good row that is late");
    for (const [i, code] of content.codes.entries()) {
      const quantity = quantityOfCode(code);
      if (quantity?.cumulative !== true) continue;
      const stand = row.values[i] as number;
      if (stand < (seen.stands.get(code) ?? Number.NEGATIVE_INFINITY)) this.#offence("a good row whose register fell");
      seen.stands.set(code, stand);
      const first = seen.firstStands.get(code);
      if (first === undefined) seen.firstStands.set(code, stand);
      else if (meter.powerMaxW > 0) {
        const hidden = meter.resolutionWh + (meter.powerMaxW * toleranceS) / 3_600;
        // Since the first row, until the latest moment that a row of now can be of.
        const latestS = this.#clock.monotonicMs() / 1_000 + content.slotS + toleranceS;
        const could =
          (meter.powerMaxW * (latestS - seen.firstTrueS)) / 3_600 +
          (hidden + meter.powerMaxW * unknownHours) * this.starts +
          hidden;
        if (stand - first > could + 1) this.#offence("more energy than the connection carries");
      }
    }
    seen.timeS = row.timeS;
    seen.generation = content.generation;
  }

  #rate(meter: PolicyMeter, rows: number): void {
    const nowMs = this.#clock.monotonicMs();
    const seen = this.#rowsAt.get(meter.index) ?? { firstMs: nowMs, rows: 0 };
    this.#rowsAt.set(meter.index, seen);
    seen.rows += rows;
    const allowed = burstRows * (1 + this.starts) + ((nowMs - seen.firstMs) / 60_000) * meter.rowsPerMinute;
    if (seen.rows > allowed + 1) this.#offence("more rows than the policy's rate");
  }
}

/**
 * Period statements: what a meter's registers showed at the ends of a period, out of rows that are sealed. Only good rows by a
 * clock's time count, of one meter between two changes of it.
 */
import { quantityOfCode } from "../protocol/quantity.ts";
import { clockStates, statuses } from "../protocol/reading-status.ts";
import { decodeRecord, eventCodes, valueMax } from "../protocol/record.ts";
import type { Statement } from "../protocol/statement.ts";
import type { PlanTerms } from "../protocol/wallet-hello.ts";
import { readBytesMax, WalletRefusal } from "../protocol/wallet-message.ts";
import type { Journal } from "./journal.ts";
import type { KnownRow } from "./journal-rows.ts";
import { sha256 } from "./journal-segments.ts";
import type { PolicyMeter } from "./policy.ts";

/** How far before an end of the period its row may lie: so many slots may have failed. */
const slotsBackMax = 10;

/** A meter, and the uplink plans that its rows may be of: the full one first. */
interface StatedMeter extends Pick<PolicyMeter, "index"> {
  readonly plans: readonly Pick<PlanTerms, "plan" | "slotS">[];
}

export type StatedPeriod = Pick<Statement, "meter" | "fromS" | "toS" | "registers" | "first" | "last">;

/**
 * The period's registers and records. `sign` is called where a row is not part of a record yet. Throws {@link WalletRefusal}
 * `period-not-held`.
 */
export function statedPeriod(
  journal: Journal,
  meter: StatedMeter,
  period: { readonly fromS: number; readonly toS: number },
  sign: () => void,
): StatedPeriod {
  const [from, to] = [
    rowAtOrBefore(journal, meter, period.fromS, sign),
    rowAtOrBefore(journal, meter, period.toS, sign),
  ];
  // What was found first may have been signed for the second.
  const first = from.sequence > 0 ? from : rowAtOrBefore(journal, meter, period.fromS, sign);
  // Where the end's time has no row and the beginning's has one off its slot, what was found for the end may be the older one.
  if (isAfter(journal, first, to) || first.row.timeS > to.row.timeS)
    throw new WalletRefusal("period-not-held", "the clock went back within it");
  if (wasReplaced(journal, meter.index, first, to))
    throw new WalletRefusal("period-not-held", `meter ${meter.index} was replaced within it`);
  const registers = to.codes.flatMap((code, i) => {
    const before = first.row.values[first.codes.indexOf(code)];
    const stand = to.row.values[i];
    if (before === undefined || stand === undefined || quantityOfCode(code)?.cumulative !== true) return [];
    const rise = stand - before;
    if (rise < 0 || rise > valueMax)
      throw new WalletRefusal("period-not-held", `register ${code} of meter ${meter.index} fell within it`);
    return [{ code, stand, rise }];
  });
  if (registers.length === 0) throw new WalletRefusal("period-not-held", "no register was read at both ends");
  const place = ({ epoch, sequence }: KnownRow) => ({ epoch, sequence });
  return {
    meter: meter.index,
    ...{ fromS: first.row.timeS, toS: to.row.timeS, registers },
    ...{ first: place(first), last: place(to) },
  };
}

function rowAtOrBefore(journal: Journal, meter: StatedMeter, atS: number, sign: () => void): KnownRow {
  for (const { plan, slotS } of meter.plans) {
    if (plan !== 0 && journal.lastRow(meter.index, plan) === undefined) continue;
    for (const timeS of timesBefore(atS, Math.max(1, slotS))) {
      const row = goodRow(journal, meter.index, plan, timeS);
      if (row === undefined) continue;
      if (row.sequence > 0) return row;
      sign();
      return goodRow(journal, meter.index, plan, timeS) ?? row;
    }
  }
  throw new WalletRefusal(
    "period-not-held",
    `no good row of meter ${meter.index} at ${new Date(atS * 1_000).toISOString()}, nor in ${slotsBackMax} slots before it`,
  );
}

function timesBefore(atS: number, slotS: number): Set<number> {
  const slotEndS = Math.floor(atS / slotS) * slotS;
  return new Set([atS, ...Array.from({ length: slotsBackMax + 1 }, (_, back) => slotEndS - back * slotS)]);
}

function goodRow(journal: Journal, meter: number, plan: number, timeS: number): KnownRow | undefined {
  const isGood = ({ row, clockState, codes }: KnownRow): boolean =>
    row.status === statuses.good &&
    clockState !== clockStates.relative &&
    codes.some((code) => quantityOfCode(code)?.cumulative === true);
  const found = journal.findRow(meter, plan, timeS, isGood);
  return found && isGood(found) ? found : undefined;
}

function isAfter(journal: Journal, a: KnownRow, b: KnownRow): boolean {
  const order = (row: KnownRow): number => journal.epochs.findIndex(({ epoch }) => epoch === row.epoch);
  return order(a) > order(b) || (a.epoch === b.epoch && a.sequence > b.sequence);
}

/** Whether a change of this meter is sealed between two records. */
function wasReplaced(journal: Journal, meter: number, from: KnownRow, to: KnownRow): boolean {
  if (journal.installation(meter) === 0) return false;
  const inside = journal.epochs.slice(
    journal.epochs.findIndex(({ epoch }) => epoch === from.epoch),
    journal.epochs.findIndex(({ epoch }) => epoch === to.epoch) + 1,
  );
  return inside.some(({ epoch, last }) => {
    const end = epoch === to.epoch ? to.sequence : last;
    for (let next = epoch === from.epoch ? from.sequence : 1; next <= end; ) {
      const records = journal.records(next, end, readBytesMax, epoch);
      if (records.some(([, bytes]) => tellsOfReplacement(bytes, meter))) return true;
      next = (records.at(-1)?.[0] ?? end) + 1;
    }
    return false;
  });
}

/** How an event of four items begins in CBOR (RFC 8949 §3): most records hold no such bytes, and need no look inside. */
const replacedStart = Buffer.from([0x84, eventCodes.meterReplaced]);

function tellsOfReplacement(bytes: Uint8Array, meter: number): boolean {
  if (!Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).includes(replacedStart)) return false;
  const { content } = decodeRecord(bytes, sha256);
  return (
    content.kind === "event" &&
    content.events.some(([code, other]) => code === eventCodes.meterReplaced && other === meter)
  );
}

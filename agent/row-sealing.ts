/**
 * Rows of a meter on their way to the wallet: what of each reading an uplink plan wants, kept until the wallet has sealed it. A meter
 * has one such way for each plan in use: the full one, and thinner rows for an uplink that carries little.
 */
import { statuses } from "../protocol/reading-status.ts";
import { sealRowsMax, WalletRefusal, type WalletRefusalReason } from "../protocol/wallet-message.ts";
import type { AgentEvent } from "./event.ts";
import type { SequencedRecord } from "./fresh-records.ts";
import { isLoraCode } from "./lora-codes.ts";
import { type Sample, SampleBuffer } from "./sample-buffer.ts";
import { type WalletClient, WalletUnavailable } from "./wallet-client.ts";

/** Refusals that pass: by a receipt, by time, or once the operator has mended the wallet's policy. Rows wait for that. */
const passingRefusals: ReadonlySet<WalletRefusalReason> = new Set([
  "ring-full",
  "rate-exceeded",
  "unknown-meter",
  "unknown-plan",
  "slot-mismatch",
]);

export interface SealingOptions {
  readonly wallet: WalletClient;
  /** Seconds that one record of the full plan covers at most. */
  readonly sealEveryS: number;
  readonly emit: (event: AgentEvent) => void;
  /** Sealed sequences, as soon as the wallet has answered. */
  readonly onSealed: (sequence: number, rows: number, plan: number) => void;
  /** Told before that: records that came with the wallet's answer. */
  readonly onRecords?: (records: readonly SequencedRecord[]) => void;
}

/** Says when the records of a plan end, where that is not the wallet's seal_every. */
export interface RowBatch {
  /** Whether the record that these rows go into ends with them. */
  closes(samples: readonly Sample[]): boolean;
  /** The wallet has them. Tells how many rows the batch has by now. */
  sealed(samples: readonly Sample[], closed: boolean): number;
}

/** What of readings is sealed for one uplink. */
export interface RowPlan {
  /** Its number in records and in the wallet's policy. */
  readonly plan: number;
  /** Thinner rows: only those at multiples of `slotS`, and of each the registers that only rise and these codes. Absent: all. */
  readonly thinning?: { readonly slotS: number; readonly codes: readonly number[] };
  /** One for each meter. */
  readonly batch?: () => RowBatch;
}

/** Everything that is read, sealed as the wallet's seal_every says. */
export const fullPlan: RowPlan = { plan: 0 };

/** The rows of one meter and plan. */
export interface MeterRows {
  /** The meter's number in records. */
  readonly meter: number;
  readonly plan: RowPlan;
  readonly slotS: number;
  readonly buffer: SampleBuffer;
  readonly batch: RowBatch | undefined;
  /** The newest row of a batch that is open: asked for again it can close it. */
  last: Sample | undefined;
  /** Rows that were read and could not be sealed. */
  lost: number;
  /** What the wallet refused last; empty where the last request was granted. */
  refusal: string;
  /** Sealing of these rows never runs twice at a time. */
  sealTail: Promise<void>;
}

export function meterRows(meter: number, intervalS: number, plan: RowPlan): MeterRows {
  const slotS = plan.thinning?.slotS ?? intervalS;
  return {
    ...{ meter, plan, slotS, buffer: new SampleBuffer(slotS), batch: plan.batch?.() },
    ...{ last: undefined, lost: 0, refusal: "", sealTail: Promise.resolve() },
  };
}

/** Keeps of a reading what the plan wants, until the wallet has it. */
export function keepRow({ buffer, ...rows }: MeterRows, sample: Sample): number {
  const wanted = thinned(sample, rows.plan);
  return wanted === undefined ? 0 : buffer.push(wanted);
}

/** A failed reading is a row with its status in every plan. */
function thinned(sample: Sample, { thinning }: RowPlan): Sample | undefined {
  if (thinning === undefined) return sample;
  const { codes, row } = sample;
  if (row.timeS % thinning.slotS !== 0) return undefined;
  const isWanted = codes.map((code) => isLoraCode(code, thinning.codes));
  if (!isWanted.includes(true)) return undefined;
  const kept = <T>(items: readonly T[]): T[] => items.filter((_, place) => isWanted[place]);
  return { ...sample, codes: kept(codes), row: { ...row, values: kept(row.values) } };
}

/** Rows that were read and will never be sealed: never in silence. */
export function lose(rows: MeterRows, count: number, detail: string, emit: (event: AgentEvent) => void): void {
  rows.lost += count;
  emit({ event: "lost", meter: rows.meter, rows: count, detail });
}

/** Seals what is due of the rows. They stay in the buffer until the wallet has answered. */
export function sealDue(rows: MeterRows, options: SealingOptions, always = false): Promise<void> {
  return inTurn(rows, () => sealInTurn(rows, options, always));
}

/** Ends a batch that is open, though its time has not come. Rows that wait for a wallet that is away stay out of it. */
export function closeBatch(rows: MeterRows, options: SealingOptions): Promise<void> {
  return inTurn(rows, async () => {
    if (!rows.batch || !rows.last) return;
    try {
      await seal(rows, [rows.last], options, true);
    } catch (error) {
      // It is closed when its time comes.
      if (!(error instanceof WalletUnavailable || error instanceof WalletRefusal)) throw error;
    }
  });
}

function inTurn(rows: MeterRows, work: () => Promise<void>): Promise<void> {
  const done = rows.sealTail.then(work);
  rows.sealTail = done.catch(() => undefined);
  return done;
}

async function sealInTurn(rows: MeterRows, options: SealingOptions, always: boolean): Promise<void> {
  const { buffer, batch } = rows;
  let rowsMax = sealRowsMax;
  // Of a plan with batches each row goes at once: there it is the wallet that keeps them until their batch ends.
  while (buffer.length > 0 && (always || batch !== undefined || buffer.isDue(options.sealEveryS))) {
    const samples = buffer.head().slice(0, rowsMax);
    try {
      await seal(rows, samples, options, batch?.closes(samples) === true);
      rows.refusal = "";
    } catch (error) {
      if (error instanceof WalletUnavailable) return; // the rows wait for the wallet's return
      if (!(error instanceof WalletRefusal)) throw error;
      if (samples.length > 1 && !passingRefusals.has(error.reason)) {
        rowsMax = 1; // One row is at fault: each by itself, so that the others are not lost with it.
        continue;
      }
      reportRefusal(rows, error, options);
      if (passingRefusals.has(error.reason)) return;
      giveUp(rows, samples[0] as Sample, error, options);
    }
  }
}

async function seal(
  rows: MeterRows,
  samples: readonly Sample[],
  { wallet, emit, onSealed, onRecords }: SealingOptions,
  closes: boolean,
): Promise<void> {
  const { meter, slotS, batch, plan } = rows;
  const { codes, relative } = samples[0] as Sample;
  const {
    sequences,
    earlier = [],
    records,
  } = await wallet.seal({
    ...{ meter, plan: plan.plan, slotS, codes, rows: samples.map((sample) => sample.row) },
    ...(relative && { relative }),
    ...(closes && { closes }),
  });
  // Point of no return: the rows are on the wallet's disk. What follows can be repeated at will.
  rows.buffer.drop(samples);
  const isKnown = batch !== undefined && samples.length === 1 && samples[0] === rows.last;
  const batchRows = batch?.sealed(isKnown ? [] : samples, closes);
  if (batch) rows.last = closes ? undefined : samples.at(-1);
  if (records) onRecords?.(records);
  const inEarlierEpoch = new Set(earlier.map(([row]) => row));
  for (const sequence of new Set(sequences.filter((_, row) => !inEarlierEpoch.has(row)))) {
    if (sequence === 0) continue; // journaled, and signed when its batch closes
    const rowsOfRecord = batchRows ?? sequences.filter((other) => other === sequence).length;
    emit({ event: "sealed", sequence, meter, rows: rowsOfRecord, ...(plan.plan > 0 && { plan: plan.plan }) });
    onSealed(sequence, rowsOfRecord, plan.plan);
  }
}

function reportRefusal(rows: MeterRows, error: WalletRefusal, { emit }: SealingOptions): void {
  if (rows.refusal === error.reason) return; // tried again every second: said once is enough
  rows.refusal = error.reason;
  emit({ event: "refused", by: "wallet", reason: error.reason, detail: error.message });
}

/** Lets go of a row that the wallet will never take. */
function giveUp(rows: MeterRows, sample: Sample, error: WalletRefusal, { emit }: SealingOptions): void {
  rows.buffer.drop([sample]);
  // An N that the buffer put where a row had been sealed after all, its answer lost: the wallet knows better.
  const superfluous = error.reason === "row-conflict" && sample.row.status === statuses.notPresent;
  if (!superfluous) lose(rows, 1, error.message, emit);
}

/**
 * Registers of one meter, read in the fewest and shortest requests that it answers.
 *
 * A block that the meter refuses (exceptions 2, 3, and 4) is split until the refusal is at one value; what was refused is
 * remembered, so that it is not asked for again.
 */
import { DriverError } from "../failure.ts";
import { coversSpan, planBlocks, type RegisterBlock, type RegisterSpan } from "./block-plan.ts";
import type { ModbusLine } from "./line.ts";
import type { MeterMemory } from "./meter-memory.ts";
import { readPatiently } from "./patient-read.ts";
import type { MeterProfile } from "./profile.ts";

export interface SpanReadOptions {
  readonly profile: MeterProfile;
  readonly unit: number;
  readonly timeoutMs: number;
  /** Time of the line's nowMs() after which no request is begun. */
  readonly startBeforeMs: number;
  readonly memory: MeterMemory;
}

export interface SpanReading {
  /** The words of a span that was asked for; undefined where the meter refused it. */
  words(span: RegisterSpan): Uint16Array | undefined;
  /** The refusal, where there is one. */
  refusal(span: RegisterSpan): DriverError | undefined;
}

/** Modbus exceptions ("Application Protocol" V1.1b3 §7) by which a meter says that it does not have what was asked for. */
const illegalAddress = 2;
const illegalValue = 3;
/** Device failure: some makes answer so for registers that they do not have. It may pass. */
const deviceFailure = 4;

/** A refusal that is not to be remembered, and says nothing of whether the meter has the register. */
export function mayPass(refusal: DriverError): boolean {
  return refusal.exceptionCode === deviceFailure;
}

/** @throws DriverError for everything but a refusal: then nothing of this reading can be used */
export async function readSpans(
  line: ModbusLine,
  spans: readonly RegisterSpan[],
  options: SpanReadOptions,
): Promise<SpanReading> {
  const { profile, unit, memory } = options;
  const { gapMs, slowestAnswerMs, countStep, probe } = profile;
  const read: { block: RegisterBlock; data: Uint16Array }[] = [];
  const refused: { span: RegisterSpan; error: DriverError }[] = [];

  const planned = (wanted: readonly RegisterSpan[]): RegisterBlock[] =>
    planBlocks(wanted, { ...memory.limits, requestCostRegisters: line.requestCostRegisters(gapMs) });

  const readAll = async (wanted: readonly RegisterSpan[]): Promise<void> => {
    for (const block of planned(wanted)) {
      await readBlock(
        block,
        wanted.filter((span) => coversSpan(block, span)),
      );
    }
  };

  const readBlock = async (
    block: RegisterBlock,
    inside: readonly RegisterSpan[],
    refusedBefore = false,
  ): Promise<void> => {
    const { timeoutMs, startBeforeMs } = options;
    try {
      const request = { ...block, unit, gapMs, timeoutMs, slowestAnswerMs, countStep, probe, startBeforeMs };
      read.push({ block, data: await readPatiently(line, request) });
    } catch (error) {
      if (!isRefusal(error)) throw error;
      // What one value is refused with is believed for long, so one exception in passing must not do: it is asked for again.
      if (inside.length === 1 && !refusedBefore) await readBlock(block, inside, true);
      else await split(block, inside, error);
    }
  };

  const split = async (block: RegisterBlock, inside: readonly RegisterSpan[], error: DriverError): Promise<void> => {
    const [span] = inside;
    if (inside.length === 1 && span !== undefined) {
      if (!mayPass(error)) memory.addRefused(block);
      refused.push({ span, error });
      return;
    }
    const alone = { ...memory.limits, maxRegistersPerRequest: block.count, requestCostRegisters: 0 };
    const widest = Math.max(...inside.flatMap((span) => planBlocks([span], alone)).map(({ count }) => count));
    if (error.exceptionCode === illegalValue && memory.shorten(block.count, widest)) {
      await readAll(inside);
      return;
    }
    const refusedBefore = refused.length;
    const sorted = [...inside].sort((a, b) => a.address - b.address);
    const middle = Math.ceil(sorted.length / 2);
    for (const half of [sorted.slice(0, middle), sorted.slice(middle)]) await readAll(half);
    // Where one value was to blame, that one is remembered: without it, the block may be asked for again.
    if (refused.length === refusedBefore) memory.addRefused(block);
  };

  await readAll(distinct(spans));
  return {
    words: (span) => {
      const part = read.find(({ block }) => coversSpan(block, span));
      if (part === undefined) return undefined;
      const start = span.address - part.block.address;
      return part.data.subarray(start, start + span.count);
    },
    refusal: (span) => refused.find((item) => sameSpan(item.span, span))?.error,
  };
}

/** Whether a unit says by this error that it does not have what was asked for. */
export function isRefusal(error: unknown): error is DriverError {
  const code = error instanceof DriverError ? error.exceptionCode : undefined;
  return code === illegalAddress || code === illegalValue || code === deviceFailure;
}

function distinct(spans: readonly RegisterSpan[]): RegisterSpan[] {
  return spans.filter((span, index) => spans.findIndex((other) => sameSpan(other, span)) === index);
}

function sameSpan(a: RegisterSpan, b: RegisterSpan): boolean {
  return a.functionCode === b.functionCode && a.address === b.address && a.count === b.count;
}

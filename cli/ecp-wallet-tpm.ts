/** The TPM's counter and the journal's: journal first, then the TPM, so that a card that is older than the TPM has seen shows. */
import { resolve } from "node:path";
import type { Journal } from "../wallet/journal.ts";
import { TpmCounter, tpmIndexDefault, tpmIndexRange } from "../wallet/tpm-counter.ts";
import { CommandError, exitCodes } from "./ecp-wallet-command.ts";

export const tpmOptions = { tpm: { type: "string" }, "tpm-index": { type: "string" } } as const;
interface TpmValues {
  readonly tpm?: string | undefined;
  readonly "tpm-index"?: string | undefined;
}

export interface TpmPlace {
  /** Absolute. */
  readonly path: string;
  readonly index: number;
}

/** The TPM and the counter's index; undefined where none is asked for. */
export function tpmOf(values: TpmValues): TpmPlace | undefined {
  const text = values["tpm-index"];
  if (values.tpm === undefined) {
    if (text === undefined) return undefined;
    throw new CommandError(exitCodes.usage, "--tpm-index needs --tpm PATH");
  }
  const index = text === undefined ? tpmIndexDefault : Number(text);
  const { min, max } = tpmIndexRange;
  if (!Number.isInteger(index) || index < min || index > max)
    throw new CommandError(
      exitCodes.usage,
      `--tpm-index ${text}: a number from 0x${min.toString(16)} to 0x${max.toString(16)} was expected`,
    );
  return { path: resolve(values.tpm), index };
}

/** What a new journal begins to count from: the TPM's counter, which is made where there is none. */
export async function originOf(values: TpmValues): Promise<{ counter?: number }> {
  const place = tpmOf(values);
  if (place === undefined) return {};
  const tpm = new TpmCounter(place.path, place.index);
  if ((await tpm.read()) === undefined) await tpm.define();
  return { counter: (await tpm.read()) as number };
}

/** What a start may do by what journal and TPM say. */
export interface CounterStart {
  /** The value to seal with `started`; the TPM counts up to it once that is on disk. Undefined without a TPM. */
  readonly next?: number;
  /** Why nothing may be sealed in the journal's epoch. */
  readonly refused?: string;
}

const olderTodo =
  "if it was restored from an image on purpose, 'ecp-wallet run --accept-older-card' goes on in a new epoch, which full nodes hold until their operator agrees";

/** Compares the journal's counter with the TPM's; finishes a count that was cut short. */
export async function startCounter(journal: Journal, tpm: TpmCounter | undefined): Promise<CounterStart> {
  // 0: it does not count any more.
  const known = journal.counter || undefined;
  if (tpm === undefined) {
    if (known === undefined) return {};
    return {
      refused: `this wallet counts with a TPM (${known}), and none was named; give --tpm PATH, or ${olderTodo}`,
    };
  }
  const counted = await tpm.read();
  if (counted === undefined) {
    if (known !== undefined)
      return { refused: `the TPM has no counter, the journal's stands at ${known}: this is another TPM; ${olderTodo}` };
    await tpm.define();
    return { next: ((await tpm.read()) as number) + 1 };
  }
  const next = counted + 1;
  if (known === undefined)
    return {
      next,
      refused: `the TPM's counter stands at ${counted}, the journal knows of none: this card is older; ${olderTodo}`,
    };
  if (counted === known) return { next };
  if (counted === known - 1) {
    // The journal is written first: the TPM did not get to count.
    await tpm.increment();
    return { next: known + 1 };
  }
  return {
    next,
    refused:
      counted > known
        ? `this card is older than the TPM has seen: its counter stands at ${counted}, the journal's at ${known}; ${olderTodo}`
        : `the TPM's counter stands at ${counted}, the journal's at ${known}: this is another TPM; ${olderTodo}`,
  };
}

/** Raises both counters by one, the journal's first. `seal` puts the value into the journal and tells whether it could. */
export async function raiseCounter(journal: Journal, tpm: TpmCounter, seal: (value: number) => boolean): Promise<void> {
  const counted = await tpm.read();
  const known = journal.counter;
  if (counted === undefined || known === undefined || (counted !== known && counted !== known - 1))
    throw new Error(`the TPM's counter stands at ${counted}, the journal's at ${known}: something else counts there`);
  if (counted === known && !seal(known + 1)) return; // the ring is full: later
  await tpm.increment();
}

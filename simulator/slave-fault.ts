/** The faults that a simulated slave can be told to have, and how they are written on a command line. */

/** A fault of the slave. Each applies to the answers to the requests that come after it is set. */
export type SlaveFault =
  | { readonly kind: "silent" }
  /** The answer of another unit. */
  | { readonly kind: "wrong unit" }
  /** The answer to the other of the functions 3 and 4. */
  | { readonly kind: "wrong function" }
  | { readonly kind: "bad crc" }
  /** Some bits of the answer are turned, wherever it may be. */
  | { readonly kind: "garbled" }
  /** The answer breaks off in the middle. */
  | { readonly kind: "cut" }
  /** The answer comes twice, the second time 5 ms after the first. */
  | { readonly kind: "duplicate" }
  /** Bytes of noise instead of the answer. */
  | { readonly kind: "garbage" }
  /** Bytes of noise, then the right answer. */
  | { readonly kind: "noise before" }
  | { readonly kind: "exception"; readonly code: number }
  | { readonly kind: "late"; readonly byMs: number }
  /** The answer comes in pieces of four bytes with pauses between them. */
  | { readonly kind: "slow"; readonly pauseMs: number }
  /** No answer to a request before which the line was silent for less than this. */
  | { readonly kind: "needs gap"; readonly gapMs: number }
  /** One register of the answer holds no number: NaN, or the type's mark for "not available". */
  | { readonly kind: "not a number"; readonly address: number }
  /** No register holds a number. */
  | { readonly kind: "no numbers" };

/** A fault with how often it comes. */
export interface FaultSetting {
  readonly fault: SlaveFault;
  /** For so many answers; absent: until changed. */
  readonly times?: number;
  /** Share of the answers that it falls on, above 0 up to 1; absent: all. */
  readonly share?: number;
}

/** Spelling on the command line, in the order of the help; N is what the fault needs to know. */
const spellings: Readonly<Record<string, (parameter: number) => SlaveFault>> = {
  silent: () => ({ kind: "silent" }),
  lost: () => ({ kind: "silent" }),
  dead: () => ({ kind: "silent" }),
  "late:MS": (byMs) => ({ kind: "late", byMs }),
  "slow:MS": (pauseMs) => ({ kind: "slow", pauseMs }),
  cut: () => ({ kind: "cut" }),
  garbled: () => ({ kind: "garbled" }),
  "bad-crc": () => ({ kind: "bad crc" }),
  garbage: () => ({ kind: "garbage" }),
  "noise-before": () => ({ kind: "noise before" }),
  duplicate: () => ({ kind: "duplicate" }),
  "wrong-unit": () => ({ kind: "wrong unit" }),
  foreign: () => ({ kind: "wrong unit" }),
  "wrong-function": () => ({ kind: "wrong function" }),
  "exception:CODE": (code) => ({ kind: "exception", code }),
  "needs-gap:MS": (gapMs) => ({ kind: "needs gap", gapMs }),
  "not-a-number:ADDRESS": (address) => ({ kind: "not a number", address }),
  "no-numbers": () => ({ kind: "no numbers" }),
};

/** Largest parameter by its name. */
const parameterMax: Readonly<Record<string, number>> = { MS: 60_000, CODE: 255, ADDRESS: 65_535 };

export const faultSpellings: readonly string[] = Object.keys(spellings);

/**
 * A fault as it is written: `bad-crc`, `late:800`, with `*3` for three answers only and `%20` for a fifth of the answers.
 * Undefined where the text is none.
 */
export function parseFault(text: string): FaultSetting | undefined {
  const match = /^([a-z-]+)(?::(\d{1,5}))?(?:\*(\d{1,6}))?(?:%(\d{1,3}))?$/.exec(text.trim());
  if (!match) return undefined;
  const [, name = "", parameter, times, percent] = match;
  const spelling = faultSpellings.find((known) => known.split(":")[0] === name);
  if (spelling === undefined) return undefined;
  const wants = spelling.split(":")[1];
  if ((wants === undefined) !== (parameter === undefined)) return undefined;
  if (wants !== undefined && Number(parameter) > parameterMax[wants]!) return undefined;
  if (times === "0" || (percent !== undefined && !(Number(percent) >= 1 && Number(percent) <= 100))) return undefined;
  return {
    fault: spellings[spelling]!(Number(parameter ?? 0)),
    ...(times !== undefined && { times: Number(times) }),
    ...(percent !== undefined && { share: Number(percent) / 100 }),
  };
}

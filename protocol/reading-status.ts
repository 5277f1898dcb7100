/** Statuses of a reading and of the clock it was taken by, after OCMF (Open Charge Metering Format) ST and TM. */

/** Index = number on the wire. G is 0 and absent. */
export const statusLetters = ["G", "N", "T", "D", "R", "M", "X", "I", "O", "S", "E", "F"] as const;
export type StatusLetter = (typeof statusLetters)[number];

export const statuses = {
  good: 0,
  notPresent: 1,
  timeout: 2,
  disconnected: 3,
  notFound: 4,
  manipulated: 5,
  exchanged: 6,
  incompatible: 7,
  outOfRange: 8,
  substitute: 9,
  otherError: 10,
  readError: 11,
} as const;

export const statusSentences: Record<StatusLetter, string> = {
  G: "good",
  N: "not present: this slot was not read",
  T: "the meter did not answer in time",
  D: "the meter or its line was disconnected",
  R: "the register was not found",
  M: "marked: a register fell, or looks manipulated",
  X: "the meter was exchanged",
  I: "the meter or its answer is incompatible",
  O: "out of the plausible range",
  S: "a substitute value",
  E: "another error",
  F: "the answer could not be read",
};

/** A row of these statuses was measured or estimated and has values; rows of the others have none. */
export function hasValues(status: number): boolean {
  return (
    status === statuses.good ||
    status === statuses.manipulated ||
    status === statuses.exchanged ||
    status === statuses.outOfRange ||
    status === statuses.substitute
  );
}

/** Index = number on the wire. S (synchronised) is 0 and absent. */
export const clockStateLetters = ["S", "U", "I", "R"] as const;
export type ClockStateLetter = (typeof clockStateLetters)[number];
/** synchronised, unknown, informative, relative to the boot. */
export const clockStates = { synchronised: 0, unknown: 1, informative: 2, relative: 3 } as const;

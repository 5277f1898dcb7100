/**
 * Whose turn it is on a line with several meters. Meters that answer go in the order in which their slots end. One that did not
 * answer last time (a suspect) holds the line for a time-out and what follows it: it is asked only when no meter that answers
 * is being read, and none falls due before that time is over.
 */
import { pause } from "./pause.ts";

/**
 * A suspect that never finds such a moment, since the others leave no pause long enough, goes after this all the same: else it
 * would stay dead for good. It then costs the others a part of one slot in so long a time.
 */
export const starvedMaxMs = 20_000;
/** How soon a suspect looks again. */
const lookAgainMs = 50;

export class TurnMember {
  /** Monotonic milliseconds at which its next slot ends; in the past while its reading waits for the line or runs. */
  nextMs = Number.POSITIVE_INFINITY;
  isReading = false;
  isSuspect = false;
  /** Monotonic milliseconds of the last time it was asked as a suspect. */
  askedMs = Number.NEGATIVE_INFINITY;
}

export class LineTurns {
  readonly #members = new Set<TurnMember>();

  join(): TurnMember {
    const member = new TurnMember();
    this.#members.add(member);
    return member;
  }

  /**
   * Resolves with true when the suspect may hold the line for `needMs`, with false when it may not before `untilMs` (monotonic)
   * or after an abort. One suspect at a time.
   */
  async suspectsTurn(
    member: TurnMember,
    needMs: number,
    untilMs: number,
    nowMs: () => number,
    signal: AbortSignal,
  ): Promise<boolean> {
    if (member.askedMs === Number.NEGATIVE_INFINITY) member.askedMs = nowMs();
    while (!signal.aborted) {
      if (this.#isFree(member, needMs, nowMs())) {
        member.askedMs = nowMs();
        return true;
      }
      if (nowMs() + lookAgainMs > untilMs) return false;
      await pause(lookAgainMs, signal);
    }
    return false;
  }

  #isFree(member: TurnMember, needMs: number, nowMs: number): boolean {
    const others = [...this.#members].filter((other) => other !== member);
    if (others.some((other) => other.isReading)) return false;
    if (nowMs - member.askedMs >= starvedMaxMs) return true;
    return others.every((other) => other.isSuspect || other.nextMs - nowMs >= needMs);
  }
}

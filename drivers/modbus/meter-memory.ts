/**
 * What was learned of one meter by asking it: requests that it refuses, registers that it lacks, how much it answers at once,
 * and how it is set. A profile cannot know this; it is kept in memory, and asked anew from time to time.
 */
import { coversSpan, type RegisterBlock, type RegisterSpan } from "./block-plan.ts";
import type { MeterProfile } from "./profile.ts";

/** What was learned is believed for so long: a meter may be set otherwise, or be exchanged. */
const believedMs = 15 * 60_000;
/** Refused requests kept; a meter that refuses more is asked in vain now and then. */
const refusedBlocksMax = 64;

/** A code that cannot be had from this meter as it is set. */
export interface SpoiltCode {
  readonly code: number;
  /** What the setting is, and what to do. */
  readonly detail: string;
}

export class MeterMemory {
  readonly #profile: MeterProfile;
  readonly #missing = new Map<string, string>();
  #refused: RegisterBlock[] = [];
  #registersMax: number;
  #spoilt: readonly SpoiltCode[] | undefined;
  #learnedAtMs = Number.NEGATIVE_INFINITY;
  #openings = 0;

  constructor(profile: MeterProfile) {
    this.#profile = profile;
    this.#registersMax = profile.maxRegistersPerRequest;
  }

  /** Forgets what is old, or was learned before the line was opened anew. True when the settings are to be read. */
  isDue(nowMs: number, openings: number): boolean {
    if (nowMs - this.#learnedAtMs < believedMs && openings === this.#openings) return this.#spoilt === undefined;
    this.#learnedAtMs = nowMs;
    this.#openings = openings;
    this.#missing.clear();
    this.#refused = [];
    this.#registersMax = this.#profile.maxRegistersPerRequest;
    this.#spoilt = undefined;
    return true;
  }

  /** Limits of the next plan, as planBlocks wants them. */
  get limits(): { maxRegistersPerRequest: number; countStep: number; refused: readonly RegisterBlock[] } {
    const { countStep } = this.#profile;
    return { maxRegistersPerRequest: this.#registersMax, countStep, refused: this.#refused };
  }

  /**
   * A request of that many registers was refused for its count: the next ones are shorter, but no shorter than `widest`.
   * False when they cannot be.
   */
  shorten(count: number, widest: number): boolean {
    const { fallbackRegistersPerRequest: fallback, countStep } = this.#profile;
    const half = Math.floor(count / 2 / countStep) * countStep;
    const shorter = Math.max(widest, fallback !== undefined && fallback < count ? fallback : half);
    if (shorter >= count) return false;
    this.#registersMax = Math.min(this.#registersMax, shorter);
    return true;
  }

  /** Keeps the shortest refused requests: what holds one of them is refused as well. */
  addRefused(block: RegisterBlock): void {
    if (this.#refused.some((other) => coversSpan(block, other))) return;
    const others = this.#refused.filter((other) => !coversSpan(other, block));
    this.#refused = [...others, block].slice(-refusedBlocksMax);
  }

  addMissing(span: RegisterSpan, detail: string): void {
    this.#missing.set(keyOf(span), detail);
  }

  /** Why this meter does not have these registers; undefined where it has them, or nobody knows. */
  missing(span: RegisterSpan): string | undefined {
    return this.#missing.get(keyOf(span));
  }

  /** Codes that its settings spoil; to be set after they were read. */
  get spoilt(): readonly SpoiltCode[] {
    return this.#spoilt ?? [];
  }

  set spoilt(codes: readonly SpoiltCode[]) {
    this.#spoilt = codes;
  }
}

function keyOf({ functionCode, address, count }: RegisterSpan): string {
  return `${functionCode}:${address}+${count}`;
}

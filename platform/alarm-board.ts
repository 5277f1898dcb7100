/**
 * Which alarms stand: a pure evaluator with hysteresis. Whoever watches something gives its level now and then; an alarm is
 * raised once the level has been high for long enough, and taken back once it has been low for long enough.
 */

export interface AlarmRule {
  /** From this level on it is raised, once that has lasted for `raiseAfterMs`. */
  readonly raiseAt: number;
  readonly raiseAfterMs: number;
  /** Below this level it is taken back, once that has lasted for `clearAfterMs`. At most `raiseAt`. */
  readonly clearBelow: number;
  readonly clearAfterMs: number;
}

export interface Observation<Kind extends string> {
  readonly kind: Kind;
  /** What it is about: a device, a meter, the hub itself. */
  readonly subject: string;
  readonly level: number;
  /** One sentence for people, with the figures. */
  readonly detail: string;
}

export interface Alarm<Kind extends string = string> {
  readonly kind: Kind;
  readonly subject: string;
  readonly detail: string;
  /** Since when it stands, Unix milliseconds. */
  readonly sinceMs: number;
}

export interface AlarmChange<Kind extends string> {
  readonly state: "raised" | "cleared";
  readonly alarm: Alarm<Kind>;
}

/** Subjects that are kept: of more, those that come later are not watched, and {@link AlarmBoard.unwatched} says so. */
export const alarmSubjectsMax = 20_000;

interface Watched<Kind extends string> {
  readonly kind: Kind;
  readonly subject: string;
  detail: string;
  /** Undefined while it is not raised. */
  raisedMs: number | undefined;
  /** Since when the level is on the other side; monotonic. */
  crossedMs: number | undefined;
}

export class AlarmBoard<Kind extends string> {
  readonly #rules: Readonly<Record<Kind, AlarmRule>>;
  /** Only what is raised, or about to be. */
  readonly #watched = new Map<string, Watched<Kind>>();
  #unwatched = 0;

  constructor(rules: Readonly<Record<Kind, AlarmRule>>) {
    this.#rules = rules;
  }

  /** Takes all there is to say now; what is not named any more has the level 0. Gives what changed. */
  evaluate(observations: readonly Observation<Kind>[], nowMs: number, wallMs: number): AlarmChange<Kind>[] {
    const changes: AlarmChange<Kind>[] = [];
    const seen = new Set<string>();
    this.#unwatched = 0;
    for (const { kind, subject, level, detail } of observations) {
      const key = `${kind}\0${subject}`;
      if (seen.has(key)) continue;
      seen.add(key);
      const rule = this.#rules[kind];
      const known = this.#watched.get(key);
      if (known === undefined && level < rule.raiseAt) continue;
      if (known === undefined && this.#watched.size >= alarmSubjectsMax) {
        this.#unwatched++;
        continue;
      }
      const watched = known ?? { kind, subject, detail, raisedMs: undefined, crossedMs: undefined };
      this.#watched.set(key, watched);
      if (level >= rule.clearBelow) watched.detail = detail;
      const change = this.#judge(key, watched, level, nowMs, wallMs);
      if (change) changes.push(change);
    }
    for (const [key, watched] of this.#watched) {
      if (seen.has(key)) continue;
      const change = this.#judge(key, watched, 0, nowMs, wallMs);
      if (change) changes.push(change);
    }
    return changes;
  }

  #judge(
    key: string,
    watched: Watched<Kind>,
    level: number,
    nowMs: number,
    wallMs: number,
  ): AlarmChange<Kind> | undefined {
    const rule = this.#rules[watched.kind];
    const isRaised = watched.raisedMs !== undefined;
    const crosses = isRaised ? level < rule.clearBelow : level >= rule.raiseAt;
    if (!crosses) {
      watched.crossedMs = undefined;
      if (!isRaised) this.#watched.delete(key);
      return undefined;
    }
    watched.crossedMs ??= nowMs;
    if (nowMs - watched.crossedMs < (isRaised ? rule.clearAfterMs : rule.raiseAfterMs)) return undefined;
    watched.crossedMs = undefined;
    watched.raisedMs ??= wallMs;
    const alarm = alarmOf(watched);
    if (isRaised) this.#watched.delete(key);
    return { state: isRaised ? "cleared" : "raised", alarm };
  }

  /** What stands, the oldest first. */
  get raised(): readonly Alarm<Kind>[] {
    return [...this.#watched.values()]
      .filter(({ raisedMs }) => raisedMs !== undefined)
      .map(alarmOf)
      .sort((a, b) => a.sinceMs - b.sinceMs);
  }

  /** How many stand, for each kind: none left out. */
  get counts(): Readonly<Record<Kind, number>> {
    const kinds = Object.keys(this.#rules) as Kind[];
    const counts = Object.fromEntries(kinds.map((kind) => [kind, 0])) as Record<Kind, number>;
    for (const { kind, raisedMs } of this.#watched.values()) if (raisedMs !== undefined) counts[kind]++;
    return counts;
  }

  /** Subjects of the last evaluation that there was no room for. */
  get unwatched(): number {
    return this.#unwatched;
  }
}

function alarmOf<Kind extends string>({ kind, subject, detail, raisedMs }: Watched<Kind>): Alarm<Kind> {
  return { kind, subject, detail, sinceMs: raisedMs ?? 0 };
}

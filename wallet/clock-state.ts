/**
 * What the wallet itself sees of the system's clock. It claims S only where a time daemon's own mark says so: Node cannot ask
 * the kernel (adjtimex), and the agent's word counts for nothing.
 */
import { statSync } from "node:fs";
import { join } from "node:path";
import { type Clock, isSet } from "../platform/clock.ts";
import { uint32Max } from "../protocol/field.ts";
import { clockStates } from "../protocol/reading-status.ts";

/** A file that a time daemon touches at each synchronisation. */
interface TimeMark {
  readonly path: string;
  /** Seconds after which a mark that was not touched again says nothing any more. */
  readonly ageMaxS: number;
  /** Counts only while this is there: what the daemon has only while it runs. */
  readonly beside?: string;
}

const timeMarks: readonly TimeMark[] = [
  // systemd-timesyncd.service(8): touched at each synchronisation, which are at most 2,048 s apart (timesyncd.conf(5)).
  { path: "run/systemd/timesync/synchronized", ageMaxS: 3 * 2_048 },
  // chronyd writes its drift file at most hourly, and only while it is synchronised (chrony.conf(5), driftfile).
  { path: "var/lib/chrony/chrony.drift", ageMaxS: 7_200, beside: "run/chrony" },
  { path: "var/lib/chrony/drift", ageMaxS: 7_200, beside: "run/chrony" },
];

const daySeconds = 86_400;
/** So much may wall and monotonic clock part between two looks: beyond is a step. NTP's slewing moves both alike. */
const stepMinMs = 1_000;
const lookEveryMs = 1_000;

/** The paths that the marks are read at, under another root than "/" where the system's are elsewhere (containers, tests). */
export function timeMarkPaths(root = "/"): string[] {
  return [...new Set(timeMarks.flatMap(({ path, beside }) => [path, ...(beside ? [beside] : [])]))].map((path) =>
    join(root, path),
  );
}

export interface ClockStateOptions {
  readonly clock: Clock;
  readonly root?: string;
  /** Time of the newest row that was sealed before this process: a clock that stands a day before it is not believed. */
  readonly newestS?: number;
}

/** The system's clock as the wallet sees it: its state, and its steps. */
export class ClockState {
  readonly #clock: Clock;
  readonly #root: string;
  readonly #newestS: number;
  /** Wall minus monotonic time at the last look. */
  #offsetMs: number;
  #lookedMs: number;
  /** When each mark was touched last, as seen at the last look. */
  #touchedMs: readonly (number | undefined)[];
  /** The marks of before the last step: until a mark is touched again it speaks of another time. */
  #staleMs: readonly (number | undefined)[] = [];

  constructor({ clock, root = "/", newestS = 0 }: ClockStateOptions) {
    this.#clock = clock;
    this.#root = root;
    this.#newestS = newestS;
    this.#lookedMs = clock.monotonicMs();
    this.#offsetMs = clock.wallMs() - this.#lookedMs;
    this.#touchedMs = timeMarks.map((mark) => this.#touched(mark));
  }

  /** Seconds by which somebody has set the clock forth or back since the last look; 0: nobody has. */
  look(): number {
    const nowMs = this.#clock.monotonicMs();
    const wallMs = this.#clock.wallMs();
    const stepMs = wallMs - nowMs - this.#offsetMs;
    const stepped = Math.abs(stepMs) > stepMinMs;
    const sinceMs = nowMs - this.#lookedMs;
    if (!stepped && sinceMs < lookEveryMs) return 0;
    const touched = timeMarks.map((mark) => this.#touched(mark));
    if (stepped) {
      this.#offsetMs = wallMs - nowMs;
      // A mark that was touched since the last look by the new time was touched behind the step, as by the daemon that made it.
      const isNew = (ms: number | undefined): boolean =>
        ms !== undefined && Math.abs(stepMs) > sinceMs + stepMinMs && ms <= wallMs && ms >= wallMs - sinceMs;
      this.#staleMs = touched.map((ms, i) => (isNew(ms) && ms !== this.#touchedMs[i] ? undefined : ms));
    }
    this.#touchedMs = touched;
    this.#lookedMs = nowMs;
    return stepped ? Math.round(stepMs / 1_000) : 0;
  }

  /** By what was seen at the last look. */
  state(): number {
    const wallMs = this.#clock.wallMs();
    const wallS = wallMs / 1_000;
    if (!isSet(wallMs)) return clockStates.unknown;
    const isMarked = timeMarks.some(({ ageMaxS }, i) => {
      const touchedMs = this.#touchedMs[i];
      if (touchedMs === undefined || touchedMs === this.#staleMs[i]) return false;
      return touchedMs <= wallMs && wallMs - touchedMs <= ageMaxS * 1_000;
    });
    if (isMarked) return clockStates.synchronised;
    return wallS < this.#newestS - daySeconds ? clockStates.unknown : clockStates.informative;
  }

  #touched({ path, beside }: TimeMark): number | undefined {
    if (beside !== undefined && this.#modifiedMs(beside) === undefined) return undefined;
    return this.#modifiedMs(path);
  }

  #modifiedMs(path: string): number | undefined {
    try {
      return statSync(join(this.#root, path), { throwIfNoEntry: false })?.mtimeMs;
    } catch {
      return undefined; // what cannot be read says nothing
    }
  }
}

/** Unix seconds as records hold them. A clock that is out of their range must not keep the wallet from sealing. */
export function timeOf(clock: Clock): number {
  return Math.min(uint32Max, Math.max(0, Math.floor(clock.wallMs() / 1_000)));
}

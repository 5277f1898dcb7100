/** Alarms in the log: one line a change, and one for many of a kind that change at once. */
import type { AlarmChange } from "./alarm-board.ts";
import type { Log } from "./log.ts";

/** Of one kind, at one time. */
const linesMax = 20;

/** Where docs/operating.md says what to do. */
export function runbookOf(kind: string): string {
  return `docs/operating.md#${kind}`;
}

export function logAlarms<Kind extends string>(log: Log, changes: readonly AlarmChange<Kind>[]): void {
  const said = new Map<string, number>();
  for (const { state, alarm } of changes) {
    const { kind, subject, detail } = alarm;
    const count = (said.get(`${state} ${kind}`) ?? 0) + 1;
    said.set(`${state} ${kind}`, count);
    if (count > linesMax) continue;
    if (state === "raised") log.warn("alarm raised", { kind, subject, detail, todo: runbookOf(kind) });
    else log.info("alarm cleared", { kind, subject });
  }
  for (const [what, count] of said)
    if (count > linesMax) log.warn("alarms changed, more than are listed", { what, count, more: count - linesMax });
}

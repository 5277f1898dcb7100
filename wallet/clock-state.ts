/** What the wallet itself sees of the system's clock: it claims S only where the system's own time daemon left its mark. */
import { existsSync } from "node:fs";
import type { Clock } from "../platform/clock.ts";
import { uint32Max } from "../protocol/field.ts";
import { clockStates } from "../protocol/reading-status.ts";

/** systemd-timesyncd touches this file whenever it has synchronised the clock (systemd-timesyncd.service(8)). */
export const timesyncMark = "/run/systemd/timesync/synchronized";

/** Before this no clock of this software can be right: 2025-01-01. */
const plausibleFromS = 1_735_689_600;

export function clockStateOf(wallMs: number, mark = timesyncMark): number {
  if (wallMs / 1_000 < plausibleFromS) return clockStates.unknown;
  return existsSync(mark) ? clockStates.synchronised : clockStates.informative;
}

/** Unix seconds as records hold them. A clock that is out of their range must not keep the wallet from sealing. */
export function timeOf(clock: Clock): number {
  return Math.min(uint32Max, Math.max(0, Math.floor(clock.wallMs() / 1_000)));
}

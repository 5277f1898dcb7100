/** What the wallet itself sees of the system's clock: it claims S only where the system's own time daemon left its mark. */
import { existsSync } from "node:fs";
import { clockStates } from "../protocol/reading-status.ts";

/** systemd-timesyncd touches this file whenever it has synchronised the clock (systemd-timesyncd.service(8)). */
export const timesyncMark = "/run/systemd/timesync/synchronized";

/** Before this no clock of this software can be right: 2025-01-01. */
const plausibleFromS = 1_735_689_600;

export function clockStateOf(wallMs: number, mark = timesyncMark): number {
  if (wallMs / 1_000 < plausibleFromS) return clockStates.unknown;
  return existsSync(mark) ? clockStates.synchronised : clockStates.informative;
}

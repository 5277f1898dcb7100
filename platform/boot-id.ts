/** Which boot of the machine this is: the monotonic clock of another one counts from elsewhere. */
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

/** As the kernel names it; a name that never comes again where it does not, so that nothing is taken for the same boot. */
export function readBootId(path = "/proc/sys/kernel/random/boot_id"): string {
  try {
    return readFileSync(path, "utf8").trim() || randomUUID();
  } catch {
    return randomUUID();
  }
}

// How exposed `systemd-analyze security` finds the units, and may find them: part of `npm run check` where systemd is there.
import { spawnSync } from "node:child_process";
import path from "node:path";

/** In tenths (0 none … 100). The agent needs the network and the serial ports, the full node the network. */
export const exposureMax: Readonly<Record<string, number>> = {
  "ecp-wallet.service": 2,
  "ecp-agent.service": 15,
  "ecp-node.service": 15,
};

if (import.meta.main) {
  const folder = path.join(import.meta.dirname, "systemd");
  for (const [unit, threshold] of Object.entries(exposureMax)) {
    const args = ["security", "--offline=true", `--threshold=${threshold}`, path.join(folder, unit)];
    const { status, stdout, stderr, error } = spawnSync("systemd-analyze", args, { encoding: "utf8" });
    if (error) {
      console.log("no systemd-analyze here: the units were not rated");
      break;
    }
    const rating = stdout.trim().split("\n").at(-1) ?? "";
    console.log(`${status === 0 ? "" : `expected at most ${threshold / 10}: `}${rating.replace(/^\W+/, "")}${stderr}`);
    if (status !== 0) process.exitCode = 1;
  }
}

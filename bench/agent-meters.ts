// Meters behind one Modbus TCP port, in a process of their own: `agent-meters.ts 10`. Prints {"port": …}; at each line on stdin the
// times at which it answered since the line before, in milliseconds of the machine's monotonic clock.
import { createInterface } from "node:readline";
import { findMeterProfile } from "../drivers/modbus/profile-catalogue.ts";
import { systemClock } from "../platform/clock.ts";
import { createHousehold } from "../simulator/household.ts";
import { meterDevice } from "../simulator/meter-device.ts";
import { SimulatedSlave } from "../simulator/simulated-slave.ts";
import { serveModbusTcp } from "../simulator/tcp-slave.ts";

let answeredMs: number[] = [];

class TimedSlave extends SimulatedSlave {
  override reply(...request: Parameters<SimulatedSlave["reply"]>): ReturnType<SimulatedSlave["reply"]> {
    const pieces = super.reply(...request);
    answeredMs.push(systemClock.monotonicMs());
    return pieces;
  }
}

if (import.meta.main) {
  const profile = findMeterProfile("eastron-sdm630");
  if (!profile) throw new Error("eastron-sdm630 is not in the catalogue");
  const slaves = Array.from({ length: Number(process.argv[2]) }, (_, i) => {
    const household = createHousehold(i + 1);
    return new TimedSlave(
      meterDevice(profile, { unit: i + 1, household, now: Date.now, serialNumber: 21_000_000 + i }),
    );
  });
  const server = await serveModbusTcp(slaves, { host: "127.0.0.1", port: 0 });
  createInterface({ input: process.stdin })
    .on("line", () => {
      process.stdout.write(`${JSON.stringify({ answeredMs })}\n`);
      answeredMs = [];
    })
    .on("close", () => void server.close());
  process.stdout.write(`${JSON.stringify({ port: server.port })}\n`);
}

// Simulated meters on a pty in this process, and `ecp` in another one.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import type { TestContext } from "node:test";
import { findMeterProfile } from "../../drivers/modbus/profile-catalogue.ts";
import { createHousehold } from "../../simulator/household.ts";
import { meterDevice } from "../../simulator/meter-device.ts";
import { runSimulatedBus, type SimulatedBus, type SimulatedBusOptions } from "../../simulator/simulated-bus.ts";
import { SimulatedSlave, seededRandom } from "../../simulator/simulated-slave.ts";

/** Short: sockets lie in it. */
export function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync("/tmp/ecp-b-");
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

const household = createHousehold(1);

/** `eastron-sdm630@1` as a slave. */
export function meterSlave(text: string): SimulatedSlave {
  const [id = "", unit] = text.split("@");
  const profile = findMeterProfile(id);
  assert.ok(profile, id);
  const options = { unit: Number(unit), household, now: Date.now, serialNumber: 21_000_000 + Number(unit) };
  return new SimulatedSlave(meterDevice(profile, options), seededRandom(Number(unit)));
}

export interface BenchBus extends SimulatedBus {
  readonly link: string;
}

/** A line with these meters, at the end of a link in a folder of its own. */
export async function startBus(
  t: TestContext,
  meters: readonly string[],
  options: Partial<SimulatedBusOptions> = {},
): Promise<BenchBus> {
  const link = join(temporaryFolder(t), "bus.tty");
  const bus = await runSimulatedBus({ slaves: meters.map(meterSlave), link, ...options });
  t.after(() => bus.close());
  return Object.assign(bus, { link });
}

const program = join(import.meta.dirname, "../../cli/ecp.ts");

/** Runs `ecp` to its end. */
export async function ecp(...args: readonly string[]): Promise<{ status: number; out: string; error: string }> {
  const child = spawn(process.execPath, [program, ...args], { stdio: ["ignore", "pipe", "pipe"], timeout: 120_000 });
  const [[status], out, error] = await Promise.all([once(child, "close"), text(child.stdout), text(child.stderr)]);
  return { status, out, error };
}

// A simulated SDM630 on a real pty with a real serial port on the other end, quick enough for tests.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import type { TestContext } from "node:test";
import type { ModbusLine } from "../../drivers/modbus/line.ts";
import type { MeterProfile } from "../../drivers/modbus/profile.ts";
import { findMeterProfile } from "../../drivers/modbus/profile-catalogue.ts";
import { createRtuLine } from "../../drivers/modbus/rtu-line.ts";
import { openSerialPort } from "../../drivers/serial/serial-port.ts";
import { runSimulatedMeter, type SimulatedMeter } from "../../simulator/simulated-meter.ts";

/** The pty has no speed; this is what the simulator paces by. */
export const baud = 115_200;

export const eastronSdm630 = findMeterProfile("eastron-sdm630") as MeterProfile;

/** The SDM630's table with short times. */
export const quickProfile: MeterProfile = { ...eastronSdm630, gapMs: 2, timeoutMs: 200, slowestAnswerMs: 400 };

/** A fixed moment, so that what the meter shows is known. */
export const testNowMs = Date.UTC(2026, 5, 10, 11);

export async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), "ecp-drivers-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

export interface TestBench {
  readonly meter: SimulatedMeter;
  readonly line: ModbusLine;
  /** The symlink that both sides use. */
  readonly link: string;
}

export async function startBench(t: TestContext): Promise<TestBench> {
  const link = path.join(await temporaryFolder(t), "meter.tty");
  const meter = await runSimulatedMeter({ link, baud, now: () => testNowMs });
  const line = createRtuLine({
    description: link,
    openTransport: () => openSerialPort({ path: link, baud }),
    baud,
    bitsPerCharacter: 10,
  });
  t.after(async () => {
    await line.close();
    await meter.close();
  });
  return { meter, line, link };
}

/** A float32 register pair as the line gives it. */
export function float32Of(words: Uint16Array, offset = 0): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint16(0, words[offset] ?? 0);
  view.setUint16(2, words[offset + 1] ?? 0);
  return view.getFloat32(0);
}

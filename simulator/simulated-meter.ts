/** A simulated SDM630 by itself, on a pty, over Modbus TCP, or both: what the demo and most tests read. */
import { findMeterProfile } from "../drivers/modbus/profile-catalogue.ts";
import { createHousehold } from "./household.ts";
import { meterDevice } from "./meter-device.ts";
import { runSimulatedBus, type SimulatedBus, type SimulatedBusOptions } from "./simulated-bus.ts";
import { SimulatedSlave } from "./simulated-slave.ts";
import type { SlaveFault } from "./slave-fault.ts";

export interface SimulatedMeterOptions extends Omit<SimulatedBusOptions, "slaves"> {
  /** Modbus unit, 1–247. Default 1. */
  readonly unit?: number;
  /** Which house; the same seed at the same time gives the same values. Default 1. */
  readonly seed?: number;
  /** Unix milliseconds. Default Date.now. */
  readonly now?: () => number;
}

export interface SimulatedMeter extends SimulatedBus {
  readonly slave: SimulatedSlave;
  setFault(fault: SlaveFault | undefined, times?: number): void;
}

/** Serial numbers of simulated meters begin here; the house's seed is added. */
export const serialNumberFrom = 21_000_000;

export async function runSimulatedMeter(options: SimulatedMeterOptions = {}): Promise<SimulatedMeter> {
  const { unit = 1, seed = 1, now = Date.now } = options;
  const profile = findMeterProfile("eastron-sdm630")!;
  const household = createHousehold(seed);
  const slave = new SimulatedSlave(
    meterDevice(profile, { unit, household, now, serialNumber: serialNumberFrom + seed }),
  );
  const bus = await runSimulatedBus({ ...options, slaves: [slave] });
  return {
    slave,
    setFault: (fault, times) => slave.setFault(fault, times),
    slaves: bus.slaves,
    get path() {
      return bus.path;
    },
    get address() {
      return bus.address;
    },
    cut: bus.cut,
    reconnect: bus.reconnect,
    disturb: bus.disturb,
    close: bus.close,
  };
}

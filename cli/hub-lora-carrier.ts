/** LoRaWAN's part of an agent, made of this machine's port, clock and files. */
import type { HubConfiguration, LoraConfiguration } from "../agent/configuration.ts";
import { LoraCarrier } from "../agent/lora-carrier.ts";
import { createFileStateStore } from "../agent/lora-state-store.ts";
import { createLoraModem } from "../drivers/lora/modem.ts";
import type { MeterProfile } from "../drivers/modbus/profile.ts";
import { serialPortOpener } from "../drivers/serial/port-identity.ts";
import { readBootId } from "../platform/boot-id.ts";
import { makeFolders } from "../platform/durable-file.ts";
import { CommandError, exit } from "./command.ts";
import { systemLoraTiming } from "./lora-timing.ts";

/** Throws {@link CommandError} where the folder of its state cannot be had. */
export async function loraCarrierOf(
  configuration: HubConfiguration & { lora?: LoraConfiguration },
  profileOf: (id: string) => MeterProfile,
): Promise<LoraCarrier | undefined> {
  const { lora, meters } = configuration;
  if (!lora) return undefined;
  makeFolder(lora.stateFolder);
  const timing = systemLoraTiming;
  const { path, family, baud } = lora.modem;
  const modem = createLoraModem({
    ...{ family, region: lora.region, timing, rx1DelayS: lora.rx1DelayS },
    openTransport: serialPortOpener({ path, baud, dataBits: 8, parity: "none", stopBits: 1 }),
  });
  const store = createFileStateStore(lora.stateFolder);
  return new LoraCarrier({
    configuration: lora,
    meters,
    profileOf,
    modem,
    timing,
    store,
    bootId: readBootId(),
    random: Math.random,
  });
}

function makeFolder(folder: string): void {
  try {
    makeFolders(folder, 0o700);
  } catch (error) {
    throw new CommandError(exit.cannotCreate, {
      expected: "a folder for the state of the LoRaWAN uplink",
      got: (error as Error).message,
      where: folder,
      todo: "name another one in 'uplink: lora: state_folder:' of hub.yaml, or make it and give it to the agent's user",
    });
  }
}

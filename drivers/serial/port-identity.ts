/** A serial port that is opened again by what it is, not by the name it had: /dev/ttyUSB0 is another adapter after a re-plug. */
import { realpath } from "node:fs/promises";
import path from "node:path";
import type { ByteTransport } from "../byte-transport.ts";
import { DriverError } from "../failure.ts";
import { listSerialById, serialById } from "./port-failure.ts";
import { openSerialPort } from "./serial-port.ts";
import type { SerialSettings } from "./serial-settings.ts";

/**
 * Gives the function that opens the port, at first and after each loss. Where the configured path is a device node that has a
 * name under /dev/serial/by-id, that name is remembered and opened from then on; a configured symlink is followed each time.
 * @param folder where udev keeps the stable names
 * @throws DriverError (the function) as openSerialPort; port-not-found also when another device has taken the name over
 */
export function serialPortOpener(settings: SerialSettings, folder = serialById): () => Promise<ByteTransport> {
  let identity: string | undefined;
  return async () => {
    if (identity !== undefined) await assertPlugged(identity, settings.path);
    const transport = await openSerialPort({ ...settings, path: identity ?? settings.path });
    identity ??= await stableNameOf(settings.path, folder);
    return transport;
  };
}

/** The name under `folder` that leads to the same device as the device node `device`; undefined for a symlink. */
async function stableNameOf(device: string, folder: string): Promise<string | undefined> {
  if ((await realpath(device).catch(() => undefined)) !== path.resolve(device)) return undefined;
  for (const name of await listSerialById(folder))
    if ((await realpath(name).catch(() => undefined)) === path.resolve(device)) return name;
  return undefined;
}

async function assertPlugged(identity: string, configured: string): Promise<void> {
  if ((await realpath(identity).catch(() => undefined)) !== undefined) return;
  throw new DriverError(
    "port-not-found",
    `Serial port ${configured}: expected the adapter ${path.basename(identity)} that was there, found it unplugged. Plug it in again, at ` +
      `any socket; a device that has the name ${configured} now is another one and is left alone.`,
  );
}

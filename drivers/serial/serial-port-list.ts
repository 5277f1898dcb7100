/** The serial ports of this machine, for `ecp init` and `ecp scan`. */
import { readdir, realpath } from "node:fs/promises";
import { listSerialById } from "./port-failure.ts";

export interface SerialPortEntry {
  /** The name to configure: the by-id symlink where there is one, since /dev/ttyUSB0 is another adapter after a boot. */
  readonly path: string;
  /** The device node behind it, such as /dev/ttyUSB0. */
  readonly device: string;
  /** Maker's name as USB gives it. */
  readonly manufacturer?: string;
  readonly serialNumber?: string;
}

/** Ports under /dev/serial/by-id first, then those that only have a device node; no port twice. */
export async function listSerialPorts(): Promise<SerialPortEntry[]> {
  const known = new Map((await listDevices()).map((port) => [port.path, port]));
  const entries: SerialPortEntry[] = [];
  const entry = (path: string, device: string): SerialPortEntry => {
    const { manufacturer, serialNumber } = known.get(device) ?? {};
    return { path, device, ...(manufacturer && { manufacturer }), ...(serialNumber && { serialNumber }) };
  };
  for (const path of await listSerialById()) {
    const device = await realpath(path).catch(() => undefined);
    if (device !== undefined) entries.push(entry(path, device));
  }
  const seen = new Set(entries.map((item) => item.device));
  for (const device of [...known.keys()].sort()) {
    if (!seen.has(device)) entries.push(entry(device, device));
  }
  return entries;
}

interface KnownDevice {
  readonly path: string;
  readonly manufacturer?: string | undefined;
  readonly serialNumber?: string | undefined;
}

/** serialport asks udevadm; a container or a small image may have none, and then the names in /dev have to do. */
async function listDevices(): Promise<KnownDevice[]> {
  const { SerialPort } = await import("serialport");
  try {
    return await SerialPort.list();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    const names = await readdir("/dev");
    return names.filter((name) => /^tty(USB|ACM|AMA)\d+$/.test(name)).map((name) => ({ path: `/dev/${name}` }));
  }
}

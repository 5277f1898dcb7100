/** Opens a serial port through the npm package `serialport` as a ByteTransport. */
import { execFile } from "node:child_process";
import { fstatSync, writeSync } from "node:fs";
import { stat } from "node:fs/promises";
import type { ByteTransport } from "../byte-transport.ts";
import { DriverError, messageOf } from "../failure.ts";
import { explainOpenFailure } from "./port-failure.ts";
import { isPollingBinding, type PollingBinding, SerialReader } from "./serial-reader.ts";
import { describeFraming, type SerialSettings } from "./serial-settings.ts";

/**
 * Opens the port, alone (an advisory lock is taken; a second opener gets `port-busy`).
 * serialport is loaded here and not at the top: it costs 13 MiB, and a hub on Modbus TCP does not want it.
 * @throws DriverError port-not-found, port-not-permitted, port-busy, port-open-failed
 */
export async function openSerialPort(settings: SerialSettings): Promise<ByteTransport> {
  const { SerialPort } = await import("serialport");
  const { path } = settings;
  const where = `${path} at ${describeFraming(settings)}`;
  const port = new SerialPort({
    path,
    baudRate: settings.baud,
    dataBits: settings.dataBits ?? 8,
    parity: settings.parity ?? "none",
    stopBits: settings.stopBits ?? 1,
    autoOpen: false,
  });

  let lostBy: Error | undefined;
  let closeListener: ((error?: Error) => void) | undefined;
  let ended = false;
  let closeAsked = false;
  const end = (error?: Error): void => {
    if (ended) return;
    ended = true;
    lostBy ??= error;
    closeListener?.(error);
  };
  const lost = (cause: unknown): DriverError =>
    new DriverError(
      "port-lost",
      `Serial port ${where}: the device went away (${messageOf(cause)}). Check the plug; it is opened again by itself.`,
      { cause },
    );
  // The loss is told when the descriptor is gone, and the lock with it: who opens the path again at once must find it free.
  const lose = (error: Error): void => {
    const isFirst = lostBy === undefined;
    lostBy ??= lost(error);
    if (isFirst && port.isOpen) port.close(() => {});
    else if (!port.closing) end(lostBy);
  };
  // Without a listener an 'error' event (USB unplugged) would end the process; with one it is the end of this port.
  port.on("error", lose);
  port.on("close", (error: Error | null | undefined) => end(lostBy ?? (error ? lost(error) : undefined)));

  await new Promise<void>((resolve, reject) => {
    port.open((error) => {
      if (error) explainOpenFailure(path, error).then(reject, reject);
      else resolve();
    });
  });
  if (settings.parity === "even" || settings.parity === "odd") await checkInputParity(path);
  const binding = isPollingBinding(port.port) ? port.port : undefined;
  let dataListener: ((bytes: Uint8Array) => void) | undefined;
  const reader = binding && new SerialReader(binding, (bytes) => dataListener?.(bytes), lose);
  let queuedWrites = 0;
  const writeQueued = (bytes: Uint8Array): Promise<void> =>
    new Promise((resolve, reject) => {
      queuedWrites++;
      port.write(Buffer.from(bytes), (error) => {
        queuedWrites--;
        if (error) reject(lost(error));
        else resolve();
      });
    });

  return {
    description: where,
    write: async (bytes) => {
      // Between a hang-up and its 'close' event the port is not open either, though nobody asked for that.
      if (closeAsked) throw new DriverError("port-closed", `Serial port ${where}: it was closed; open it first.`);
      if (ended || !port.isOpen) throw lostBy ?? lost("hung up");
      reader?.expect(0, 0);
      let written = 0;
      try {
        if (binding && queuedWrites === 0) written = writeAtOnce(binding, bytes);
      } catch (error) {
        throw lost(error);
      }
      if (written < bytes.length) await writeQueued(bytes.subarray(written));
    },
    onData: (listener) => {
      const isFirst = dataListener === undefined;
      dataListener = listener;
      if (reader === undefined) port.on("data", listener);
      else if (isFirst) reader.start();
    },
    expect: (bytes, characterMs) => reader?.expect(bytes, characterMs),
    isCurrent: async () => binding === undefined || (await leadsTo(path, binding)),
    onClosed: (listener) => {
      closeListener = listener;
      if (ended) listener(lostBy);
    },
    close: () =>
      new Promise((resolve) => {
        closeAsked = true;
        reader?.stop();
        // A second close while the first runs: 'close' follows when the descriptor is gone, so that the lock is too.
        if (port.closing) port.once("close", () => resolve());
        else if (port.isOpen) port.close(() => resolve());
        else resolve();
      }),
  };
}

/**
 * Has the kernel check the parity of what comes in (INPCK), which serialport does not ask for: without it a character with a wrong
 * parity bit passes for a good one. Where there is no stty the CRC alone has to find it.
 */
function checkInputParity(path: string): Promise<void> {
  return new Promise((resolve) => {
    execFile("stty", ["-F", path, "inpck"], () => resolve());
  });
}

/**
 * Writes what the kernel takes without waiting; the number of bytes. serialport writes in the thread pool, which costs a request
 * 0.1 ms more.
 */
function writeAtOnce({ fd }: PollingBinding, bytes: Uint8Array): number {
  if (fd === null) return 0;
  try {
    return writeSync(fd, bytes);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EAGAIN") return 0;
    throw error;
  }
}

/** Whether `path` leads to the very device that is open: after unplugging, its name belongs to nobody or to the next one. */
async function leadsTo(path: string, { fd }: PollingBinding): Promise<boolean> {
  if (fd === null) return false;
  try {
    const [open, named] = [fstatSync(fd), await stat(path)];
    // The number of a pty, and of an adapter, is given again; a node made at another time is another device.
    return (
      open.ino === named.ino && open.dev === named.dev && open.rdev === named.rdev && open.ctimeMs === named.ctimeMs
    );
  } catch {
    return false;
  }
}

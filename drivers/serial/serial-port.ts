/** Opens a serial port through the npm package `serialport` as a ByteTransport. */
import { execFile } from "node:child_process";
import { read } from "node:fs";
import type { ByteTransport } from "../byte-transport.ts";
import { DriverError, messageOf } from "../failure.ts";
import { explainOpenFailure } from "./port-failure.ts";
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
    lostBy = error;
    closeListener?.(error);
  };
  const lost = (cause: unknown): DriverError =>
    new DriverError(
      "port-lost",
      `Serial port ${where}: the device went away (${messageOf(cause)}). Check the plug; it is opened again by itself.`,
      { cause },
    );
  // Without a listener an 'error' event (USB unplugged) would end the process; with one it is the end of this port.
  port.on("error", (error: Error) => {
    end(lost(error));
    if (port.isOpen) port.close(() => {});
  });
  port.on("close", (error: Error | null | undefined) => end(error ? lost(error) : undefined));

  await new Promise<void>((resolve, reject) => {
    port.open((error) => {
      if (error) explainOpenFailure(path, error).then(reject, reject);
      else resolve();
    });
  });
  if (port.port !== undefined) makeEndOfFileLoss(port.port);
  if (settings.parity === "even" || settings.parity === "odd") await checkInputParity(path);

  return {
    description: where,
    write: (bytes) =>
      new Promise((resolve, reject) => {
        // Between a hang-up and its 'close' event the port is not open either, though nobody asked for that.
        if (closeAsked) reject(new DriverError("port-closed", `Serial port ${where}: it was closed; open it first.`));
        else if (ended || !port.isOpen) reject(lostBy ?? lost("hung up"));
        else port.write(Buffer.from(bytes), (error) => (error ? reject(lost(error)) : resolve()));
      }),
    onData: (listener) => {
      port.on("data", listener);
    },
    onClosed: (listener) => {
      closeListener = listener;
      if (ended) listener(lostBy);
    },
    close: () =>
      new Promise((resolve) => {
        closeAsked = true;
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

/** What the guard below needs of serialport's Linux binding. */
interface PollingBinding {
  fd: number | null;
  readonly poller: { once(event: "readable", listener: (error: Error | null) => void): unknown };
  read(buffer: Buffer, offset: number, length: number): Promise<{ buffer: Buffer; bytesRead: number }>;
}

/**
 * Makes a read of zero bytes the loss of the port. The binding itself reads again, for ever and at full speed, and the
 * port then looks open and silent; with vmin 1 and a non-blocking descriptor zero bytes mean that the line was hung up.
 */
function makeEndOfFileLoss(port: object): void {
  if (!("poller" in port && "fd" in port)) return;
  const binding = port as unknown as PollingBinding;
  const readOnce = (buffer: Buffer, offset: number, length: number): Promise<number> =>
    new Promise((resolve, reject) => {
      if (binding.fd === null) reject(canceled());
      else
        read(binding.fd, buffer, offset, length, null, (error, bytesRead) =>
          error ? reject(error) : resolve(bytesRead),
        );
    });
  binding.read = async (buffer, offset, length) => {
    for (;;) {
      try {
        const bytesRead = await readOnce(buffer, offset, length);
        if (bytesRead === 0) throw new Error("end of file: the line was hung up");
        return { buffer, bytesRead };
      } catch (error) {
        const code = (error as NodeJS.ErrnoException).code;
        if (code !== "EAGAIN" && code !== "EWOULDBLOCK" && code !== "EINTR") throw error;
        if (binding.fd === null) throw canceled();
        await new Promise<void>((resolve, reject) => {
          binding.poller.once("readable", (failure) => (failure ? reject(failure) : resolve()));
        });
      }
    }
  };
}

/** serialport's own mark for "not a fault, the port was closed meanwhile". */
function canceled(): Error {
  return Object.assign(new Error("Port is not open"), { canceled: true });
}

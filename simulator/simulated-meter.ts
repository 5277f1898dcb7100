/** A simulated SDM630 at the end of a pty, of a TCP port, or of both: what `ecp-demo simulate` runs. */
import { createHousehold } from "./household.ts";
import { openPty, type Pty, removeSymlink, replaceSymlink } from "./pty.ts";
import { RtuSlave, Sdm630Slave, type SlaveFault, serveModbusTcp, type TcpSlave } from "./sdm630-slave.ts";

export interface SimulatedMeterOptions {
  /** Symlink to make to the pty; replaced if there. With neither `link` nor `tcp` there is a pty without a link. */
  readonly link?: string;
  /** Serve Modbus TCP too (or only, when there is no link); port 0 lets the system choose. */
  readonly tcp?: { readonly host: string; readonly port: number };
  /** Modbus unit, 1–247. Default 1. */
  readonly unit?: number;
  /** Which house; the same seed at the same time gives the same values. Default 1. */
  readonly seed?: number;
  /** Paces the answers as a line of this speed would. Default 9600. */
  readonly baud?: number;
  /** Unix milliseconds. Default Date.now. */
  readonly now?: () => number;
}

export interface SimulatedMeter {
  readonly slave: Sdm630Slave;
  /** The pty's path; another one after reconnect(). Undefined without a pty. */
  readonly path: string | undefined;
  /** `host:port` of Modbus TCP. Undefined without it. */
  readonly address: string | undefined;
  setFault(fault: SlaveFault | undefined, times?: number): void;
  /** Pulls the cable: the pty is hung up, TCP connections break. The symlink goes, as udev's do. */
  cut(): Promise<void>;
  /** Plugs it in again, at another path, and makes the symlink lead there. */
  reconnect(): Promise<void>;
  close(): Promise<void>;
}

export async function runSimulatedMeter(options: SimulatedMeterOptions = {}): Promise<SimulatedMeter> {
  const { link, unit = 1, seed = 1, baud = 9600, now = Date.now } = options;
  const slave = new Sdm630Slave({ unit, household: createHousehold(seed), now, serialNumber: 21_000_000 + seed });
  let pty: Pty | undefined;
  let rtu: RtuSlave | undefined;
  let tcp: TcpSlave | undefined;

  const connect = async (): Promise<void> => {
    const opened = openPty();
    try {
      if (link !== undefined) await replaceSymlink(link, opened.path);
    } catch (error) {
      await opened.close(); // an open pty would keep the process alive
      throw error;
    }
    const line = new RtuSlave(slave, baud, (bytes) => opened.write(bytes));
    opened.onData((bytes) => line.receive(bytes));
    [pty, rtu] = [opened, line];
  };
  const cut = async (): Promise<void> => {
    const [oldPty, oldRtu] = [pty, rtu];
    [pty, rtu] = [undefined, undefined];
    oldRtu?.close();
    tcp?.cut();
    if (oldPty === undefined) return;
    if (link !== undefined) await removeSymlink(link, oldPty.path);
    await oldPty.close();
  };

  const wantsPty = link !== undefined || options.tcp === undefined;
  if (options.tcp !== undefined) tcp = await serveModbusTcp(slave, options.tcp);
  try {
    if (wantsPty) await connect();
  } catch (error) {
    await tcp?.close();
    throw error;
  }
  return {
    slave,
    get path() {
      return pty?.path;
    },
    get address() {
      return tcp?.address;
    },
    setFault: (fault, times) => slave.setFault(fault, times),
    cut,
    reconnect: async () => {
      if (wantsPty && pty === undefined) await connect();
    },
    close: async () => {
      await cut();
      await tcp?.close();
    },
  };
}

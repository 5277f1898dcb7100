/** Simulated meters at the end of a pty, of a TCP port, or of both: several units on one line. */
import { openPty, type Pty, removeSymlink, replaceSymlink } from "./pty.ts";
import { RtuSlaveLine } from "./rtu-slave-line.ts";
import type { SimulatedSlave } from "./simulated-slave.ts";
import { serveModbusTcp, serveRtuOverTcp, type TcpSlave } from "./tcp-slave.ts";

export interface SimulatedBusOptions {
  readonly slaves: readonly SimulatedSlave[];
  /** Symlink to make to the pty; replaced if there. With neither `link` nor `tcp` there is a pty without a link. */
  readonly link?: string;
  /** Serve over TCP too (or only, when there is no link); port 0 lets the system choose. Framing `tcp` unless given. */
  readonly tcp?: { readonly host: string; readonly port: number; readonly framing?: "tcp" | "rtu" };
  /** Paces the answers as a line of this speed would. Default 9600. */
  readonly baud?: number;
}

export interface SimulatedBus {
  readonly slaves: readonly SimulatedSlave[];
  /** The pty's path; another one after reconnect(). Undefined without a pty. */
  readonly path: string | undefined;
  /** `host:port` of the TCP port. Undefined without it. */
  readonly address: string | undefined;
  /** Pulls the cable: the pty is hung up, TCP connections break. The symlink goes, as udev's do. */
  cut(): Promise<void>;
  /** Plugs it in again, at another path, and makes the symlink lead there. */
  reconnect(): Promise<void>;
  /** Puts bytes on the line that nobody asked for. */
  disturb(bytes: Uint8Array): void;
  close(): Promise<void>;
}

export async function runSimulatedBus(options: SimulatedBusOptions): Promise<SimulatedBus> {
  const { slaves, link, baud = 9600 } = options;
  let pty: Pty | undefined;
  let rtu: RtuSlaveLine | undefined;
  let tcp: TcpSlave | undefined;

  const connect = async (): Promise<void> => {
    const opened = openPty();
    try {
      if (link !== undefined) await replaceSymlink(link, opened.path);
    } catch (error) {
      await opened.close(); // an open pty would keep the process alive
      throw error;
    }
    const line = new RtuSlaveLine({ slaves, baud, write: (bytes) => opened.write(bytes) });
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
  if (options.tcp !== undefined) {
    const serve = options.tcp.framing === "rtu" ? serveRtuOverTcp : serveModbusTcp;
    tcp = await serve(slaves, options.tcp);
  }
  try {
    if (wantsPty) await connect();
  } catch (error) {
    await tcp?.close();
    throw error;
  }
  return {
    slaves,
    get path() {
      return pty?.path;
    },
    get address() {
      return tcp?.address;
    },
    cut,
    reconnect: async () => {
      if (wantsPty && pty === undefined) await connect();
    },
    disturb: (bytes) => pty?.write(bytes),
    close: async () => {
      await cut();
      await tcp?.close();
    },
  };
}

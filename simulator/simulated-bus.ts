/** Simulated meters at the end of a pty, of a TCP port, or of both: several units on one line. */
import { RtuParser, requestLength } from "../drivers/modbus/rtu-frame.ts";
import { openPacedLine } from "./paced-line.ts";
import type { LineFraming } from "./paced-line-framing.ts";
import { characterMsOf, type WireReply } from "./paced-line-wire.ts";
import { openPty, type Pty, removeSymlink, replaceSymlink } from "./pty.ts";
import { answerOnLine, RtuSlaveLine, slaveTurnaroundMs } from "./rtu-slave-line.ts";
import type { AnswerPiece, SimulatedSlave } from "./simulated-slave.ts";
import { serveModbusTcp, serveRtuOverTcp, type TcpSlave } from "./tcp-slave.ts";

export interface SimulatedBusOptions {
  readonly slaves: readonly SimulatedSlave[];
  /** Symlink to make to the pty; replaced if there. With neither `link` nor `tcp` there is a pty without a link. */
  readonly link?: string;
  /** Serve over TCP too (or only, when there is no link); port 0 lets the system choose. Framing `tcp` unless given. */
  readonly tcp?: { readonly host: string; readonly port: number; readonly framing?: "tcp" | "rtu" };
  /** Paces the answers as a line of this speed would. Default 9600. */
  readonly baud?: number;
  /**
   * The line keeps its characters' times in both directions and is understood only by a program with the same settings; another one
   * gets garbage. Without it only the answers are paced, and any setting will do.
   */
  readonly strict?: { readonly parity: "none" | "even" | "odd" | "any"; readonly stopBits: 1 | 2 };
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
  const { slaves, link, baud = 9600, strict } = options;
  let line: LineEnd | undefined;
  let tcp: TcpSlave | undefined;

  const connect = async (): Promise<void> => {
    const pty = openPty();
    try {
      if (link !== undefined) await replaceSymlink(link, pty.path);
    } catch (error) {
      await pty.close(); // an open pty would keep the process alive
      throw error;
    }
    line = strict ? strictEnd(pty, slaves, { baud, ...strict }) : plainEnd(pty, slaves, baud);
  };
  const cut = async (): Promise<void> => {
    const old = line;
    line = undefined;
    tcp?.cut();
    if (old === undefined) return;
    if (link !== undefined) await removeSymlink(link, old.path);
    await old.close();
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
      return line?.path;
    },
    get address() {
      return tcp?.address;
    },
    cut,
    reconnect: async () => {
      if (wantsPty && line === undefined) await connect();
    },
    disturb: (bytes) => line?.disturb(bytes),
    close: async () => {
      await cut();
      await tcp?.close();
    },
  };
}

/** The slaves' end of a pty. */
interface LineEnd {
  readonly path: string;
  disturb(bytes: Uint8Array): void;
  close(): Promise<void>;
}

function plainEnd(pty: Pty, slaves: readonly SimulatedSlave[], baud: number): LineEnd {
  const rtu = new RtuSlaveLine({ slaves, baud, write: (bytes) => pty.write(bytes) });
  pty.onData((bytes) => rtu.receive(bytes));
  return {
    path: pty.path,
    disturb: (bytes) => pty.write(bytes),
    close: () => {
      rtu.close();
      return pty.close();
    },
  };
}

function strictEnd(pty: Pty, slaves: readonly SimulatedSlave[], framing: LineFraming): LineEnd {
  const parser = new RtuParser(requestLength);
  const characterMs = characterMsOf(framing);
  let lastAnswerMs = Number.NEGATIVE_INFINITY;
  const answer = (bytes: Uint8Array): WireReply[] => {
    const silenceMs = performance.now() - bytes.length * characterMs - lastAnswerMs;
    parser.clear(); // what came before the silence belongs to no frame any more (V1.02 §2.5.1.1)
    const requests = parser.push(bytes);
    const replies = requests.flatMap((request) => wireReplies(answerOnLine(slaves, request, silenceMs), characterMs));
    const wireMs = Math.max(0, ...replies.map((reply) => (reply.afterMs ?? 0) + reply.bytes.length * characterMs));
    lastAnswerMs = performance.now() + wireMs;
    return replies;
  };
  const line = openPacedLine({ ...framing, pty, turnaroundMs: slaveTurnaroundMs, answer });
  return { path: line.path, disturb: (bytes) => line.send(bytes), close: () => line.close() };
}

/** Pieces with the pause before each, as pieces with the time of each since the request's end. */
function wireReplies(pieces: readonly AnswerPiece[], characterMs: number): WireReply[] {
  let atMs = slaveTurnaroundMs;
  return pieces.map(({ afterMs, bytes }) => {
    const reply = { afterMs: atMs + afterMs, bytes };
    atMs = reply.afterMs + bytes.length * characterMs;
    return reply;
  });
}

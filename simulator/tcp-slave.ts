/** Slaves behind a TCP port: Modbus TCP, or RTU frames over TCP as serial gateways without a protocol of their own have it. */
import { createServer, type Socket } from "node:net";
import { encodeMbapFrame, MbapParser } from "../drivers/modbus/mbap.ts";
import { RtuParser, requestLength } from "../drivers/modbus/rtu-frame.ts";
import { answerOnLine } from "./rtu-slave-line.ts";
import type { AnswerPiece, SimulatedSlave } from "./simulated-slave.ts";

export interface TcpSlave {
  readonly address: string;
  readonly port: number;
  /** Breaks every connection; new ones are taken. */
  cut(): void;
  close(): Promise<void>;
}

interface Endpoint {
  readonly host: string;
  readonly port: number;
}

/** Serves the slaves over Modbus TCP; port 0 lets the system choose. Resolves when it listens. */
export function serveModbusTcp(slaves: readonly SimulatedSlave[], endpoint: Endpoint): Promise<TcpSlave> {
  return serve(endpoint, (socket) => {
    const parser = new MbapParser();
    socket.on("data", (bytes) => {
      for (const { transaction, unit, pdu } of parser.push(bytes)) {
        const slave = slaves.find((candidate) => candidate.unit === unit);
        if (!slave) continue;
        send(
          socket,
          slave.reply(pdu, (from, answer) => encodeMbapFrame({ transaction, unit: from, pdu: answer })),
        );
      }
      if (parser.broken) socket.destroy();
    });
  });
}

/** The same with RTU frames in the TCP stream. */
export function serveRtuOverTcp(slaves: readonly SimulatedSlave[], endpoint: Endpoint): Promise<TcpSlave> {
  return serve(endpoint, (socket) => {
    const parser = new RtuParser(requestLength);
    socket.on("data", (bytes) => {
      for (const request of parser.push(bytes)) send(socket, answerOnLine(slaves, request));
    });
  });
}

function send(socket: Socket, pieces: readonly AnswerPiece[]): void {
  let afterMs = 0;
  for (const piece of pieces) {
    afterMs += piece.afterMs;
    if (afterMs === 0) socket.write(piece.bytes);
    else setTimeout(() => socket.write(piece.bytes), afterMs).unref();
  }
}

function serve({ host, port }: Endpoint, onSocket: (socket: Socket) => void): Promise<TcpSlave> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.setNoDelay(true);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    onSocket(socket);
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => {
      const address = server.address();
      const listening = address !== null && typeof address === "object" ? address.port : port;
      resolve({
        address: `${host}:${listening}`,
        port: listening,
        cut: () => {
          for (const socket of sockets) socket.destroy();
        },
        close: () =>
          new Promise((done) => {
            server.close(() => done());
            for (const socket of sockets) socket.destroy();
          }),
      });
    });
  });
}

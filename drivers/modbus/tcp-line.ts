/** Lines behind TCP: a socket as the transport; transaction ids as the protocol, or RTU frames. */
import { connect } from "node:net";
import type { ByteTransport } from "../byte-transport.ts";
import { DriverError, messageOf } from "../failure.ts";
import { RtuProtocol } from "./exchange.ts";
import { ModbusLine, type ModbusLineOptions } from "./line.ts";
import { MbapProtocol } from "./mbap.ts";

export interface TcpEndpoint {
  readonly host: string;
  /** 502 unless the gateway says otherwise. */
  readonly port: number;
  /** Time for the connection to be made. Default 3000. */
  readonly connectTimeoutMs?: number;
}

/**
 * Connects to a Modbus TCP server.
 * @throws DriverError connection-refused, connection-failed (unknown host, no route, no answer in time)
 */
export function openTcpTransport(endpoint: TcpEndpoint): Promise<ByteTransport> {
  const { host, port, connectTimeoutMs = 3000 } = endpoint;
  const where = `${host}:${port}`;
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, noDelay: true, keepAlive: true });
    const timer = setTimeout(
      () => socket.destroy(new Error(`no connection within ${connectTimeoutMs} ms`)),
      connectTimeoutMs,
    );
    let closeListener: ((error?: Error) => void) | undefined;
    let state: "connecting" | "open" | "closing" | "ended" = "connecting";
    let lostBy: Error | undefined;
    const lost = (reason: string): DriverError =>
      new DriverError(
        "port-lost",
        `Modbus TCP ${where}: the connection ended (${reason}); it is made again at the next read.`,
      );
    socket.on("error", (error) => {
      lostBy = error;
      if (state === "connecting") reject(explainConnectFailure(where, error));
    });
    socket.on("close", () => {
      clearTimeout(timer);
      const wanted = state === "closing";
      state = "ended";
      closeListener?.(wanted ? undefined : lost(lostBy?.message ?? "closed by the other side"));
    });
    socket.on("connect", () => {
      clearTimeout(timer);
      state = "open";
      resolve({
        description: where,
        write: (bytes) =>
          new Promise((done, failed) => {
            if (state !== "open") failed(lost(lostBy?.message ?? "closed"));
            else socket.write(bytes, (error) => (error ? failed(lost(error.message)) : done()));
          }),
        onData: (listener) => {
          socket.on("data", listener);
        },
        onClosed: (listener) => {
          closeListener = listener;
          if (state === "ended") listener(lost(lostBy?.message ?? "closed by the other side"));
        },
        close: () =>
          new Promise((done) => {
            if (state === "ended") {
              done();
              return;
            }
            state = "closing";
            socket.once("close", () => done());
            socket.destroy();
          }),
      });
    });
  });
}

function explainConnectFailure(where: string, error: Error): DriverError {
  if ((error as NodeJS.ErrnoException).code === "ECONNREFUSED") {
    return new DriverError(
      "connection-refused",
      `Modbus TCP ${where}: expected a Modbus server, the connection was refused. Check the port (502 is usual) and ` +
        "that Modbus TCP is switched on there.",
      { cause: error },
    );
  }
  return new DriverError(
    "connection-failed",
    `Modbus TCP ${where}: could not be reached (${messageOf(error)}). Check the address, the cable and the network.`,
    { cause: error },
  );
}

/** On TCP a further request costs about as much as 31 registers read in vain (round trip and gateway). */
const requestCostRegisters = 31;

/** A line behind TCP as it is configured. */
export interface TcpLineSettings {
  readonly host: string;
  readonly port: number;
  /** `tcp` (default): Modbus TCP. `rtu`: the frames of a serial line, CRC and all, as they are. */
  readonly framing?: "tcp" | "rtu";
}

export interface TcpLineOptions extends TcpEndpoint, Pick<ModbusLineOptions, "timeoutsUntilReopen" | "nowMs"> {}

/** A line over Modbus TCP; same interface as a serial one. */
export function createTcpLine(options: TcpLineOptions): ModbusLine {
  return new ModbusLine({
    ...options,
    description: `Modbus TCP ${options.host}:${options.port}`,
    openTransport: () => openTcpTransport(options),
    protocol: new MbapProtocol(),
    characterMs: 0,
    frameGapMs: 0,
    requestCostRegisters: () => requestCostRegisters,
  });
}

/** Pieces of one answer come through a network with pauses up to this; only after it are half a frame's bytes looked through. */
const networkSilenceMs = 50;

/**
 * A serial line behind a gateway that passes its bytes on: RTU frames over TCP. Answers carry no number, so all that guards a serial
 * line guards this one; t3.5 is the gateway's to keep.
 */
export function createRtuTcpLine(options: TcpLineOptions): ModbusLine {
  return new ModbusLine({
    ...options,
    description: `RTU over TCP ${options.host}:${options.port}`,
    openTransport: () => openTcpTransport(options),
    protocol: new RtuProtocol(networkSilenceMs),
    characterMs: 0,
    frameGapMs: 0,
    requestCostRegisters: () => requestCostRegisters,
  });
}

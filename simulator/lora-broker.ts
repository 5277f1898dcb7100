/** The MQTT broker behind the simulated network server: events go out, commands come in, and nothing else is taken. */
import { type AddressInfo, createServer, type Socket } from "node:net";
import { Aedes } from "aedes";
import { MqttPacketGuard } from "../platform/mqtt-packet-guard.ts";

export interface LoraBroker {
  readonly host: string;
  readonly port: number;
  publish(topic: string, json: string): void;
  close(): Promise<void>;
}

export interface LoraBrokerOptions {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  /** What applications may publish, as a filter with `+`. */
  readonly commandFilter: string;
  /** False where it is no command that the server takes. */
  readonly onCommand: (topic: string, json: string) => boolean;
}

const packetBytesMax = 16_384;
const connectionsMax = 64;

/** @throws Error where the address cannot be listened on */
export async function startLoraBroker(options: LoraBrokerOptions): Promise<LoraBroker> {
  const commands = new RegExp(`^${options.commandFilter.replaceAll(".", "\\.").replaceAll("+", "[^/]+")}$`);
  const broker = await Aedes.createBroker({
    preConnect: (_client, packet, done) => {
      packet.clean = true; // the servers' brokers forget who goes away
      done(null, true);
    },
    authorizePublish: (client, packet, done) => {
      if (client === null) return done(null);
      packet.retain = false;
      if (!commands.test(packet.topic)) return done(new Error(`only ${options.commandFilter} may be published`));
      options.onCommand(packet.topic, packet.payload.toString());
      done(null);
    },
  });
  broker.on("clientError", () => {});
  broker.on("connectionError", () => {});
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    guard(socket);
    broker.handle(socket);
  });
  server.maxConnections = connectionsMax;
  const closeBroker = () => new Promise<void>((resolve) => broker.close(() => resolve()));
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.port, options.host, () => {
      server.off("error", reject);
      resolve();
    });
  }).catch(async (error) => {
    await closeBroker();
    throw error;
  });
  return {
    host: options.host,
    port: (server.address() as AddressInfo).port,
    publish: (topic, json) => {
      broker.publish(
        { cmd: "publish", topic, payload: Buffer.from(json), qos: 0, retain: false, dup: false },
        () => {},
      );
    },
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      await closeBroker();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** Ends a connection that announces a packet over the limit; aedes itself would gather it. */
function guard(socket: Socket): void {
  const packets = new MqttPacketGuard({ bytesMax: packetBytesMax });
  const read = socket.read.bind(socket);
  socket.read = (size?: number) => {
    const chunk: Buffer | null = read(size);
    if (chunk === null || packets.push(chunk) === undefined) return chunk;
    socket.destroy();
    return null;
  };
}

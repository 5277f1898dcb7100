/**
 * A broker inside the full node, for one machine: MQTT 3.1.1 over TCP. It keeps no session and no message (the device's journal
 * is the store, the signed receipt the acknowledgement); it retains nothing but the status of each enrolled device.
 *
 * Who a device is, is not known here yet; so rules follow the topic alone. Devices may publish records and status and listen to
 * one device at a time; only the node, which knows this broker's secret, may publish receipts and commands or listen to all.
 */
import { randomBytes, timingSafeEqual } from "node:crypto";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { Aedes, type Client, type PublishPacket, type Subscription } from "aedes";
import type { Log } from "../platform/log.ts";
import { MqttPacketGuard } from "../platform/mqtt-packet-guard.ts";
import { parseTopic } from "../protocol/mqtt-topic.ts";
import { mqttPacketBytesMax, nodeClientIdStart } from "./mqtt-intake.ts";
import { addressError } from "./node-error.ts";

export const connectionsMax = 20_000;
export const retainedMax = 20_000;
/** Messages of QoS 2 that a client may leave unreleased, each kept in memory; hubs use QoS 1. */
export const unreleasedMax = 16;
export const statusBytesMax = 4_096;
const nodeUsername = "ecp-node";
// MQTT 3.1.1 §3.2.2.3
const connackIdentifierRejected = 2;
const connackNotAuthorized = 5;

export interface EmbeddedBroker {
  readonly host: string;
  readonly port: number;
  /** How the node's own client shows that it is the node. */
  readonly credentials: { readonly username: string; readonly password: string };
  close(): Promise<void>;
}

/**
 * Listens on host and port (0: any free one). Throws NodeError where it cannot. Names of devices can be made up without end: the
 * status of one that isKnownDevice does not vouch for is passed on, and not retained.
 */
export async function startEmbeddedBroker(
  host: string,
  port: number,
  log: Log,
  isKnownDevice: (name: string) => Promise<boolean>,
): Promise<EmbeddedBroker> {
  const password = randomBytes(32).toString("base64url");
  const retained = new Set<string>();
  const nodes = new WeakSet<Client>();
  const lastTopics = new WeakMap<Client, { text: string; topic: ReturnType<typeof parseTopic> }>();

  const aedes = await Aedes.createBroker({
    maxInflightInbound: unreleasedMax,
    // Sessions kept for devices that are away would grow without bound, and are worth nothing here.
    preConnect: (_client, packet, done) => {
      packet.clean = true;
      done(null, true);
    },
    authenticate: (client, username, given, done) => {
      // Before aedes ends an older connection of this id (MQTT 3.1.1 §3.1.4-2): nobody else may push the node off.
      if (username !== nodeUsername && client.id.startsWith(nodeClientIdStart))
        return done(connackError("this client id is the node's", connackIdentifierRejected), false);
      if (username !== nodeUsername) return done(null, true);
      if (given !== undefined && sameSecret(given, password)) {
        nodes.add(client);
        return done(null, true);
      }
      done(connackError("not the node's secret", connackNotAuthorized), false);
    },
    authorizePublish: (client, packet, done) => {
      if (client === null || nodes.has(client)) return done(null);
      // A device writes to one topic nearly always, and a name is dear to check.
      let last = lastTopics.get(client);
      if (last?.text !== packet.topic) {
        last = { text: packet.topic, topic: parseTopic(packet.topic) };
        lastTopics.set(client, last);
      }
      const { topic } = last;
      const refusal = publishRefusal(packet, topic);
      if (topic === undefined || refusal !== undefined) {
        log.warn("the broker refused a message", { topic: packet.topic.slice(0, 100), reason: refusal });
        done(new Error(refusal)); // ends the connection: MQTT 3.1.1 §3.3.5 knows no other answer
        return;
      }
      if (topic.kind !== "status") packet.retain = false;
      if (!packet.retain) return done(null);
      void isKnownDevice(topic.device)
        .catch(() => false) // a last will may come when the store is closed already
        .then((isKnown) => {
          packet.retain = isKnown && mayRetain(packet, retained);
          done(null);
        });
    },
    authorizeSubscribe: (client, subscription, done) => {
      if (nodes.has(client) || isOneDevice(subscription)) return done(null, subscription);
      log.warn("the broker refused a subscription", { topic: subscription.topic.slice(0, 100) });
      done(null, null); // SUBACK with 0x80, MQTT 3.1.1 §3.9.3
    },
  });
  aedes.on("clientError", (client, error) => log.info("a client was lost", { client: client.id, got: error.message }));
  aedes.on("connectionError", (_client, error) => log.info("a connection failed", { got: error.message }));

  const server = createServer({ noDelay: true }, (socket) => {
    guard(socket, log);
    aedes.handle(socket);
  });
  server.maxConnections = connectionsMax;
  const closeAedes = () => new Promise<void>((resolve) => aedes.close(() => resolve()));
  const address = await listen(server, host, port).catch(async (error) => {
    await closeAedes(); // its timers would keep the process alive
    throw error;
  });
  return {
    host,
    port: address.port,
    credentials: { username: nodeUsername, password },
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      await closeAedes();
      await closed;
    },
  };
}

/** Why a client that is not the node may not publish this. */
function publishRefusal(packet: PublishPacket, topic: ReturnType<typeof parseTopic>): string | undefined {
  if (topic === undefined) return "the topic is not ecp/1/<device>/…";
  if (topic.kind !== "record" && topic.kind !== "status") return `only the node may publish a ${topic.kind}`;
  if (topic.kind === "status" && packet.payload.length > statusBytesMax)
    return `a status of more than ${statusBytesMax} bytes`;
  return undefined;
}

/** Keeps count of what is retained; an empty message takes its topic's place away (MQTT 3.1.1 §3.3.1.3). */
function mayRetain({ topic, payload }: PublishPacket, retained: Set<string>): boolean {
  if (payload.length === 0) retained.delete(topic);
  else if (retained.has(topic) || retained.size < retainedMax) retained.add(topic);
  else return false;
  return true;
}

function connackError(message: string, returnCode: number): Error & { returnCode: number } {
  return Object.assign(new Error(message), { returnCode });
}

function isOneDevice(subscription: Subscription): boolean {
  return parseTopic(subscription.topic) !== undefined;
}

function sameSecret(given: Uint8Array, secret: string): boolean {
  const expected = Buffer.from(secret);
  return given.length === expected.length && timingSafeEqual(given, expected);
}

/** Ends a connection that announces a packet over the limit; aedes itself would gather it. */
function guard(socket: Socket, log: Log): void {
  const packets = new MqttPacketGuard({ bytesMax: mqttPacketBytesMax });
  const read = socket.read.bind(socket);
  // aedes takes bytes only by read(): what is not returned here never reaches its parser.
  socket.read = (size?: number) => {
    const chunk: Buffer | null = read(size);
    const got = chunk === null ? undefined : packets.push(chunk);
    if (got === undefined) return chunk;
    log.warn("the broker ended a connection", {
      got,
      expected: `packets of at most ${mqttPacketBytesMax} bytes`,
      from: `${socket.remoteAddress}`,
    });
    socket.destroy();
    return null;
  };
}

async function listen(server: Server, host: string, port: number): Promise<AddressInfo> {
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, host, () => {
        server.off("error", reject);
        resolve();
      });
    });
  } catch (error) {
    throw addressError(error, host, port, "listen");
  }
  return server.address() as AddressInfo;
}

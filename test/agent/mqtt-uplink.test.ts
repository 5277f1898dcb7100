import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { AuthenticateError } from "aedes";
import mqtt from "mqtt";
import type { MqttConfiguration } from "../../agent/configuration.ts";
import { packetBytesMax } from "../../agent/mqtt-connection.ts";
import { MqttUplink } from "../../agent/mqtt-uplink.ts";
import { unacknowledgedMax } from "../../agent/publish-queue.ts";
import { BackOff } from "../../platform/back-off.ts";
import { topicOf } from "../../protocol/mqtt-topic.ts";
import { BrokerFixture } from "./broker-fixture.ts";

const device = "z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp";
const record = Uint8Array.of(1, 2, 3);

/** An uplink, what it reports, and a way to wait for that. */
class UplinkFixture {
  readonly states: string[] = [];
  readonly receipts: Uint8Array[] = [];
  acknowledged = 0;
  readonly uplink: MqttUplink;
  readonly backOff: BackOff;
  #news: () => void = () => undefined;

  constructor(t: TestContext, port: number, more: Partial<MqttConfiguration> = {}, firstMs = 10) {
    this.backOff = new BackOff({ firstMs, longestMs: firstMs });
    this.uplink = new MqttUplink({
      brokers: [{ protocol: "mqtt", host: "127.0.0.1", port, ...more }],
      device,
      backOff: this.backOff,
      onReceipt: (receipt) => {
        this.receipts.push(receipt);
        this.#news();
      },
      onState: (connected, detail = "") => {
        this.states.push(connected ? "connected" : `disconnected: ${detail}`);
        this.#news();
      },
    });
    t.after(() => this.uplink.stop());
    this.uplink.start();
  }

  send(): boolean {
    return this.uplink.publish(record, "live", () => {
      this.acknowledged++;
      this.#news();
    });
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition())
      await new Promise<void>((resolve) => {
        this.#news = resolve;
      });
  }

  connected(times = 1): Promise<void> {
    return this.until(() => this.states.filter((state) => state === "connected").length >= times);
  }

  disconnected(): Promise<void> {
    return this.until(() => this.states.some((state) => state.startsWith("disconnected")));
  }
}

/** A server that does with each connection's first bytes what the script says. */
async function scriptedBroker(
  t: TestContext,
  script: (socket: Socket, protocolLevel: number, connection: number) => void,
): Promise<number> {
  const sockets = new Set<Socket>();
  let connection = 0;
  const server = createServer((socket) => {
    sockets.add(socket);
    const number = ++connection;
    socket.on("error", () => undefined);
    // CONNECT: type, remaining length of two bytes at these sizes, length of "MQTT", "MQTT", level (3.1.1 §3.1.2.2).
    socket.once("data", (bytes) => script(socket, bytes[bytes.indexOf("MQTT") + 4] ?? 0, number));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

function passwordFile(t: TestContext, text: string): string {
  const folder = mkdtempSync(join(tmpdir(), "ecp-mqtt-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, "password");
  writeFileSync(path, text, { mode: 0o600 });
  return path;
}

test("a broker that knows only 3.1.1 is spoken to in 3.1.1 at once, without a word about it, and from then on", async (t) => {
  const broker = await BrokerFixture.start(t);
  const fixture = new UplinkFixture(t, broker.port, {}, 60_000); // one delay, and the test would time out
  await fixture.connected();
  assert.deepEqual(fixture.states, ["connected"]);
  assert.equal(fixture.uplink.protocolVersion, 4);
  assert.equal(broker.connects, 2);
});

test("publishes records, says that it is online, and brings receipts of its own device only", async (t) => {
  const broker = await BrokerFixture.start(t);
  const fixture = new UplinkFixture(t, broker.port);
  assert.equal(fixture.send(), false, "not connected yet");
  await fixture.connected();
  assert.equal(fixture.send(), true);
  await broker.until(() => broker.published.length >= 2);
  assert.deepEqual(
    broker.published.toSorted((a, b) => a.topic.localeCompare(b.topic)),
    [
      { topic: topicOf(device, "record"), text: "\x01\x02\x03", retain: false },
      { topic: topicOf(device, "status"), text: '{"state":"online"}', retain: true },
    ],
  );
  broker.send(topicOf(`${device.slice(0, -1)}X`, "receipt"), Buffer.from("another's"));
  broker.send(topicOf(device, "receipt"), Buffer.alloc(2_049));
  broker.send(topicOf(device, "receipt"), Buffer.from("ours"));
  await fixture.until(() => fixture.receipts.length > 0);
  assert.deepEqual(
    fixture.receipts.map((receipt) => Buffer.from(receipt).toString()),
    ["ours"],
  );
});

test("a broker that dies is said to be gone, and connected to again; the version found out is kept", async (t) => {
  const broker = await BrokerFixture.start(t);
  const fixture = new UplinkFixture(t, broker.port);
  await fixture.connected();
  await broker.kill();
  await fixture.disconnected();
  assert.equal(fixture.uplink.isConnected, false);
  assert.equal(fixture.send(), false);
  const { connects } = broker;
  await broker.start();
  await fixture.connected(2);
  assert.equal(broker.connects, connects + 1);
  assert.equal(fixture.send(), true);
});

test("a broker that is not there: the reason is told, and tries go on", async (t) => {
  const broker = await BrokerFixture.start(t);
  await broker.kill();
  const fixture = new UplinkFixture(t, broker.port);
  await fixture.until(() => fixture.states.length >= 3);
  assert.match(fixture.states[0] ?? "", /^disconnected: .*ECONNREFUSED/);
  await broker.start();
  await fixture.connected();
});

for (const [how, end] of [
  ["hangs up without a word", (socket: Socket) => socket.end()],
  ["resets the connection", (socket: Socket) => socket.resetAndDestroy()],
  ["refuses with CONNACK 1 of 3.1.1", (socket: Socket) => socket.end(Buffer.from([0x20, 2, 0, 1]))],
  ["refuses with CONNACK 0x84 of 5", (socket: Socket) => socket.end(Buffer.from([0x20, 3, 0, 0x84, 0]))],
] as const)
  test(`a broker that ${how} on MQTT 5 gets 3.1.1 with the next connection, at once`, async (t) => {
    const levels: number[] = [];
    const port = await scriptedBroker(t, (socket, level) => {
      levels.push(level);
      if (level === 5) {
        end(socket);
        return;
      }
      socket.write(Buffer.from([0x20, 2, 0, 0]));
      socket.on("data", (bytes) => {
        if (bytes[0] === 0x82) socket.write(Buffer.from([0x90, 3, bytes[2] as number, bytes[3] as number, 1]));
      });
    });
    const fixture = new UplinkFixture(t, port, {}, 60_000);
    await fixture.connected();
    assert.deepEqual(levels, [5, 4]);
    assert.deepEqual(fixture.states, ["connected"]);
  });

test("a broker that hangs up on both versions is not hammered: one word, then the delay", async (t) => {
  const levels: number[] = [];
  const port = await scriptedBroker(t, (socket, level) => {
    levels.push(level);
    socket.end();
  });
  const fixture = new UplinkFixture(t, port);
  await fixture.until(() => fixture.states.length >= 2);
  assert.deepEqual(levels.slice(0, 4), [5, 4, 5, 4]);
  assert.equal(fixture.states[0], "disconnected: the broker closed the connection");
});

test("a refused password is said to be that, with where to set it", async (t) => {
  const broker = await BrokerFixture.start(t, (aedes) => {
    aedes.authenticate = (_client, username, password, done) => {
      const right = username === "hub" && password?.toString() === "right";
      done(right ? null : (Object.assign(new Error("no"), { returnCode: 4 }) as AuthenticateError), right);
    };
  });
  const wrong = new UplinkFixture(t, broker.port, { username: "hub", passwordFile: passwordFile(t, "wrong\n") });
  await wrong.disconnected();
  assert.match(wrong.states[0] ?? "", /refuses this hub's user name or password .*'password_file:' .*hub\.yaml/);
  const right = new UplinkFixture(t, broker.port, { username: "hub", passwordFile: passwordFile(t, "right\n") });
  await right.connected(); // control
  assert.deepEqual(right.states, ["connected"]);
});

test("a password file that is missing is told, and may come later", async (t) => {
  const broker = await BrokerFixture.start(t);
  const path = passwordFile(t, "right");
  rmSync(path);
  const fixture = new UplinkFixture(t, broker.port, { username: "hub", passwordFile: path });
  await fixture.disconnected();
  assert.match(fixture.states[0] ?? "", /ENOENT.*password/);
  writeFileSync(path, "right");
  await fixture.connected();
});

test("a refused subscription is told and tried again: without receipts nothing is ever released", async (t) => {
  let refusals = 1;
  const broker = await BrokerFixture.start(t, (aedes) => {
    aedes.authorizeSubscribe = (_client, subscription, done) => done(null, refusals-- > 0 ? null : subscription);
  });
  const fixture = new UplinkFixture(t, broker.port);
  await fixture.connected();
  assert.equal(fixture.states.length, 2);
  assert.match(fixture.states[0] ?? "", /refused the subscription to receipts/);
});

test("a broker that acknowledges nothing is hung up on before the messages fill the memory", async (t) => {
  const port = await scriptedBroker(t, (socket, level) => {
    if (level === 5) {
      socket.end();
      return;
    }
    socket.write(Buffer.from([0x20, 2, 0, 0]));
    socket.on("data", (bytes) => {
      if (bytes[0] === 0x82) socket.write(Buffer.from([0x90, 3, bytes[2] as number, bytes[3] as number, 1]));
    });
  });
  const fixture = new UplinkFixture(t, port, {}, 60_000);
  await fixture.connected();
  while (fixture.uplink.takes("backlog")) fixture.uplink.publish(new Uint8Array(250), "backlog", () => undefined);
  await fixture.disconnected();
  assert.match(fixture.states.at(-1) ?? "", /has acknowledged nothing for \d+ s/);
});

test("acknowledged messages do not count: a broker that works takes any number", async (t) => {
  const broker = await BrokerFixture.start(t);
  const fixture = new UplinkFixture(t, broker.port);
  await fixture.connected();
  for (let i = 1; i <= 4; i++) {
    for (let k = 0; k < unacknowledgedMax / 2; k++) assert.equal(fixture.send(), true);
    await fixture.until(() => fixture.acknowledged === (i * unacknowledgedMax) / 2);
  }
  assert.deepEqual(fixture.states, ["connected"]);
});

test("another client that takes this one's id pushes it off, at growing distances; when it stops, records go again", async (t) => {
  const broker = await BrokerFixture.start(t);
  const fixture = new UplinkFixture(t, broker.port);
  for (let round = 1; round <= 5; round++) {
    await fixture.connected(round);
    const lost = fixture.until(() => fixture.states.length === 2 * round);
    const thief = await mqtt.connectAsync({
      host: "127.0.0.1",
      port: broker.port,
      protocolVersion: 4,
      clientId: `ecp-${device}`,
      reconnectPeriod: 0,
    });
    thief.on("error", () => undefined);
    t.after(() => thief.end(true));
    await lost;
    assert.equal(fixture.backOff.failures, round, "a connection that was cut short does not shorten the next delay");
  }
  await fixture.connected(6);
  assert.equal(fixture.send(), true);
  await broker.until(() => broker.published.some(({ topic }) => topic === topicOf(device, "record")));
});

test("stop() says goodbye, and nothing connects again", async (t) => {
  const broker = await BrokerFixture.start(t);
  const fixture = new UplinkFixture(t, broker.port);
  await fixture.connected();
  await fixture.uplink.stop();
  await broker.until(() => broker.published.some(({ text }) => text === '{"state":"offline"}'));
  fixture.uplink.start();
  assert.equal(fixture.uplink.isConnected, false);
  assert.deepEqual(fixture.states, ["connected"]);
});

test("stop() ends at once while a connection is tried, and while a delay runs", async (t) => {
  const port = await scriptedBroker(t, () => undefined); // accepts, and never answers
  const trying = new UplinkFixture(t, port);
  await trying.uplink.stop();
  const broker = await BrokerFixture.start(t);
  await broker.kill();
  const waiting = new UplinkFixture(t, broker.port, {}, 60_000);
  await waiting.disconnected();
  await waiting.uplink.stop();
});

/** A PUBLISH of 256 MB less a byte, the most that MQTT can announce: fixed header alone. */
const announcement = Buffer.from([0x30, 0xff, 0xff, 0xff, 0x7f]);
const connack = { 4: Buffer.from([0x20, 2, 0, 0]), 5: Buffer.from([0x20, 3, 0, 0, 0]) };

for (const version of [5, 4] as const)
  test(`a broker that announces 256 MB is hung up on at the header, MQTT ${version === 5 ? "5" : "3.1.1"}`, async (t) => {
    let ended = (): void => undefined;
    const hungUp = new Promise<void>((resolve) => {
      ended = resolve;
    });
    const port = await scriptedBroker(t, (socket, level) => {
      if (level !== version) {
        socket.end();
        return;
      }
      socket.once("close", () => ended());
      socket.write(Buffer.concat([connack[version], announcement])); // and not a byte of the message
    });
    const fixture = new UplinkFixture(t, port, {}, 60_000);
    await hungUp;
    await fixture.disconnected();
    assert.match(fixture.states.at(-1) ?? "", /the broker sent a packet of \d+ bytes or more; expected: at most 8192/);
  });

test("control: mqtt.js without the guard takes what was announced for as long as it comes", async (t) => {
  const partBytes = 32 * 1_048_576; // more than the buffers of both sockets hold
  let taken = (): void => undefined;
  const all = new Promise<void>((resolve) => {
    taken = resolve;
  });
  const port = await scriptedBroker(t, (socket) => {
    socket.write(Buffer.concat([connack[4], announcement]));
    socket.write(Buffer.alloc(partBytes), (error) => error ?? taken());
  });
  const client = mqtt.connect({ host: "127.0.0.1", port, protocolVersion: 4, reconnectPeriod: 0 });
  t.after(() => client.end(true));
  await all;
  assert.equal(client.stream.destroyed, false);
});

test("a broker that sends QoS 2, which nobody subscribed to, is hung up on: such messages are kept until released", async (t) => {
  const port = await scriptedBroker(t, (socket, level) => {
    const topic = Buffer.from("x");
    const rest = Buffer.concat([Buffer.from([0, topic.length]), topic, Buffer.from([0, 1]), Buffer.from([0])]);
    if (level === 5) socket.write(Buffer.concat([connack[5], Buffer.from([0x34, rest.length]), rest]));
  });
  const fixture = new UplinkFixture(t, port, {}, 60_000);
  await fixture.disconnected();
  assert.match(fixture.states.at(-1) ?? "", /the broker sent a message of QoS 2/);
});

test("CONNECT of MQTT 5 says how large a packet may be; CONNECT of 3.1.1 cannot", async (t) => {
  const connects: Buffer[] = [];
  const port = await new Promise<number>((resolve) => {
    const server = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.once("data", (bytes) => {
        connects.push(bytes);
        socket.end();
      });
    }).listen(0, "127.0.0.1", () => resolve((server.address() as AddressInfo).port));
    t.after(() => server.close());
  });
  const fixture = new UplinkFixture(t, port, {}, 60_000);
  await fixture.disconnected();
  const property = Buffer.from([0x27, 0, 0, packetBytesMax >> 8, packetBytesMax & 0xff]); // MQTT 5 §3.1.2.11.4
  assert.deepEqual(
    connects.map((bytes) => bytes.includes(property)),
    [true, false],
  );
});

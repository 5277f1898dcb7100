import assert from "node:assert/strict";
import { type AddressInfo, createServer } from "node:net";
import { type TestContext, test } from "node:test";
import mqtt from "mqtt";
import { startEmbeddedBroker } from "../../fullnode/embedded-broker.ts";
import { MqttIntake } from "../../fullnode/mqtt-intake.ts";
import { BackOff } from "../../platform/back-off.ts";
import { createLog } from "../../platform/log.ts";
import { topicOf } from "../../protocol/mqtt-topic.ts";
import { DeviceFixture } from "./device-fixture.ts";
import { nextMessage } from "./mqtt-client-fixture.ts";

const silent = createLog("test", () => {});
const nobody = async (): Promise<boolean> => false;

/** An intake that tells when it is connected, and waits only milliseconds between tries. */
function intake(t: TestContext, broker: ConstructorParameters<typeof MqttIntake>[0]["broker"]) {
  const lines: string[] = [];
  const messages: string[] = [];
  const waiting: { state: boolean; resolve: () => void }[] = [];
  let state = false;
  let tried = () => {};
  const firstTry = new Promise<void>((resolve) => {
    tried = resolve;
  });
  const backOff = new BackOff({ firstMs: 10, longestMs: 40 });
  const made = new MqttIntake({
    broker,
    clientId: "ecp-node-test",
    backOff,
    log: createLog("test", (line) => {
      lines.push(line);
      if (line.includes("trying again")) tried();
    }),
    onMessage: (_topic, payload) => messages.push(`${payload}`),
    onConnected: (version) => {
      const connected = version !== undefined;
      state = connected;
      for (const { resolve } of waiting.filter((one) => one.state === connected)) resolve();
    },
  });
  t.after(() => made.close());
  return {
    made,
    backOff,
    lines,
    messages,
    firstTry,
    connected: (wanted: boolean) =>
      state === wanted ? Promise.resolve() : new Promise<void>((resolve) => waiting.push({ state: wanted, resolve })),
  };
}

test("a broker that is down at the start, comes, goes and comes again: the intake is there each time", async (t) => {
  const first = await startEmbeddedBroker("127.0.0.1", 0, silent, nobody);
  const { port } = first;
  await first.close();

  // 3.1.1 is found out by itself; this broker knows the node by no secret, so its own rules would refuse it: be the node.
  const credentials: { username?: string; password?: string } = {};
  const address = {
    host: "127.0.0.1",
    port,
    get username() {
      return credentials.username ?? "ecp-node";
    },
    get password() {
      return credentials.password ?? "";
    },
  };
  const { made, lines, messages, firstTry, connected } = intake(t, address);
  await firstTry;
  assert.match(lines.join("\n"), /ECONNREFUSED/);
  assert.match(lines.join("\n"), /check that the broker runs and listens/);

  const device = new DeviceFixture();
  for (const round of [1, 2]) {
    const broker = await startEmbeddedBroker("127.0.0.1", port, silent, nobody);
    Object.assign(credentials, broker.credentials);
    await connected(true);
    const hub = await mqtt.connectAsync({ host: "127.0.0.1", port, protocolVersion: 4, reconnectPeriod: 0 });
    await hub.subscribeAsync(topicOf(device.name, "receipt"), { qos: 1 });
    const answered = nextMessage(hub);
    await hub.publishAsync(topicOf(device.name, "record"), `record ${round}`, { qos: 1 });
    made.publish([{ device: device.name, epoch: 1, bytes: Buffer.from(`receipt ${round}`) }]);
    assert.equal(await answered, `receipt ${round}`);
    assert.equal(messages.at(-1), `record ${round}`);
    await hub.endAsync();
    await broker.close();
    await connected(false);
  }

  // While the broker is away the newest receipt of each chain waits for it.
  made.publish([{ device: device.name, epoch: 1, bytes: Buffer.from("older") }]);
  made.publish([{ device: device.name, epoch: 1, bytes: Buffer.from("newest") }]);
  const broker = await startEmbeddedBroker("127.0.0.1", port, silent, nobody);
  t.after(() => broker.close());
  const hub = await mqtt.connectAsync({ host: "127.0.0.1", port, protocolVersion: 4, reconnectPeriod: 0 });
  t.after(() => hub.end(true));
  await hub.subscribeAsync(topicOf(device.name, "receipt"), { qos: 1 });
  const waited = nextMessage(hub);
  Object.assign(credentials, broker.credentials);
  assert.equal(await waited, "newest");
});

test("a wrong password is said as such, and tried again", async (t) => {
  const broker = await startEmbeddedBroker("127.0.0.1", 0, silent, nobody);
  t.after(() => broker.close());
  const { lines, firstTry } = intake(t, {
    host: "127.0.0.1",
    port: broker.port,
    username: "ecp-node",
    password: "wrong",
    protocolVersion: 4,
  });
  await firstTry;
  assert.match(lines.join("\n"), /--password-file/);
});

test("a broker that announces 256 MB is hung up on at the header, and told", async (t) => {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    // CONNACK of 3.1.1, then the fixed header of a PUBLISH, and not a byte of its message.
    socket.once("data", () => socket.write(Buffer.from([0x20, 2, 0, 0, 0x30, 0xff, 0xff, 0xff, 0x7f])));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const { lines, firstTry } = intake(t, { host: "127.0.0.1", port, protocolVersion: 4 });
  await firstTry;
  assert.match(lines.join("\n"), /the broker sent a packet of \d+ bytes or more; expected: at most 65536/);
});

test("nobody else gets the node's client id: the intake stays connected, whoever asks for it and how often", async (t) => {
  const broker = await startEmbeddedBroker("127.0.0.1", 0, silent, nobody);
  t.after(() => broker.close());
  const { port, credentials } = broker;
  const { messages, lines, connected, backOff } = intake(t, {
    host: "127.0.0.1",
    port,
    protocolVersion: 4,
    ...credentials,
  });
  await connected(true);
  const address = { host: "127.0.0.1", port, protocolVersion: 4, reconnectPeriod: 0 } as const;
  const asNode = { ...address, clientId: "ecp-node-test" };
  for (let round = 0; round < 20; round++) {
    await assert.rejects(mqtt.connectAsync({ ...asNode, clean: round % 2 === 0 }), /[Ii]dentifier rejected/);
    await assert.rejects(mqtt.connectAsync({ ...asNode, username: "ecp-node", password: "guess" }), /authorized/);
  }
  const hub = await mqtt.connectAsync({ ...address, clientId: "ecp-hub" });
  t.after(() => hub.end(true));
  const { name } = new DeviceFixture();
  await hub.subscribeAsync(topicOf(name, "receipt"), { qos: 1 });
  await hub.publishAsync(topicOf(name, "record"), "after the attack", { qos: 1 });
  await hub.publishAsync(topicOf(name, "record"), "and one more", { qos: 1 });
  while (messages.length < 2) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(messages, ["after the attack", "and one more"]);
  assert.deepEqual(
    lines.filter((line) => line.includes("trying again")),
    [],
  );

  // Control: a client that knows the secret does take the id over, and the intake connects again.
  const lost = connected(false);
  const successor = await mqtt.connectAsync({ ...asNode, ...credentials });
  successor.on("error", () => undefined);
  await lost;
  await connected(true);
  assert.equal(backOff.failures, 1, "a connection of a moment does not shorten the next delay");
  successor.end(true);
});

test("several receipts for one chain, given together, are all sent", async (t) => {
  const broker = await startEmbeddedBroker("127.0.0.1", 0, silent, nobody);
  t.after(() => broker.close());
  const address = { host: "127.0.0.1", port: broker.port, protocolVersion: 4 as const };
  const { made, connected } = intake(t, { ...address, ...broker.credentials });
  await connected(true);
  const device = new DeviceFixture();
  const hub = await mqtt.connectAsync({ host: "127.0.0.1", port: broker.port, protocolVersion: 4, reconnectPeriod: 0 });
  t.after(() => hub.end(true));
  await hub.subscribeAsync(topicOf(device.name, "receipt"), { qos: 1 });
  const got: string[] = [];
  const all = new Promise<void>((resolve) => {
    hub.on("message", (_topic, payload) => {
      got.push(`${payload}`);
      if (`${payload}` === "last") resolve();
    });
  });
  const { name } = device;
  made.publish(["first", "second", "last"].map((text) => ({ device: name, epoch: 1, bytes: Buffer.from(text) })));
  await all;
  assert.deepEqual(got, ["first", "second", "last"]);
});

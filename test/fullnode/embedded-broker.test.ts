import assert from "node:assert/strict";
import { once } from "node:events";
import { connect as connectSocket, createServer } from "node:net";
import { type TestContext, test } from "node:test";
import mqtt, { type MqttClient } from "mqtt";
import { type EmbeddedBroker, startEmbeddedBroker, unreleasedMax } from "../../fullnode/embedded-broker.ts";
import { NodeError } from "../../fullnode/node-error.ts";
import { createLog } from "../../platform/log.ts";
import { topicFilter, topicOf } from "../../protocol/mqtt-topic.ts";
import { DeviceFixture } from "./device-fixture.ts";
import { closed, nextMessage } from "./mqtt-client-fixture.ts";

const silent = createLog("test", () => {});

const everybody = async (_name: string): Promise<boolean> => true;

async function broker(t: TestContext, isKnownDevice = everybody): Promise<EmbeddedBroker> {
  const started = await startEmbeddedBroker("127.0.0.1", 0, silent, isKnownDevice);
  t.after(() => started.close());
  return started;
}

async function client(t: TestContext, { port }: EmbeddedBroker, options: object = {}): Promise<MqttClient> {
  const connected = await mqtt.connectAsync({
    host: "127.0.0.1",
    port,
    protocolVersion: 4,
    reconnectPeriod: 0,
    ...options,
  });
  connected.on("error", () => {});
  t.after(() => connected.end(true));
  return connected;
}

test("records reach the node and receipts reach the device", async (t) => {
  const running = await broker(t);
  const { name } = new DeviceFixture();
  const node = await client(t, running, running.credentials);
  const device = await client(t, running);
  await node.subscribeAsync(topicFilter("record"), { qos: 1 });
  await device.subscribeAsync(topicOf(name, "receipt"), { qos: 1 });
  const record = nextMessage(node);
  await device.publishAsync(topicOf(name, "record"), "a record", { qos: 1 });
  assert.equal(await record, "a record");
  const receipt = nextMessage(device);
  await node.publishAsync(topicOf(name, "receipt"), "a receipt", { qos: 1 });
  assert.equal(await receipt, "a receipt");
});

test("only the node publishes receipts and commands: anyone else is disconnected", async (t) => {
  const running = await broker(t);
  const { name } = new DeviceFixture();
  for (const topic of [topicOf(name, "receipt"), topicOf(name, "command"), "ecp/1/nobody/record", "other/topic"]) {
    const device = await client(t, running);
    const ended = closed(device);
    device.publish(topic, "forged");
    await ended;
  }
  // Control: a record does not end the connection.
  const device = await client(t, running);
  await device.publishAsync(topicOf(name, "record"), "x", { qos: 1 });
  assert.ok(device.connected);
});

test("only the node listens to all devices; the wrong secret does not make a node", async (t) => {
  const running = await broker(t);
  const { name } = new DeviceFixture();
  const device = await client(t, running);
  for (const filter of ["#", "ecp/1/+/record", "ecp/1/#", "$SYS/#"])
    await assert.rejects(device.subscribeAsync(filter), Error, filter);
  await device.subscribeAsync(topicOf(name, "command"));
  await assert.rejects(client(t, running, { ...running.credentials, password: "guess" }), /[Nn]ot authorized/);
});

test("nothing is retained but status", async (t) => {
  const running = await broker(t);
  const { name } = new DeviceFixture();
  const device = await client(t, running);
  await device.publishAsync(topicOf(name, "record"), "retained record", { qos: 1, retain: true });
  await device.publishAsync(topicOf(name, "status"), "online", { qos: 1, retain: true });
  const other = await client(t, running);
  const messages: string[] = [];
  other.on("message", (topic) => messages.push(topic));
  const status = nextMessage(other);
  await other.subscribeAsync(topicOf(name, "record"), { qos: 1 });
  await other.subscribeAsync(topicOf(name, "status"), { qos: 1 });
  await status;
  assert.deepEqual(messages, [topicOf(name, "status")]);
});

/** The status messages that a new client gets for these devices: retained ones come before the answer to the next request. */
async function retainedStatuses(t: TestContext, running: EmbeddedBroker, names: readonly string[]): Promise<string[]> {
  const reader = await client(t, running);
  const texts: string[] = [];
  reader.on("message", (_topic, payload) => texts.push(payload.toString()));
  for (const name of names) await reader.subscribeAsync(topicOf(name, "status"), { qos: 1 });
  const last = new DeviceFixture().name;
  await reader.subscribeAsync(topicOf(last, "status"), { qos: 1 });
  const end = new Promise<void>((resolve) => reader.on("message", (topic) => topic.includes(last) && resolve()));
  await reader.publishAsync(topicOf(last, "status"), "end", { qos: 1 });
  await end;
  return texts.slice(0, -1);
}

test("the status of a device that is not enrolled is passed on and not retained, nor is its last will", async (t) => {
  const enrolled = new DeviceFixture().name;
  const strangers = Array.from({ length: 50 }, () => new DeviceFixture().name);
  const running = await broker(t, async (name) => name === enrolled);
  const listener = await client(t, running);
  await listener.subscribeAsync(topicOf(strangers[0] as string, "status"), { qos: 1 });
  const passedOn = nextMessage(listener);
  const flooder = await client(t, running);
  for (const name of [...strangers, enrolled])
    await flooder.publishAsync(topicOf(name, "status"), `from ${name === enrolled ? "a device" : "a stranger"}`, {
      qos: 1,
      retain: true,
    });
  assert.equal(await passedOn, "from a stranger");
  assert.deepEqual(await retainedStatuses(t, running, [...strangers, enrolled]), ["from a device"]); // control in it

  const willing = await client(t, running, {
    will: { topic: topicOf(strangers[0] as string, "status"), payload: Buffer.from("will"), qos: 1, retain: true },
  });
  const will = nextMessage(listener);
  willing.stream.destroy();
  assert.equal(await will, "will");
  assert.deepEqual(await retainedStatuses(t, running, strangers), []);
});

test("where it cannot be asked who is enrolled, a status is passed on and not retained", async (t) => {
  const running = await broker(t, () => Promise.reject(new Error("the store is closed")));
  const { name } = new DeviceFixture();
  const listener = await client(t, running);
  await listener.subscribeAsync(topicOf(name, "status"), { qos: 1 });
  const passedOn = nextMessage(listener);
  const device = await client(t, running);
  await device.publishAsync(topicOf(name, "status"), "online", { qos: 1, retain: true });
  assert.equal(await passedOn, "online");
  assert.deepEqual(await retainedStatuses(t, running, [name]), []);
});

test("an empty retained status takes the retained one away", async (t) => {
  const running = await broker(t);
  const { name } = new DeviceFixture();
  const device = await client(t, running);
  await device.publishAsync(topicOf(name, "status"), "online", { qos: 1, retain: true });
  assert.deepEqual(await retainedStatuses(t, running, [name]), ["online"]); // control
  await device.publishAsync(topicOf(name, "status"), "", { qos: 1, retain: true });
  assert.deepEqual(await retainedStatuses(t, running, [name]), []);
});

test("a connection that announces a packet over the limit is ended before it is sent", async (t) => {
  const running = await broker(t);
  const { name } = new DeviceFixture();
  const device = await client(t, running);
  const ended = closed(device);
  device.publish(topicOf(name, "record"), Buffer.alloc(70_000));
  await ended;

  const socket = connectSocket(running.port, "127.0.0.1");
  const hungUp = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  socket.on("error", () => {});
  socket.resume();
  socket.write(Buffer.from([0x10, 0xff, 0xff, 0x7f]));
  await hungUp;
});

test("a client that never releases its messages of QoS 2 is disconnected before they fill the memory", async (t) => {
  const running = await broker(t);
  const topic = Buffer.from(topicOf(new DeviceFixture().name, "record"));
  const socket = connectSocket(running.port, "127.0.0.1");
  t.after(() => socket.destroy());
  socket.on("error", () => {});
  const hungUp = once(socket, "close");
  // CONNECT of 3.1.1, clean session, no keep-alive, client id "x"; PUBLISH of QoS 2.
  socket.write(Buffer.from([0x10, 13, 0, 4, ...Buffer.from("MQTT"), 4, 2, 0, 0, 0, 1, 0x78]));
  const publish = (id: number) => Buffer.from([0x34, topic.length + 5, 0, topic.length, ...topic, 0, id, 0x79]);
  const received = Array.from({ length: unreleasedMax }, (_, index) => Buffer.from([0x50, 2, 0, index + 1]));
  const expected = Buffer.concat([Buffer.from([0x20, 2, 0, 0]), ...received]).length;
  let bytes = 0;
  const allReceived = new Promise<void>((resolve) =>
    socket.on("data", (chunk) => {
      bytes += chunk.length;
      if (bytes === expected) resolve();
    }),
  );
  for (let id = 1; id <= unreleasedMax; id++) socket.write(publish(id));
  await allReceived; // control: up to the limit each is answered by PUBREC
  socket.write(publish(unreleasedMax + 1));
  await hungUp;
  assert.equal(bytes, expected);
});

test("a port in use is said, with what to do", async (t) => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const { port } = server.address() as { port: number };
  await assert.rejects(
    startEmbeddedBroker("127.0.0.1", port, silent, everybody),
    (error) => error instanceof NodeError && error.code === "address-in-use" && error.text.todo.includes("--listen"),
  );
  await assert.rejects(
    startEmbeddedBroker("192.0.2.1", 0, silent, everybody),
    (error) => error instanceof NodeError && error.code === "address-not-available",
  );
});

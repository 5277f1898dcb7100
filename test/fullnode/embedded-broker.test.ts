import assert from "node:assert/strict";
import { once } from "node:events";
import { connect as connectSocket, createServer } from "node:net";
import { type TestContext, test } from "node:test";
import mqtt, { type MqttClient } from "mqtt";
import { type EmbeddedBroker, startEmbeddedBroker } from "../../fullnode/embedded-broker.ts";
import { NodeError } from "../../fullnode/node-error.ts";
import { createLog } from "../../platform/log.ts";
import { topicFilter, topicOf } from "../../protocol/mqtt-topic.ts";
import { DeviceFixture } from "./device-fixture.ts";
import { closed, nextMessage } from "./mqtt-client-fixture.ts";

const silent = createLog("test", () => {});

async function broker(t: TestContext): Promise<EmbeddedBroker> {
  const started = await startEmbeddedBroker("127.0.0.1", 0, silent);
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

test("a port in use is said, with what to do", async (t) => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const { port } = server.address() as { port: number };
  await assert.rejects(
    startEmbeddedBroker("127.0.0.1", port, silent),
    (error) => error instanceof NodeError && error.code === "address-in-use" && error.text.todo.includes("--listen"),
  );
  await assert.rejects(
    startEmbeddedBroker("192.0.2.1", 0, silent),
    (error) => error instanceof NodeError && error.code === "address-not-available",
  );
});
